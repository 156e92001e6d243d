"""What `make gpu` runs on a GPU can be built: no test of it, and no measurement, ends for want of graphs."""

from __future__ import annotations

import msgspec
import pytest

from benchmarks.gpu import cases
from promptray.calibrate.pipeline.tensorrt_recipe import TensorRTRecipe, check_tensorrt
from promptray.export.draft import Draft
from promptray.runtime.bundle import Bundle
from tests import gpu_bundles

BUNDLES = {
    "carzero": "carzero_bundle",
    "open-clip": "open_clip_bundle",
    "asg-both": "asg_both_bundle",
    "reference": "reference_bundle",
}


@pytest.mark.parametrize("name", gpu_bundles.NAMES)
def test_a_section_for_every_library_is_accepted(name: str, request: pytest.FixtureRequest) -> None:
    built = Bundle.open(request.getfixturevalue(BUNDLES[name]))
    fp32 = Draft(built.manifest, {file: built.path / file for file in built.manifest.files})
    for section in (gpu_bundles.SECTION, cases.section("fp16")):
        asked = msgspec.convert(section, TensorRTRecipe)
        check_tensorrt(asked, "recipe.yaml", fp32)
        assert asked.opset_17, "all that TensorRT 8.6 reads"
        assert asked.prepare
        assert "fp16" in asked.schemes("image")
