"""From a bundle to a gated set of engines: what passes is stored whole, anything else leaves nothing."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from promptray.calibrate.engines.build import Asked, Outcome, build_set
from promptray.runtime.bundle import Bundle
from promptray.runtime.engines.settings import Range, Settings
from promptray.runtime.engines.store import EngineStore
from promptray.runtime.errors import PromptRayError
from promptray.runtime.site import Site
from tests.engine_bundle import HEAD, CpuLibrary, WrongLibrary, disturbed, timed, write_with_sources
from tests.engine_factory import ADA


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_with_sources(tmp_path_factory.mktemp("sources") / "mini.bundle", "fp16", "int8-qdq")


@pytest.fixture
def store(bundle: Bundle, tmp_path: Path) -> EngineStore:
    return EngineStore(Site.open(tmp_path, bundle.hash), bundle.manifest)


@pytest.fixture
def library() -> CpuLibrary:
    return CpuLibrary()


def built(bundle: Bundle, store: EngineStore, library: CpuLibrary, **asked: Any) -> Outcome:
    measure = asked.pop("measure", timed(own=1.0, fp16=2.0))
    cancelled = asked.pop("cancelled", None)
    return build_set(
        bundle, store, library, Asked(**asked), progress=lambda *_: None, cancelled=cancelled, measure=measure
    )


def refused(code: str, *arguments: Any, **asked: Any) -> PromptRayError:
    with pytest.raises(PromptRayError) as caught:
        built(*arguments, **asked)
    assert caught.value.code == code, caught.value
    assert caught.value.cure
    return caught.value


def test_a_set_is_compiled_gated_and_stored(bundle: Bundle, store: EngineStore, library: CpuLibrary) -> None:
    outcome = built(bundle, store, library, precision="fp32")
    assert (outcome.plans, outcome.gated) == ("compiled", True)
    assert library.compiled == ["graphs/image/fp32-20.onnx", f"graphs/head/{HEAD}/fp32-20.onnx"]
    facts = outcome.facts
    assert store.sets == (facts,)
    assert (facts.precision, facts.gate.title, facts.gate.pictures) == ("fp32", "golden", 16)
    (head,) = facts.gate.heads
    assert head.score_tolerance == pytest.approx(10 * bundle.manifest.heads[0].score_tolerance)
    assert head.score_error < head.score_tolerance
    assert facts.speed is not None
    assert (facts.speed.milliseconds, facts.speed.beside) == (1.0, None)
    found = store.find("tensorrt", library.version, library.device)
    assert bytes(found.plan("image")) == bundle.read("graphs/image/fp32-20.onnx")
    assert facts.bytes == len(found.plan("head", HEAD)) + len(bundle.read("graphs/image/fp32-20.onnx"))


def test_a_set_that_is_there_is_not_built_again(
    bundle: Bundle, store: EngineStore, library: CpuLibrary
) -> None:
    first = built(bundle, store, library, precision="fp16")
    library.compiled.clear()
    again = built(bundle, store, library, precision="fp16")
    assert (again.facts, again.gated, library.compiled) == (first.facts, False, [])
    rebuilt = built(bundle, store, library, precision="fp16", rebuild=True)
    assert rebuilt.gated
    assert len(library.compiled) == 2
    assert len(store.sets) == 1


def test_other_settings_or_another_gpu_are_another_set(
    bundle: Bundle, store: EngineStore, library: CpuLibrary
) -> None:
    built(bundle, store, library, precision="fp16")
    built(bundle, store, library, precision="fp16", settings=Settings(images=Range(tuned=2, most=2)))
    built(bundle, store, CpuLibrary(device=ADA), precision="fp16")
    assert len(store.sets) == 3


def test_the_wider_type_counts_where_one_graph_is_narrower(
    bundle: Bundle, store: EngineStore, library: CpuLibrary
) -> None:
    """Image fp16, head fp32: its tolerance is a share of what a finding's golden scores differ by."""
    facts = built(bundle, store, library, precision="fp16").facts
    assert facts.precision == f"image fp16, head {HEAD} fp32"
    (head,) = facts.gate.heads
    assert head.score_tolerance > 10 * bundle.manifest.heads[0].score_tolerance
    assert head.map_tolerance == 0.1
    assert head.score_error > 0


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_disturbed_weights_are_refused_by_the_golden_gate(
    bundle: Bundle, store: EngineStore, precision: str
) -> None:
    wrong = CpuLibrary(spoil=lambda content: disturbed(content, 0.3))
    error = refused("gate.failed", bundle, store, wrong, precision=precision)
    assert HEAD in str(error.found)
    assert ADA.name not in str(error.artefact)
    assert store.sets == ()


def test_an_engine_that_is_wrong_for_several_images_is_refused(bundle: Bundle, store: EngineStore) -> None:
    """Alone they are right: a call of several is held, too."""

    swapped = WrongLibrary(lambda pixels, scores: scores[::-1].copy())
    refused("gate.failed", bundle, store, swapped, precision="fp32")
    assert store.sets == ()
    one_at_a_time = Settings(images=Range(tuned=1, most=1))  # there is nothing to mix up
    built(bundle, store, swapped, precision="fp32", settings=one_at_a_time)


@pytest.mark.parametrize(("size", "most"), [(2, 8), (4, 8), (6, 8), (32, 32)])
def test_an_engine_that_is_wrong_in_one_size_of_a_call_is_refused(
    bundle: Bundle, store: EngineStore, size: int, most: int
) -> None:
    """Also in one that more images fill than there are golden pictures."""
    swapped = WrongLibrary(lambda pixels, scores: scores[::-1].copy() if len(scores) == size else scores)
    refused(
        "gate.failed",
        bundle,
        store,
        swapped,
        precision="fp32",
        settings=Settings(images=Range(tuned=min(6, most), most=most)),
    )
    assert store.sets == ()


def test_not_a_number_is_refused(bundle: Bundle, store: EngineStore) -> None:
    wrong = CpuLibrary(spoil=lambda content: disturbed(content, float("nan")))
    refused("score.not-finite", bundle, store, wrong, precision="fp32")
    assert store.sets == ()


def test_a_quantised_set_must_be_faster_than_fp16(
    bundle: Bundle, store: EngineStore, library: CpuLibrary
) -> None:
    error = refused("engine.missing", bundle, store, library)  # the narrowest: int8
    assert "--precision fp16" in str(error.cure)
    assert library.compiled == []  # found before the long build
    built(bundle, store, library, precision="fp16")
    for own in (2.0, 1.95):  # the same, and faster in the middle but not in three rounds of four
        slow = refused("gate.failed", bundle, store, library, measure=timed(own=own, fp16=2.0))
        assert "not faster" in slow.message
    assert [each.precision for each in store.sets] == [f"image fp16, head {HEAD} fp32"]
    facts = built(bundle, store, library, measure=timed(own=1.0, fp16=2.0)).facts
    assert facts.precision == f"image int8-qdq, head {HEAD} fp32"
    assert facts.speed is not None
    assert (facts.speed.beside, facts.speed.ratio) == ("fp16", 0.5)
    assert store.find("tensorrt", library.version, library.device).facts == facts


def test_engines_that_are_not_kept_are_gated_all_the_same(bundle: Bundle, store: EngineStore) -> None:
    library = CpuLibrary(backend="onnxruntime-cuda", keeps_plans=False)
    facts = built(bundle, store, library, precision="fp32").facts
    assert (facts.bytes, library.compiled) == (0, [])
    assert store.find("onnxruntime-cuda", library.version, library.device).all_plans() == {}


def test_a_site_that_cannot_be_written_is_refused_before_the_build(
    bundle: Bundle, library: CpuLibrary, tmp_path: Path
) -> None:
    readonly = EngineStore(Site.open(tmp_path, bundle.hash, readonly=True), bundle.manifest)
    refused("site.unwritable", bundle, readonly, library, precision="fp32")
    assert library.compiled == []


def test_a_cancelled_build_stores_nothing(bundle: Bundle, store: EngineStore, library: CpuLibrary) -> None:
    cancelled = threading.Event()
    cancelled.set()
    refused("engine.cancelled", bundle, store, library, precision="fp32", cancelled=cancelled)
    assert store.sets == ()
    assert store._site is not None
    assert not store._site.folder.exists()


def test_every_head_of_a_bundle_is_gated(asg_both_bundle: Path, tmp_path: Path) -> None:
    """One with maps and one without; a fixed set goes whole."""
    both = Bundle.open(asg_both_bundle)
    store = EngineStore(Site.open(tmp_path, both.hash), both.manifest)
    facts = built(both, store, CpuLibrary()).facts
    assert [each.head for each in facts.gate.heads] == [head.name for head in both.manifest.heads]
    assert [each.map_error is None for each in facts.gate.heads] == [
        head.map is None for head in both.manifest.heads
    ]
    assert len(facts.graphs) == 3
