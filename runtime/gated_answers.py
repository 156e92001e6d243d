"""What changed graphs answered to the golden pictures when they were gated.

A quantised graph is another function than its original, and which one depends on the machine. So the least
gate on a device is not the original's scores but those that were gated, within what the build measured as
noise: a machine that computes the graph otherwise is refused, whatever its class says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from promptray.runtime.answers import Answers, spreads_of
from promptray.runtime.bundle.gated import Gated
from promptray.runtime.bundle.manifest import Head, Manifest
from promptray.runtime.bundle.validate import LARGEST_TOLERANCE
from promptray.runtime.errors import BundleError
from promptray.runtime.graphs import BundleContent
from promptray.runtime.prompts import BankEntry, PromptBank

#: Of the least spread of a finding's golden scores: a wider tolerance would let another arithmetic by.
LARGEST_SHARE = 0.1
#: Of such a tolerance: another build of numpy sums in another order.
ROUNDING = 1e-9
_TEXT = "text."


@dataclass(frozen=True)
class GatedAnswers:
    """The answers of changed graphs.

    Attributes
    ----------
    heads : mapping of str to Answers
        Of every head whose scores come from changed graphs.
    text : mapping of str to array
        The first finding of the text head as the changed text graph encodes it; empty without one.
    """

    heads: Mapping[str, Answers]
    text: Mapping[str, NDArray[Any]]


def pack_answers(answers: GatedAnswers) -> bytes:
    """Return the answers as the bytes of their file."""
    tensors: dict[str, NDArray[Any]] = {_TEXT + name: array for name, array in answers.text.items()}
    for name, each in answers.heads.items():
        tensors[f"logits.{name}"] = each.logits
        if each.maps is not None:
            tensors[f"maps.{name}"] = each.maps
    contiguous = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    return bytes(safetensors.numpy.save(contiguous))


def widest(original: Answers, gated: Answers) -> float:
    """Return the widest tolerance that still tells every finding's golden scores apart.

    One finding may hardly move where the others do, or hardly move after the change: the least spread counts,
    of any finding, with the original or with the changed graphs.
    """
    spreads = [spreads_of(each.logits).min(initial=np.inf) for each in (original, gated)]
    return LARGEST_SHARE * float(min(spreads))


def read_gated(bundle: BundleContent, gated: Gated, original: Mapping[str, Answers]) -> GatedAnswers:
    """Read the answers of changed graphs and hold their tolerances against the original's scores.

    Raises
    ------
    BundleError
        ``bundle.hash``; ``bundle.format`` when the file does not hold what it must, or when a tolerance is so
        wide that the self-test could not fail.
    """
    manifest, name = bundle.manifest, gated.answers
    try:
        tensors = safetensors.numpy.load(bundle.read(name))
    except (safetensors.SafetensorError, KeyError) as error:  # KeyError: a type that numpy has not
        raise _malformed(name, "not a safetensors file") from error
    expected = _expected(manifest, gated)
    text = {key: array for key, array in tensors.items() if key.startswith(_TEXT)}
    found = {key: array.shape for key, array in tensors.items() if key not in text}
    if found != expected or any(tensors[key].dtype != "float32" for key in expected):
        raise _malformed(name, f"expected {expected}, found {found}")
    if {key.removeprefix(_TEXT) for key in text} != _text_tensors(manifest, gated):
        raise _malformed(name, f"another set of text tensors: {', '.join(sorted(text)) or 'none'}")
    if not all(np.isfinite(array).all() for array in tensors.values()):
        raise _malformed(name, "a stored answer that is no number")
    heads = {
        each.head: Answers(tensors[f"logits.{each.head}"], tensors.get(f"maps.{each.head}"))
        for each in gated.heads
    }
    _require_narrow(gated, original, heads, name)
    own = {key.removeprefix(_TEXT): array for key, array in text.items()}
    _require_entry(manifest, own, name)
    return GatedAnswers(heads, own)


def _expected(manifest: Manifest, gated: Gated) -> dict[str, tuple[int, ...]]:
    expected: dict[str, tuple[int, ...]] = {}
    for head in _heads(manifest, gated):
        shape = (len(manifest.golden.images), len(manifest.findings_of(head.name)))
        expected[f"logits.{head.name}"] = shape
        if head.map:
            expected[f"maps.{head.name}"] = (*shape, *head.map.grid)
    return expected


def _heads(manifest: Manifest, gated: Gated) -> list[Head]:
    names = {each.head for each in gated.heads}
    return [head for head in manifest.heads if head.name in names]


def _text_tensors(manifest: Manifest, gated: Gated) -> set[str]:
    head = manifest.text_head
    return set() if gated.text is None or head is None else {tensor.name for tensor in head.bank.tensors}


def _require_entry(manifest: Manifest, text: Mapping[str, NDArray[Any]], name: str) -> None:
    """Refuse an encoded finding of another type or shape than an entry of the bank has."""
    head = manifest.text_head
    if head is None or not text:
        return
    try:
        PromptBank(head.bank, [BankEntry("", (), text)])
    except BundleError as error:
        raise _malformed(name, f"an encoded finding that does not fit the bank: {error.found}") from error


def _require_narrow(
    gated: Gated, original: Mapping[str, Answers], own: Mapping[str, Answers], name: str
) -> None:
    bounds = [
        (f"scores of {each.head}", each.score_tolerance, widest(original[each.head], own[each.head]))
        for each in gated.heads
    ]
    bounds += [(f"maps of {each.head}", each.map_tolerance or 0.0, LARGEST_TOLERANCE) for each in gated.heads]
    if gated.text is not None:
        bounds.append(("text", gated.text.tolerance, LARGEST_TOLERANCE))
    for what, tolerance, most in bounds:
        if tolerance > most:
            raise _malformed(name, f"{what}: a tolerance of {tolerance:g}, and the most is {most:.3g}")


def _malformed(name: str, found: str) -> BundleError:
    return BundleError(
        "bundle.format", "the gated answers do not hold what they must", artefact=name, found=found,
        cure="build the bundle again",
    )  # fmt: skip
