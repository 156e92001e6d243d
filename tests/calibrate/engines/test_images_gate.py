"""The gates on images, against the fp32 graphs on the CPU: what is not passed is not stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image

from promptray.calibrate.engines.build import Asked, Outcome, build_set
from promptray.calibrate.engines.images_gate import kind_of
from promptray.calibrate.engines.original import original
from promptray.calibrate.gates.on_images import as_document
from promptray.calibrate.gates.report import GateReport
from promptray.calibrate.image_set import ImageSet
from promptray.calibrate.pipeline.recipe import ImagesRecipe
from promptray.export.stage_cache import StageCache
from promptray.runtime.bundle import Bundle
from promptray.runtime.engines.store import EngineStore
from promptray.runtime.errors import PromptRayError
from promptray.runtime.golden import read_golden
from promptray.runtime.graphs import Graphs
from promptray.runtime.preprocess import normalise
from promptray.runtime.site import Site
from tests.engine_bundle import HEAD, CpuLibrary, WrongLibrary, timed, write_with_sources

IMAGES = 320  # fewer are inconclusive about flips


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_with_sources(tmp_path_factory.mktemp("sources") / "mini.bundle", "fp16")


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    random = np.random.default_rng(4)
    for number in range(IMAGES):
        Image.fromarray(random.integers(0, 256, (40, 40), np.uint8)).save(folder / f"{number:03}.png")
    return folder


def image_set(bundle: Bundle, films: Path, cache: Path, names: slice | None = None) -> ImageSet:
    manifest, labels = bundle.manifest, None
    if names is not None:
        labels = "some.csv"
        rows = [path.name for path in sorted(films.glob("*.png"))[names]]
        (films / labels).write_text("\n".join(["file", *rows]) + "\n", encoding="utf-8")
    return ImageSet(
        "images", ImagesRecipe(images=".", labels=labels, source="noise"), films, set(),
        door=manifest.door, preprocessing=manifest.preprocessing, stages=StageCache(cache),
        progress=lambda *_: None,
    )  # fmt: skip


@pytest.fixture
def store(bundle: Bundle, tmp_path: Path) -> EngineStore:
    return EngineStore(Site.open(tmp_path, bundle.hash), bundle.manifest)


def built(
    bundle: Bundle, store: EngineStore, images: ImageSet, said: dict[str, GateReport], **changes: Any
) -> Outcome:
    library = changes.pop("library", None) or CpuLibrary()
    return build_set(
        bundle, store, library, Asked(images=images, **changes),
        progress=lambda *_: None, reported=said.update, measure=timed(own=1.0),
    )  # fmt: skip


def test_engines_that_agree_are_stored_with_both_gates(
    bundle: Bundle, store: EngineStore, films: Path, tmp_path: Path
) -> None:
    (films / "some.csv").unlink(missing_ok=True)
    images, said = image_set(bundle, films, tmp_path / "cache", slice(None)), {}
    outcome = built(bundle, store, images, said)
    facts = store.sets[0]
    assert facts.gate.images is not None
    assert facts.gate.title == f"images({IMAGES}, {images.facts.sha256[:12]})"
    assert outcome.reports == said
    (report,) = said.values()
    assert report.verdict == "passed"
    assert {gate.name for gate in report.gates} >= {"flips", "spearman", "max_delta", "batch_delta"}
    assert report.candidate.name.startswith("tensorrt 10.3.0 image fp16")
    assert msgspec.json.decode(as_document(report), type=GateReport) == report


def test_a_gate_makes_its_chain_once(
    bundle: Bundle, store: EngineStore, films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chain of engines has contexts and memory of its own for every shape: not anew for every 64 images."""
    made: list[Graphs] = []
    chain = Graphs.chain

    def counted(graphs: Graphs, heads: Any) -> Any:
        made.append(graphs)
        return chain(graphs, heads)

    monkeypatch.setattr(Graphs, "chain", counted)
    (films / "some.csv").unlink(missing_ok=True)
    built(bundle, store, image_set(bundle, films, tmp_path / "cache", slice(None)), {})
    engines = made[0]
    assert [graphs is engines for graphs in made] == [True, False, True, True], "golden, CPU, images, speed"


def test_engines_that_are_there_are_gated_on_images_without_a_build(
    bundle: Bundle, store: EngineStore, films: Path, tmp_path: Path
) -> None:
    library = CpuLibrary()
    build_set(bundle, store, library, Asked(), progress=lambda *_: None, measure=timed(own=1.0))
    assert store.sets[0].gate.images is None
    library.compiled.clear()
    images = image_set(bundle, films, tmp_path / "cache", slice(None))
    outcome = built(bundle, store, images, {}, library=library)
    assert (outcome.plans, outcome.gated, library.compiled) == ("of the site", True, [])
    assert [each.gate.images is not None for each in store.sets] == [True]
    assert bytes(store.opened(store.sets[0]).plan("image"))


def test_too_few_images_are_inconclusive_and_nothing_is_stored(
    bundle: Bundle, store: EngineStore, films: Path, tmp_path: Path
) -> None:
    images, said = image_set(bundle, films, tmp_path / "cache", slice(20)), {}
    with pytest.raises(PromptRayError) as caught:
        built(bundle, store, images, said)
    assert caught.value.code == "gate.inconclusive"
    assert "flip" in str(caught.value.found)
    assert "leave --images out" in str(caught.value.cure)
    assert said[HEAD].verdict == "inconclusive"  # the report is there all the same
    assert store.sets == ()


def right_on_golden(bundle: Bundle) -> WrongLibrary:
    """Engines that are right on the pictures that everybody has, and no others."""
    pictures = normalise(read_golden(bundle).pictures, bundle.manifest.preprocessing)
    known = {picture.tobytes() for picture in pictures}

    def wrong_elsewhere(pixels: Any, scores: Any) -> Any:
        sign = np.array([1 if picture.tobytes() in known else -1 for picture in pixels], np.float32)
        return scores * sign.reshape(-1, *[1] * (scores.ndim - 1))

    return WrongLibrary(wrong_elsewhere)


def test_engines_that_disagree_on_images_are_refused_though_golden_pictures_pass(
    bundle: Bundle, store: EngineStore, films: Path, tmp_path: Path
) -> None:
    images, said = image_set(bundle, films, tmp_path / "cache", slice(None)), {}
    with pytest.raises(PromptRayError) as caught:
        built(bundle, store, images, said, library=right_on_golden(bundle))
    assert caught.value.code == "gate.failed"
    assert "rank correlation" in str(caught.value.found)
    assert said[HEAD].verdict == "refused"
    assert store.sets == ()


def test_the_bounds_are_those_of_the_narrowest_graph(bundle: Bundle, store: EngineStore) -> None:
    facts = build_set(
        bundle, store, CpuLibrary(), Asked(), progress=lambda *_: None, measure=timed(own=1.0)
    ).facts
    assert kind_of(facts) == "fp16"
    quantised = msgspec.structs.replace(facts.graphs[0], precision="int8-qdq")
    assert kind_of(msgspec.structs.replace(facts, graphs=[quantised, *facts.graphs[1:]])) == "int8"


def test_without_fp32_graphs_there_is_no_original(bundle: Bundle) -> None:
    manifest = bundle.manifest
    graphs = [msgspec.structs.replace(each, precision="int8-qdq") for each in manifest.graphs]
    without = Bundle(bundle.path, msgspec.structs.replace(manifest, graphs=graphs), bundle.hash)
    with pytest.raises(PromptRayError) as caught:
        original(without)
    assert caught.value.code == "gate.images"
    assert "image" in str(caught.value.found)
