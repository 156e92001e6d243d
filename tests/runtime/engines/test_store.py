"""Engines of a site: found for this device only, and every difference is explained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from promptray.runtime.bundle import Bundle
from promptray.runtime.engines.facts import EngineSet, EngineSpeed, SourceGraph
from promptray.runtime.engines.plans import pack
from promptray.runtime.engines.settings import Range, Settings
from promptray.runtime.engines.store import EngineStore
from promptray.runtime.errors import PromptRayError
from promptray.runtime.site import Site
from tests import bundle_factory as factory
from tests.engine_factory import ADA, ORIN, VERSION, engine_set, gate

PLANS = {"image": b"image plan" * 9, f"head.{factory.HEAD}": b"head plan"}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return factory.write_plain(tmp_path_factory.mktemp("plain") / "plain.bundle")


@pytest.fixture
def site(bundle: Bundle, tmp_path: Path) -> Site:
    return Site.open(tmp_path, bundle.hash)


@pytest.fixture
def store(bundle: Bundle, site: Site) -> EngineStore:
    return EngineStore(site, bundle.manifest)


def made(bundle: Bundle, **changes: Any) -> EngineSet:
    return engine_set(bundle.manifest, PLANS, **changes)


def refused(code: str, store: EngineStore, *asked: Any, **more: Any) -> PromptRayError:
    with pytest.raises(PromptRayError) as caught:
        store.find(*(asked or ("tensorrt", VERSION, ORIN)), **more)
    assert caught.value.code == code, caught.value
    assert "promptray engine" in str(caught.value.cure)
    return caught.value


def test_a_set_is_found_again_with_its_plans(bundle: Bundle, store: EngineStore, tmp_path: Path) -> None:
    facts = made(bundle)
    store.add(facts, PLANS)
    again = EngineStore(Site.open(tmp_path, bundle.hash), bundle.manifest)
    found = again.find("tensorrt", VERSION, ORIN)
    assert found.facts == facts == again.sets[0]
    assert bytes(found.plan("head", factory.HEAD)) == PLANS[f"head.{factory.HEAD}"]
    assert bytes(found.plan("image")) == PLANS["image"]
    assert bytes(found.plan("image")) == PLANS["image"]  # read again, for it was let go of
    assert again.differing(facts, VERSION, ORIN) == []
    assert again.differing(facts, VERSION, ADA) == ["name", "compute capability", "multiprocessors"]
    assert again.differing(facts, "10.4", ORIN) == ["version of tensorrt"]


def test_engines_without_plans_are_only_facts(bundle: Bundle, store: EngineStore, site: Site) -> None:
    facts = made(bundle, backend="onnxruntime-cuda", bytes=0)
    store.add(facts, {})
    assert store.find("onnxruntime-cuda", VERSION, ORIN).facts == facts
    assert site.entries("engine")[0].payload is None


def test_the_same_set_again_takes_the_place_of_the_first(bundle: Bundle, store: EngineStore) -> None:
    store.add(made(bundle), PLANS)
    store.add(made(bundle, built="2026-02-01T00:00:00Z"), PLANS)
    (only,) = store.sets
    assert only.built.startswith("2026-02")


def test_of_several_that_fit_the_fastest_is_taken(bundle: Bundle, store: EngineStore) -> None:
    for milliseconds, workspace in ((3.0, 1 << 30), (2.0, 2 << 30), (4.0, 3 << 30)):
        speed = EngineSpeed(milliseconds=milliseconds)
        store.add(made(bundle, speed=speed, settings=Settings(workspace_bytes=workspace)), PLANS)
    found = store.find("tensorrt", VERSION, ORIN).facts.speed
    assert found is not None
    assert found.milliseconds == 2.0
    assert store.find(
        "tensorrt", VERSION, ORIN, settings=Settings(workspace_bytes=3 << 30)
    ).facts.speed == EngineSpeed(milliseconds=4.0)


# What is not there


def test_none_at_all(bundle: Bundle, store: EngineStore) -> None:
    error = refused("engine.missing", store)
    assert ORIN.name in str(error.expected)
    assert refused("engine.missing", EngineStore(None, bundle.manifest)).found == "none"
    store.add(made(bundle, backend="tensorrt_rtx"), PLANS)
    assert "--backend tensorrt`" in str(refused("engine.missing", store).cure)


def test_of_another_version(bundle: Bundle, store: EngineStore) -> None:
    store.add(made(bundle, version="10.16.1"), PLANS)
    error = refused("engine.stale", store)
    assert (error.expected, error.found) == ("version of tensorrt 10.3.0", "version of tensorrt 10.16.1")


def test_of_another_gpu(bundle: Bundle, store: EngineStore) -> None:
    store.add(made(bundle, device=ADA), PLANS)
    error = refused("engine.foreign", store)
    assert error.expected == "name Orin; compute capability 8.7; multiprocessors 8"
    assert "compute capability 8.9" in str(error.found)
    fewer = msgspec.structs.replace(ORIN, multiprocessors=16)  # the same name with more of it
    assert refused("engine.foreign", store, "tensorrt", VERSION, fewer).code == "engine.foreign"


def test_of_other_graphs(bundle: Bundle, store: EngineStore) -> None:
    own = made(bundle).graphs
    changed = SourceGraph(role="image", head=None, file=own[0].file, sha256="e" * 64, precision="fp32")
    store.add(made(bundle, graphs=[changed, *own[1:]]), PLANS)
    error = refused("engine.stale", store)
    assert own[0].sha256 in str(error.expected)
    assert "e" * 64 in str(error.found)
    store.remove(store.sets[0].key)
    gone = msgspec.structs.replace(changed, file="engines/image/fp16-20.onnx")
    store.add(made(bundle, graphs=[gone, *own[1:]]), PLANS)
    assert "no such graph" in str(refused("engine.stale", store).expected)


def test_with_other_settings(bundle: Bundle, store: EngineStore) -> None:
    store.add(made(bundle), PLANS)
    wanted = Settings(images=Range(tuned=4, most=16))
    error = refused("engine.stale", store, settings=wanted)
    assert "'tuned': 4" in str(error.expected)
    assert "'tuned': 1" in str(error.found)


def test_in_a_precision_that_the_bundle_has_no_graphs_of(bundle: Bundle, store: EngineStore) -> None:
    store.add(made(bundle), PLANS)
    assert store.find("tensorrt", VERSION, ORIN, precision="fp32").facts.precision == "fp32"
    with pytest.raises(PromptRayError, match="fp32") as caught:
        store.find("tensorrt", VERSION, ORIN, precision="int8-qdq")
    assert caught.value.code == "engine.source"


def test_the_nearest_set_is_the_one_that_is_explained(bundle: Bundle, store: EngineStore) -> None:
    store.add(made(bundle, device=ADA, version="8.6.1"), PLANS)
    store.add(made(bundle, version="10.16.1"), PLANS)
    error = refused("engine.stale", store)
    assert error.found == "version of tensorrt 10.16.1"


def test_removing(bundle: Bundle, store: EngineStore) -> None:
    store.add(made(bundle), PLANS)
    key = store.sets[0].key
    store.remove(key)
    assert store.sets == ()
    with pytest.raises(PromptRayError, match="--list") as caught:
        store.remove(key)
    assert caught.value.code == "engine.missing"


# What was changed


def corrupt(action: Any) -> PromptRayError:
    with pytest.raises(PromptRayError) as caught:
        action()
    assert caught.value.code == "site.corrupt", caught.value
    assert "promptray engine BUNDLE --remove" in str(caught.value.cure)
    return caught.value


def test_a_flipped_byte_of_a_plan(bundle: Bundle, store: EngineStore, site: Site) -> None:
    store.add(made(bundle), PLANS)
    (path,) = (site.folder / "entries").iterdir()
    content = path.read_bytes()
    for place in (0, 9, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        found = store.find("tensorrt", VERSION, ORIN)
        corrupt(lambda found=found: found.plan("image"))
    path.unlink()
    corrupt(lambda: store.find("tensorrt", VERSION, ORIN).plan("image"))


@pytest.mark.parametrize(
    "payload",
    [
        b"no plans",
        pack({"image": b"x" * 99}),
        pack({**PLANS, "head.other": b"x"}),
        pack({**PLANS, "image": b"y"}),
    ],
    ids=["no file of plans", "half a set", "one too many", "another size"],
)
def test_a_payload_that_is_hashed_but_wrong(
    bundle: Bundle, store: EngineStore, site: Site, payload: bytes
) -> None:
    facts = made(bundle)
    site.add("engine", "", facts.key, payload, msgspec.to_builtins(facts))
    corrupt(lambda: store.find("tensorrt", VERSION, ORIN).plan("image"))


def _broken(facts: dict[str, Any], where: str, value: object) -> dict[str, Any]:
    copied: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(facts))
    place: Any = copied
    *path, last = [int(each) if each.isdigit() else each for each in where.split(".")]
    for each in path:
        place = place[each]
    place[last] = value
    return copied


@pytest.mark.parametrize(
    ("where", "value", "said"),
    [
        ("format_version", 2, "facts"),
        ("backend", "onnxruntime-cpu", "facts"),
        ("more", 1, "facts"),
        ("device.compute_capability", "87", "facts"),
        ("device.name", "Another", "key"),
        ("version", "10.4", "key"),
        ("settings.workspace_bytes", 1, "key"),
        ("bytes", 0, "bytes of plans"),
        ("gate.heads.0.score_error", 1.0, "gate"),
        ("gate.heads.0.map_error", 1.0, "gate"),
        ("gate.heads.0.head", "other", "other heads"),
        ("gate.heads", [], "facts"),
        ("gate", None, "facts"),
    ],
)  # fmt: skip
def test_facts_that_are_hashed_but_wrong(
    bundle: Bundle, store: EngineStore, site: Site, where: str, value: object, said: str
) -> None:
    """No gate, no load: whoever wrote them."""
    facts = made(bundle)
    site.add("engine", "", facts.key, pack(PLANS), _broken(msgspec.to_builtins(facts), where, value))
    error = corrupt(lambda: store.find("tensorrt", VERSION, ORIN))
    assert said in error.message
    store.remove(facts.key)  # the cure works
    assert store.sets == ()


def test_a_gate_that_was_not_passed_is_told_by_its_own_numbers(bundle: Bundle) -> None:
    passed = gate(bundle.manifest).heads[0]
    assert passed.passed
    assert not msgspec.structs.replace(passed, score_error=float("nan")).passed
    assert not msgspec.structs.replace(passed, map_error=0.5).passed
