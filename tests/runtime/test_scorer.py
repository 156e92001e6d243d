"""The public scorer: the original's scores from files, and everything that must not become a score."""

from __future__ import annotations

import io
import json
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from promptray import ImageError, PromptRayError, Refused, Result, Scorer, ScoringError
from promptray.runtime import score_ahead
from promptray.runtime.backends import onnxruntime as backend_module
from promptray.runtime.backends.onnxruntime_in_place import InPlaceGraph
from promptray.runtime.bound_heads import BoundHead
from promptray.runtime.prepared import Prepared
from tests.bundle_factory import edited, relist
from tests.carzero_tiny import FOLDER, PROMPTS

SCORES, MAPS = 2e-5, 1e-6
ORACLE = dict(np.load(FOLDER / "oracle.npz"))
# In the oracle's order.
NAMES = ("tall", "wide", "square_odd", "half", "small_upscaled", "square_49")
IMAGES = [FOLDER / "images" / f"{name}.png" for name in NAMES]
KEYS = list(PROMPTS)


@pytest.fixture(scope="module")
def scorer(carzero_bundle: Path) -> Iterator[Scorer]:
    with Scorer.open(carzero_bundle, site=None) as opened:
        yield opened


def logits(result: Result) -> Any:
    return np.array([score.logit for score in result.scores.values()], np.float32)


@pytest.mark.parametrize("n", range(len(IMAGES)), ids=NAMES)
def test_scores_and_maps_equal_the_original_from_the_file(scorer: Scorer, n: int) -> None:
    prepared = scorer.prepare(IMAGES[n], modality="DX")
    assert (prepared.network_input.pixels[0] == ORACLE["images"][n]).all()
    result = scorer.infer(prepared)
    assert list(result.scores) == KEYS
    assert np.abs(logits(result) - ORACLE["scores"][n]).max() <= SCORES
    for column, key in enumerate(KEYS):
        assert np.abs(result.grid(key) - ORACLE["heatmap14"][n, column]).max() <= MAPS


def test_a_heat_map_lies_on_the_original_pixels(scorer: Scorer) -> None:
    """On the padded 256 plane, cell (r, c) covers rows 16+16r.. and columns 16+16c.. (spec, section 4)."""
    result = scorer.score(FOLDER / "images" / "tall.png", modality="DX")
    key = KEYS[0]
    grid, heatmap = result.grid(key), result.heatmap(key)
    assert heatmap.shape == (701, 523)
    assert heatmap.dtype == np.float32
    scale, left = 256 / 701, (256 - int(523 * (256 / 701))) // 2
    for row, column in [(50, 300), (350, 100), (600, 500), (350, 261)]:
        y, x = (row + 0.5) * scale, (column + 0.5) * int(523 * (256 / 701)) / 523 + left
        assert heatmap[row, column] == grid[int((y - 16) // 16), int((x - 16) // 16)]
    assert np.isnan(heatmap[0]).all(), "the outer 16/256 of the longer side is never looked at"
    assert np.isnan(heatmap[-1]).all()
    assert np.isfinite(heatmap[60:640]).all()


def test_result_says_who_scored_what(scorer: Scorer) -> None:
    result = scorer.score(IMAGES[0], modality="DX")
    document = result.to_json()
    assert document["schema"] == "promptray-result"
    assert document["schema_version"] == 5
    assert document["bundle"]["sha256"] == scorer.bundle.hash
    assert document["bundle"]["model"]["intended_use"] == "tests"
    assert document["backend"]["name"] == "onnxruntime-cpu"
    assert document["backend"]["reason"].startswith("auto:")
    assert document["source"]["modality_declared"] is True
    assert all(finding["score"]["probability"] is None for finding in document["findings"])
    stages = ["read", "decode", "window", "check", "resize", "image", "head", "post", "total"]
    assert list(result.timing) == stages
    assert result.timing["total"] == pytest.approx(sum(v for k, v in result.timing.items() if k != "total"))
    assert [notice.code for notice in result.notices].count("prompt-empty") == 1


def test_score_many_keeps_order_and_loses_no_study(scorer: Scorer, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(IMAGES[0].read_bytes()[:5000])
    sources = [IMAGES[0], broken, tmp_path / "absent.dcm", IMAGES[1], IMAGES[2]]
    outcomes = list(scorer.score_many(sources, modality="DX"))
    assert [outcome.name for outcome in outcomes] == [path.name for path in sources]
    assert [type(outcome) for outcome in outcomes] == [Result, Refused, Refused, Result, Result]
    for outcome in outcomes[1:3]:
        assert isinstance(outcome, Refused)
        with pytest.raises(ImageError):
            _ = outcome.scores
        with pytest.raises(ImageError):
            outcome.heatmap(KEYS[0])


def test_score_many_decodes_no_further_than_asked(scorer: Scorer) -> None:
    drawn: list[int] = []

    def endless() -> Iterator[Path]:
        for number in range(1_000_000):
            drawn.append(number)
            yield IMAGES[0]

    stream = scorer.score_many(endless(), ahead=3, modality="DX")
    for _ in range(4):
        next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert len(drawn) <= 4 + 3


@pytest.mark.parametrize("ahead", [1, 2])
def test_score_many_prepares_the_next_images_while_one_is_scored(
    scorer: Scorer, monkeypatch: pytest.MonkeyPatch, ahead: int
) -> None:
    prepare, infer, prepared, scored = scorer.prepare, scorer.infer, threading.Semaphore(0), []

    def counted(source: Path, **declared: Any) -> Prepared:
        try:
            return prepare(source, **declared)
        finally:
            prepared.release()

    def after_the_next(image: Prepared) -> Result:
        due = 1 + ahead if not scored else 1  # itself and those ahead of it, then one more for each
        if len(scored) + ahead < len(IMAGES):
            assert all(prepared.acquire(timeout=60) for _ in range(due))
        scored.append(image.name)
        return infer(image)

    monkeypatch.setattr(scorer, "prepare", counted)
    monkeypatch.setattr(scorer, "infer", after_the_next)
    outcomes = list(scorer.score_many(IMAGES, ahead=ahead, modality="DX"))
    assert all(isinstance(outcome, Result) for outcome in outcomes)
    assert scored == [path.name for path in IMAGES]


def test_score_many_prepares_as_many_images_at_once_as_there_are_cores(
    scorer: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [logits(scorer.score(image, modality="DX")) for image in IMAGES[:4]]
    prepare, together = scorer.prepare, threading.Barrier(2, timeout=60)

    def with_another(source: Path, **declared: Any) -> Prepared:
        together.wait()
        return prepare(source, **declared)

    monkeypatch.setattr(score_ahead, "host_threads", lambda threads: 2)
    monkeypatch.setattr(scorer, "prepare", with_another)
    outcomes = list(scorer.score_many(IMAGES[:4], ahead=2, modality="DX"))
    assert all(isinstance(outcome, Result) for outcome in outcomes), "each waited for another in vain"
    for outcome, alone in zip(outcomes, expected, strict=True):
        np.testing.assert_allclose(logits(outcome), alone, rtol=1e-6)  # type: ignore[arg-type]


def test_reproducible_scores_are_bit_equal_alone_in_many_and_after_adding(carzero_bundle: Path) -> None:
    with Scorer.open(carzero_bundle, site=None, reproducible=True) as scorer:
        alone = logits(scorer.score(IMAGES[0], modality="DX"))
        many = [logits(item) for item in scorer.score_many(IMAGES[::-1], modality="DX")]  # type: ignore[arg-type]
        for n in range(40):
            scorer.prompts.add(f"extra {n}", f"There is extra finding {n} of the left lung")
        grown = logits(scorer.score(IMAGES[0], modality="DX"))
        for n in range(40):
            scorer.prompts.remove(f"extra {n}")
        scorer.prompts.remove(KEYS[0])
        shrunk = logits(scorer.score(IMAGES[0], modality="DX"))
    assert (many[-1] == alone).all()
    assert (grown[: len(alone)] == alone).all()
    assert (shrunk == alone[1:]).all()


@pytest.mark.parametrize("threads", [1, 2])
def test_every_run_gives_the_same_bits(carzero_bundle: Path, threads: int) -> None:
    with Scorer.open(carzero_bundle, site=None, threads=threads) as scorer:
        prepared = scorer.prepare(IMAGES[3], modality="DX")
        first = logits(scorer.infer(prepared))
        for _ in range(20):
            assert (logits(scorer.infer(prepared)) == first).all()


def test_scoring_side_by_side_while_prompts_change(carzero_bundle: Path) -> None:
    """Each result has the findings of one moment, with their own scores."""
    with Scorer.open(carzero_bundle, site=None, threads=1, reproducible=True) as scorer:
        expected = logits(scorer.score(IMAGES[0], modality="DX"))
        stop = threading.Event()

        def edit() -> None:
            while not stop.is_set():
                scorer.prompts.add("moving", "There is a moving finding")
                scorer.prompts.remove("moving")

        with ThreadPoolExecutor(4) as pool:
            editor = pool.submit(edit)
            results = list(pool.map(lambda _: scorer.score(IMAGES[0], modality="DX"), range(30)))
            stop.set()
            editor.result()
    for result in results:
        assert list(result.scores)[: len(KEYS)] == KEYS
        assert list(result.scores)[len(KEYS) :] in ([], ["moving"])
        assert (logits(result)[: len(KEYS)] == expected).all()


def test_nan_is_an_error_never_a_score(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The head's own sum is none where its features are."""
    real = InPlaceGraph.run

    def poisoned(self: InPlaceGraph, inputs: Any) -> Any:
        outputs = real(self, inputs)
        if "pixels" in inputs:
            next(iter(outputs.values()))[...] = np.nan
        return outputs

    monkeypatch.setattr(InPlaceGraph, "run", poisoned)
    with pytest.raises(ScoringError, match="head graph") as refusal:
        scorer.score(IMAGES[0], modality="DX")
    assert refusal.value.code == "score.not-finite"


@pytest.mark.parametrize(
    ("value", "refused"), [(np.finfo(np.float32).max, "image graph"), (np.nan, "network input")]
)
def test_what_is_no_number_before_the_head_is_refused_too(value: float, refused: str, scorer: Scorer) -> None:
    """A network makes infinity of what is too large; a quantised one would take NaN for a number."""
    prepared = scorer.prepare(IMAGES[0], modality="DX")
    prepared.network_input.pixels[...] = value
    with pytest.raises(ScoringError, match=refused) as refusal:
        scorer.infer(prepared)
    assert refusal.value.code == "score.not-finite"


def test_deadline_and_cancellation(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ScoringError) as refusal:
        scorer.score(IMAGES[0], modality="DX", deadline=0.0)
    assert refusal.value.code == "score.deadline"
    cancel = threading.Event()
    real = InPlaceGraph.run

    def cancelled_meanwhile(self: InPlaceGraph, inputs: Any) -> Any:
        cancel.set()
        return real(self, inputs)

    monkeypatch.setattr(InPlaceGraph, "run", cancelled_meanwhile)
    with pytest.raises(ScoringError) as refusal:
        scorer.score(IMAGES[0], modality="DX", cancel=cancel)
    assert refusal.value.code == "score.cancelled"
    monkeypatch.undo()
    assert scorer.score(IMAGES[0], modality="DX", deadline=600.0).scores, "the scorer is still usable"


def test_a_closed_scorer_scores_nothing(carzero_bundle: Path) -> None:
    with Scorer.open(carzero_bundle, site=None) as scorer:
        prepared = scorer.prepare(IMAGES[0], modality="DX")
    for call in (
        lambda: scorer.prepare(IMAGES[0], modality="DX"),
        lambda: scorer.infer(prepared),
        lambda: list(scorer.score_many([IMAGES[0]], modality="DX")),
        lambda: scorer.prompts.add("late", "There is something late"),
        lambda: scorer.prompts.remove(KEYS[0]),
        scorer.check_golden,
    ):
        with pytest.raises(ScoringError) as refusal:
            call()
        assert refusal.value.code == "score.closed"


def test_a_modality_must_be_known(scorer: Scorer) -> None:
    with pytest.raises(ImageError) as refusal:
        scorer.score(IMAGES[0])
    assert refusal.value.code == "image.modality-undeclared"
    with pytest.raises(ImageError) as refusal:
        scorer.score(IMAGES[0], modality="MG")
    assert refusal.value.code == "image.modality"


def test_arrays_and_bytes_score_like_the_file(scorer: Scorer) -> None:
    from PIL import Image

    path = FOLDER / "images" / "wide.png"
    expected = logits(scorer.score(path, modality="DX"))
    grey = scorer.picture(path, modality="DX").grey
    assert (logits(scorer.score(grey, modality="DX")) == expected).all()
    assert (logits(scorer.score(path.read_bytes(), modality="DX")) == expected).all()
    with path.open("rb") as file:
        assert (logits(scorer.score(file, modality="DX")) == expected).all()
    with Image.open(path) as image:
        assert image.size == (grey.shape[1], grey.shape[0])


@pytest.mark.parametrize("backend", ["tensorrt", "cuda", "ONNXRUNTIME-CPU", ""])
def test_no_other_backend_than_the_one_asked_for(carzero_bundle: Path, backend: str) -> None:
    with pytest.raises(ScoringError) as refusal:
        Scorer.open(carzero_bundle, site=None, backend=backend)
    assert refusal.value.code == "backend.unavailable"
    assert "promptray doctor" in str(refusal.value)


def test_mixed_onnxruntime_wheels_are_refused(carzero_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = {"onnxruntime": "1.31.1", "onnxruntime-gpu": "1.31.1"}
    monkeypatch.setattr(backend_module, "installed_wheels", lambda: both)
    with pytest.raises(ScoringError) as refusal:
        Scorer.open(carzero_bundle, site=None)
    assert refusal.value.code == "backend.mixed-wheels"
    assert "pip uninstall" in str(refusal.value.cure)


def test_a_machine_that_computes_otherwise_is_refused_at_opening(
    carzero_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = BoundHead.collect

    def slightly_off(self: BoundHead, found: Any, images: int) -> Any:
        scores, maps = real(self, found, images)
        return scores + np.float32(1e-4), maps

    monkeypatch.setattr(BoundHead, "collect", slightly_off)
    with pytest.raises(PromptRayError) as refusal:
        Scorer.open(carzero_bundle, site=None)
    assert refusal.value.code == "bundle.golden"


def test_what_is_loaded_is_hashed(carzero_bundle: Path, tmp_path: Path) -> None:
    for role in ("image", "head"):
        copy = tmp_path / role
        shutil.copytree(carzero_bundle, copy)
        graph = next((copy / "graphs" / role).rglob("*.onnx"))
        content = bytearray(graph.read_bytes())
        content[len(content) // 2] ^= 1
        graph.write_bytes(content)
        with pytest.raises(PromptRayError) as refusal:
            Scorer.open(copy, site=None)
        assert refusal.value.code == "bundle.hash"
        assert graph.name in str(refusal.value)


def test_one_unforeseen_fault_loses_no_other_study(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network file that fails while it is read is refused without its text, and the batch goes on."""

    class Broken(io.BytesIO):
        def __init__(self, fault: Exception) -> None:
            self.fault = fault

        def read(self, *_: Any) -> bytes:
            raise self.fault

    faults = [ConnectionError("patient DOE^JOHN"), RuntimeError("patient DOE^JOHN")]
    sources = [IMAGES[0], *map(Broken, faults), IMAGES[1]]
    outcomes = list(scorer.score_many(sources, modality="DX"))
    assert [type(outcome) for outcome in outcomes] == [Result, Refused, Refused, Result]
    codes = [outcome.error.code for outcome in outcomes if isinstance(outcome, Refused)]
    assert codes == ["image.not-found", "score.fault"]
    assert all("DOE" not in str(o.error) for o in outcomes if isinstance(o, Refused))


def test_a_given_name_replaces_the_files_own_everywhere(scorer: Scorer, tmp_path: Path) -> None:
    path = tmp_path / "DOE^JOHN.png"
    path.write_bytes(IMAGES[0].read_bytes())
    result = scorer.score(path, name="study 17", modality="DX")
    assert result.name == "study 17"
    assert "DOE" not in json.dumps(result.to_json())
    path.write_bytes(b"no image")
    with pytest.raises(ImageError) as refusal:
        scorer.score(path, name="study 17", modality="DX")
    assert "study 17" in str(refusal.value)
    assert "DOE" not in str(refusal.value)


@pytest.mark.parametrize("threads", [0, -3, 1_000_000])
def test_threads_must_be_positive(carzero_bundle: Path, threads: int) -> None:
    with pytest.raises(ValueError, match="threads"):
        Scorer.open(carzero_bundle, site=None, threads=threads)


@pytest.mark.parametrize("role", ["image", "head", "text"])
def test_every_graph_must_be_gated_on_the_backend(carzero_bundle: Path, tmp_path: Path, role: str) -> None:
    def elsewhere(document: dict[str, Any]) -> None:
        for graph in document["graphs"]:
            if graph["role"] == role:
                graph["consumers"] = ["tensorrt"]

    copy = tmp_path / "copy"
    shutil.copytree(carzero_bundle, copy)
    edited(copy, elsewhere)
    for backend in ("auto", "onnxruntime-cpu"):
        with pytest.raises(ScoringError) as refusal:
            Scorer.open(copy, site=None, backend=backend)
        assert refusal.value.code == "backend.unavailable"


def test_a_head_that_lost_its_maps_is_refused(carzero_bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(carzero_bundle, copy)
    path = next((copy / "graphs" / "head").rglob("*.onnx"))
    model = onnx.load(path)
    del model.graph.output[1]
    relist(copy, path.relative_to(copy).as_posix(), model.SerializeToString())
    with pytest.raises(ScoringError) as refusal:
        Scorer.open(copy, site=None)
    assert refusal.value.code == "backend.failed"
    assert "maps" in str(refusal.value)


def test_an_image_prepared_for_another_bundle_is_refused(scorer: Scorer, reference_bundle: Path) -> None:
    """The other bundle lets RG in and prepares it by its own rule."""
    grey = scorer.picture(IMAGES[0], modality="DX").grey
    with Scorer.open(reference_bundle, site=None) as other:
        prepared = other.prepare(grey, modality="RG")
    with pytest.raises(ScoringError) as refusal:
        scorer.infer(prepared)
    assert refusal.value.code == "score.foreign-input"


def test_a_deadline_that_is_no_number_is_refused(scorer: Scorer) -> None:
    with pytest.raises(ValueError, match="deadline"):
        scorer.score(IMAGES[0], modality="DX", deadline=float("nan"))


def test_an_empty_site_name_is_not_the_users_site(carzero_bundle: Path) -> None:
    with pytest.raises(PromptRayError) as refusal:
        Scorer.open(carzero_bundle, site="")
    assert refusal.value.code == "site.not-found"


def test_a_folder_called_user_is_a_folder(
    carzero_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "user").mkdir()
    with Scorer.open(carzero_bundle, site="user") as scorer:
        scorer.prompts.add("kept", "There is something kept", keep=True)
    assert list((tmp_path / "user").iterdir())
