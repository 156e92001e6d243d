"""The wordings that a smaller text side learns from, is watched with, and is gated on.

They are divided by topic, the findings that a wording names: another sentence about a finding that was
learned is no test of what a site will add. The recipe's own findings are in none of the parts: they are what
the gate scores, and learned by heart they would flatter the student.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from promptray.calibrate.distil.text_phrases import generated, topic
from promptray.calibrate.distil.text_settings import TextDistil
from promptray.runtime.errors import BuildError, PromptError
from promptray.runtime.text import EncodedPrompt, TextEncoder

_MOST_BYTES = 64 * 1024 * 1024
#: Held-out topics are at most this share of all.
_MOST_HELD_OUT = 0.25
#: Of each part.
_LEAST = 2


@dataclass(frozen=True, eq=False)
class Wordings:
    """Encoded wordings, all different to the model.

    Attributes
    ----------
    train, val, held_out : tuple of EncodedPrompt
        Those that are learned from, that watch, and that neither is.
    """

    train: tuple[EncodedPrompt, ...]
    val: tuple[EncodedPrompt, ...]
    held_out: tuple[EncodedPrompt, ...] = ()

    @property
    def sha256(self) -> str:
        """Hash of the tokens of all three parts."""
        digest = hashlib.sha256()
        for part in (self.train, self.val, self.held_out):
            digest.update(f"{len(part)};".encode())
            for each in part:
                digest.update(token_hash(each))
        return digest.hexdigest()


def token_hash(prompt: EncodedPrompt) -> bytes:
    """Return a hash of what the model sees of a wording: two that are the same to it are one."""
    digest = hashlib.sha256()
    for name, values in sorted(prompt.arrays.items()):
        digest.update(f"{name}{values.shape}".encode() + values.tobytes())
    return digest.digest()


def gather(
    settings: TextDistil,
    encoder: TextEncoder,
    *,
    file: Path | None,
    templates: Sequence[str],
    excluded: Collection[str],
) -> Wordings:
    """Read, make and divide wordings; the same settings and files give the same.

    Parameters
    ----------
    settings : TextDistil
    encoder : TextEncoder
        Of the model.
    file : Path, optional
        The user's wordings, one a line, UTF-8.
    templates : sequence of str
        Of the family.
    excluded : collection of str
        Wordings of the recipe's findings; what is the same to the model is left out of all parts.

    Raises
    ------
    BuildError
        ``distil.wordings``; no message repeats a wording.
    """
    own = [] if file is None else read_wordings(file)
    out = {token_hash(encoder.encode(text)) for text in excluded}
    made = generated(settings.generated, settings.seed, templates)
    different: dict[bytes, tuple[str, EncodedPrompt]] = {}
    for number, text in enumerate((*own, *made), start=1):
        try:
            encoded = encoder.encode(text)
        except PromptError as error:
            raise _refused(f"a wording cannot be encoded ({error.code})", found=f"line {number}") from None
        if encoded.wording.words:
            named = made.get(text) or topic(encoded.wording.text)
            different.setdefault(token_hash(encoded), (named, encoded))
    topics: dict[str, list[EncodedPrompt]] = {}
    for key, (named, each) in different.items():
        if key not in out:
            topics.setdefault(named, []).append(each)
    return _divided(topics, settings)


def _divided(topics: dict[str, list[EncodedPrompt]], settings: TextDistil) -> Wordings:
    rng = np.random.default_rng([settings.seed, 3])
    names = sorted(topics)
    order = [topics[names[place]] for place in rng.permutation(len(names))]
    held = min(settings.held_out, int(_MOST_HELD_OUT * len(order)))
    watching = max(1, math.ceil(settings.validation * (len(order) - held)))
    held_out = tuple(each[int(rng.integers(len(each)))] for each in order[:held])
    val = tuple(one for each in order[held : held + watching] for one in each)
    train = tuple(one for each in order[held + watching :] for one in each)
    if min(len(train), len(val)) < _LEAST or not held_out:
        parts = f"{len(train)} to learn from, {len(val)} that watch, {len(held_out)} held out"
        raise _refused("there are too few wordings", found=f"{parts}, of {len(order)} topics")
    return Wordings(train, val, held_out)


def read_wordings(path: Path) -> list[str]:
    """Read wordings, one a line; empty lines are left out.

    Raises
    ------
    BuildError
        ``distil.wordings``.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise _refused("the file of wordings is too large", found=f"{path.stat().st_size} bytes")
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise _refused("the file of wordings is no UTF-8 text", found=f"byte {error.start}") from None
    except (OSError, ValueError) as error:
        raise _refused("the file of wordings cannot be read", found=type(error).__name__) from None
    return [line.strip() for line in text.split("\n") if line.strip()]


def _refused(what: str, *, found: str) -> BuildError:
    return BuildError(
        "distil.wordings",
        what,
        artefact="distil_text",
        expected="wordings of many findings: a text file with one a line, or `generated` ones",
        found=found,
        cure="correct the file that distil_text.wordings names, or set distil_text.generated higher",
    )
