"""CheXzero against open_clip's CLIP of the same weights: pixels, torch, the exported graphs, and `Scorer`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from torch import Tensor

from promptray import PromptError, Scorer
from promptray.cli import run
from promptray.export.families.base import LoadedModel
from promptray.export.families.chexzero import FAMILY, preprocessing
from promptray.export.torchvision_guard import ensure_torchvision_imports
from promptray.runtime.graphs import REPRODUCIBLE_PROMPTS
from promptray.runtime.preprocess import preprocess
from promptray.runtime.text import EncodedFinding, TextEncoder
from promptray.runtime.verify import verify
from tests.chexzero_tiny import (
    PAIRS,
    PUBLISHED_SIZES,
    Sizes,
    original,
    random_state,
    shared_bundle,
    tokenizer,
    write_folder,
)
from tests.exported import Exported
from tests.open_clip_tiny import IMAGES, image_path

ensure_torchvision_imports()
from torchvision.transforms import InterpolationMode  # noqa: E402
from torchvision.transforms import functional as transforms  # noqa: E402

#: Unit vectors, scores of pairs, and pixels in units of the deviation.
UNIT, SCORE, PIXELS = 2e-6, 5e-6, 1e-5
OTHERS = {
    "the bundle's sizes": (Sizes(), 3),
    "other sizes everywhere": (
        Sizes(
            width=64, depth=2, mlp=100, patch=28, image=112, text_width=128, text_depth=4, text_mlp=130,
            context=50, merges=150, embed=64,
        ),
        2,
    ),
}  # fmt: skip


def published_pixels(picture: Image.Image, side: int) -> Tensor:
    """Prepare an image as data_process.py and zero_shot.py say it, float32 (3, side, side)."""
    colours = picture.convert("RGB")
    ratio = float(320) / max(colours.size)
    width, height = (int(each * ratio) for each in colours.size)
    # Columns first, as Pillow did when it was published; from 13 on, rows come first where they shrink more.
    narrow = colours.resize((width, colours.height), Image.Resampling.LANCZOS)
    small = narrow.resize((width, height), Image.Resampling.LANCZOS)
    square = Image.new("L", (320, 320))
    square.paste(small, ((320 - width) // 2, (320 - height) // 2))
    stored = torch.from_numpy(np.array(square, np.float32)).expand(3, -1, -1)
    normal = transforms.normalize(stored, [101.48761] * 3, [83.43944] * 3)
    if side == 320:
        return normal
    return transforms.resize(normal, [side], interpolation=InterpolationMode.BICUBIC, antialias=False)


def picture_of(name: str) -> Image.Image:
    with Image.open(image_path(name)) as image:
        return image.copy()


def all_pixels(side: int) -> Tensor:
    return torch.stack([published_pixels(picture_of(name), side) for name in IMAGES])


@torch.inference_mode()
def published_scores(sizes: Sizes, state: Mapping[str, Tensor], folder: Path, pixels: Tensor) -> Any:
    """Score `PAIRS` by zero_shot.py's rule with open_clip's CLIP: both cosines, and the probability."""
    clip, encode = original(sizes, state), tokenizer(sizes, folder)

    def classifier(texts: list[str]) -> Tensor:
        vectors = clip.encode_text(encode(texts))
        mean = (vectors / vectors.norm(dim=-1, keepdim=True)).mean(dim=0)
        return mean / mean.norm()

    images = clip.encode_image(pixels)
    images = images / images.norm(dim=-1, keepdim=True)
    positive = images @ torch.stack([classifier(own) for own, _ in PAIRS.values()]).T
    negative = images @ torch.stack([classifier(negative) for _, negative in PAIRS.values()]).T
    probability = positive.exp() / (positive.exp() + negative.exp())
    return positive.numpy(), negative.numpy(), probability.numpy()


def pairs(encoder: TextEncoder) -> list[EncodedFinding]:
    return [encoder.encode_finding(*texts) for texts in PAIRS.values()]


def check_sides(folder: Path, sizes: Sizes, seed: int) -> None:
    """Hold torch's sides, the reference and the exported graphs equal to open_clip."""
    state = random_state(sizes, seed)
    model = FAMILY.load(write_folder(folder, sizes, state), None, {})
    planes = all_pixels(sizes.image)
    pixels = planes[:, :1].contiguous()
    assert (planes == pixels).all()
    positive, negative, _ = published_scores(sizes, state, folder, planes)
    assert np.abs(positive - negative).max() > 0.02, "wordings that differ"
    exported = Exported(model)
    check_vectors(model, exported.encoder, sizes, state, folder, planes)
    findings = pairs(exported.encoder)
    answers = model.heads[0].reference(pixels, findings)
    assert np.abs(answers.logits - (positive - negative)).max() <= SCORE
    for per_batch in (None, REPRODUCIBLE_PROMPTS):
        logits, maps = exported.score(exported.bank(findings), pixels.numpy(), per_batch=per_batch)
        assert np.abs(logits - (positive - negative)).max() <= SCORE
        assert answers.maps is not None
        assert np.abs(maps - answers.maps).max() <= model.heads[0].map.tolerance
    single = [exported.encoder.encode_finding(own) for own, _ in PAIRS.values()]
    logits, _ = exported.score(exported.bank(single), pixels.numpy())
    assert np.abs(logits - positive).max() <= SCORE, "cosines, without the temperature"
    assert np.abs(model.heads[0].reference(pixels, single).logits - positive).max() <= SCORE


@torch.inference_mode()
def check_vectors(
    model: LoadedModel,
    encoder: TextEncoder,
    sizes: Sizes,
    state: Mapping[str, Tensor],
    folder: Path,
    planes: Tensor,
) -> None:
    clip, encode = original(sizes, state), tokenizer(sizes, folder)
    image, text = model.image, model.text.side
    assert image
    assert text
    vectors, patches = image.module(planes[:, :1])
    assert (vectors - clip.encode_image(planes, normalize=True)).abs().max() <= UNIT
    clip.visual.output_tokens = True
    _, tokens = clip.visual(planes)
    expected = torch.nn.functional.normalize(tokens @ state["visual.proj"], dim=-1)
    assert (patches - expected).abs().max() <= UNIT
    for own, negative in PAIRS.values():
        for wording in (*own, *negative):
            ids = encoder.encode(wording).arrays["input_ids"]
            padded = encode([wording])
            assert ids[0].tolist() == padded[0, : ids.shape[1]].tolist()
            assert not padded[0, ids.shape[1] :].any()
            found = text.module(torch.from_numpy(ids))[0]
            assert (found - clip.encode_text(padded, normalize=True)[0]).abs().max() <= UNIT


@pytest.mark.parametrize("other", OTHERS)
def test_every_side_equals_open_clip(tmp_path: Path, other: str) -> None:
    check_sides(tmp_path, *OTHERS[other])


@pytest.mark.slow
def test_the_published_size_equals_open_clip(tmp_path: Path) -> None:
    check_sides(tmp_path, PUBLISHED_SIZES, 4)


@pytest.mark.parametrize("side", [224, 320])
def test_pixels_are_the_published_ones(side: int) -> None:
    """Grey ones; of one of them the source makes the longer side 319."""
    rule = preprocessing(side)
    pictures = [picture_of(name).convert("L") for name in IMAGES]
    generator = np.random.default_rng(0)
    pictures.append(Image.fromarray(generator.integers(0, 256, (1239, 611), np.uint8)))
    for picture in pictures:
        found = preprocess(np.asarray(picture), rule)
        assert np.abs(found.pixels[0] - published_pixels(picture, side).numpy()).max() <= PIXELS


def test_a_longer_side_may_fall_one_short() -> None:
    """The source truncates both products, and 1239 * (320 / 1239) is a hair below 320."""
    found = preprocess(np.full((1239, 611), 255, np.uint8), preprocessing(320))
    assert found.picture[-2].any()
    assert not found.picture[-1].any()


def test_colour_is_grey_a_step_earlier_than_in_the_original(scorer: Scorer) -> None:
    found = scorer.prepare(image_path("wide"), modality="DX").network_input.pixels[0]
    difference = np.abs(found - published_pixels(picture_of("wide"), 224).numpy())
    assert 0 < difference.max() <= 2.5 / 83.43944, "levels apart, through the rounding to grey"


@pytest.fixture(scope="module")
def bundle(shared_dir: Path) -> Path:
    return shared_bundle(shared_dir, "chexzero")


@pytest.fixture(scope="module")
def scorer(bundle: Path) -> Any:
    with Scorer.open(bundle, site=None, threads=2) as opened:
        yield opened


def test_the_scorer_gives_the_published_probabilities(scorer: Scorer, bundle: Path, tmp_path: Path) -> None:
    sizes = Sizes()
    state = random_state(sizes, 1)
    write_folder(tmp_path, sizes, state)
    grey = [name for name in IMAGES if name != "wide"]
    pixels = torch.stack([published_pixels(picture_of(name), 224) for name in grey])
    positive, negative, probability = published_scores(sizes, state, tmp_path, pixels)
    for number, name in enumerate(grey):
        scores = scorer.score(image_path(name), modality="DX").scores
        assert list(scores) == list(PAIRS)
        for column, each in enumerate(scores.values()):
            assert each.logit == pytest.approx(positive[number, column] - negative[number, column], abs=1e-5)
            assert each.softmax == pytest.approx(probability[number, column], abs=1e-5)
            assert each.sigmoid is None


def test_a_finding_is_added_with_its_negative(scorer: Scorer) -> None:
    with pytest.raises(PromptError, match="against its negative"):
        scorer.prompts.add("rib fracture")
    added = scorer.prompts.add("effusion again", "PLEURAL  effusion", negative_prompt="no pleural effusion")
    assert added.prompts == ["PLEURAL  effusion"]
    scores = scorer.score(image_path("tall"), modality="DX").scores
    assert scores["effusion again"].logit == pytest.approx(scores["Pleural Effusion"].logit, abs=1e-6)
    scorer.prompts.remove("effusion again")


def test_the_bundle_says_what_was_assumed_and_verifies(bundle: Path, scorer: Scorer) -> None:
    report = (bundle / "parity.json").read_text(encoding="utf-8")
    for words in ("were not at hand", "does not antialias floats", "without the temperature"):
        assert words in report
    assert verify(bundle, site=None).golden.heads[0].score_error <= SCORE
    grid = scorer.score(image_path("tall"), modality="DX").heatmap("edema")
    assert np.isfinite(grid).any()


def test_nobody_sees_the_marks_that_the_tokenizer_puts_on_its_pieces(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The end of a word, and the letter that a byte-level vocabulary has for a space."""
    marks, path, image = ("</w>", "\u0120"), str(bundle), str(image_path("tall"))
    vocabulary = json.loads((bundle / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    assert all(any(mark in piece for piece in vocabulary) for mark in marks)
    region = ["--rows", "0:100", "--columns", "0:100"]
    words = ["an unheard-of word", "Œdème 2/3", "--negative", "no Œdème"]
    for code, command in (
        (0, ["prompts", path, "list"]),
        (0, ["prompts", path, "list", "--json"]),
        (0, ["prompts", path, "add", *words]),
        (1, ["prompts", path, "add", "a word without its negative"]),
        (0, ["inspect", path, "--json"]),
        (0, ["score", path, image, "--modality", "DX", "--json"]),
        (0, ["ground", path, image, "--modality", "DX", *region, "--json"]),
    ):
        assert run(command) == code, command
        printed = "".join(capsys.readouterr())
        assert printed
        assert [mark for mark in marks if mark in printed] == [], command


def test_the_graphs_keep_normalisation_fused(tmp_path: Path) -> None:
    sizes = Sizes(depth=1, text_depth=1)
    model = FAMILY.load(write_folder(tmp_path, sizes, random_state(sizes, 5)), None, {})
    files = Exported(model).files
    for role in ("image", "text"):
        operators = {node.op_type for node in onnx.load_from_string(files[role]).graph.node}
        assert "LayerNormalization" in operators
        assert not operators & {"ReduceVar", "Pow"}, "a decomposed LayerNorm overflows in fp16"
