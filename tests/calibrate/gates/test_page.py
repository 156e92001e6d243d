"""The page and the text hold every number, load nothing, and name no file or patient."""

from __future__ import annotations

import io
from base64 import b64decode
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from promptray.calibrate.gates import LIMITS, GateData, Limits, run_gates
from promptray.calibrate.gates.page import BURNED_IN, gate_page, sealed_page
from promptray.calibrate.gates.plots import MOST_POINTS, drawn, roc_plot
from promptray.calibrate.gates.report import sealed
from promptray.calibrate.gates.table import WORDS, gate_text
from tests.calibrate.gates.made import make, noise, with_logits

KEYS = ("<b>edema</b>", "mass & more")
HTML = "html head meta title style body h1 h2 ul li p div table caption tr th td figure figcaption img"
SVG = "svg rect path polyline text"


class Reader(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def noisy(**fields: object) -> GateData:
    data = make(images=300, keys=KEYS, patients=np.array([f"PATIENT-{n}" for n in range(300)]), **fields)
    return with_logits(data, noise(data, 0.2))


def picture(row: int) -> np.ndarray:
    return np.full((400, 200), row % 256, np.uint8)


@pytest.mark.parametrize("labelled", [True, False])
def test_the_page_loads_nothing_and_names_nobody(labelled: bool) -> None:
    data = noisy() if labelled else noisy(labels=None)
    page = gate_page(run_gates(data, LIMITS["int8"], draws=50), data, picture)
    reader = Reader(page)
    assert set(reader.tags) <= {*HTML.split(), *SVG.split()}
    for name, value in reader.attributes:
        assert name not in ("href", "srcset", "onload", "onclick")
        assert name != "src" or value.startswith("data:image/png;base64,")
    for forbidden in ("http", "url(", "@import", "PATIENT", ".png", ".dcm"):
        assert forbidden not in page
    assert set(KEYS) <= set(reader.text)  # escaped: as text, not as a tag


def test_every_finding_has_its_plots() -> None:
    data = noisy()
    reader = Reader(gate_page(run_gates(data, Limits(), draws=10), data))
    assert reader.tags.count("svg") == 6
    without = replace(data, labels=None)
    reader = Reader(gate_page(run_gates(without, Limits(), draws=10), without))
    assert reader.tags.count("svg") == 4  # no ROC


def test_the_worst_images_are_shown_with_both_maps_and_no_metadata() -> None:
    data = noisy()
    report = run_gates(data, Limits(), draws=10)
    page = gate_page(report, data, picture)
    sources = [value for name, value in Reader(page).attributes if name == "src"]
    assert len(sources) == 3 * len(report.disagreements) == 24
    first, original, candidate = (
        Image.open(io.BytesIO(b64decode(source.partition(",")[2]))) for source in sources[:3]
    )
    assert (first.size, original.size, candidate.size) == ((160, 320),) * 3
    assert (np.asarray(first) == (report.disagreements[0].image - 1) % 256).all()
    assert (np.asarray(original) == np.asarray(candidate)).all()  # the same maps here
    assert {*first.info, *original.info} == set()
    maps_only = [value for name, value in Reader(gate_page(report, data)).attributes if name == "src"]
    assert len(maps_only) == 16


def test_the_maps_of_both_models_are_shown_and_not_one_of_them_twice() -> None:
    data = noisy()
    maps = np.zeros_like(data.original.maps)
    maps[..., 0, 0] = 1.0  # the candidate looks into a corner
    changed = replace(data, candidate=replace(data.candidate, maps=maps))
    page = gate_page(run_gates(changed, Limits(), draws=10), changed)
    sources = [value for name, value in Reader(page).attributes if name == "src"]
    original, candidate = (
        np.asarray(Image.open(io.BytesIO(b64decode(source.partition(",")[2])))) for source in sources[:2]
    )
    assert candidate[0, 0].sum() > candidate[-1, -1].sum() == 0
    assert (original != candidate).any()


def test_an_image_is_called_by_the_number_that_it_is_given() -> None:
    data = noisy(image_numbers=tuple(range(1001, 1301)))
    report = run_gates(data, Limits(), draws=10)
    page = gate_page(report, data, picture)
    shown = report.disagreements[0].image
    assert shown > 1000
    first = next(value for name, value in Reader(page).attributes if name == "src")
    assert (
        np.asarray(Image.open(io.BytesIO(b64decode(first.partition(",")[2])))) == (shown - 1001) % 256
    ).all()


def test_pictures_come_with_a_warning() -> None:
    data = noisy()
    report = run_gates(data, Limits(), draws=10)
    assert BURNED_IN in Reader(gate_page(report, data, picture)).text
    assert BURNED_IN not in Reader(gate_page(report, data)).text


def test_a_sealed_report_and_page_hold_nothing_of_a_single_image() -> None:
    data = noisy(image_hashes=tuple(f"{n:064x}" for n in range(300)))
    report = run_gates(data, Limits(), draws=10)
    away = sealed(report)
    reader = Reader(sealed_page(away, data))
    assert len(report.disagreements) == 8
    assert away.disagreements == []
    assert away.gates == report.gates
    assert reader.tags.count("svg") == 2  # a ROC of each finding
    assert not {"img", "figure"} & set(reader.tags)
    assert "stroke-linecap" not in dict(reader.attributes)  # what the points of a scatter have
    assert "stroke-linecap" in dict(Reader(gate_page(report, data)).attributes)
    text = " ".join(reader.text)
    for shown in report.disagreements:
        assert shown.sha256 is not None
        assert shown.sha256[:12] not in text
    assert "svg" not in Reader(sealed_page(away, replace(data, labels=None))).tags


def test_without_maps_or_pictures_nothing_is_shown() -> None:
    data = noisy()
    bare = replace(
        data,
        original=replace(data.original, maps=None),
        candidate=replace(data.candidate, maps=None),
        again=None,
    )
    report = run_gates(bare, Limits(), draws=10)
    assert "img" not in Reader(gate_page(report, bare)).tags
    assert Reader(gate_page(report, bare, picture)).tags.count("img") == 8


def test_the_text_says_verdict_gates_and_what_was_not_held() -> None:
    report = run_gates(noisy(labels=None, other_shapes={}), LIMITS["int8"], draws=50)
    text = gate_text(report)
    assert text.startswith("int8 against fp32: REFUSED (label-free gates only)\n")
    for name in {each.name for each in (*report.gates, *report.not_run)}:
        assert WORDS[name][0] in text
    assert "there are no labels" in text
    assert all(note in text for note in report.notes)
    assert "PATIENT" not in text
    passed = run_gates(make(), LIMITS["int8"], draws=50)
    assert gate_text(passed).startswith("int8 against fp32: passed\n")
    few = run_gates(make(images=40), LIMITS["int8"], draws=50)
    assert "INCONCLUSIVE, which is not passed" in gate_text(few)


def test_of_many_images_the_largest_differences_are_drawn() -> None:
    rng = np.random.default_rng(0)
    original, candidate = rng.normal(size=(2, 5000))
    rows = drawn(original, candidate)
    assert len(set(rows)) == len(rows) == MOST_POINTS
    largest = np.argsort(-np.abs(candidate - original))[:100]
    assert set(largest) <= set(rows)


def test_labels_of_one_kind_have_no_roc() -> None:
    scores = np.arange(5.0)
    assert roc_plot("edema", scores, scores, np.ones(5)) is None
    assert roc_plot("edema", scores, scores, np.array([0, 1, np.nan, 0, 1])) is not None
