"""A scorer that stays open while others write to its site: calibrations count at once, prompts wait."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np
import pytest

from promptray.runtime.calibration import Platt
from promptray.runtime.errors import BundleError, PromptRayError
from promptray.runtime.result import Result
from promptray.runtime.scorer import Scorer
from promptray.runtime.site import Site
from promptray.runtime.site_calibration import CalibrationFile, keep_calibrations
from promptray.runtime.site_prompts import forget_finding, restore_finding
from tests.fuzz.small_bundle import write_small
from tests.runtime.test_site_calibration import made

PIXELS = np.arange(64 * 64, dtype=np.uint8).reshape(64, 64)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    write_small(folder)
    return folder / "small.bundle"


@pytest.fixture
def scorer(bundle: Path, tmp_path: Path) -> Iterator[Scorer]:
    with Scorer.open(bundle, site=tmp_path, threads=1) as opened:
        yield opened


@pytest.fixture
def other(scorer: Scorer, tmp_path: Path) -> Site:
    """The same site, as another process opens it."""
    return Site.open(tmp_path, scorer.bundle.hash)


def key_of(scorer: Scorer) -> str:
    return next(iter(scorer.prompts)).key


def file_of(scorer: Scorer, slope: float) -> CalibrationFile:
    file = made(scorer, key_of(scorer))
    curve = msgspec.structs.replace(file.calibration, curve=Platt(slope=slope, intercept=0.0))
    return msgspec.structs.replace(file, calibration=curve)


def store(site: Site, scorer: Scorer, slope: float) -> str:
    """Store a calibration of the first finding, and return its id."""
    file = file_of(scorer, slope)
    (entry,) = keep_calibrations(site, file.head, [file])
    assert entry.payload is not None
    return entry.payload.sha256


def score(scorer: Scorer) -> Result:
    return scorer.score(PIXELS, modality="DX")


def rests_on(result: Result, key: str) -> str | None:
    found = result.scores[key].calibration
    return None if found is None else found.id


def codes(result: Result) -> list[str]:
    return [each.code for each in result.notices if each.code.startswith(("site-", "calibration-"))]


def test_what_others_calibrate_and_remove_counts_from_the_next_score(scorer: Scorer, other: Site) -> None:
    key = key_of(scorer)
    assert rests_on(score(scorer), key) is None
    for slope in (1.0, 2.0):
        stored = store(other, scorer, slope)
        found = score(scorer)
        assert rests_on(found, key) == stored
        assert found.scores[key].probability == pytest.approx(
            1 / (1 + np.exp(-slope * found.scores[key].logit))
        )
        assert found.document.bundle.site_revision == other.revision
    other.remove("calibration", file_of(scorer, 1.0).head, key)
    assert rests_on(score(scorer), key) is None
    assert score(scorer).document.bundle.site_revision == other.revision


def test_another_process_removes_a_calibration(
    scorer: Scorer, other: Site, bundle: Path, tmp_path: Path
) -> None:
    key = key_of(scorer)
    stored = store(other, scorer, 1.0)
    assert rests_on(score(scorer), key) == stored
    program = "import sys; from promptray.cli import run; sys.exit(run(sys.argv[1:]))"
    arguments = ["calibrate", str(bundle), "--remove", key, "--site", str(tmp_path)]
    subprocess.run([sys.executable, "-c", program, *arguments], check=True, capture_output=True)
    assert rests_on(score(scorer), key) is None


def test_every_score_is_of_one_calibration_while_they_change(scorer: Scorer, other: Site) -> None:
    """Four threads score, one writes: a probability is always that of the calibration that is named."""
    key, slopes = key_of(scorer), {store(other, scorer, 1.0): 1.0}
    done = threading.Event()

    def scores() -> list[tuple[str | None, float, float | None]]:
        found = []
        while not done.is_set():
            result = score(scorer)
            one = result.scores[key]
            found.append((rests_on(result, key), one.logit, one.probability))
        return found

    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(scores) for _ in range(4)]
        try:
            for slope in np.linspace(1.0, 3.0, 12).tolist():
                slopes[store(other, scorer, slope)] = slope
        finally:
            done.set()
        found = [each for future in waiting for each in future.result()]
    assert found
    for stored, logit, probability in found:
        assert stored is not None
        assert probability == pytest.approx(1 / (1 + np.exp(-slopes[stored] * logit)))
    assert slopes[rests_on(score(scorer), key) or ""] == 3.0


def test_prompts_that_others_change_wait_and_a_notice_says_so(scorer: Scorer, other: Site) -> None:
    """A result's site revision names exactly the findings it was scored with."""
    key, manifest, before = key_of(scorer), scorer.bundle.manifest, scorer.prompts.state.site_revision
    forget_finding(other, manifest, key)
    found = score(scorer)
    assert key in found.scores
    assert codes(found) == ["site-prompts-changed"]
    assert found.document.bundle.site_revision == before
    stored = store(other, scorer, 1.0)  # a calibration holds for a wording, in whatever list it is
    assert rests_on(score(scorer), key) == stored
    with pytest.raises(BundleError) as refusal:
        scorer.prompts.remove(key, keep=True)
    assert refusal.value.code == "site.changed"
    assert key in scorer.prompts
    restore_finding(other, manifest, key)
    assert codes(score(scorer)) == []
    assert score(scorer).document.bundle.site_revision == other.revision
    scorer.prompts.remove(key, keep=True)
    assert codes(score(scorer)) == []


def test_a_prompt_is_kept_whatever_others_calibrated_meanwhile(scorer: Scorer, other: Site) -> None:
    key = key_of(scorer)
    stored = store(other, scorer, 1.0)
    scorer.prompts.add("rib fracture", "There is a rib fracture.", keep=True)
    found = score(scorer)
    assert rests_on(found, key) == stored
    assert codes(found) == []
    store(other, scorer, 2.0)
    scorer.prompts.remove("rib fracture", keep=True)
    assert codes(score(scorer)) == []
    assert rests_on(score(scorer), key) != stored


def test_a_site_that_is_damaged_meanwhile_gives_no_score_until_it_is_mended(
    scorer: Scorer, other: Site
) -> None:
    stored = store(other, scorer, 1.0)
    path = other.folder / "entries" / stored
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b" ")
    for _ in range(2):
        with pytest.raises(PromptRayError) as refusal:
            score(scorer)
        assert refusal.value.code == "site.corrupt"
    path.write_bytes(whole)
    assert rests_on(score(scorer), key_of(scorer)) == stored


def test_a_site_that_vanishes_is_an_error_until_it_is_back(scorer: Scorer, other: Site) -> None:
    store(other, scorer, 1.0)
    assert rests_on(score(scorer), key_of(scorer)) is not None
    away = other.folder.with_name("away")
    other.folder.rename(away)
    for _ in range(2):
        with pytest.raises(PromptRayError) as refusal:
            score(scorer)
        assert refusal.value.code == "site.not-found"
    away.rename(other.folder)
    assert rests_on(score(scorer), key_of(scorer)) is not None
