"""What the teacher says of every wording, computed once and kept in files that outlive a kill."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from promptray.calibrate.adapt.whole import replace_whole
from promptray.calibrate.distil.text_student import call
from promptray.calibrate.distil.text_wordings import token_hash
from promptray.export.families.base import LoadedHead, LoadedModel, Side, weights_sha256
from promptray.runtime.errors import BuildError
from promptray.runtime.text import EncodedPrompt

#: Wordings of one file.
_WORDINGS = 64
LOGITS = "logits"


class HeadOnImages:
    """A head before some images: an encoded wording -> its logits (images,). Nothing of it is trained.

    Parameters
    ----------
    head : LoadedHead
    features : mapping of str to Tensor
        Outputs of the image side for these images.
    """

    def __init__(self, head: LoadedHead, features: Mapping[str, Tensor]) -> None:
        self.module = copy.deepcopy(head.side.module).requires_grad_(False)
        self.features = dict(features)
        self._inputs = [each.name for each in head.side.inputs]

    def logits(self, entry: Mapping[str, Tensor]) -> Tensor:
        """Score what a text side gives of one wording."""
        device = next(iter(entry.values())).device
        given = {name: each.to(device) for name, each in self.features.items()}
        given |= {name: each[None] for name, each in entry.items()}
        found: Tensor = self.module(*(given[name] for name in self._inputs))[0]
        return found[:, 0]


def image_features(model: LoadedModel, pixels: Tensor) -> dict[str, Tensor]:
    """Return the image side's outputs for pixels (images, C, H, W), one image at a time."""
    with torch.inference_mode():
        parts = [model.image.module(each[None]) for each in pixels]
    names = [each.name for each in model.image.outputs]
    return {name: torch.cat([part[n] for part in parts]) for n, name in enumerate(names)}


class TextTargets:
    """Outputs of the teacher's text side and logits through its head, by row.

    Parameters
    ----------
    folder : Path
        Made if it is not there; what it holds is not computed again.
    side : Side
        The teacher's text side.
    head : HeadOnImages
    prompts : sequence of EncodedPrompt
        The rows.
    """

    def __init__(
        self, folder: Path, side: Side, head: HeadOnImages, prompts: Sequence[EncodedPrompt]
    ) -> None:
        self.side, self.head, self.prompts = side, head, prompts
        digest = hashlib.sha256(weights_sha256(side.module.state_dict()).encode())
        digest.update(weights_sha256(head.module.state_dict()).encode())
        digest.update(weights_sha256(head.features).encode())
        for each in prompts:
            digest.update(token_hash(each))
        self.sha256 = digest.hexdigest()
        self._folder = folder / f"text-{self.sha256[:32]}"
        self._open: dict[Path, Any] = {}

    def compute(self, device: str, progress: Callable[[int, int], None]) -> None:
        """Compute what is not there.

        Raises
        ------
        BuildError
            ``score.not-finite`` where the teacher gives NaN or infinity.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        starts = range(0, len(self.prompts), _WORDINGS)
        modules = (self.side.module, self.head.module)
        for module in modules:
            module.to(device)
        for done, start in enumerate(starts, start=1):
            if not self._file(start).exists():
                replace_whole(self._file(start), safetensors.torch.save(self._answers(start, device)))
            progress(done, len(starts))
        for module in modules:
            module.to("cpu")

    def _answers(self, start: int, device: str) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        with torch.inference_mode():
            for row in range(start, min(start + _WORDINGS, len(self.prompts))):
                entry = call(self.side, self.prompts[row].arrays, device)
                named = {**entry, LOGITS: self.head.logits(entry)}
                found |= {f"{row}.{name}": each.cpu().contiguous() for name, each in named.items()}
        for name, each in found.items():
            if not bool(torch.isfinite(each).all()):
                raise BuildError(
                    "score.not-finite",
                    "the teacher's text side gives NaN or infinity",
                    artefact=name.partition(".")[2],
                    expected="finite numbers",
                    found=f"for wording {name.partition('.')[0]}",
                    cure="check the checkpoint with `promptray build` without `distil_text`",
                )
        return found

    def row(self, row: int) -> dict[str, Tensor]:
        """Return outputs and :data:`LOGITS` of a wording."""
        file = self._file(row - row % _WORDINGS)
        names = [*(each.name for each in self.side.outputs), LOGITS]
        try:
            if file not in self._open:
                self._open[file] = safe_open(file, framework="pt").__enter__()
            return {name: self._open[file].get_tensor(f"{row}.{name}") for name in names}
        except (SafetensorError, OSError) as error:
            raise BuildError(
                "distil.state",
                f"the teacher's answers cannot be read ({type(error).__name__})",
                artefact=f"{file.parent.name}/{file.name}",
                cure="delete the file; it is computed again",
            ) from None

    def _file(self, start: int) -> Path:
        return self._folder / f"{start:08}.safetensors"
