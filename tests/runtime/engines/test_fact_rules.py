"""A site's index is hashed, not signed: what facts claim is held against the bundle before they are used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from promptray.runtime.bundle import Bundle
from promptray.runtime.bundle.manifest import Manifest
from promptray.runtime.engines.bounds import FACTOR
from promptray.runtime.engines.fact_rules import fault_of
from promptray.runtime.engines.facts import EngineSet, EngineSpeed
from promptray.runtime.engines.sources import facts_of, precision_of, prepare_source, sources
from promptray.runtime.errors import BundleError
from promptray.runtime.gated_answers import widest
from promptray.runtime.golden import read_golden
from promptray.runtime.scorer import Scorer
from tests.engine_bundle import write_with_sources
from tests.engine_factory import ORIN, VERSION, engine_set, gate, prepare_gate
from tests.fake_tensorrt import simulated_tensorrt
from tests.prepare_bundle import write_with_prepare
from tests.simulated_engines import store_engines, store_preparing_engines

QUANTISED = EngineSpeed(milliseconds=1.0, beside="fp16", ratio=0.6, quartiles=(0.5, 0.7))


@pytest.fixture(scope="module")
def preparing(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_with_prepare(tmp_path_factory.mktemp("prepare"))


@pytest.fixture(scope="module")
def typed(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_with_sources(tmp_path_factory.mktemp("typed") / "typed.bundle", "fp16", "int8-qdq")


def preparing_set(manifest: Manifest) -> EngineSet:
    plain = engine_set(manifest, {"image": b"x"}, gate=gate(manifest, prepare=prepare_gate(manifest)))
    prepare = prepare_source(manifest, "tensorrt", VERSION, ORIN)
    assert prepare
    return msgspec.structs.replace(plain, graphs=[*plain.graphs, prepare])


def quantised_set(manifest: Manifest) -> EngineSet:
    graphs = sources(manifest, "tensorrt", VERSION, "int8-qdq")
    stated = {"graphs": facts_of(graphs, manifest), "precision": precision_of(graphs), "speed": QUANTISED}
    return engine_set(manifest, {"image": b"x"}, **stated)


def changed(facts: EngineSet, *edits: tuple[str, object]) -> EngineSet:
    """The facts with other values at these places."""
    document: Any = msgspec.to_builtins(facts)
    for where, value in edits:
        *path, last = [int(each) if each.isdigit() else each for each in where.split(".")]
        place = document
        for each in path:
            place = place[each]
        place[last] = value
    return msgspec.convert(document, EngineSet)


HEAD = "gate.heads.0"
OF_PREPARE = "gate.prepare.heads.0"


@pytest.mark.parametrize(
    ("said", "edits"),
    [
        ("let scores of chest be 1e+300 off", [(f"{HEAD}.score_tolerance", 1e300)]),
        ("let scores", [(f"{HEAD}.score_tolerance", 0.01)]),
        ("let maps", [(f"{HEAD}.map_tolerance", 0.1)]),
        ("with maps", [(f"{HEAD}.map_error", None), (f"{HEAD}.map_tolerance", None)]),
        ("with maps", [(f"{HEAD}.map_tolerance", None)]),
        ("did not pass its gate", [(f"{HEAD}.score_error", -1.0)]),
        ("did not pass its gate", [(f"{HEAD}.map_error", -1.0)]),
        ("did not pass its gate", [(f"{HEAD}.score_error", 0.001)]),
        ("other heads", [(f"{HEAD}.head", "other")]),
        ("on 1 golden pictures of 16", [("gate.pictures", 1)]),
        ("on 17 golden pictures of 16", [("gate.pictures", 17)]),
        ("precision is fp32, and it says int8-qdq", [("precision", "int8-qdq")]),
        ("in another precision", [("graphs.0.precision", "fp16"), ("precision", "image fp16, head fp32")]),
        ("its graphs are", [("graphs.1.role", "image"), ("graphs.1.head", None)]),
        ("its graphs are", [("graphs.1.head", "other")]),
        ("its graphs are", [("graphs.2.role", "head"), ("graphs.2.head", "chest")]),
        ("passed no gate", [("gate.prepare", None)]),
        ("prepares images was held for other heads", [(f"{OF_PREPARE}.head", "other")]),
        ("did not pass the gate of its engine", [(f"{OF_PREPARE}.score_error", -1.0)]),
        ("let maps of chest be 0.2 off", [(f"{OF_PREPARE}.map_tolerance", 0.2)]),
        ("with maps", [(f"{OF_PREPARE}.map_error", None), (f"{OF_PREPARE}.map_tolerance", None)]),
        ("on 1 golden pictures", [("gate.prepare.pictures", 1)]),
        ("grey levels", [("gate.prepare.level_tolerance", 1e9)]),
        ("grey levels", [("gate.prepare.level_error", 1e8), ("gate.prepare.level_tolerance", 1e9)]),
        ("grey levels", [("gate.prepare.level_error", -1.0)]),
        ("times", [("speed.milliseconds", -1.0)]),
        ("times", [("speed.beside", "fp16")]),
        ("times", [("speed.beside", "fp16"), ("speed.ratio", 0.5)]),
    ],
)  # fmt: skip
def test_what_no_builder_writes_is_a_fault(
    preparing: Bundle, said: str, edits: list[tuple[str, object]]
) -> None:
    facts = preparing_set(preparing.manifest)
    assert fault_of(facts, preparing.manifest) is None
    fault = fault_of(changed(facts, *edits), preparing.manifest)
    assert fault is not None
    assert said in fault


@pytest.mark.parametrize(
    ("said", "edits"),
    [
        ("not faster than engines in fp16", [("speed.ratio", 1.2), ("speed.quartiles", [0.9, 1.3])]),
        ("not faster", [("speed.quartiles", [0.5, 1.0])]),
        ("times", [("speed.quartiles", [0.7, 0.5])]),
        ("not timed beside", [("speed", {"milliseconds": 1.0})]),
        ("not timed beside", [("speed", None)]),
        ("not timed beside", [("speed.beside", "fp32")]),
        ("let maps of chest be 0.2 off", [(f"{HEAD}.map_tolerance", 0.2)]),
    ],
)
def test_a_quantised_set_says_that_it_is_faster(
    typed: Bundle, said: str, edits: list[tuple[str, object]]
) -> None:
    facts = quantised_set(typed.manifest)
    assert fault_of(facts, typed.manifest) is None
    fault = fault_of(changed(facts, *edits), typed.manifest)
    assert fault is not None
    assert said in fault


def test_a_bound_as_wide_as_a_builder_has_it_is_none(preparing: Bundle, typed: Bundle) -> None:
    """Of fp32 the head's own, ten times; of narrower types what only the golden scores tell."""
    head = preparing.manifest.heads[0]
    at = (f"{HEAD}.score_tolerance", FACTOR * head.score_tolerance)
    assert fault_of(changed(preparing_set(preparing.manifest), at), preparing.manifest) is None
    wide = changed(quantised_set(typed.manifest), (f"{HEAD}.score_tolerance", 0.5))
    assert fault_of(wide, typed.manifest) is None


def test_engines_with_a_bound_that_no_golden_score_could_break_are_not_opened(
    typed: Bundle, preparing: Bundle, tmp_path: Path
) -> None:
    """What the facts alone do not show: bounds of narrower types are shares of the golden scores."""
    with simulated_tensorrt() as (gpu, _):
        manifest, (golden,) = typed.manifest, read_golden(typed).answers.values()
        most = widest(golden, golden)
        graphs = sources(manifest, "tensorrt", VERSION, "fp16")
        plain = gate(manifest)
        for share, refused in ((1.0, False), (1.001, True), (1e9, True)):
            heads = [msgspec.structs.replace(each, score_tolerance=share * most) for each in plain.heads]
            stated = {"graphs": facts_of(graphs, manifest), "precision": precision_of(graphs)}
            gated = msgspec.structs.replace(plain, heads=heads)
            store_engines(typed, tmp_path, gpu, gate=gated, **stated)
            assert opened(typed, tmp_path) == ("site.corrupt" if refused else "fine")
        facts = store_preparing_engines(preparing, tmp_path, gpu)
        assert opened(preparing, tmp_path) == "fine"
        wide = changed(facts, (f"{OF_PREPARE}.score_tolerance", 1e9))
        store_preparing_engines(preparing, tmp_path, gpu, gate=wide.gate)
        assert opened(preparing, tmp_path) == "site.corrupt"


def opened(bundle: Bundle, site: Path) -> str:
    try:
        Scorer.open(bundle.path, backend="tensorrt", site=site, threads=1).close()
    except BundleError as error:
        return error.code
    return "fine"
