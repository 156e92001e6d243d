"""Golden answers of a repacked bundle: columns that are kept, and those of added findings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from promptray.runtime.answers import Answers
from promptray.runtime.bundle import Bundle
from promptray.runtime.bundle.manifest import Head
from promptray.runtime.golden import GoldenSet, read_golden
from promptray.runtime.graphs import Graphs
from promptray.runtime.preprocess import normalise
from promptray.runtime.prompts import PromptBank
from promptray.runtime.site_prompts import ActiveFinding


def repacked_golden(bundle: Bundle, graphs: Graphs, head: Head, active: Sequence[ActiveFinding]) -> bytes:
    """Return the file of golden answers with one head's findings changed.

    Shipped findings keep the original's answers. Added ones get those of the bundle's graphs here, one image
    at a time.

    Parameters
    ----------
    bundle : Bundle
    graphs : Graphs
        Its graphs on this machine, which passed the self-test.
    head : Head
        The free one.
    active : sequence of ActiveFinding
        Its findings in the new order, the added ones last.
    """
    golden = read_golden(bundle)
    places = {each.key: place for place, each in enumerate(bundle.manifest.findings_of(head.name))}
    kept = [places[each.finding.key] for each in active if each.origin == "bundle"]
    added = [each for each in active if each.origin == "site"]
    tensors: dict[str, NDArray[Any]] = {"pictures": golden.pictures}
    for name, answers in golden.answers.items():
        changed = answers
        if name == head.name:
            changed = _part(answers, kept)
            if added:
                changed = _joined(changed, _scored(bundle, graphs, golden, head, added))
        tensors[f"logits.{name}"] = changed.logits
        if changed.maps is not None:
            tensors[f"maps.{name}"] = changed.maps
    contiguous = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    return bytes(safetensors.numpy.save(contiguous))


def _scored(
    bundle: Bundle, graphs: Graphs, golden: GoldenSet, head: Head, added: Sequence[ActiveFinding]
) -> Answers:
    bound = graphs.bind(head, PromptBank(head.bank, [each.entry for each in added]))
    logits, maps = [], []
    for n in range(len(golden.pictures)):
        pixels = normalise(golden.pictures[n : n + 1], bundle.manifest.preprocessing)
        scores, grids = bound.run(graphs.features(pixels))
        logits.append(scores)
        if grids is not None:
            maps.append(grids)
    return Answers(np.concatenate(logits), np.concatenate(maps) if maps else None)


def _part(answers: Answers, kept: list[int]) -> Answers:
    return Answers(answers.logits[:, kept], None if answers.maps is None else answers.maps[:, kept])


def _joined(answers: Answers, more: Answers) -> Answers:
    maps = None
    if answers.maps is not None and more.maps is not None:
        maps = np.concatenate([answers.maps, more.maps], axis=1)
    return Answers(np.concatenate([answers.logits, more.logits], axis=1), maps)
