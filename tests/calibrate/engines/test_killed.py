"""Whatever ends a build, and whenever: the site is as it was, or holds the whole set."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from promptray.calibrate.engines.build import Asked, build_set
from promptray.runtime.bundle import Bundle
from promptray.runtime.engines.store import EngineStore
from promptray.runtime.site import Site
from tests.engine_bundle import CpuLibrary, timed, write_with_sources

# Builds fp16 engines and stops for good where it is told to; whoever reads the line kills it there.
BUILD = """
import sys, time
from promptray.calibrate.engines.build import Asked, build_set
from promptray.runtime import site_files
from promptray.runtime.bundle import Bundle
from promptray.runtime.engines.store import EngineStore
from promptray.runtime.site import Site
from tests.engine_bundle import CpuLibrary, timed

path, root, where = sys.argv[1:]

def stop():
    print("there", flush=True)
    time.sleep(600)

def progress(stage, message, fraction):
    if stage == where:
        stop()

written = site_files.write_new
def half_written(path, content):
    if where == "payload" and len(content) > 1000 or where == "index" and b"tensorrt" in content[:2000]:
        with path.open("xb") as file:
            file.write(content[: len(content) // 2])
        stop()
    return written(path, content)
site_files.write_new = half_written

bundle = Bundle.open(path)
store = EngineStore(Site.open(root, bundle.hash), bundle.manifest)
build_set(bundle, store, CpuLibrary(), Asked(), progress=progress, measure=timed(own=1.0))
print("built", flush=True)
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_with_sources(tmp_path_factory.mktemp("sources") / "mini.bundle", "fp16")


@pytest.mark.parametrize("where", ["compile", "golden", "store", "payload", "index", "nowhere"])
def test_a_killed_build(bundle: Bundle, tmp_path: Path, where: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", BUILD, str(bundle.path), str(tmp_path), where]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        said = process.stdout.readline().strip()
        if where != "nowhere":
            process.kill()
    assert said == ("built" if where == "nowhere" else "there")
    store = EngineStore(Site.open(tmp_path, bundle.hash), bundle.manifest)
    assert len(store.sets) == (where == "nowhere")
    # What a half-written file left is in nobody's way, and goes with the next write.
    build_set(
        bundle, store, CpuLibrary(), Asked(rebuild=True), progress=lambda *_: None, measure=timed(own=1.0)
    )
    (only,) = store.sets
    assert bytes(store.opened(only).plan("image")) == bundle.read("engines/image/fp16-20.onnx")
    assert not list(tmp_path.rglob("tmp.*"))
