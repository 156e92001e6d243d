"""The page holds every number of the report and nothing that runs or loads."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

from promptray.calibrate.evaluate import Settings
from promptray.calibrate.evaluation import evaluate_table
from promptray.calibrate.evaluation_html import evaluation_html
from promptray.calibrate.tables.csv_file import TableError
from tests.calibrate.labelled import make, table

KEYS = ("<b>edema</b>", "mass & more")


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_texts_are_escaped_and_numbers_are_there() -> None:
    labels, scores = make(keys=KEYS, sources=["<i>x</i>"] * 60 + ["y"] * 60)
    report = evaluate_table(table(labels, scores, "<script>"), labels, Settings(draws=50))
    reader = Reader()
    reader.feed(evaluation_html(report))
    assert reader.tags <= set("html head meta title style body h1 ul li table caption tr th td".split())
    assert reader.attributes == {"lang", "charset"}
    assert set(KEYS) <= set(reader.text)
    found = report.groups[0].findings[0].auroc
    assert f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})" in reader.text
    assert report.notes[0] in reader.text


def test_images_without_scores_are_an_error_or_counted() -> None:
    labels, scores = make(images=40)
    fewer = table(labels.select(list(range(30))), scores[:30])
    with pytest.raises(TableError, match="10 of them are absent"):
        evaluate_table(fewer, labels, Settings(draws=10))
    report = evaluate_table(fewer, labels, Settings(draws=10), missing="count")
    assert (report.scored, len(report.refused)) == (30, 10)
    assert report.refused[0].code == "table.image"
    page = evaluation_html(report)
    assert "line 41" in page
    assert "39.png" not in page  # a file's name may be a patient's


def test_a_score_that_is_not_there_is_refused() -> None:
    labels, scores = make(images=40)
    with pytest.raises(TableError, match=r"expected one of logit"):
        evaluate_table(table(labels, scores), labels, Settings(draws=10), score="softmax")
