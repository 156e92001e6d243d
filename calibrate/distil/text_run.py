"""The distillation of a text side from beginning to end, and the side that comes of it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from promptray.calibrate.adapt.progress import Progress
from promptray.calibrate.adapt.whole import replace_whole
from promptray.calibrate.distil.curve import loss_curve
from promptray.calibrate.distil.fit import Epoch, fit
from promptray.calibrate.distil.run import CURVE, HISTORY, STATE, alone
from promptray.calibrate.distil.text_settings import TextDistil
from promptray.calibrate.distil.text_student import require_open, text_student
from promptray.calibrate.distil.text_targets import HeadOnImages, TextTargets, image_features
from promptray.calibrate.distil.text_train import TextLesson, TextRun, scale_of
from promptray.calibrate.distil.text_wordings import Wordings
from promptray.export.families.base import LoadedModel, Side, weights_sha256
from promptray.export.layout import NO_KEY, fit_state_dict
from promptray.export.safetensors_checkpoint import METADATA, read_safetensors
from promptray.runtime.disk import hash_file
from promptray.runtime.errors import BuildError
from promptray.runtime.text import TextEncoder

WEIGHTS, FACTS = "text.safetensors", "text.json"
#: Fewer wordings than this are warned of.
FEW = 500


class TextFacts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``text.json`` says. It holds no wording."""

    schema: Literal["promptray-text-student"] = "promptray-text-student"
    schema_version: Literal[1] = 1
    settings: TextDistil
    teacher: str
    """Hash of the text side that it was made of, and of its head."""
    weights: str
    """Hash of the file of weights: those of the kept blocks."""
    kept: list[int]
    """Which of the teacher's blocks are kept, from 0."""
    of: int
    """How many blocks the teacher has."""
    trained: int
    """Wordings that were learned from."""
    watching: int
    wordings: str
    """Hash of the tokens of all wordings, the held-out ones among them."""
    best: int
    history: list[Epoch]
    warnings: list[str]
    libraries: dict[str, str]


def distil_text(
    model: LoadedModel,
    wordings: Wordings,
    pixels: Tensor,
    settings: TextDistil,
    folder: Path,
    progress: Progress,
    *,
    answers: Path | None = None,
) -> TextFacts:
    """Train a text side with fewer blocks in the place of a model's.

    Parameters
    ----------
    model : LoadedModel
        The teacher. Not changed.
    wordings : Wordings
    pixels : Tensor, float32 (images, C, H, W)
        Of the images whose logits are learned.
    settings : TextDistil
    folder : Path
        For everything that is written; a run that was killed goes on there, to the same bits on a CPU.
    progress : callable
        Called with (stage, message, fraction of the stage).
    answers : Path, optional
        Folder for the teacher's answers, which other students may share; by default `folder`.

    Returns
    -------
    TextFacts
        As in ``text.json``; :func:`text_side` makes the side.

    Raises
    ------
    BuildError
        ``distil.*``, ``score.not-finite``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder):
        text = require_open(model)
        rows = (*wordings.train, *wordings.val)
        student = text_student(model, settings.layers, rows[0].arrays)
        head = HeadOnImages(model.head(text.rule.head), image_features(model, pixels))
        targets = TextTargets(answers or folder, text.side, head, rows)
        targets.compute(
            settings.device, lambda done, all_: progress("teacher", f"{done} of {all_} parts", done / all_)
        )
        train, val = np.split(np.arange(len(rows)), [len(wordings.train)])
        lesson = TextLesson(student, targets, scale_of(targets, train.tolist()), train, val)
        trained = fit(TextRun(lesson, settings), folder / STATE, progress)
        replace_whole(folder / HISTORY, msgspec.json.format(msgspec.json.encode(trained.history)) + b"\n")
        replace_whole(folder / CURVE, loss_curve(trained.history).encode())
        content = safetensors.torch.save(
            {name: each.contiguous() for name, each in student.blocks.state_dict().items()}
        )
        replace_whole(folder / WEIGHTS, content)
        facts = TextFacts(
            settings=settings,
            teacher=text_sha256(model),
            weights=hashlib.sha256(content).hexdigest(),
            kept=student.kept,
            of=student.of,
            trained=len(train),
            watching=len(val),
            wordings=wordings.sha256,
            best=trained.best,
            history=trained.history,
            warnings=_warnings(len(train), trained.best),
            libraries=_libraries(),
        )
        replace_whole(folder / FACTS, msgspec.json.format(msgspec.json.encode(facts), indent=2) + b"\n")
        return facts


def read_text_facts(folder: Path) -> TextFacts:
    """Read and check what a student's file says of it.

    Raises
    ------
    BuildError
        ``distil.checkpoint``.
    """
    try:
        return msgspec.json.decode((folder / FACTS).read_bytes(), type=TextFacts)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _refused(FACTS, f"it cannot be read ({type(error).__name__})") from error


def text_side(model: LoadedModel, folder: Path) -> Side:
    """Return the text side of a folder, to be exported in the place of the model's.

    Parameters
    ----------
    model : LoadedModel
        The teacher. Not changed.
    folder : Path
        With ``text.safetensors`` and ``text.json``.

    Raises
    ------
    BuildError
        ``distil.checkpoint`` for a damaged one, or one of another model.
    """
    facts, text = read_text_facts(folder), require_open(model)
    if facts.teacher != text_sha256(model):
        raise _refused(FACTS, "it stands in for the text side of another model")
    try:
        found = hash_file(folder / WEIGHTS)[0]
    except OSError as error:
        raise _refused(WEIGHTS, f"it cannot be read ({type(error).__name__})") from error
    if found != facts.weights:
        raise _refused(WEIGHTS, "it is not the file that text.json was written for")
    example = TextEncoder(text.rule, text.tokenizer).encode("There is pneumonia.")
    student = text_student(model, facts.settings.layers, example.arrays)
    content: dict[str, Any] = read_safetensors(folder / WEIGHTS)
    content.pop(METADATA)
    fit_state_dict(student.blocks, content, artefact=WEIGHTS, optional=NO_KEY, ignored=NO_KEY)
    student.side.module.requires_grad_(False)
    return student.side


def text_sha256(model: LoadedModel) -> str:
    """Return a hash of the weights of a model's text side and of the head that it is of."""
    text = require_open(model)
    digest = hashlib.sha256(weights_sha256(text.side.module.state_dict()).encode())
    digest.update(weights_sha256(model.head(text.rule.head).side.module.state_dict()).encode())
    return digest.hexdigest()


def _warnings(count: int, best: int) -> list[str]:
    found = []
    if count < FEW:
        found.append(f"{count} different wordings are few for a text student: {FEW} or more are wanted")
    if best == 0:
        found.append("training did not lower the validation loss: this text side is as it began")
    return found


def _libraries() -> dict[str, str]:
    import transformers

    return {"torch": str(torch.__version__), "transformers": transformers.__version__}


def _refused(artefact: str, why: str) -> BuildError:
    cure = "distil again, with this model, or copy both files again"
    return BuildError(
        "distil.checkpoint", f"the text student cannot be used: {why}", artefact=artefact, cure=cure
    )
