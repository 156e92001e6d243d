"""Examinations scored for tests, and their numbers, reasons and refusals read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from promptray import ExamResult, ImageError, Scorer, ScoringError
from tests import dicom_factory
from tests.examinations import (
    with_rule,
)


def ruled(bundle: Path, folder: Path, **changes: Any) -> Scorer:
    return Scorer.open(with_rule(bundle, folder, **changes), site=None)


def shares(scorer: Scorer, images: Sequence[bytes]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Shares of single images, one a row."""
    return np.array([[s.softmax for s in scorer.score(image).scores.values()] for image in images])


def values(scores: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([finding.value for finding in scores.findings])


def rank(row: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    return float(row @ np.arange(1, len(row) + 1))


def refused(scorer: Scorer, code: str, sources: Sequence[Any], **options: Any) -> Any:
    with pytest.raises((ImageError, ScoringError)) as refusal:
        scorer.score_exam(sources, **options)
    assert refusal.value.code == code
    assert dicom_factory.NAME not in str(refusal.value)
    assert "1.2.3" not in str(refusal.value), "UIDs are in results only"
    return refusal.value


def reasons(result: ExamResult) -> list[tuple[int, str]]:
    return [(image.number, image.code) for image in result.left_out]
