"""Sources of engines beside graphs that were changed: quantised for a CPU, or a student's."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from promptray import BuildError
from promptray.calibrate.distil import run as run_module
from promptray.calibrate.pipeline import build
from promptray.runtime.bundle import Bundle
from promptray.runtime.bundle.parity import read_parity
from promptray.runtime.gate_limits import LIMITS
from tests.calibrate.pipeline.conftest import reference_recipe, tensorrt_section
from tests.calibrate.pipeline.students import lenient, student_recipe


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_bundle_quantised_for_a_cpu_holds_its_sources_apart(
    cache: Path, gated_bundle: Path, pieces: Path, few: Path, tmp_path: Path, precision: str
) -> None:
    """Both sections in one recipe: what a CPU runs was gated, and engines are compiled from other files."""
    ranges = None if precision == "fp32" else {"images": str(few), "source": "eight pieces"}
    asked = tensorrt_section(few, precision=precision, calibration=ranges)
    path = reference_recipe(tmp_path, pieces, tensorrt=asked)
    bundle = build(path, tmp_path / "both.bundle", cache=cache)
    assert [each.precision for each in bundle.manifest.graphs] == ["int8-qdq", "fp16", "int8-dynamic"]
    assert [each.file for each in bundle.manifest.engine_sources(precision)] == [
        f"engines/image/{precision}-20.onnx",
        f"engines/head/findings/{precision}-20.onnx",
    ]
    report = read_parity(bundle)
    assert [each.precision for each in report.sources] == [precision]
    assert [each.verdict for each in report.gates] == ["passed", "passed"]
    for graph, typed in zip(Bundle.open(gated_bundle).manifest.graphs, bundle.manifest.graphs, strict=True):
        assert bundle.manifest.files[typed.file] == Bundle.open(gated_bundle).manifest.files[graph.file]


def test_engines_of_a_student_are_compiled_from_the_student_and_held_against_it(
    let_through: Path, learning: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LIMITS, "student", lenient())
    monkeypatch.setattr(run_module, "distil", _never)  # it learned before
    place = Path(shutil.copytree(let_through.parent, tmp_path / "place"))
    path = student_recipe(place, tensorrt={"precision": "fp32"})
    made = build(path, place / "typed.bundle", cache=place / "cache")
    student, teacher = (Bundle.open(each) for each in (let_through, learning / "teacher.bundle"))
    assert made.manifest.provenance.distilled == student.manifest.provenance.distilled
    sources = made.manifest.engine_sources("fp32")
    assert [each.role for each in sources] == ["image", "head"]
    for each in sources:
        assert made.manifest.files[each.file] == student.manifest.files[each.file]
    image = sources[0].file
    assert made.manifest.files[image] != teacher.manifest.files[image]

    # This student's scores are so alike that float16 is too coarse for them: its own golden answers count.
    asked = {"precision": "fp16", "calibration": {"images": "learn", "source": "steps, even"}}
    with pytest.raises(BuildError, match="as they are written") as refusal:
        build(student_recipe(place, tensorrt=asked), place / "fp16.bundle", cache=place / "cache")
    assert refusal.value.code == "gate.failed"
    assert not (place / "fp16.bundle").exists()


def _never(*_: Any, **named: Any) -> None:
    raise AssertionError("a finished stage ran again")


def test_ranges_are_not_taken_from_the_gates_pictures(cache: Path, pieces: Path, tmp_path: Path) -> None:
    asked = {"precision": "fp16", "calibration": {"images": str(pieces / "gate"), "source": "the gate's"}}
    with pytest.raises(BuildError, match="typed for engines") as refusal:
        build(reference_recipe(tmp_path, pieces, tensorrt=asked), tmp_path / "x.bundle", cache=cache)
    assert refusal.value.code == "gate.images"
