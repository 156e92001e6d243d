"""A gated bundle whose report was edited, dropped or swapped, and sealed again, scores nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import safetensors.numpy

from promptray import BundleError, Scorer
from promptray.runtime.bundle import Bundle
from promptray.runtime.bundle.gate_summary import ChangedBank, ChangedGraph, GateSummary, ImagesOfGate
from promptray.runtime.bundle.parity import read_parity
from tests import bundle_factory as factory

Edit = Callable[[Any], None]


@pytest.fixture
def copy(gated_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(gated_bundle, tmp_path / "copy"))


def edit_json(bundle: Path, name: str, edit: Edit) -> None:
    """Change a JSON file of a bundle, and seal it again."""
    document = json.loads((bundle / name).read_bytes())
    edit(document)
    factory.relist(bundle, name, json.dumps(document).encode())


def put(value: object, *steps: str | int) -> Edit:
    """Return an edit that puts a value in a place."""

    def edit(document: Any) -> None:
        for step in steps[:-1]:
            document = document[step]
        document[steps[-1]] = value

    return edit


def refuses_to_score(bundle: Path) -> BundleError:
    with pytest.raises(BundleError) as refusal:
        Scorer.open(bundle, site=None)
    return refusal.value


#: Every field that the report or the bundle bears out, with something else in its place.
SUMMARY: dict[tuple[str | int, ...], object] = {
    ("consumer",): "onnxruntime-cpu@x86_64-other",
    ("report",): "gates/onnxruntime-cpu/other/head-findings.json",
    ("head",): "other",
    ("of",): "added prompts",
    ("verdict",): "inconclusive",
    ("kind",): "student",
    ("patients",): 0,
    ("labelled",): True,
    ("measured_on", "images"): 0,
    ("graphs",): [],
    ("graphs", 0, "graph"): "head other",
    ("graphs", 0, "precision"): "fp32",
    ("graphs", 0, "bytes_before"): 0,
    ("graphs", 0, "bytes_after"): 1,
    ("banks",): [],
    ("banks", 0, "head"): "other",
    ("banks", 0, "stored"): "float32",
    ("banks", 0, "bytes_before"): 0,
    ("banks", 0, "bytes_after"): 1,
}
#: Said by the build alone: nothing else in a bundle could bear it out.
UNBORNE = {("measured_on", "sha256"), ("measured_on", "source"), ("measured_on", "refused"), ("tools",)}


def test_every_field_of_a_summary_is_attacked() -> None:
    nested = {"measured_on": ImagesOfGate, "graphs": ChangedGraph, "banks": ChangedBank}
    every = {(name,) for name in GateSummary.__struct_fields__ if name != "measured_on"}
    for name, kind in nested.items():
        every |= {(name, each) for each in kind.__struct_fields__}
    attacked = {tuple(step for step in steps if not isinstance(step, int)) for steps in SUMMARY}
    assert attacked | UNBORNE == every


@pytest.mark.parametrize("steps", SUMMARY, ids=lambda steps: ".".join(map(str, steps)))
def test_an_edited_summary_is_refused(copy: Path, steps: tuple[str | int, ...]) -> None:
    edit_json(copy, "parity.json", put(SUMMARY[steps], "gates", 0, *steps))
    assert refuses_to_score(copy).code == "bundle.format"


@pytest.mark.parametrize("kind", ["none", "fp8", "", None])
def test_an_unknown_kind_is_refused(copy: Path, kind: object) -> None:
    edit_json(copy, "parity.json", put(kind, "gates", 0, "kind"))
    assert "kind" in refuses_to_score(copy).message


@pytest.mark.parametrize("number", [0, 1])
def test_a_summary_without_a_changed_graph_is_refused(copy: Path, number: int) -> None:
    def without(parity: Any) -> None:
        del parity["gates"][number]["graphs"][0]

    edit_json(copy, "parity.json", without)
    assert "graphs of a gate" in refuses_to_score(copy).message


def test_a_dropped_summary_is_refused(copy: Path) -> None:
    edit_json(copy, "parity.json", lambda parity: parity["gates"].pop())
    assert refuses_to_score(copy).message.endswith("does not fit the bundle: gates")


def test_the_report_of_an_fp32_bundle_is_refused(copy: Path, reference_bundle: Path) -> None:
    factory.relist(copy, "parity.json", (reference_bundle / "parity.json").read_bytes())
    assert refuses_to_score(copy).message.endswith("does not fit the bundle: gates")


def gate_of(report: Any, name: str) -> Any:
    return next(gate for gate in report["gates"] if gate["name"] == name)


def wider(report: Any) -> None:
    gate_of(report, "max_delta")["bound"] = 0.76


def less(report: Any) -> None:
    gate_of(report, "spearman")["bound"] = 0.99


def outside(report: Any) -> None:
    gate_of(report, "flips")["high"] = 0.02


def outside_without_interval(report: Any) -> None:
    gate_of(report, "max_delta")["value"] = 0.8


def below(report: Any) -> None:
    gate_of(report, "map_correlation")["low"] = 0.9


def not_measured(report: Any) -> None:
    gate_of(report, "mean_delta").update(value=None, low=None, high=None)


def without_interval(report: Any) -> None:
    gate_of(report, "flips").update(low=None, high=None)


def less_confident(report: Any) -> None:
    report["confidence"] = 0.5


def one_refused(report: Any) -> None:
    gate_of(report, "batch_delta")["verdict"] = "refused"


def one_dropped(report: Any) -> None:
    report["gates"].remove(gate_of(report, "spearman"))


def one_not_run(report: Any) -> None:
    one_dropped(report)
    report["not_run"].append({"name": "spearman", "finding": None, "reason": "it was late"})


def maps_dropped(report: Any) -> None:
    report["gates"] = [gate for gate in report["gates"] if not gate["name"].startswith("map_")]


def labels_dropped(report: Any) -> None:
    report["not_run"] = []


def one_invented(report: Any) -> None:
    report["gates"].append({**gate_of(report, "flips"), "name": "beauty"})


def of_another(report: Any) -> None:
    report["candidate"]["sha256"] = "0" * 64


def of_nobody(report: Any) -> None:
    report["candidate"]["sha256"] = None


def inconclusive(report: Any) -> None:
    report["verdict"] = "inconclusive"


def of_other_schema(report: Any) -> None:
    report["schema_version"] = 2


REPORTS = [
    wider, less, outside, outside_without_interval, below, not_measured, without_interval, less_confident,
    one_refused, one_dropped, one_not_run, maps_dropped, labels_dropped, one_invented, of_another, of_nobody,
    inconclusive, of_other_schema,
]  # fmt: skip


@pytest.mark.parametrize("edit", REPORTS)
@pytest.mark.parametrize("number", [0, 1])
def test_an_edited_report_is_refused(copy: Path, edit: Edit, number: int) -> None:
    name = read_parity(Bundle.open(copy)).gates[number].report
    edit_json(copy, name, edit)
    error = refuses_to_score(copy)
    assert (error.code, error.artefact) == ("bundle.format", name)


def test_a_tighter_bound_is_no_fault(copy: Path) -> None:
    """A recipe may tighten the limits."""
    name = read_parity(Bundle.open(copy)).gates[0].report
    edit_json(copy, name, lambda report: gate_of(report, "max_delta").update(bound=0.5))
    assert read_parity(Bundle.open(copy)).gates


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"not JSON"])
def test_a_report_that_is_none_is_refused(copy: Path, content: bytes) -> None:
    name = read_parity(Bundle.open(copy)).gates[0].report
    factory.relist(copy, name, content)
    assert refuses_to_score(copy).code == "bundle.format"


def test_a_removed_report_is_refused(copy: Path) -> None:
    """With its name in the list of files, and without."""
    name = read_parity(Bundle.open(copy)).gates[0].report
    (copy / name).unlink()
    assert refuses_to_score(copy).code == "bundle.missing-file"
    factory.edited(copy, lambda document: document["files"].pop(name))
    assert refuses_to_score(copy).code == "bundle.format"


def test_reports_of_one_bundle_cannot_be_swapped(copy: Path) -> None:
    """Both were passed, on the same images: the scores, and the prompts of the changed text graph."""
    names = [each.report for each in read_parity(Bundle.open(copy)).gates]
    contents = [(copy / name).read_bytes() for name in names]
    for name, content in zip(names, reversed(contents), strict=True):
        factory.relist(copy, name, content)
    assert "the model that a gate judged" in refuses_to_score(copy).message


def test_a_graph_that_no_gate_judged_is_refused(copy: Path, reference_bundle: Path) -> None:
    """The reports, and all but one graph, are those of the build; sizes are made to fit."""
    graph = next(each for each in Bundle.open(copy).manifest.graphs if each.role == "image")
    other = (copy / graph.file).read_bytes() + b"\0"
    factory.relist(copy, graph.file, other)
    assert "graphs of a gate" in refuses_to_score(copy).message

    def fitted(parity: Any) -> None:
        for gate in parity["gates"]:
            for each in gate["graphs"]:
                if each["graph"] == graph.title:
                    each["bytes_after"] = len(other)

    edit_json(copy, "parity.json", fitted)
    assert "the model that a gate judged" in refuses_to_score(copy).message


def test_a_bank_that_no_gate_judged_is_refused(copy: Path) -> None:
    (head,) = Bundle.open(copy).manifest.heads
    content = (copy / head.bank.file).read_bytes()
    factory.relist(copy, head.bank.file, content[:-1] + bytes([content[-1] ^ 1]))
    assert "the model that a gate judged" in refuses_to_score(copy).message


def test_other_preprocessing_than_was_gated_is_refused(copy: Path) -> None:
    factory.edited(copy, put([0.4], "preprocessing", "normalise", "mean"))
    assert "the model that a gate judged" in refuses_to_score(copy).message


def other_type(tensor: Any) -> Any:
    return tensor.astype(np.float64)


def other_shape(tensor: Any) -> Any:
    return np.stack([tensor, tensor])


def no_number(tensor: Any) -> Any:
    return np.full_like(tensor, np.nan)


@pytest.mark.parametrize("change", [other_type, other_shape, no_number])
def test_an_encoded_finding_of_another_kind_is_refused(copy: Path, change: Callable[[Any], Any]) -> None:
    (gated,) = Bundle.open(copy).manifest.gated
    tensors = safetensors.numpy.load((copy / gated.answers).read_bytes())
    name = next(name for name in tensors if name.startswith("text."))
    tensors[name] = np.ascontiguousarray(change(tensors[name]))
    factory.relist(copy, gated.answers, safetensors.numpy.save(tensors))
    error = refuses_to_score(copy)
    assert (error.code, error.artefact) == ("bundle.format", gated.answers)


def test_a_finding_that_hardly_moves_bounds_the_tolerance(copy: Path) -> None:
    """Its golden scores are all but equal, so the tolerance of the others would let anything by."""
    manifest = Bundle.open(copy).manifest
    (gated,) = manifest.gated
    tensors = safetensors.numpy.load((copy / gated.answers).read_bytes())
    logits = tensors["logits.findings"]
    logits[:, 0] = logits[0, 0] + 1e-3 * (logits[:, 0] - logits[0, 0])
    factory.relist(copy, gated.answers, safetensors.numpy.save(tensors))
    error = refuses_to_score(copy)
    assert "a tolerance of" in str(error.found)


def test_what_is_attacked_here_is_good(gated_bundle: Path) -> None:
    with Scorer.open(gated_bundle, site=None) as scorer:
        assert "fp16" in scorer.backend.precision
    assert msgspec.to_builtins(read_parity(Bundle.open(gated_bundle)))["gates"]
