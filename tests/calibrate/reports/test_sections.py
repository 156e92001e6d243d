"""History and comparison are not what the image shows."""

from __future__ import annotations

import pytest

from promptray.calibrate.reports import extract, summarise
from promptray.calibrate.reports.sections import described


def test_only_what_is_seen_is_kept() -> None:
    text = (
        "EXAM: Chest, two views\nINDICATION: Pneumonia, rule out effusion.\nCOMPARISON: Prior pneumothorax.\n"
        "FINDINGS: Mild cardiomegaly.\nIMPRESSION: No edema."
    )
    assert summarise(extract(text)) == {"cardiomegaly": "present", "pulmonary edema": "absent"}


@pytest.mark.parametrize(
    "heading", ["Impression:", "IMPRESSION :", "  impression:", "Findings and impression:"]
)
def test_a_heading_is_known_in_any_case_at_the_start_of_a_line(heading: str) -> None:
    assert described(f"History: fever\n{heading} clear") == [" clear"]


def test_a_heading_within_a_line_needs_capitals() -> None:
    assert described("FINDINGS: clear IMPRESSION: normal HISTORY: fever") == [" clear ", " normal "]
    assert described("the impression: it is clear") == ["the impression: it is clear"]


def test_text_without_headings_is_all_kept() -> None:
    assert described("Lungs: clear. Heart: normal.") == ["Lungs: clear. Heart: normal."]
