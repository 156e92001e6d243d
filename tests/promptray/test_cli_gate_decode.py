"""`promptray gate-decode`: nothing is scored at a lower resolution without its pass, and results name it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from openjpeg.utils import encode_array
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless

from promptray.cli import run
from promptray.runtime.backends import HOST
from promptray.runtime.bundle import Bundle, write_bundle
from promptray.runtime.decode_gate import KIND, DecodeGate
from promptray.runtime.errors import BundleError, PromptRayError
from promptray.runtime.machine_class import machine_class
from promptray.runtime.measured_scorer import open_measured
from promptray.runtime.scorer import Scorer
from promptray.runtime.site import Site
from tests import bundle_factory
from tests import dicom_factory as factory
from tests.fuzz.own_answers import with_own_answers
from tests.fuzz.small_bundle import graphs_with_text, small_files
from tests.promptray.command_line import Call

FILMS, SIDE = 302, 160  # fewer patients are inconclusive about flips; a smaller side is not halved
_FEW, _REFUSED = 12, 40
WORDINGS = ("There is pneumonia.", "No pneumonia.")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runnable miniature with two findings whose maps say something, else nothing could keep them."""
    folder = tmp_path_factory.mktemp("small")
    findings = [
        {**finding, "prompts": [wording]}
        for finding, wording in zip(bundle_factory.document()["findings"], WORDINGS, strict=True)
    ]
    manifest = bundle_factory.manifest(graphs=graphs_with_text(), findings=findings)
    answers = with_own_answers(manifest, small_files(folder))
    return write_bundle(folder / "small.bundle", manifest, dict(answers)).path


def surface(random: np.random.Generator, side: int = SIDE) -> np.ndarray[Any, Any]:
    """A film as smooth as a network sees one: a level, and a little more or less of it in each corner."""
    corners = random.uniform(900, 3200) + random.uniform(-600, 600, (2, 2))
    along = np.linspace(0, 1, side)
    weights = np.stack([1 - along, along])
    return np.asarray(np.rint(weights.T @ corners @ weights), np.uint16)


def chequered(random: np.random.Generator) -> np.ndarray[Any, Any]:
    """Every second pixel far above, often beyond a window of 2048: the mean is not the mean of the greys."""
    fine = np.indices((SIDE, SIDE)).sum(0) % 2 * 1000
    return np.asarray(surface(random) * 0.4 + fine, np.uint16)


def jpeg_2000(values: np.ndarray[Any, Any], **changes: Any) -> bytes:
    made = factory.dataset(values, **changes)
    made.PixelData = encapsulate([encode_array(values, bits_stored=12)])
    made["PixelData"].VR, made["PixelData"].is_undefined_length = "OB", True
    return factory.encode(made, JPEG2000Lossless)


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, random = tmp_path_factory.mktemp("films"), np.random.default_rng(6)
    for number in range(FILMS):
        side = 2 * SIDE if number == FILMS - 1 else SIDE  # one is large enough to be halved twice
        (folder / f"doe-{number:03}.dcm").write_bytes(jpeg_2000(surface(random, side)))
    for number in range(2):
        (folder / f"whole-{number}.dcm").write_bytes(factory.file(surface(random)))
    (folder / "zz-broken.dcm").write_bytes(jpeg_2000(surface(random))[:3000])
    return folder


@pytest.fixture(scope="module")
def coarse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, random = tmp_path_factory.mktemp("coarse"), np.random.default_rng(7)
    for number in range(_REFUSED):
        film = jpeg_2000(chequered(random), WindowCenter=1024, WindowWidth=2048)
        (folder / f"{number:03}.dcm").write_bytes(film)
    return folder


@pytest.fixture(scope="module")
def passed(small: Path, films: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A site with a pass, and the folder of its reports. Read only."""
    site, reports = tmp_path_factory.mktemp("passed"), tmp_path_factory.mktemp("reports")
    asked = ["gate-decode", small, "--images", films, "--report", reports, "--site", site]
    assert run([str(each) for each in asked]) == 0
    return site, reports


@pytest.fixture
def own(passed: tuple[Path, Path], tmp_path: Path) -> Path:
    """A copy of that site, to change."""
    return Path(shutil.copytree(passed[0], tmp_path / "own"))


def table(films: Path, names: str) -> Path:
    path = films.with_name(f"{films.name}.csv")
    path.write_text("\n".join(["file", *(each.name for each in sorted(films.glob(names))[:_FEW])]) + "\n")
    return path


def test_what_passed_is_kept_used_listed_and_removed(
    call: Call, small: Path, films: Path, own: Path, passed: tuple[Path, Path]
) -> None:
    at = ("--site", own)
    (listed,) = call("gate-decode", small, "--list", "--json", *at).documents
    (gate,) = listed["decode"]
    title = f"images({FILMS}, {gate['gate']['sha256'][:12]})"
    assert (gate["gate_title"], gate["whole"], gate["stale"]) == (title, 2, None)
    assert gate["halvings"] == 1, "of one film nobody learns what halving twice does"
    report = json.loads((passed[1] / f"head-{bundle_factory.HEAD}.json").read_bytes())
    assert report["verdict"] == "passed"
    assert {each["name"] for each in report["gates"]} >= {"flips", "spearman", "max_delta", "map_correlation"}
    assert report["disagreements"], "the gate would pass if nothing were reduced"
    assert "The door refused images, which are not gated on: 1 x image.broken." in report["notes"]

    film = films / "doe-000.dcm"
    scored = call("score", small, film, "--reduced-decode", "--json", *at)
    assert scored.code == 0, scored.err
    (result,) = scored.documents
    assert "reduced-decode" in [each["code"] for each in result["notices"]]
    assert result["backend"]["decode"] == {"key": gate["key"], "gate": title}
    assert result["backend"]["gated_as"] == "onnxruntime-cpu, JPEG 2000 decoded at a lower resolution"
    (plain,) = call("score", small, film, "--json", *at).documents
    assert (plain["backend"]["decode"], plain["backend"]["gated_as"]) == (None, None)

    shown = call("inspect", small, *at)
    assert title in shown.out
    assert json.loads(call("inspect", small, "--json", *at).out)["site"]["decode"] == [gate]
    assert call("verify", small, *at).code == 0
    for content in [path.read_bytes() for path in own.rglob("*") if path.is_file()]:
        assert b"doe" not in content
        assert factory.NAME.encode() not in content
    assert call("gate-decode", small, "--remove", gate["key"], *at).code == 0
    assert call("gate-decode", small, "--list", *at).out == "No gate was passed.\n"
    assert call("score", small, film, "--reduced-decode", *at).code == 1


def test_without_a_pass_nothing_is_scored(call: Call, small: Path, films: Path, site: Path) -> None:
    film = films / "doe-000.dcm"
    for where in (["--site", site], ["--no-site"]):
        answer = call("score", small, film, "--reduced-decode", "--json", *where)
        assert answer.code == 1
        (document,) = answer.documents
        assert document["error"]["code"] == "decode.ungated"
        assert "promptray gate-decode BUNDLE --images" in document["error"]["cure"]
    for backend in ("auto", HOST):
        with pytest.raises(PromptRayError) as caught:
            Scorer.open(small, backend=backend, site=site, reduced_decode=True)
        assert caught.value.code == "decode.ungated"
        assert f"--backend {HOST}`" in str(caught.value.cure), "what auto chooses may be another"
    with open_measured(small, site=site, reduced_decode=True) as scorer:
        assert scorer.backend.decode is None
        assert "lower resolution" in (scorer.backend.gated_as or "")


def test_a_pass_holds_for_its_bundle_alone(call: Call, small: Path, own: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(small, tmp_path / "other.bundle"))
    document = json.loads((other / "bundle.json").read_bytes())
    bundle_factory.reseal(other, json.dumps({**document, "name": "another"}).encode())
    with pytest.raises(PromptRayError) as caught:
        Scorer.open(other, site=own, reduced_decode=True)
    assert caught.value.code == "decode.ungated"
    hashes = [Bundle.open(each).hash for each in (small, other)]
    sites = [Site.open(own, each) for each in hashes]
    (entry,) = sites[0].entries(KIND)
    sites[1].add(KIND, "", entry.key, sites[0].read(entry), entry.facts)
    with pytest.raises(PromptRayError, match="is of another bundle") as caught:
        Scorer.open(other, site=own, reduced_decode=True)
    assert caught.value.code == "site.corrupt"


def test_a_pass_holds_for_its_decoder_alone(
    call: Call, small: Path, own: Path, films: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("PIL.__version__", "0.1")
    answer = call("score", small, films / "doe-000.dcm", "--reduced-decode", "--json", "--site", own)
    assert answer.code == 1
    (document,) = answer.documents
    assert document["error"]["code"] == "decode.stale"
    assert document["error"]["found"].startswith("decoder was Pillow ")
    assert "is Pillow 0.1" in document["error"]["found"]
    assert "It does not hold here: decoder was" in call("gate-decode", small, "--list", "--site", own).out


def test_a_pass_on_another_class_of_machine_does_not_hold_here(small: Path, own: Path) -> None:
    (entry,) = Site.open(own, Bundle.open(small).hash).entries(KIND)
    gate = msgspec.convert(entry.facts, DecodeGate)
    here, other = f"{HOST}@{machine_class()}", f"{HOST}@x86_64-other"
    for gated_as, stale in ((here, None), (other, f"gated as was {other} and is {here}")):
        scope = msgspec.structs.replace(gate.scope, gated_as=gated_as)
        assert msgspec.structs.replace(gate, scope=scope).stale == stale


def test_no_picture_is_halved_more_often_than_films_were(
    small: Path, own: Path, films: Path, site: Path
) -> None:
    found: dict[str, list[Any]] = {"doe-000.dcm": [], f"doe-{FILMS - 1}.dcm": []}
    with (
        Scorer.open(small, site=own, reduced_decode=True) as gated,
        open_measured(small, site=own, reduced_decode=True) as measured,
        open_measured(small, site=site, reduced_decode=True) as ungated,
        Scorer.open(small, site=own) as whole,
    ):
        for name, pixels in found.items():
            for scorer in (gated, measured, ungated, whole):
                pixels.append(scorer.prepare(films / name).network_input.pixels)
            assert np.array_equal(pixels[0], pixels[1])
            assert not np.array_equal(pixels[0], pixels[3])
    small_film, large_film = found.values()
    assert np.array_equal(small_film[0], small_film[2])
    assert not np.array_equal(large_film[0], large_film[2])


def _report(reports: dict[str, Any]) -> dict[str, Any]:
    return dict(reports[bundle_factory.HEAD])


def _wider(reports: dict[str, Any], facts: dict[str, Any]) -> None:
    next(each for each in _report(reports)["gates"] if each["name"] == "flips")["bound"] = 0.05


def _beyond(reports: dict[str, Any], facts: dict[str, Any]) -> None:
    next(each for each in _report(reports)["gates"] if each["name"] == "max_delta")["value"] = 0.5


def _left_out(reports: dict[str, Any], facts: dict[str, Any]) -> None:
    gates = _report(reports)["gates"]
    gates[:] = [each for each in gates if each["name"] != "mean_delta"]


def _few(reports: dict[str, Any], facts: dict[str, Any]) -> None:
    facts["gate"]["images"] = reports[bundle_factory.HEAD]["images"] = 20
    reports[bundle_factory.HEAD]["patients"] = 20


def _more_than_was_gated(reports: dict[str, Any], facts: dict[str, Any]) -> None:
    facts["gate"]["images"] = 3000


def _other_findings(reports: dict[str, Any], facts: dict[str, Any]) -> None:
    _report(reports)["findings"].pop()


def _no_head(reports: dict[str, Any], facts: dict[str, Any]) -> None:
    reports.clear()


def _other_scope(reports: dict[str, Any], facts: dict[str, Any]) -> None:
    facts["scope"]["precision"] = "fp16"


def _other_facts(reports: dict[str, Any], facts: dict[str, Any]) -> None:
    facts["unknown"] = 1


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (_wider, "a bound for fp16: expected flips 0.01 or tighter, found 0.05"),
        (_beyond, "max_delta within 0.25"),
        (_left_out, "no mean_delta"),
        (_few, "20 patients are too few"),
        (_more_than_was_gated, f"is of {FILMS} images"),
        (_other_findings, "is of other findings"),
        (_no_head, "its reports are of the heads none"),
        (_other_scope, "its facts are of the key"),
        (_other_facts, "it cannot be read"),
    ],
)
def test_an_edited_pass_is_refused(
    small: Path, own: Path, edit: Callable[[dict[str, Any], dict[str, Any]], None], said: str
) -> None:
    local = Site.open(own, Bundle.open(small).hash)
    (entry,) = local.entries(KIND)
    reports, facts = json.loads(local.read(entry)), json.loads(json.dumps(entry.facts))
    edit(reports, facts)
    payload = json.dumps(reports).encode()
    facts["gate"]["report"] = hashlib.sha256(payload).hexdigest()
    local.add_all(KIND, "", [(entry.key, payload, facts)], replace=True)
    with pytest.raises(PromptRayError, match=said) as caught:
        Scorer.open(small, site=own, reduced_decode=True)
    assert caught.value.code == "site.corrupt"
    assert f'gate-decode BUNDLE --remove "{entry.key}"' in str(caught.value.cure)
    with pytest.raises(PromptRayError, match=said):  # what measures does not take it for a pass either
        open_measured(small, site=own, reduced_decode=True)


def test_a_key_that_somebody_wrote_is_one_word_of_the_cure(call: Call, small: Path, site: Path) -> None:
    Site.open(site, Bundle.open(small).hash).add(KIND, "", "k `echo` x", b"{}", {})
    (document,) = call("gate-decode", small, "--list", "--json", "--site", site).documents
    assert '--remove "k \\`echo\\` x"`' in document["error"]["cure"]


def test_reports_of_another_pass_are_refused(small: Path, own: Path) -> None:
    local = Site.open(own, Bundle.open(small).hash)
    (entry,) = local.entries(KIND)
    local.add_all(KIND, "", [(entry.key, local.read(entry) + b"\n", entry.facts)], replace=True)
    with pytest.raises(PromptRayError, match="not those that its facts name"):
        Scorer.open(small, site=own, reduced_decode=True)


def test_films_that_get_other_scores_are_refused_and_take_an_earlier_pass_back(
    call: Call, small: Path, coarse: Path, own: Path, tmp_path: Path
) -> None:
    reports = tmp_path / "reports"
    answer = call("gate-decode", small, "--images", coarse, "--report", reports, "--json", "--site", own)
    assert answer.code == 1
    (document,) = answer.documents
    assert document["error"]["code"] == "gate.failed"
    assert "refused" in document["error"]["found"]
    assert json.loads((reports / f"head-{bundle_factory.HEAD}.json").read_bytes())["verdict"] == "refused"
    assert call("gate-decode", small, "--list", "--site", own).out == "No gate was passed.\n"
    assert call("score", small, coarse / "000.dcm", "--reduced-decode", "--site", own).code == 1


def test_a_refusal_that_cannot_take_an_earlier_pass_back_says_so(
    call: Call, small: Path, coarse: Path, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(*arguments: Any) -> None:
        raise BundleError("site.busy", "another process is writing")

    (entry,) = Site.open(own, Bundle.open(small).hash).entries(KIND)
    monkeypatch.setattr(Site, "remove", busy)
    (document,) = call("gate-decode", small, "--images", coarse, "--json", "--site", own).documents
    assert document["error"]["code"] == "gate.failed"
    assert "could not be taken back: another process is writing" in document["error"]["message"]
    assert f"--remove {entry.key}`" in document["error"]["cure"]


def test_a_film_that_is_refused_at_a_lower_resolution_alone_fails_the_gate(
    call: Call, small: Path, tmp_path: Path, site: Path
) -> None:
    """Half of its pixels are white, and the mean of every two is: a constant picture."""
    folder = tmp_path / "one"
    folder.mkdir()
    film = np.indices((SIDE, SIDE)).sum(0) % 2 * 2000 + 1100
    content = jpeg_2000(film.astype(np.uint16), WindowCenter=1024, WindowWidth=2048)
    (folder / "one.dcm").write_bytes(content)
    (document,) = call("gate-decode", small, "--images", folder, "--json", "--site", site).documents
    assert document["error"]["code"] == "gate.failed"
    assert document["error"]["found"] == "image 1: image.constant"


def test_too_few_films_are_inconclusive_and_say_how_many_would_do(
    call: Call, small: Path, films: Path, own: Path
) -> None:
    labels = table(films, "doe-*.dcm")
    asked = ("gate-decode", small, "--images", films, "--labels", labels, "--json", "--site", own)
    (document,) = call(*asked).documents
    assert document["error"]["code"] == "gate.inconclusive"
    assert (
        f"299 independent decisions would settle it if nothing else changes; there are {_FEW}"
        in (document["error"]["found"])
    )
    with Scorer.open(small, site=own, reduced_decode=True) as scorer:  # it proved nothing, either way
        assert scorer.backend.decode is not None


def test_films_that_are_decoded_whole_prove_nothing(call: Call, small: Path, films: Path, site: Path) -> None:
    labels = table(films, "whole-*.dcm")
    asked = ("gate-decode", small, "--images", films, "--labels", labels, "--json", "--site", site)
    (document,) = call(*asked).documents
    assert document["error"]["code"] == "gate.images"
    assert "2 images that are decoded whole" in document["error"]["found"]


def test_usage(call: Call, small: Path, films: Path) -> None:
    assert call("gate-decode", small).code == 2
    assert call("gate-decode", small, "--list", "--remove", "key").code == 2
    assert call("gate-decode", small, "--list", "--images", films).code == 2
    assert call("gate-decode", small, "--images", films, "--remove", "").code == 2
    for command in ("bench", "accept"):
        said = " ".join(call(command, "--help").out.split())
        assert "did not pass; the report says whether it did" in said
    assert "must have passed" in " ".join(call("score", "--help").out.split())
