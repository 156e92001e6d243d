"""Scores of a draft's graphs over images, as the runtime computes them, kept block by block."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import msgspec
import numpy as np
import safetensors.numpy

from promptray.calibrate.image_set import ImageSet, Progress
from promptray.export.draft import GATED_ON, Draft
from promptray.export.stage_cache import StageCache
from promptray.runtime.answers import Answers
from promptray.runtime.backends import load_backend
from promptray.runtime.bound_heads import BoundHead
from promptray.runtime.bundle.candidate import Of, candidate_sha256
from promptray.runtime.graphs import Graphs, own_bank
from promptray.runtime.machine_class import consumers_here, machine_class
from promptray.runtime.preprocess import normalise
from promptray.runtime.prompts import PromptBank

#: Images of a stage: what a killed build loses at most.
BLOCK = 64


@dataclass(frozen=True)
class Call:
    """How graphs are called: what must not matter.

    Attributes
    ----------
    batch : int
        Images of one call of the image graph.
    threads : int or None
        None: every core, as the runtime does by default.
    """

    batch: int = 1
    threads: int | None = None


class Model:
    """A draft's graphs with its banks, compiled when first needed.

    Parameters
    ----------
    draft : Draft
    banks : mapping of str to PromptBank, optional
        Instead of the draft's own, by head.
    backend : str, optional
        What it runs on.
    """

    def __init__(
        self, draft: Draft, banks: Mapping[str, PromptBank] | None = None, *, backend: str = GATED_ON
    ) -> None:
        self.draft, self.backend = draft, backend
        self.banks = {
            head.name: (banks or {}).get(head.name) or own_bank(draft, head) for head in draft.manifest.heads
        }
        self._compiled: dict[int | None, tuple[Graphs, dict[str, BoundHead]]] = {}

    @cached_property
    def key(self) -> dict[str, object]:
        """What its scores depend on."""
        manifest, consumers = self.draft.manifest, consumers_here(self.backend)
        scoring = [("image", None), *(("head", head.name) for head in manifest.heads)]
        used = [manifest.graph_for(role, consumers, head) for role, head in scoring]
        digests = {graph.title: self._digest(graph.file) for graph in used if graph is not None}
        return {
            "graphs": digests,
            "banks": {name: _of_bank(bank) for name, bank in self.banks.items()},
            "preprocessing": msgspec.to_builtins(manifest.preprocessing),
            "machine": machine_class(),
            "backend": self.backend,
        }

    @property
    def consumer(self) -> str:
        """What it is for here: this class of machine, or the back-end where all is fp32."""
        meant = {name for graph in self.draft.manifest.graphs for name in graph.consumers}
        return next(name for name in consumers_here(self.backend) if name in meant)

    def judged(self, of: Of) -> str:
        """Return the hash by which a gate's report names it, and a bundle knows it again."""
        return candidate_sha256(self.draft.manifest, self.consumer, of, self._digest)

    def _digest(self, name: str) -> str:
        return hashlib.sha256(self.draft.read(name)).hexdigest()

    @cached_property
    def sha256(self) -> str:
        """One hash of all that its scores depend on."""
        return hashlib.sha256(msgspec.json.encode(self.key, order="sorted")).hexdigest()

    def compiled(self, threads: int | None) -> tuple[Graphs, dict[str, BoundHead]]:
        """Return its graphs and bound heads for a number of threads."""
        if threads not in self._compiled:
            graphs = Graphs(self.draft, load_backend(self.backend, threads=threads), prompts_per_batch=None)
            self._compiled[threads] = graphs, graphs.bind_all(self.banks)
        return self._compiled[threads]


def _of_bank(bank: PromptBank) -> str:
    digest = hashlib.sha256()
    for entry in bank:
        for name, array in sorted(entry.tensors.items()):
            digest.update(f"{entry.key} {name} {array.dtype} {array.shape};".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def scores(
    model: Model, images: ImageSet, call: Call, stages: StageCache, progress: Progress, what: str
) -> dict[str, Answers]:
    """Return logits and maps of all images that were not refused, by head.

    Parameters
    ----------
    model : Model
    images : ImageSet
    call : Call
    stages : StageCache
        Keeps every block of images, so that a killed build goes on where it stopped.
    progress : callable
    what : str
        What progress calls it.
    """
    backend = load_backend(model.backend, threads=call.threads)
    same = {"model": model.key, "batch": call.batch, "threads": backend.threads, "version": backend.version}
    blocks = []
    for first in range(0, len(images.rows), BLOCK):
        progress("gate", f"{what}: {first} of {len(images.rows)} images", first / len(images.rows))
        part = slice(first, first + BLOCK)
        key = stages.key("scores", {**same, "pictures": images.sha256s[part]})
        folder, _ = stages.run("scores", key, partial(_score, model, images, call, part))
        blocks.append(safetensors.numpy.load((folder / "scores.safetensors").read_bytes()))
    joined = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    return {name: Answers(joined[f"logits.{name}"], joined.get(f"maps.{name}")) for name in model.banks}


def _score(model: Model, images: ImageSet, call: Call, part: slice, out: Path) -> None:
    pictures = np.stack(images.pictures(images.rows[part]))
    tensors = run(model, normalise(pictures, images.preprocessing), call)
    (out / "scores.safetensors").write_bytes(safetensors.numpy.save(tensors))


def run(model: Model, pixels: np.ndarray, call: Call) -> dict[str, np.ndarray]:
    """Return ``logits.<head>`` and ``maps.<head>`` of pixels float32 (images, channels, height, width)."""
    graphs, heads = model.compiled(call.threads)
    found: dict[str, list[np.ndarray]] = {}
    for first in range(0, len(pixels), call.batch):
        features = graphs.features(pixels[first : first + call.batch])
        for name, head in heads.items():
            logits, maps = head.run(features)
            found.setdefault(f"logits.{name}", []).append(logits)
            if maps is not None:
                found.setdefault(f"maps.{name}", []).append(maps)
    return {name: np.concatenate(parts) for name, parts in found.items()}
