"""The original modules in torch on a device: what everything else is compared with.

They are as the loader gives them: a grey picture is read once, as in the graphs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode

from promptray.export.recipe import read_recipe
from promptray.export.sources import Sources
from promptray.runtime.bundle import Bundle
from promptray.runtime.graphs import own_bank

TYPES = {"fp32": torch.float32, "fp16": torch.float16}
Run = Callable[[NDArray[np.float32]], list[NDArray[np.float32]]]


class TorchRunner:
    """The image side and every head with the bundle's own bank, as one function of pixels.

    Parameters
    ----------
    bundle : Bundle
        Whose banks are taken.
    recipe : Path
        Names the checkpoint.
    device : str
    precision : {"fp32", "fp16"}
        TF32 is off in fp32.
    compiled : bool
        With torch.compile, whose mode ``reduce-overhead`` uses CUDA graphs.
    """

    def __init__(
        self, bundle: Bundle, recipe: Path, device: str, precision: str, *, compiled: bool = False
    ) -> None:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        model = Sources(read_recipe(recipe), recipe).model
        self._device, self._dtype = torch.device(device), TYPES[precision]
        self._image = model.image
        self._image.module.to(self._device, self._dtype).eval()
        self._heads = []
        for head in model.heads:
            head.side.module.to(self._device, self._dtype).eval()
            manifest_head = bundle.manifest.head(head.name)
            if manifest_head is None:
                continue
            for batch in own_bank(bundle, manifest_head).batches():
                bank = {name: self._tensor(array) for name, array in batch.tensors.items()}
                self._heads.append((head.side, bank))
        self._call = torch.compile(self._forward, mode="reduce-overhead") if compiled else self._forward

    def _tensor(self, array: NDArray[Any]) -> torch.Tensor:
        moved = torch.from_numpy(np.ascontiguousarray(array)).to(self._device)
        return moved.to(self._dtype) if moved.is_floating_point() else moved

    def _forward(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        found = self._image.module(pixels)
        outputs = found if isinstance(found, tuple) else (found,)
        features = dict(zip((each.name for each in self._image.outputs), outputs, strict=True))
        logits = []
        for side, bank in self._heads:
            known: Mapping[str, torch.Tensor] = {**features, **bank}
            answer = side.module(*(known[each.name] for each in side.inputs))
            logits.append(answer[0] if isinstance(answer, tuple) else answer)
        return logits

    def run(self, pixels: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Return the logits of every head's batch of prompts, from host to host."""
        with torch.inference_mode():
            found = self._call(self._tensor(pixels))
            return [each.float().cpu().numpy() for each in found]

    def multiply_adds(self, pixels: NDArray[np.float32]) -> float:
        """Count the products of one image, as torch does: matrix products, convolutions, attention."""
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            self._forward(self._tensor(pixels[:1]))
        return counter.get_total_flops() / 2
