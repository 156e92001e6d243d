"""The reference must be the original of the bundle, and the bundle is held to the bounds that it kept."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from promptray.calibrate.accept import reference
from promptray.calibrate.accept.reference import kept_limits, require_another, require_original
from promptray.runtime.backends import HOST, BackendFacts
from promptray.runtime.bundle import Bundle
from promptray.runtime.bundle.manifest import bank_id
from promptray.runtime.errors import PromptRayError
from promptray.runtime.gate_limits import LIMITS
from tests.calibrate.accept.variants import provenance, write_variant

ZEROS = "0" * 64


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_variant(tmp_path_factory.mktemp("reference"), "small")


def with_manifest(bundle: Bundle, **changes: Any) -> Bundle:
    """A bundle that says something else of itself; only its words are looked at."""
    manifest = msgspec.structs.replace(bundle.manifest, **changes)
    return SimpleNamespace(manifest=manifest, hash="f" * 64, short_hash="f" * 12)  # type: ignore[return-value]


def other_weights(bundle: Bundle) -> dict[str, Any]:
    (head,) = bundle.manifest.heads
    identity = {**head.bank.identity, "weights": "1e" * 32}
    bank = msgspec.structs.replace(head.bank, identity=identity, id=bank_id(identity))
    return {"heads": [msgspec.structs.replace(head, bank=bank)]}


def other_precision(bundle: Bundle) -> dict[str, Any]:
    graphs = bundle.manifest.graphs
    return {"graphs": [msgspec.structs.replace(graphs[0], precision="int8-qdq"), *graphs[1:]]}


def stored_in_half(bundle: Bundle) -> dict[str, Any]:
    (head,) = bundle.manifest.heads
    bank = msgspec.structs.replace(head.bank, stored="float16")
    return {"heads": [msgspec.structs.replace(head, bank=bank)]}


def a_student(bundle: Bundle) -> dict[str, Any]:
    student = SimpleNamespace(student="vit_tiny")
    return {"provenance": msgspec.structs.replace(bundle.manifest.provenance, distilled=student)}


def other_pixels(bundle: Bundle) -> dict[str, Any]:
    rule = bundle.manifest.preprocessing
    return {"preprocessing": msgspec.structs.replace(rule, steps=rule.steps[1:])}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (lambda bundle: {"family": "asg"}, "another family"),
        (lambda bundle: {"heads": []}, "another set of heads"),
        (other_pixels, "another preprocessing"),
        (other_weights, "another weights of chest"),
        (other_precision, "no fp32 original"),
        (stored_in_half, "no fp32 original"),
        (a_student, "no fp32 original"),
    ],
)
def test_a_foreign_reference_is_refused(bundle: Bundle, changed: Any, said: str) -> None:
    with pytest.raises(PromptRayError, match=said) as caught:
        require_original(bundle, with_manifest(bundle, **changed(bundle)))
    assert caught.value.code == "accept.reference"


def test_files_beside_the_checkpoint_must_be_the_same(bundle: Bundle, tmp_path: Path) -> None:
    sources = [{"name": "vocab.txt", "sha256": ZEROS}]
    other = write_variant(tmp_path, "other", provenance=provenance(sources=sources))
    with pytest.raises(PromptRayError, match="another set of files"):
        require_original(bundle, other)


def test_the_same_model_from_another_recipe_is_the_original(bundle: Bundle, tmp_path: Path) -> None:
    recipe = {"name": "fp32.yaml", "sha256": "2" * 64}
    other = write_variant(tmp_path, "other", provenance=provenance(recipe=recipe))
    assert other.hash != bundle.hash
    require_original(bundle, other)


def test_a_bundle_is_its_own_reference_on_another_backend_only(bundle: Bundle) -> None:
    student = with_manifest(bundle, **a_student(bundle))
    for each in (bundle, student):
        require_original(each, each)
        require_another(each, each, facts("tensorrt", "fp16"))
        with pytest.raises(PromptRayError, match="the bundle itself"):
            require_another(each, each, facts(HOST, "fp32"))
    require_another(bundle, student, facts(HOST, "fp32"))


def facts(name: str, precision: str) -> BackendFacts:
    return BackendFacts(name, "1", "device", precision, 1, "asked for", None)


@pytest.mark.parametrize(
    ("name", "precision", "kind"),
    [(HOST, "fp32", "fp16"), ("tensorrt", "fp16", "fp16"), ("tensorrt", "image int8-qdq, head fp16", "int8")],
)
def test_without_gates_of_its_own_the_precision_tells_the_limits(
    bundle: Bundle, name: str, precision: str, kind: str
) -> None:
    assert kept_limits(bundle, bundle, facts(name, precision), "chest") == (kind, LIMITS[kind])  # type: ignore[index]


def test_a_lower_resolution_does_not_hide_the_bounds_of_the_gates(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = SimpleNamespace(consumer=f"{HOST}@class", head="chest", of="scores", kind="int8", report="r.json")
    monkeypatch.setattr(reference, "read_parity", lambda _: SimpleNamespace(gates=[held]))
    monkeypatch.setattr(Bundle, "read", lambda self, file: b"")
    stricter = SimpleNamespace(gates=[SimpleNamespace(name="flips", bound=0.001)])
    monkeypatch.setattr(reference.msgspec.json, "decode", lambda content, type: stricter)
    reduced = replace_facts(facts(HOST, "int8"), f"{HOST}@class, JPEG 2000 decoded at a lower resolution")
    assert kept_limits(bundle, bundle, reduced, "chest") == (
        "int8", dataclasses.replace(LIMITS["int8"], flips=0.001)
    )  # fmt: skip


def test_a_bundle_that_decodes_less_is_another_than_itself(bundle: Bundle) -> None:
    reduced = replace_facts(facts(HOST, "fp32"), f"{HOST}, JPEG 2000 decoded at a lower resolution")
    require_another(bundle, bundle, reduced)
    kind, _ = kept_limits(bundle, bundle, reduced, "chest")
    assert kind == "fp16"


def replace_facts(found: BackendFacts, gated_as: str) -> BackendFacts:
    return msgspec.structs.replace(found, gated_as=gated_as)


def test_engines_of_a_student_are_held_as_students_against_the_teacher(bundle: Bundle) -> None:
    student = with_manifest(bundle, **a_student(bundle))
    kind, _ = kept_limits(student, bundle, facts("tensorrt", "fp16"), "chest")
    assert kind == "student"
    kind, _ = kept_limits(student, student, facts("tensorrt", "fp16"), "chest")
    assert kind == "fp16"
