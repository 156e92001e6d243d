"""A dual encoder's bundle through the public Scorer: the original's scores, and prompts that come and go."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from promptray import Scorer
from promptray.export.checkpoint import load_checkpoint
from promptray.runtime.errors import BundleError, ImageError, PromptError
from promptray.runtime.result import Result
from tests.dicom_factory import dataset
from tests.open_clip_arithmetic import text_vector
from tests.open_clip_tiny import (
    CLASSES,
    FOLDER,
    IMAGES,
    LOGIT,
    PAIRS,
    SOFTMAX,
    TEXTS,
    WEIGHTS,
    image_path,
    oracle,
)

KEYS = list(CLASSES)


@pytest.fixture(scope="module")
def original() -> dict[str, Any]:
    return oracle()


@contextmanager
def opened(bundle: Path, **options: Any) -> Iterator[Scorer]:
    with Scorer.open(bundle, **{"site": None, "threads": 2, **options}) as scorer:
        yield scorer


def score(scorer: Scorer, name: str) -> Result:
    return scorer.score(image_path(name), modality="DX")


def logits(result: Result) -> Any:
    return np.array([each.logit for each in result.scores.values()])


@pytest.mark.parametrize("reproducible", [False, True])
def test_scores_equal_the_original(
    open_clip_bundle: Path, original: dict[str, Any], reproducible: bool
) -> None:
    """Four images, one of them in colour: logits and the softmax over the classes."""
    with opened(open_clip_bundle, reproducible=reproducible) as scorer:
        for n, name in enumerate(IMAGES):
            result = score(scorer, name)
            assert list(result.scores) == KEYS
            assert np.abs(logits(result) - original["logits"][n]).max() <= LOGIT
            shares = np.array([each.softmax for each in result.scores.values()])
            assert np.abs(shares - original["softmax"][n]).max() <= SOFTMAX
            assert all(each.among == KEYS for each in result.scores.values())
            assert ("coloured" in [notice.code for notice in result.notices]) == (name == "wide")
            pixels = scorer.prepare(image_path(name), modality="DX").network_input.pixels
            np.testing.assert_array_equal(pixels[0], original["images"][n])


def test_many_are_scored_as_each_alone(open_clip_bundle: Path) -> None:
    with opened(open_clip_bundle, reproducible=True) as scorer:
        together = list(scorer.score_many([image_path(name) for name in IMAGES], modality="DX"))
        for name, result in zip(IMAGES, together, strict=True):
            assert isinstance(result, Result)
            assert (logits(result) == logits(score(scorer, name))).all()


def test_an_array_of_colours_is_the_file(open_clip_bundle: Path) -> None:
    with opened(open_clip_bundle, reproducible=True) as scorer, Image.open(image_path("wide")) as image:
        array = np.asarray(image)
        result = scorer.score(array, modality="DX")
        assert (logits(result) == logits(score(scorer, "wide"))).all()
        grey = scorer.score(np.asarray(image.convert("L")), modality="DX")
        assert (logits(grey) != logits(result)).all(), "colour counts"


def test_independent_findings_have_logits_only(
    open_clip_independent_bundle: Path, original: dict[str, Any]
) -> None:
    with opened(open_clip_independent_bundle) as scorer:
        result = score(scorer, "tall")
        assert np.abs(logits(result) - original["logits"][0]).max() <= LOGIT
        assert all(each.softmax is None and each.among is None for each in result.scores.values())


def test_pairs_give_differences_and_their_logistic(
    open_clip_pair_bundle: Path, original: dict[str, Any]
) -> None:
    with opened(open_clip_pair_bundle) as scorer:
        for n, name in enumerate(IMAGES):
            scores = score(scorer, name).scores
            positive, negative = PAIRS["one against one"]
            per_text = original["logits_per_text"][n].astype(np.float64)
            difference = per_text[positive[0]] - per_text[negative[0]]
            found = scores["one against one"]
            assert found.logit == pytest.approx(difference, abs=LOGIT)
            assert found.softmax == pytest.approx(1 / (1 + np.exp(-difference)), abs=SOFTMAX * 5)
            assert found.among == ["one against one", "not one against one"]
            assert all(each.softmax is not None for each in scores.values())


def test_the_document_names_all_wordings(open_clip_pair_bundle: Path) -> None:
    with opened(open_clip_pair_bundle) as scorer:
        document = score(scorer, "square").document
    for finding in document.findings:
        positive, negative = PAIRS[finding.key]
        assert finding.prompts == [TEXTS[n] for n in positive]
        assert finding.negative_prompts == [TEXTS[n] for n in negative]


def test_prompts_are_added_and_removed(
    open_clip_bundle: Path, open_clip_independent_bundle: Path, original: dict[str, Any]
) -> None:
    for bundle in (open_clip_bundle, open_clip_independent_bundle):
        with opened(bundle, reproducible=True) as scorer:
            before = logits(score(scorer, "tall"))
            scorer.prompts.add("one", TEXTS[1])
            result = score(scorer, "tall")
            assert (logits(result)[: len(before)] == before).all()
            assert result.scores["one"].logit == pytest.approx(original["logits_per_text"][0, 1], abs=LOGIT)
            scorer.prompts.remove("one")
            assert (logits(score(scorer, "tall")) == before).all()


def test_a_bare_key_fills_the_bundles_template(open_clip_independent_bundle: Path) -> None:
    with opened(open_clip_independent_bundle, reproducible=True) as scorer:
        assert scorer.prompts.add("nodule").prompts == ["this is a photo of nodule"]
        scorer.prompts.add("the same", "this is a photo of nodule")
        result = score(scorer, "tall")
        assert result.scores["nodule"].logit == result.scores["the same"].logit
        assert "prompt-duplicate" in [notice.code for notice in result.notices]


def test_an_alternative_joins_and_leaves_the_set(open_clip_bundle: Path) -> None:
    with opened(open_clip_bundle) as scorer:
        scorer.prompts.add("nodule")
        result = score(scorer, "tall")
        values = logits(result)
        shares = np.exp(values - values.max())
        expected = shares / shares.sum()
        for share, each in zip(expected, result.scores.values(), strict=True):
            assert each.softmax == pytest.approx(share, abs=1e-6)
            assert each.among == [*KEYS, "nodule"]
        for key in KEYS:
            scorer.prompts.remove(key)
        alone = score(scorer, "tall").scores["nodule"]
        assert alone.softmax is None, "one of one is no comparison"
        assert alone.logit == pytest.approx(values[-1], abs=LOGIT)


def test_a_pair_is_added_with_its_negative(open_clip_pair_bundle: Path, original: dict[str, Any]) -> None:
    per_text = original["logits_per_text"][0].astype(np.float64)
    with opened(open_clip_pair_bundle) as scorer:
        finding = scorer.prompts.add("new", TEXTS[3], negative_prompt=[TEXTS[4]])
        assert finding.negative_prompts == [TEXTS[4]]
        found = score(scorer, "tall").scores["new"]
        assert found.logit == pytest.approx(per_text[3] - per_text[4], abs=LOGIT)
        assert found.among == ["new", "not new"]


REFUSED: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "a pair without its negative": ("pair", {"prompt": "a"}, "prompt.invalid", "against its negative"),
    "a negative elsewhere": (
        "exclusive", {"prompt": "a", "negative_prompt": "b"}, "prompt.invalid", "only a head of pairs",
    ),
    "the same on both sides": (
        "pair", {"prompt": "a", "negative_prompt": "a"}, "prompt.invalid", "are the same",
    ),
    "the same to the model": (
        "pair", {"prompt": "Pneumonia", "negative_prompt": " pneumonia"}, "prompt.invalid", "cannot tell",
    ),
    "no wording": ("exclusive", {"prompt": []}, "prompt.invalid", "needs a prompt"),
    "an empty one": ("exclusive", {"prompt": ""}, "prompt.invalid", "cannot be a finding"),
    "white space": ("exclusive", {"prompt": " \t\n"}, "prompt.empty", "nothing is left"),
    "white space in HTML": ("exclusive", {"prompt": "&amp;nbsp;"}, "prompt.empty", "nothing is left"),
    "one of several empty": ("exclusive", {"prompt": ["a", "\u00a0"]}, "prompt.empty", "nothing is left"),
    "an empty negative": (
        "pair", {"prompt": "a", "negative_prompt": ["b", " "]}, "prompt.empty", "nothing is left",
    ),
    "no text": ("exclusive", {"prompt": [3]}, "prompt.invalid", "cannot be a finding"),
    "a pasted file": ("exclusive", {"prompt": "a " * 10_001}, "prompt.invalid", "must be text"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_wordings_that_cannot_be_scored_are_refused(
    open_clip_bundle: Path, open_clip_pair_bundle: Path, case: str
) -> None:
    relation, arguments, code, named = REFUSED[case]
    bundle = {"pair": open_clip_pair_bundle, "exclusive": open_clip_bundle}[relation]
    with opened(bundle) as scorer:
        before = len(scorer.prompts)
        with pytest.raises(PromptError, match=named) as refusal:
            scorer.prompts.add("new", **arguments)
        assert refusal.value.code == code
        assert len(scorer.prompts) == before


@pytest.mark.parametrize("texts", [["a nodule"], ["a  nodule"], ["A NODULE"]], ids=repr)
def test_an_alternative_that_is_there_already_is_refused(
    open_clip_bundle: Path, open_clip_independent_bundle: Path, tmp_path: Path, texts: list[str]
) -> None:
    with Scorer.open(open_clip_bundle, site=tmp_path) as scorer:
        scorer.prompts.add("nodule", ["a nodule"], keep=True)
        with pytest.raises(PromptError, match="'nodule' and 'again'") as refusal:
            scorer.prompts.add("again", texts, keep=True)
        assert refusal.value.code == "prompt.invalid"
        assert "again" not in scorer.prompts
    with Scorer.open(open_clip_bundle, site=tmp_path) as scorer:
        assert "again" not in scorer.prompts
    with opened(open_clip_independent_bundle) as scorer:
        scorer.prompts.add("nodule", ["a nodule"])
        scorer.prompts.add("again", texts)
        notices = [notice.code for notice in score(scorer, "wide").notices]
        assert ("prompt-duplicate" in notices) == (texts != ["A NODULE"])


def test_a_special_piece_is_scored_as_the_original_would(
    open_clip_bundle: Path, original: dict[str, Any]
) -> None:
    """[PAD] in a prompt is padding to the model, and a prompt too long is cut and noted."""
    state = load_checkpoint(FOLDER / WEIGHTS)
    pieces = (FOLDER / "vocab.txt").read_text(encoding="utf-8").splitlines()
    prompts = {
        "padded": ("pneumonia [PAD] [PAD] effusion", "[CLS] pneumonia [PAD] [PAD] effusion [SEP]"),
        "unknown": ("pneumonia [UNK]", "[CLS] pneumonia [UNK] [SEP]"),
        "closed": ("pneumonia [SEP] effusion", "[CLS] pneumonia [SEP] effusion [SEP]"),
        "long": ("pneumonia " * 300, "[CLS] " + "pneumonia " * 254 + "[SEP]"),
    }
    scale = float(np.exp(original["logit_scale"]))
    with opened(open_clip_bundle) as scorer:
        for key, (prompt, _) in prompts.items():
            scorer.prompts.add(key, prompt)
        result = score(scorer, "tall")
    for key, (_, tokens) in prompts.items():
        vector = text_vector(state, [pieces.index(piece) for piece in tokens.split()], heads=4).numpy()
        expected = scale * original["image_features"][0].astype(np.float64) @ vector
        assert result.scores[key].logit == pytest.approx(expected, abs=LOGIT), key
    notices = {notice.code: notice.message for notice in result.notices}
    assert "long" in notices["prompt-truncated"]


def test_prompts_travel_between_bundles_of_one_model(
    open_clip_bundle: Path, open_clip_independent_bundle: Path
) -> None:
    with opened(open_clip_independent_bundle, reproducible=True) as here:
        here.prompts.add("nodule", ["a nodule", "a round shadow"], display="Nodule")
        expected = score(here, "wide").scores["nodule"].logit
        exported = here.prompts.export(["nodule"])
    with opened(open_clip_bundle, reproducible=True) as there:
        finding = there.prompts.import_(exported)[0]
        assert (finding.display, finding.prompts) == ("Nodule", ["a nodule", "a round shadow"])
        assert score(there, "wide").scores["nodule"].logit == expected


def test_a_difference_is_no_finding_elsewhere(
    open_clip_bundle: Path, open_clip_pair_bundle: Path, carzero_bundle: Path
) -> None:
    """A pair's entry cannot be told from another vector, so its bank has another identity."""
    bundles = (open_clip_bundle, open_clip_pair_bundle, carzero_bundle)
    exported = []
    for bundle in bundles:
        with opened(bundle) as scorer:
            exported.append(scorer.prompts.export([next(iter(scorer.prompts)).key]))
    for bundle in bundles:
        with opened(bundle) as scorer:
            before = len(scorer.prompts)
            for data, source in zip(exported, bundles, strict=True):
                if source != bundle:
                    with pytest.raises(BundleError) as refusal:
                        scorer.prompts.import_(data)
                    assert refusal.value.code == "bundle.foreign-bank"
            assert len(scorer.prompts) == before


@pytest.mark.parametrize(
    ("name", "rows", "columns"), [("tall", 834, 600), ("wide", 384, 640), ("small_upscaled", 120, 97)]
)
def test_the_heat_map_lies_on_the_original_picture(
    open_clip_bundle: Path, name: str, rows: int, columns: int
) -> None:
    """Cell by cell through the resize and the crop; NaN where the crop cut the picture off."""
    with opened(open_clip_bundle) as scorer:
        result = score(scorer, name)
    key = KEYS[1]
    height, width = (int(224 * rows / columns), 224) if rows > columns else (224, int(224 * columns / rows))
    top, left = round((height - 224) / 2), round((width - 224) / 2)
    rows_at = ((np.arange(rows) + 0.5) * height / rows - top) / 16
    columns_at = ((np.arange(columns) + 0.5) * width / columns - left) / 16
    row, column = np.floor(rows_at).astype(int), np.floor(columns_at).astype(int)
    grid, found = result.grid(key), result.heatmap(key)
    assert grid.shape == (14, 14)
    assert found.shape == (rows, columns)
    inside = ((row >= 0) & (row < 14))[:, None] & ((column >= 0) & (column < 14))[None]
    assert (np.isnan(found) == ~inside).all()
    assert 0 < inside.mean() < 1
    expected = grid[np.clip(row, 0, 13)[:, None], np.clip(column, 0, 13)[None]]
    # A centre that falls on the line between two cells belongs to either.
    clear = inside & (_off_line(rows_at)[:, None] & _off_line(columns_at)[None])
    assert clear.mean() > 0.9 * inside.mean()
    assert (found[clear] == expected[clear]).all()


def _off_line(places: Any) -> Any:
    return np.abs(places - np.round(places)) > 1e-9


def test_the_golden_pictures_hold_colour(open_clip_bundle: Path, open_clip_pair_bundle: Path) -> None:
    for bundle in (open_clip_bundle, open_clip_pair_bundle):
        pictures = safetensors.numpy.load((bundle / "golden" / "golden.safetensors").read_bytes())["pictures"]
        assert pictures.shape == (16, 224, 224, 3)
        coloured = np.ptp(pictures, axis=3).reshape(16, -1).max(axis=1) > 0
        assert coloured.tolist() == [True, False] * 8
        with opened(bundle) as scorer:
            report = scorer.check_golden()
        assert report.pictures == 16


def test_dicom_in_colour_is_refused(open_clip_bundle: Path) -> None:
    colour = np.random.default_rng(0).integers(0, 256, (50, 61, 3), dtype=np.uint8)
    made = dataset(
        colour, SamplesPerPixel=3, PlanarConfiguration=0, PhotometricInterpretation="RGB", Rows=50, Columns=61
    )
    del made.NumberOfFrames
    with opened(open_clip_bundle) as scorer:
        with pytest.raises(ImageError) as refusal:
            scorer.score(made)
        assert refusal.value.code == "image.colour"
        assert np.isfinite(logits(scorer.score(dataset()))).all()
