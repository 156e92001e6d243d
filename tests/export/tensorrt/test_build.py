"""A build: what it gives, its progress, and that its end by any road leaves nothing."""

from __future__ import annotations

import _thread
import hashlib
import importlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from promptray.export.tensorrt import build_engine, load_flavour, process
from promptray.export.tensorrt import flavour as flavour_module
from promptray.export.tensorrt.flavour import Flavour
from promptray.export.tensorrt.messages import Request, Step
from promptray.export.tensorrt.progress import Phases
from promptray.runtime.engines.settings import Settings
from promptray.runtime.errors import BuildError
from tests.export.tensorrt.small import build, product, profile
from tests.rtx import needs_rtx

pytestmark = needs_rtx


def test_an_engine_says_what_it_is() -> None:
    built = build(product(np.float16), ["8.6", "8.9"])
    assert (built.flavour, built.version) == ("tensorrt_rtx", load_flavour("tensorrt_rtx").version)
    assert built.targets == ("8.6", "8.9")
    assert built.timing_cache is None  # RTX measures nothing when it builds
    assert len(built.plan) > 1000
    (layer,) = [layer for layer in built.layers if layer.is_product]
    assert layer.nodes == ("product",)
    assert layer.operands == ("Half", "Half")


def test_the_same_build_gives_the_same_bytes() -> None:
    first, second = build(product()), build(product())
    assert hashlib.sha256(first.plan).digest() == hashlib.sha256(second.plan).digest()
    assert first.layers == second.layers


def test_there_is_a_profile_for_each_range() -> None:
    one, two = build(product()), build(product(), profiles=[profile(), profile(9, 16, 64)])
    assert sum(layer.is_product for layer in two.layers) == 2 * sum(layer.is_product for layer in one.layers)


def test_progress_is_told_in_this_thread_and_never_falls() -> None:
    told: list[tuple[str, float]] = []
    threads = set()

    def progress(phase: str, fraction: float) -> None:
        told.append((phase, fraction))
        threads.add(threading.current_thread())

    flavour = load_flavour("tensorrt_rtx")
    build_engine(product(), [profile()], Settings(), flavour, targets=["8.6"], progress=progress)
    fractions = [fraction for _, fraction in told]
    assert fractions == sorted(fractions)
    assert all(0 <= fraction <= 1 for fraction in fractions)
    assert all(phase for phase, _ in told)
    assert threads == {threading.current_thread()}


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """The processes that builds start."""
    started: list[subprocess.Popen[bytes]] = []
    start = subprocess.Popen

    def remember(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        started.append(start(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(process.subprocess, "Popen", remember)
    return started


def test_a_cancelled_build_leaves_no_process(workers: list[subprocess.Popen[bytes]]) -> None:
    cancelled = threading.Event()
    flavour = load_flavour("tensorrt_rtx")
    with pytest.raises(BuildError) as refused:
        build_engine(
            product(),
            [profile()],
            Settings(),
            flavour,
            targets=["8.6"],
            progress=lambda *_: cancelled.set(),
            cancelled=cancelled,
        )
    assert refused.value.code == "engine.cancelled"
    assert [worker.poll() is not None for worker in workers] == [True]


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Take Ctrl-C, which a run in the background inherits as ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupted_build_leaves_no_process(
    workers: list[subprocess.Popen[bytes]], interruptible: None
) -> None:
    with pytest.raises(KeyboardInterrupt):
        build_engine(
            product(),
            [profile()],
            Settings(),
            load_flavour("tensorrt_rtx"),
            targets=["8.6"],
            progress=lambda *_: _thread.interrupt_main(),
        )
    assert [worker.poll() is not None for worker in workers] == [True]


def test_a_worker_that_dies_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    say = "import os, sys; sys.stderr.write('no memory left\\n'); sys.stderr.flush(); os._exit(7)"
    start = subprocess.Popen
    monkeypatch.setattr(
        process.subprocess, "Popen", lambda _, **options: start([sys.executable, "-c", say], **options)
    )
    with pytest.raises(BuildError, match="exit status 7: no memory left") as refused:
        build(product())
    assert refused.value.code == "engine.build-failed"


def _request(**changes: Any) -> Request:
    facts = {"workspace_bytes": 1 << 30, "content_bytes": 8, "timing_cache_bytes": None, **changes}
    return Request(flavour="tensorrt_rtx", profiles=[], targets=["8.6"], types=[], **facts)


@pytest.fixture
def in_a_minute() -> Iterator[threading.Event]:
    """A cancel that ends a build which would never end."""
    cancelled = threading.Event()
    timer = threading.Timer(60, cancelled.set)
    timer.start()
    yield cancelled
    timer.cancel()


def test_what_cannot_be_said_is_raised_before_a_process_is_started(
    workers: list[subprocess.Popen[bytes]], in_a_minute: threading.Event
) -> None:
    with pytest.raises(OverflowError):
        process.build_in_process(_request(workspace_bytes=2**70), b"", b"", None, in_a_minute)
    assert workers == []


def test_what_cannot_be_asked_ends_the_build(
    workers: list[subprocess.Popen[bytes]], in_a_minute: threading.Event
) -> None:
    with pytest.raises(TypeError):
        process.build_in_process(_request(), "not bytes", b"", None, in_a_minute)  # type: ignore[arg-type]
    assert [worker.poll() is not None for worker in workers] == [True]


def test_a_worker_ends_with_the_process_that_started_it() -> None:
    command = [sys.executable, "-c", process._WORKER]
    path = os.pathsep.join(filter(None, sys.path))
    pipe = subprocess.PIPE
    environment = {**os.environ, "PYTHONPATH": path}
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment) as worker:
        assert worker.stdin is not None
        worker.stdin.close()
        assert worker.wait(timeout=60) != 0


def test_a_worker_takes_no_code_from_the_current_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("msgspec", "promptray", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        (tmp_path / f"{name}.py").write_text("open('run', 'w').close()", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    assert build(product()).plan
    assert not (tmp_path / "run").exists()


def test_what_the_worker_refuses_is_one_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A TensorRT that this process can import, and the other one cannot."""
    (tmp_path / "tensorrt.py").write_text("raise ImportError('libnvinfer.so.10: cannot open')", "utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(BuildError, match=r"\] tensorrt is installed but cannot be imp") as refused:
        build_engine(product(), [profile()], Settings(), Flavour("tensorrt", "tensorrt", "10.3.0"))
    assert (refused.value.code, refused.value.artefact) == ("engine.unavailable", "tensorrt")
    assert str(refused.value).count("Cure:") == 1


@pytest.mark.parametrize("error", [MemoryError(), OverflowError(), RuntimeError("of no kind that is known")])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_engine_that_cannot_be_taken_over_is_an_error(
    error: Exception, monkeypatch: pytest.MonkeyPatch, workers: list[subprocess.Popen[bytes]]
) -> None:
    def fails(*_: Any) -> bytes:
        raise error

    monkeypatch.setattr(process, "read_exactly", fails)
    monkeypatch.setattr(process, "_LAST", 0.1)
    cancelled = threading.Event()
    timer = threading.Timer(60, cancelled.set)  # so that a build without end fails here
    timer.start()
    with pytest.raises(BuildError) as refused:
        build_engine(
            product(),
            [profile()],
            Settings(),
            load_flavour("tensorrt_rtx"),
            targets=["8.6"],
            cancelled=cancelled,
        )
    timer.cancel()
    assert refused.value.code == "engine.build-failed"
    assert ("not enough memory" in refused.value.message) is isinstance(error, MemoryError)
    assert [worker.poll() is not None for worker in workers] == [True]


def test_a_listener_that_is_gone_ends_the_wait() -> None:
    gone = threading.Thread(target=lambda: None)
    gone.start()
    gone.join()
    assert process._wait(process.queue.Queue(), gone, None, None) is None


def test_a_tensorrt_that_is_not_here_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with monkeypatch.context() as absent:
        absent.setattr(flavour_module.importlib.util, "find_spec", lambda name: None)
        with pytest.raises(BuildError, match=r"tensorrt is not installed.*JetPack brings it") as refused:
            load_flavour("tensorrt")
    assert refused.value.code == "engine.unavailable"
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # the next source has the same second and size
    for source, words in (
        ("raise ImportError('libnvinfer.so.10: cannot open shared object file')", "libnvinfer.so.10"),
        ("__version__ = '8.5.3'", "8.5.3 is no version that .*8.6, or 10.3 or newer"),
        ("__version__ = '9.2.0'", "9.2.0 is no version that .*8.6, or 10.3 or newer"),
        ("__version__ = '10.2.0'", "10.2.0 is no version that .*8.6, or 10.3 or newer"),
        ("__version__ = 'of no kind'", "is no version that"),
    ):
        (tmp_path / "tensorrt.py").write_text(source, encoding="utf-8")
        importlib.invalidate_caches()
        monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
        with pytest.raises(BuildError, match=words):
            load_flavour("tensorrt")
        (tmp_path / "tensorrt.py").unlink()
        monkeypatch.delitem(sys.modules, "tensorrt", raising=False)


def test_no_heavy_library_is_imported_before_a_flavour_is_asked_for() -> None:
    say = "import sys; import promptray.export.tensorrt; print(*sys.modules)"
    path = os.pathsep.join(filter(None, sys.path))
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", say], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not {"torch", "onnx", "onnxruntime", "tensorrt_rtx_bindings"} & set(done.stdout.split())


@pytest.mark.parametrize(
    ("version", "typed"), [("8.6.1", False), ("9.2.0", False), ("10.3.0", True), ("11.4.0.106", True)]
)
def test_networks_are_typed_strongly_from_10_on(version: str, typed: bool) -> None:
    assert Flavour("tensorrt", "tensorrt", version).strongly_typed is typed


def test_nested_phases_are_one_number() -> None:
    told: list[Step] = []
    phases = Phases(lambda phase, fraction: told.append(Step(phase=phase, fraction=fraction)), interval=0)
    phases.start("whole", None, 2)
    phases.start("part", "whole", 4)
    for step in range(4):
        phases.step("part", step)
    phases.finish("part")
    phases.step("whole", 0)
    phases.start("part", "whole", 2)
    phases.step("part", 0)
    phases.step("unheard of", 0)
    assert [step.fraction for step in told] == [0, 0, 0.125, 0.25, 0.375, 0.5, 0.5, 0.5, 0.75]
    assert [step.phase for step in told][:3] == ["whole", "part", "part"]
