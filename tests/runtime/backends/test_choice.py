"""Which backend scores: never another than the one asked for, and "auto" says why."""

from __future__ import annotations

from pathlib import Path

import pytest

from promptray.runtime.backends import NAMES, GpuOptions, load_backend
from promptray.runtime.bundle import Bundle
from promptray.runtime.scorer import Scorer
from tests.fake_cuda import Gpu
from tests.fake_tensorrt import simulated_tensorrt
from tests.runtime.backends.test_tensorrt import error_of
from tests.simulated_engines import store_engines


def opened(bundle: Bundle, site: Path | None, backend: str = "auto") -> tuple[str, str]:
    with Scorer.open(bundle.path, site=site, backend=backend, threads=1) as scorer:
        return scorer.backend.name, scorer.backend.reason


def test_auto_takes_engines_that_are_for_this_device(miniature: Bundle, site: Path) -> None:
    with simulated_tensorrt() as (gpu, _):
        assert opened(miniature, site)[0] == "onnxruntime-cpu", "there are none yet"
        store_engines(miniature, site, gpu)
        name, reason = opened(miniature, site)
        assert name == "tensorrt"
        assert "engines that passed their gate on this device" in reason
        assert opened(miniature, site, "onnxruntime-cpu") == ("onnxruntime-cpu", "asked for by the caller")
        assert opened(miniature, None)[0] == "onnxruntime-cpu"
        gpu.assert_clean()


def test_auto_says_why_it_passes_engines_over(miniature: Bundle, site: Path) -> None:
    store_engines(miniature, site, Gpu("Orin", (8, 7), 8))
    name, reason = opened(miniature, site)
    assert name == "onnxruntime-cpu"
    assert "the engines for tensorrt are not for this machine (backend.unavailable)" in reason
    with simulated_tensorrt():
        assert "(engine.foreign)" in opened(miniature, site)[1]


def test_auto_is_no_excuse_for_a_fault(miniature: Bundle, site: Path) -> None:
    with simulated_tensorrt() as (gpu, _):
        store_engines(miniature, site, gpu)
        gpu.refuse_allocation(5)
        error = error_of(lambda: opened(miniature, site))
        assert error
        assert error.code == "backend.out-of-memory"


@pytest.mark.parametrize("options", [None, GpuOptions(), GpuOptions(streams=1, cuda_graphs=True)])
def test_engines_that_were_gated_without_cuda_graphs_run_without(
    miniature: Bundle, site: Path, options: GpuOptions | None
) -> None:
    with simulated_tensorrt() as (gpu, _):
        store_engines(miniature, site, gpu, cuda_graphs=False)
        gpu.refuses_capture = True
        with Scorer.open(miniature.path, site=site, backend="tensorrt", gpu=options) as scorer:
            assert scorer.check_golden().pictures == 16
        assert gpu.calls["cudaGraphLaunch"] == 0
        gpu.assert_clean()


def test_engines_of_another_version_or_gpu_are_explained(miniature: Bundle, site: Path) -> None:
    store_engines(miniature, site, Gpu())
    with simulated_tensorrt(version="10.16.1"):
        stale = error_of(lambda: opened(miniature, site, "tensorrt"))
    with simulated_tensorrt(Gpu("Another GPU", (9, 0), 132)):
        foreign = error_of(lambda: opened(miniature, site, "tensorrt"))
    with simulated_tensorrt():
        missing = error_of(lambda: opened(miniature, None, "tensorrt"))
    for error, code, found in (
        (stale, "engine.stale", "10.3.0"),
        (foreign, "engine.foreign", "Simulated GPU"),
        (missing, "engine.missing", "none"),
    ):
        assert error
        assert error.code == code
        assert found in str(error.found)


@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt_rtx"])
def test_without_its_library_or_a_gpu_it_is_unavailable(
    miniature: Bundle, site: Path, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    for name in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    error = error_of(lambda: opened(miniature, site, backend))
    assert error
    assert error.code == "backend.unavailable"
    assert error.artefact == backend


def test_a_gpu_that_does_not_answer_is_none(miniature: Bundle, site: Path) -> None:
    lost = Gpu()
    lost.lose_device(0)
    with simulated_tensorrt(lost):
        error = error_of(lambda: opened(miniature, site, "tensorrt"))
    assert error
    assert error.code == "backend.unavailable"
    assert "cudaErrorLaunchFailure (719)" in str(error.found)
    assert "driver" in str(error.cure)


def test_options_of_a_gpu_are_of_no_use_to_the_host(miniature: Bundle) -> None:
    with pytest.raises(ValueError, match="gpu options"):
        Scorer.open(miniature.path, site=None, backend="onnxruntime-cpu", gpu=GpuOptions())


def test_names_are_those_of_the_documents() -> None:
    assert NAMES == ("onnxruntime-cpu", "openvino", "tensorrt", "tensorrt_rtx", "onnxruntime-cuda")
    with pytest.raises(ValueError, match="runs engines"):
        load_backend("tensorrt")


def test_engines_without_a_gate_score_nothing(miniature: Bundle) -> None:
    """A set that is being gated can be run, but no result can be made with it."""
    from promptray.runtime.backend_facts import backend_facts
    from promptray.runtime.backends.choice import open_engines
    from promptray.runtime.engines.facts import EngineFacts
    from tests.engine_factory import engine_set
    from tests.simulated_engines import device_of, plans_of

    with simulated_tensorrt() as (gpu, _):
        plans = plans_of(miniature, gpu)
        gated = engine_set(miniature.manifest, plans, device=device_of(gpu))
        facts = EngineFacts(**{name: getattr(gated, name) for name in EngineFacts.__struct_fields__})

        class Candidate:
            def __init__(self) -> None:
                self.facts = facts

            def plan(self, role: str, head: str | None = None) -> bytes:
                return plans[role if head is None else f"{role}.{head}"]

        backend = open_engines(Candidate())
        with pytest.raises(TypeError, match="no gate"):
            backend_facts(miniature.manifest, backend, "")
        backend.close()
        gpu.assert_clean()
