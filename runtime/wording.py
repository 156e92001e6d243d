"""The wordings of a finding: what was asked for, what of it reached the model, and which a head can score."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from promptray.runtime.errors import PromptError

# Controls but tab and line ends; embeddings, overrides and isolates of the direction; lone surrogates.
_UNFIT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class Wording(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A prompt as given and as encoded; the bank's file holds it in these words.

    Attributes
    ----------
    text : str
        As given.
    cleaned : str
        What the model's cleaning rule left of it.
    words : int
        Words that reached the model.
    truncated : bool
        True when it was longer than the model's context.
    """

    text: str
    cleaned: str
    words: int
    truncated: bool


def require_wordings(
    ensemble: str, relation: str, key: str, prompts: Sequence[str], negative_prompts: Sequence[str]
) -> None:
    """Refuse wordings that a head cannot score.

    Raises
    ------
    PromptError
        ``prompt.invalid``: none, several where the model takes one, a negative one where findings have
        none or none where they need it, or the same on both sides.
    """
    if not prompts:
        raise invalid_wordings(key, "a finding needs a prompt", "at least one wording", "none")
    if (relation == "pair") != bool(negative_prompts):
        if relation == "pair":
            raise invalid_wordings(
                key, "this head asks each finding against its negative", "a negative prompt", "none"
            )
        raise invalid_wordings(
            key, "only a head of pairs takes negative prompts", "none", str(len(negative_prompts))
        )
    if ensemble == "none" and len(prompts) + len(negative_prompts) != 1:
        raise invalid_wordings(
            key, "this model scores one wording for each finding", "one prompt", str(len(prompts))
        )
    if negative_prompts and set(prompts) == set(negative_prompts):
        raise invalid_wordings(
            key, "the prompt and its negative are the same", "different wordings", "the same"
        )


def require_readable(text: str) -> None:
    """Refuse a prompt that people would read otherwise than the model does.

    Raises
    ------
    PromptError
        ``prompt.invalid``.
    """
    unfit = _UNFIT.search(text)
    if unfit:
        raise PromptError(
            "prompt.invalid",
            "a prompt must be text that everyone reads as it is written",
            expected="no control character, no half of a character, no mark that turns the direction",
            found=f"U+{ord(unfit[0]):04X} at character {unfit.start() + 1}",
            cure="write it again without that character",
        )


def invalid_wordings(key: str, message: str, expected: str, found: str) -> PromptError:
    """Return the refusal of a finding's wordings."""
    return PromptError("prompt.invalid", message, artefact=key, expected=expected, found=found)
