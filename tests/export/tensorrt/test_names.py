"""Every name of TensorRT that the code uses exists in the real bindings of 10.3, 10.16, 11.4 and RTX."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.export.tensorrt.bindings import run_with
from tests.export.tensorrt.bindings_names import names_of
from tests.export.tensorrt.used_names import unknown, used_names
from tests.rtx import needs_rtx
from tools.tensorrt_bindings import version_of, wanted

ROOT = Path(__file__).parents[3]
SOURCES = sorted(
    [*(ROOT / "export/tensorrt").glob("*.py"), *(ROOT / "runtime/backends").glob("tensorrt*.py")]
)
#: Of RTX alone, behind `Flavour.ahead_of_time` and targets.
RTX_ALONE = {
    "trt.ComputeCapability.__members__",
    "trt.IBuilderConfig.num_compute_capabilities",
    "trt.IBuilderConfig.set_compute_capability",
}
#: Of weakly typed networks, behind `Flavour.strongly_typed`; gone from 11 and RTX.
WEAKLY_TYPED_ALONE = {
    "trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH",
    "trt.BuilderFlag.FP16",
    "trt.BuilderFlag.INT8",
    "trt.PreviewFeature.PROFILE_SHARING_0806",
}
#: Not of 10.3 yet, behind a question for the name of RTX that needs it.
LATER = {"trt.ICudaEngine.create_runtime_config"}
ALL = pytest.mark.parametrize("bindings", wanted(), ids=version_of)


@pytest.fixture(scope="module")
def used() -> set[str]:
    return set().union(*(used_names(path.read_text(encoding="utf-8")) for path in SOURCES))


@ALL
def test_names_exist(bindings: Requirement, used: set[str], tmp_path: Path) -> None:
    names = json.loads(run_with(bindings, "tests.export.tensorrt.bindings_names", tmp_path))
    version = version_of(bindings)
    weakly = WEAKLY_TYPED_ALONE if version.startswith("11.") else set()
    later = LATER if version.startswith("10.3") else set()
    assert unknown(used, names) == RTX_ALONE | weakly | later


@needs_rtx
def test_names_exist_in_rtx(used: set[str]) -> None:
    assert unknown(used, names_of(import_module("tensorrt_rtx_bindings"))) == WEAKLY_TYPED_ALONE


@ALL
def test_the_builder_runs_on_objects_with_these_names_alone(bindings: Requirement, tmp_path: Path) -> None:
    said = run_with(bindings, "tests.export.tensorrt.bindings_build", tmp_path)
    assert said.strip() == version_of(bindings)


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("config.set_flag(trt.BuilderFlag.FASTER)", "trt.BuilderFlag.FASTER"),
        ("trt.ILogger.Severity.WORSE", "trt.ILogger.Severity.WORSE"),
        ("made = trt.EngineMaker()", "trt.EngineMaker"),
        ("self._context.execute_async_v9(0)", "trt.IExecutionContext.execute_async_v9"),
        ("network.get_input(0)\nparser.parse_quickly(b'')", "trt.OnnxParser.parse_quickly"),
    ],
)
@needs_rtx
def test_a_made_up_name_is_found(line: str, name: str) -> None:
    assert unknown(used_names(line), names_of(import_module("tensorrt_rtx_bindings"))) == {name}


def test_what_is_looked_at_is_what_is_used(used: set[str]) -> None:
    assert {"trt.BuilderFlag.TF32", "trt.OnnxParser.get_error", "trt.IBuilderConfig.progress_monitor"} <= used
