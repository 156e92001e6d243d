"""The scorer as what is measured, with one that is made up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from promptray.calibrate.bench.system import ScorerSystem, warm_up
from promptray.runtime.errors import ImageError, PromptRayError, ScoringError
from promptray.runtime.result import Refused
from tests.calibrate.bench.fakes import FakeClock


class FakeScorer:
    """Takes a second for each image; refuses those whose name says so."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock, self.calls = clock, []  # type: ignore[var-annotated]

    def score(self, source: Path, *, name: str, **declared: Any) -> Any:
        self.calls.append((source.name, name, declared))
        if "bad" in source.name:
            raise ImageError("image.constant", "one value", artefact=name)
        if "fault" in source.name:
            raise ScoringError("score.not-finite", "no number", artefact=name)
        self.clock.sleep(1.0)
        facts = SimpleNamespace(kind="png", rows=40, columns=30, transfer_syntax=None)
        return SimpleNamespace(
            timing={"read": 400.0, "image": 600.0, "total": 1000.0}, document=SimpleNamespace(source=facts)
        )

    def score_many(self, sources: Iterable[Path], **declared: Any) -> Iterator[Any]:
        for source in sources:
            try:
                yield self.score(source, name=source.name, **declared)
            except PromptRayError as error:
                yield Refused(error, source.name)


def files(folder: Path, *names: str) -> list[Path]:
    for name in names:
        (folder / name).write_bytes(b"12345")
    return [folder / name for name in names]


def test_the_warm_up_scores_every_image_twice_and_numbers_those_that_are_refused(tmp_path: Path) -> None:
    clock = FakeClock()
    scorer: Any = FakeScorer(clock)
    warm = warm_up(scorer, files(tmp_path, "bad doe.png", "a.png", "b.png"), {"modality": "DX"}, clock)
    assert [(image.number, image.rows, image.columns, image.bytes) for image in warm.images] == [
        (2, 40, 30, 5),
        (3, 40, 30, 5),
    ]
    assert [(image.image, image.code) for image in warm.refused] == [("image 1", "image.constant")]
    assert (warm.scored, warm.seconds_each, warm.system.images) == (4, 1.0, 2)
    assert {name for _, name, _ in scorer.calls} == {"image 1", "image 2", "image 3"}
    assert all(declared == {"modality": "DX"} for _, _, declared in scorer.calls)


def test_without_any_image_nothing_is_measured(tmp_path: Path) -> None:
    clock = FakeClock()
    scorer: Any = FakeScorer(clock)
    with pytest.raises(PromptRayError) as caught:
        warm_up(scorer, files(tmp_path, "bad doe.png"), {}, clock)
    assert caught.value.code == "bench.images"
    assert "image 1: image.constant" in str(caught.value.found)
    assert "doe" not in str(caught.value.to_json())


def test_what_is_wrong_with_the_model_is_no_matter_of_an_image(tmp_path: Path) -> None:
    clock = FakeClock()
    scorer: Any = FakeScorer(clock)
    with pytest.raises(ScoringError, match="no number"):
        warm_up(scorer, files(tmp_path, "a.png", "fault.png"), {}, clock)


def test_stages_are_the_results_without_their_sum(tmp_path: Path) -> None:
    scorer: Any = FakeScorer(FakeClock())
    system = ScorerSystem(scorer, [(7, files(tmp_path, "a.png")[0])], {})
    assert system.one(0) == {"read": 400.0, "image": 600.0}
    assert scorer.calls[-1][1] == "image 7"


def test_several_are_asked_for_one_by_one_and_an_error_names_the_number(tmp_path: Path) -> None:
    scorer: Any = FakeScorer(FakeClock())
    good, bad = files(tmp_path, "a.png", "bad doe.png")
    system = ScorerSystem(scorer, [(1, good), (9, bad)], {})
    assert system.several([0, 0, 0]) == 3
    with pytest.raises(ImageError) as caught:
        system.several([0, 1])
    assert caught.value.artefact == "image 9"
    assert "doe" not in str(caught.value.to_json())
