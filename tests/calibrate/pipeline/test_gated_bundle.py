"""A gated bundle is used where its graphs were gated, gives the gated answers, and says what it is."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import safetensors.numpy
import yaml

from promptray import BundleError, Scorer, ScoringError
from promptray.calibrate.pipeline import other_rounding
from promptray.calibrate.pipeline.recipe import GateRecipe, QuantiseRecipe
from promptray.export.draft import Draft
from promptray.runtime import machine_class as machine_module
from promptray.runtime.bank_file import pack
from promptray.runtime.bundle import Bundle
from promptray.runtime.graphs import Graphs, own_bank
from promptray.runtime.prompts import BankEntry
from promptray.runtime.verify import verify
from tests import bundle_factory as factory


@pytest.fixture
def copy(gated_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(gated_bundle, tmp_path / "copy"))


@pytest.mark.parametrize("backend", ["auto", "onnxruntime-cpu"])
def test_another_class_of_machine_is_refused(
    gated_bundle: Path, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    gated_on = f"onnxruntime-cpu@{machine_module.machine_class()}"
    monkeypatch.setattr(machine_module, "machine_class", lambda: "x86_64-other")
    with pytest.raises(ScoringError, match="another class of machine") as refusal:
        Scorer.open(gated_bundle, site=None, backend=backend)
    assert refusal.value.code == "backend.unavailable"
    assert refusal.value.expected == gated_on
    assert "x86_64-other" in str(refusal.value.found)
    assert "promptray build" in str(refusal.value.cure)


def test_an_fp32_bundle_runs_on_every_class(reference_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_module, "machine_class", lambda: "x86_64-other")
    with Scorer.open(reference_bundle, site=None) as scorer:
        assert scorer.backend.precision == "fp32"
        assert scorer.backend.gated_as is None


def test_what_runs_says_what_it_was_gated_as(gated_bundle: Path) -> None:
    """A calibration of its scores is bound to that."""
    with Scorer.open(gated_bundle, site=None) as scorer:
        assert scorer.backend.gated_as == f"onnxruntime-cpu@{machine_module.machine_class()}"


def test_a_machine_that_computes_otherwise_is_refused(
    gated_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Class and bundle are right, and its sums are not: as if every weight were off by up to a twentieth."""
    bundle, read = Bundle.open(gated_bundle), Bundle.read
    monkeypatch.setattr(other_rounding, "RELATIVE", 0.05)
    same = Draft(bundle.manifest, {name: bundle.read(name) for name in bundle.manifest.files})
    other = other_rounding.with_other_rounding(same, np.random.default_rng(0))
    monkeypatch.setattr(
        Bundle, "read", lambda self, name: other.read(name) if name.endswith(".onnx") else read(self, name)
    )
    with pytest.raises(BundleError, match="when it was gated") as refusal:
        Scorer.open(gated_bundle, site=None)
    assert refusal.value.code == "bundle.golden"


def test_a_machine_that_encodes_text_otherwise_adds_no_prompts(
    gated_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it encoded would be scored with, and kept: so the text graph is tested before its first prompt."""
    (tmp_path / "site").mkdir()
    with Scorer.open(gated_bundle, site=tmp_path / "site") as scorer:
        encode = Graphs.encode

        def otherwise(self: Graphs, *args: Any, **named: Any) -> BankEntry:
            entry = encode(self, *args, **named)
            return replace(entry, tensors={name: 1.1 * each for name, each in entry.tensors.items()})

        monkeypatch.setattr(Graphs, "encode", otherwise)
        with pytest.raises(BundleError, match="the text side encodes") as refusal:
            scorer.prompts.add("rib fracture", "There is rib fracture.", keep=True)
        assert refusal.value.code == "bundle.golden"
        assert "rib fracture" not in scorer.prompts


def test_verify_passes_with_both_differences(gated_bundle: Path) -> None:
    report = verify(gated_bundle, site=None).golden
    (head,) = report.heads
    assert head.score_error <= head.score_tolerance
    assert head.golden_score_error > 0
    assert report.text_error is not None


def test_an_added_prompt_is_rounded_as_the_bank_is(gated_bundle: Path, tmp_path: Path) -> None:
    """It scores the same in the session that adds it and in the next one, and takes half the bytes."""
    (head,) = Bundle.open(gated_bundle).manifest.heads
    assert head.bank.stored == "float16"
    with Scorer.open(gated_bundle, site=tmp_path) as scorer:
        scorer.prompts.add("edema", "There is edema.", keep=True)
        before = scorer.prompts.state.find("edema").entry
    with Scorer.open(gated_bundle, site=tmp_path) as scorer:
        after = scorer.prompts.state.find("edema").entry
        exported = safetensors.numpy.load(scorer.prompts.export(["edema"]))
    assert before.fingerprint == after.fingerprint
    names = {name for name, tensor in exported.items() if tensor.dtype == np.float16}
    assert names == {tensor.name for tensor in head.bank.tensors} - {head.bank.row_bias}


def without_gates(parity: dict[str, Any]) -> None:
    parity["gates"] = []


def more_images(parity: dict[str, Any]) -> None:
    parity["gates"][0]["measured_on"]["images"] += 1000


def other_precision(parity: dict[str, Any]) -> None:
    parity["gates"][0]["graphs"][0]["precision"] = "fp32"


def without_bank(parity: dict[str, Any]) -> None:
    parity["gates"][0]["banks"] = []


def smaller_bank(parity: dict[str, Any]) -> None:
    parity["gates"][0]["banks"][0]["bytes_after"] -= 1


def inconclusive(parity: dict[str, Any]) -> None:
    parity["gates"][0]["verdict"] = "inconclusive"


@pytest.mark.parametrize(
    "change", [without_gates, more_images, other_precision, without_bank, smaller_bank, inconclusive]
)
def test_a_tampered_summary_is_refused(copy: Path, change: Callable[[dict[str, Any]], None]) -> None:
    parity = json.loads((copy / "parity.json").read_bytes())
    change(parity)
    factory.relist(copy, "parity.json", json.dumps(parity).encode())
    with pytest.raises(BundleError) as refusal:
        verify(copy, site=None)
    assert refusal.value.code == "bundle.format"


def test_a_report_that_was_not_passed_is_refused(copy: Path) -> None:
    (head,) = Bundle.open(copy).manifest.gated[0].heads
    report = json.loads((copy / head.report).read_bytes())
    factory.relist(copy, head.report, json.dumps({**report, "verdict": "refused"}).encode())
    with pytest.raises(BundleError, match="a gate and its report"):
        verify(copy, site=None)


def wide_tolerance(doc: dict[str, Any]) -> None:
    doc["gated"][0]["heads"][0]["score_tolerance"] = 50.0


def test_a_tolerance_that_cannot_fail_is_refused(copy: Path) -> None:
    factory.edited(copy, wide_tolerance)
    with pytest.raises(BundleError, match="gated answers") as refusal:
        Scorer.open(copy, site=None)
    assert refusal.value.code == "bundle.format"


def quantised_for_any_machine(doc: dict[str, Any]) -> None:
    doc["graphs"][0]["consumers"] = ["onnxruntime-cpu"]


def gates_gone(doc: dict[str, Any]) -> None:
    doc["gated"] = []


def head_gone(doc: dict[str, Any]) -> None:
    doc["gated"][0]["heads"] = []


def text_gone(doc: dict[str, Any]) -> None:
    doc["gated"][0]["text"] = None


def other_class(doc: dict[str, Any]) -> None:
    doc["gated"][0]["consumer"] = "onnxruntime-cpu@x86_64-other"


def no_tolerance(doc: dict[str, Any]) -> None:
    doc["gated"][0]["heads"][0]["score_tolerance"] = 0.0


def no_map_tolerance(doc: dict[str, Any]) -> None:
    doc["gated"][0]["heads"][0]["map_tolerance"] = None


def other_file(doc: dict[str, Any]) -> None:
    doc["gated"][0]["answers"] = "golden/golden.safetensors"


EDITS = [quantised_for_any_machine, gates_gone, head_gone, text_gone, other_class, no_tolerance]


@pytest.mark.parametrize("edit", [*EDITS, no_map_tolerance, other_file])
def test_a_manifest_that_hides_a_gate_is_refused(copy: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    factory.edited(copy, edit)
    with pytest.raises(BundleError) as refusal:
        Bundle.open(copy)
    assert refusal.value.code == "bundle.format"


def test_answers_of_another_shape_are_refused(copy: Path) -> None:
    (gated,) = Bundle.open(copy).manifest.gated
    tensors = safetensors.numpy.load((copy / gated.answers).read_bytes())
    tensors["logits.findings"] = tensors["logits.findings"][:, :1]
    factory.relist(copy, gated.answers, safetensors.numpy.save(tensors))
    with pytest.raises(BundleError, match="gated answers"):
        Scorer.open(copy, site=None)


def test_a_bank_is_packed_to_the_same_bytes(gated_bundle: Path) -> None:
    bundle = Bundle.open(gated_bundle)
    (head,) = bundle.manifest.heads
    assert {pack(own_bank(bundle, head)) for _ in range(8)} == {bundle.read(head.bank.file)}


def test_the_example_of_the_documentation_is_a_recipe() -> None:
    page = (Path(__file__).parents[3] / "docs" / "quantisation.md").read_text(encoding="utf-8")
    example, *_ = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    sections = yaml.safe_load(example)
    quantise = msgspec.convert(sections["quantise"], QuantiseRecipe)
    assert len(quantise.schemes) == 3
    assert msgspec.convert(sections["gate"], GateRecipe).labels == "gate.csv"
