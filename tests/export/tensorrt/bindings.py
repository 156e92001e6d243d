"""The real bindings of TensorRT 10.3, 10.16 and 11.4, imported in processes of their own without TensorRT."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.export.tensorrt.stub_library import write_stub_library
from tools.tensorrt_bindings import folder_of, is_for_here, version_of

# Everything that the bindings link to by name.
_FUNCTIONS = (
    *(f"create{what}_INTERNAL" for what in ("InferBuilder", "InferRefitter", "InferRuntime")),
    *("createNvOnnxParser_INTERNAL", "createNvOnnxParserRefitter_INTERNAL"),
    *("getBuilderPluginRegistry", "getPluginRegistry", "getNvOnnxParserVersion", "initLibNvInferPlugins"),
)
_LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")


def run_with(requirement: Requirement, module: str, folder: Path) -> str:
    """Run ``python -m module`` where ``tensorrt_bindings`` is that version; return what it printed.

    Parameters
    ----------
    folder : Path
        An empty one, for what stands for TensorRT's libraries.
    """
    version = version_of(requirement)
    if not is_for_here(requirement):
        pytest.skip(f"not run: TensorRT {version} has no bindings for this machine and Python")
    place = folder_of(requirement)
    assert place.is_dir(), f"the bindings of TensorRT {version} are not installed: run `make setup`"
    for library in _LIBRARIES:
        write_stub_library(folder / f"lib{library}.so.{version.split('.')[0]}", _FUNCTIONS)
    path = os.pathsep.join([str(place), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-m", module],
        env={**os.environ, "PYTHONPATH": path, "LD_LIBRARY_PATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
