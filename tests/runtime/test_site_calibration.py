"""A stored calibration is applied only where all that it rests on still holds; a false one is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import numpy as np
import pytest

from promptray.runtime.bundle import Bundle
from promptray.runtime.calibration import Calibration, Platt
from promptray.runtime.errors import BundleError
from promptray.runtime.operating_point import OperatingPoint, Share
from promptray.runtime.result import Result, result_schema
from promptray.runtime.scorer import Scorer
from promptray.runtime.site import Site
from promptray.runtime.site_calibration import Basis, CalibrationFile, keep_calibrations, site_calibrations
from promptray.runtime.verify import verify

CURVE = Platt(slope=1.5, intercept=-0.25)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    folder.mkdir()
    return folder


def made(scorer: Scorer, name: str | tuple[str, str], **changes: Any) -> CalibrationFile:
    """A calibration that holds for a finding as this scorer scores it."""
    item = scorer.prompts.state.find(name)
    share = Share(value=0.9, low=0.8, high=0.95, images=60, patients=50)
    key, bundle = item.finding.key, scorer.bundle.hash
    basis: dict[str, Any] = {
        "entry": item.entry.fingerprint, "backend": scorer.backend.name,
        "precision": scorer.backend.precision, "gated_as": scorer.backend.gated_as, "strict": scorer.strict,
        "labels": "1" * 64, "notices": {"modality-absent": 3},
    }  # fmt: skip
    return CalibrationFile(
        format="promptray-calibration",
        format_version=1,
        head=item.finding.head,
        basis=Basis(**{**basis, **changes}),
        calibration=Calibration(
            finding=key, bundle=bundle, curve=CURVE, images=200, positives=60, patients=120, date="2024-05-06"
        ),
        operating_point=OperatingPoint(
            finding=key, bundle=bundle, rule="specificity-first", target=0.9, threshold=0.1, low=0.0,
            high=0.2, sensitivity=share, specificity=share, confidence=0.95, folds=5, draws=100, seed=0,
            date="2024-05-06",
        ),
    )  # fmt: skip


def keep(bundle: Path, site: Path, name: str | tuple[str, str], **changes: Any) -> CalibrationFile:
    """Store one, made of what a scorer without site says."""
    with Scorer.open(bundle, site=None) as scorer:
        file = made(scorer, name, **changes)
        keep_calibrations(Site.open(site, scorer.bundle.hash), file.head, [file])
    return file


def image(bundle: Path) -> Path:
    return bundle / Bundle.open(bundle).manifest.golden.images[0]


def score(bundle: Path, site: Path | None, **options: Any) -> Result:
    with Scorer.open(bundle, site=site, **options) as scorer:
        return scorer.score(image(bundle), modality="DX")


def first_key(bundle: Path) -> str:
    return Bundle.open(bundle).manifest.findings[0].key


# What it gives


def test_it_gives_probability_threshold_and_flag_with_their_source(carzero_bundle: Path, site: Path) -> None:
    key = first_key(carzero_bundle)
    plain = score(carzero_bundle, site)
    keep(carzero_bundle, site, key)
    found = score(carzero_bundle, site)
    document = json.loads(json.dumps(found.to_json()))
    jsonschema.validate(document, result_schema())
    own, others = found.scores[key], [name for name in found.scores if name != key]
    logit = plain.scores[key].logit
    assert own.logit == logit  # the score itself stays what it was
    assert own.probability == pytest.approx(1 / (1 + np.exp(-(1.5 * logit - 0.25))), abs=1e-15)
    assert (own.threshold, own.flag) == (0.1, logit >= 0.1)
    (entry,) = Site.open(site, found.document.bundle.sha256).entries("calibration")
    assert entry.payload is not None
    assert document["findings"][0]["score"]["calibration"] == {
        "id": entry.payload.sha256, "source": "site", "method": "platt", "images": 200, "patients": 120,
        "prevalence": 0.3, "date": "2024-05-06", "rule": "specificity-first", "target": 0.9,
    }  # fmt: skip
    assert all(found.scores[name] == plain.scores[name] for name in others)
    assert score(carzero_bundle, None).scores[key].probability is None


@pytest.mark.parametrize("above", [True, False])
def test_a_logit_on_the_threshold_is_flagged(carzero_bundle: Path, site: Path, above: bool) -> None:
    key = first_key(carzero_bundle)
    logit = score(carzero_bundle, None).scores[key].logit
    at = logit if above else np.nextafter(logit, np.inf)
    with Scorer.open(carzero_bundle, site=None) as scorer:
        file = made(scorer, key)
        assert file.operating_point is not None
        point = msgspec.structs.replace(file.operating_point, threshold=float(at))
        file = msgspec.structs.replace(file, operating_point=point)
        keep_calibrations(Site.open(site, scorer.bundle.hash), file.head, [file])
    assert score(carzero_bundle, site).scores[key].flag is above


def test_without_a_threshold_there_is_no_flag(carzero_bundle: Path, site: Path) -> None:
    key = first_key(carzero_bundle)
    with Scorer.open(carzero_bundle, site=None) as scorer:
        file = msgspec.structs.replace(made(scorer, key), operating_point=None)
        keep_calibrations(Site.open(site, scorer.bundle.hash), file.head, [file])
    with Scorer.open(carzero_bundle, site=site) as scorer:
        found = scorer.score(image(carzero_bundle), modality="DX").scores[key]
        assert scorer.prompts.state.thresholds_of(file.head) == {}
    assert found.probability is not None
    assert (found.threshold, found.flag) == (None, None)


def test_softmax_and_sigmoid_stay_beside_it(
    open_clip_pair_bundle: Path, asg_tags_bundle: Path, site: Path
) -> None:
    for bundle, kind in ((open_clip_pair_bundle, "softmax"), (asg_tags_bundle, "sigmoid")):
        key = first_key(bundle)
        before = score(bundle, site).scores[key]
        keep(bundle, site, key)
        after = score(bundle, site).scores[key]
        own = getattr(before, kind)
        assert own is not None
        assert getattr(after, kind) == own
        assert before.probability is None
        assert after.probability not in (None, own)


def test_of_two_heads_with_one_key_only_its_own_gets_it(asg_both_bundle: Path, site: Path) -> None:
    manifest = Bundle.open(asg_both_bundle).manifest
    heads = [head.name for head in manifest.heads]
    keys = [{finding.key for finding in manifest.findings_of(head)} for head in heads]
    key = sorted(keys[0] & keys[1])[0]
    keep(asg_both_bundle, site, (heads[1], key))
    found = score(asg_both_bundle, site).scores
    assert found[heads[0], key].probability is None
    assert found[heads[1], key].probability is not None


# Where it does not hold any more


def notices(result: Result) -> dict[str, str]:
    return {each.code: each.message for each in result.notices if each.code.startswith("calibration-")}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"entry": "2" * 64}, "calibration-wording"),
        ({"backend": "openvino-cpu"}, "calibration-engine"),
        ({"precision": "int8"}, "calibration-engine"),
        ({"gated_as": "onnxruntime-cpu@x86_64-other"}, "calibration-machine"),
        ({"strict": True}, "calibration-strict"),
    ],
    ids=str,
)
def test_where_its_basis_is_another_it_is_not_applied_and_a_notice_says_so(
    carzero_bundle: Path, site: Path, changes: dict[str, Any], code: str
) -> None:
    key = first_key(carzero_bundle)
    keep(carzero_bundle, site, key, **changes)
    found = score(carzero_bundle, site)
    assert found.scores[key] == score(carzero_bundle, None).scores[key]
    assert list(notices(found)) == [code]
    assert key in notices(found)[code]


def test_a_strict_scorer_may_use_what_was_made_of_all_images(carzero_bundle: Path, site: Path) -> None:
    key = first_key(carzero_bundle)
    keep(carzero_bundle, site, key)
    with Scorer.open(carzero_bundle, site=site, strict=True) as scorer:
        head = scorer.prompts.state.find(key).finding.head
        assert scorer.prompts.state.thresholds_of(head) == {key: 0.1}


def test_a_wording_that_changed_on_site_has_no_calibration(carzero_bundle: Path, site: Path) -> None:
    key = first_key(carzero_bundle)
    keep(carzero_bundle, site, key)
    with Scorer.open(carzero_bundle, site=site) as scorer:
        scorer.prompts.remove(key, keep=True)
        assert notices(scorer.score(image(carzero_bundle), modality="DX")) == {}
        scorer.prompts.add(key, "There is something else entirely.", keep=True)
        changed = scorer.score(image(carzero_bundle), modality="DX")
    for found in (changed, score(carzero_bundle, site)):
        assert found.scores[key].probability is None
        assert found.scores[key].flag is None
        assert list(notices(found)) == ["calibration-wording"]


def test_the_same_wording_added_again_has_it_again(carzero_bundle: Path, site: Path) -> None:
    key, wording = "rib fracture", "There is Rib Fracture"
    with Scorer.open(carzero_bundle, site=site) as scorer:
        scorer.prompts.add(key, wording, keep=True)
        file = made(scorer, key)
        keep_calibrations(Site.open(site, scorer.bundle.hash), file.head, [file])
    with Scorer.open(carzero_bundle, site=site) as scorer:
        before = scorer.score(image(carzero_bundle), modality="DX").scores[key]
        scorer.prompts.remove(key, keep=True)
        scorer.prompts.add(key, wording, display="Fracture of a rib", keep=True)
        again = scorer.score(image(carzero_bundle), modality="DX").scores[key]
    assert before.probability is not None
    assert again.calibration == before.calibration


def test_the_fingerprint_sees_every_bit(carzero_bundle: Path) -> None:
    with Scorer.open(carzero_bundle, site=None) as scorer:
        entry = scorer.prompts.state.active[0].entry
    same = replace(entry, display="another name for people")
    assert same.fingerprint == entry.fingerprint
    seen = {entry.fingerprint, replace(entry, key="another").fingerprint}
    for name, tensor in entry.tensors.items():
        changed = np.array(tensor, order="C")
        changed.reshape(-1).view(np.uint8)[-1] ^= 1
        seen.add(replace(entry, tensors={**entry.tensors, name: changed}).fingerprint)
    assert len(seen) == 2 + len(entry.tensors)


# Damaged, foreign, hostile


def stored(bundle: Path, site: Path, raw: bytes, key: str | None = None, head: str | None = None) -> Site:
    opened = Bundle.open(bundle)
    finding = opened.manifest.findings[0]
    local = Site.open(site, opened.hash)
    local.add("calibration", head or finding.head, key or finding.key, raw)
    return local


@pytest.fixture(scope="module")
def raw(carzero_bundle: Path) -> bytes:
    """The document of a calibration that holds."""
    with Scorer.open(carzero_bundle, site=None) as scorer:
        return msgspec.json.encode(made(scorer, first_key(carzero_bundle)))


def test_the_document_itself_is_taken(carzero_bundle: Path, site: Path, raw: bytes) -> None:
    local = stored(carzero_bundle, site, raw)
    (found,) = site_calibrations(local, Bundle.open(carzero_bundle).manifest).values()
    assert msgspec.json.encode(found.content) == raw


def refused(bundle: Path, site: Path) -> BundleError:
    """Every way that would use or show it refuses, and the cure works."""
    opened = Bundle.open(bundle)
    local = Site.open(site, opened.hash)
    actions: list[Callable[[], object]] = [
        lambda: Scorer.open(bundle, site=site),
        lambda: site_calibrations(local, opened.manifest),
        lambda: verify(bundle, site=site),
    ]
    for action in actions:
        with pytest.raises(BundleError) as caught:
            action()
        assert caught.value.code == "site.corrupt"
        assert "promptray calibrate BUNDLE --remove" in str(caught.value.cure)
    (entry,) = local.entries("calibration")
    local.remove("calibration", entry.head, entry.key)
    assert score(bundle, site).scores
    error: BundleError = caught.value
    return error


def test_a_changed_byte_is_an_error(carzero_bundle: Path, site: Path) -> None:
    keep(carzero_bundle, site, first_key(carzero_bundle))
    (path,) = site.glob("*/entries/*")
    path.write_bytes(path.read_bytes().replace(b"0.1", b"0.2"))
    refused(carzero_bundle, site)


def test_a_missing_payload_is_an_error(carzero_bundle: Path, site: Path) -> None:
    keep(carzero_bundle, site, first_key(carzero_bundle))
    next(iter(site.glob("*/entries/*"))).unlink()
    refused(carzero_bundle, site)


def _set(*path: str, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        for name in path[:-1]:
            document = document[name]
        document[path[-1]] = to

    return change


@pytest.mark.parametrize(
    "change",
    [
        _set("calibration", "bundle", to="3" * 64),
        _set("operating_point", "bundle", to="3" * 64),
        _set("calibration", "finding", to="another"),
        _set("operating_point", "finding", to="another"),
        _set("head", to="another"),
        _set("format_version", to=2),
        _set("format", to="promptray-bundle"),
        _set("more", to=1),
        _set("calibration", "curve", "slope", to=-1.0),
        _set("calibration", "curve", "slope", to="1"),
        _set("calibration", "curve", "intercept", to=None),
        _set(
            "calibration", "curve", to={"method": "isotonic", "logits": [0, 1], "probabilities": [0.9, 0.1]}
        ),
        _set("calibration", "curve", to={"method": "pickle"}),
        _set("calibration", "positives", to=201),
        _set("calibration", "images", to=0),
        _set("calibration", "date", to="yesterday"),
        _set("operating_point", "threshold", to=True),
        _set("operating_point", "sensitivity", "low", to=0.99),
        _set("operating_point", "target", to=1.5),
        _set("basis", "entry", to="x"),
        _set("basis", "notices", to={"modality-absent": -1}),
    ],
)
def test_a_document_that_is_sealed_but_wrong(
    carzero_bundle: Path, site: Path, raw: bytes, change: Callable[[dict[str, Any]], None]
) -> None:
    document = json.loads(raw)
    change(document)
    local = stored(carzero_bundle, site, json.dumps(document).encode())
    with pytest.raises(BundleError) as caught:
        site_calibrations(local, Bundle.open(carzero_bundle).manifest)
    assert caught.value.code == "site.corrupt"
    assert "--remove" in str(caught.value.cure)


@pytest.mark.parametrize(
    "edit",
    [
        lambda raw: raw.replace(b"0.1", b"NaN"),
        lambda raw: raw.replace(b"0.1", b"1e999"),
        lambda raw: raw.replace(b'"slope":', b'"slope":2,"slope":'),
        lambda raw: b"\x80\x04.",
        lambda raw: b"[" * 100_000,
        lambda raw: raw[:-1],
    ],
)
def test_bytes_that_are_no_strict_json(
    carzero_bundle: Path, site: Path, raw: bytes, edit: Callable[[bytes], bytes]
) -> None:
    assert edit(raw) != raw
    stored(carzero_bundle, site, edit(raw))
    refused(carzero_bundle, site)


def test_one_of_alternatives_or_of_no_head_is_refused(
    open_clip_bundle: Path, carzero_bundle: Path, tmp_path: Path
) -> None:
    for bundle, head, words in ((open_clip_bundle, None, "alternatives"), (carzero_bundle, "lost", "head")):
        folder = tmp_path / words
        folder.mkdir()
        with Scorer.open(bundle, site=None) as scorer:
            file = made(scorer, first_key(bundle))
        file = file if head is None else msgspec.structs.replace(file, head=head)
        stored(bundle, folder, msgspec.json.encode(file), head=head)
        assert words in refused(bundle, folder).message


def test_what_cannot_be_read_back_is_not_stored(carzero_bundle: Path, site: Path) -> None:
    with Scorer.open(carzero_bundle, site=None) as scorer:
        file = made(scorer, first_key(carzero_bundle))
        bad = msgspec.structs.replace(
            file, calibration=msgspec.structs.replace(file.calibration, date="yesterday")
        )
        with pytest.raises(ValueError, match="date"):
            keep_calibrations(Site.open(site, scorer.bundle.hash), file.head, [file, bad])
    assert list(site.iterdir()) == []


def test_another_bundle_does_not_see_it(
    carzero_bundle: Path, open_clip_pair_bundle: Path, site: Path
) -> None:
    keep(carzero_bundle, site, first_key(carzero_bundle))
    found = score(open_clip_pair_bundle, site)
    assert all(each.probability is None for each in found.scores.values())
    assert notices(found) == {}
