"""``promptray ground``: a region against sentences, equal to the original's patches and words."""

import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from promptray import Bundle, Scorer
from promptray.export.torchvision_guard import ensure_torchvision_imports
from promptray.runtime.geometry import Geometry
from promptray.runtime.preprocess import preprocess
from tests.asg_tiny import IMAGES, PROMPTS, image_path, oracle
from tests.promptray.command_line import Call

SCHEMA = Path(__file__).parents[2] / "docs" / "grounding.schema.json"
IMAGE = image_path("tall")  # 701 rows, 523 columns
REGION = ("--rows", "200:500", "--columns", "100.5:380", "--modality", "DX", "--no-site")


def geometry(bundle: Path) -> Geometry:
    rule = Bundle.open(bundle).manifest.preprocessing
    return preprocess(np.zeros((701, 523), np.uint8), rule).geometry


def original_similarity(bundle: Path, rows: tuple[float, float], columns: tuple[float, float]) -> float:
    """The training script's region vector of the fixture's patches, against the first prompt's words."""
    ensure_torchvision_imports()
    import torch
    from torchvision.ops import roi_align

    facts = oracle()
    patches = torch.from_numpy(facts["image_local"][list(IMAGES).index("tall")])
    plane = geometry(bundle)
    (top, left), (bottom, right) = (plane.to_network(*corner) for corner in zip(rows, columns, strict=True))
    box = torch.tensor([[0.0, left, top, right, bottom]]) * torch.tensor([1.0, *[14 / 224] * 4])
    grid = patches.T.reshape(1, -1, 14, 14)
    region = roi_align(grid, box, output_size=1, aligned=False).flatten().numpy()
    with Scorer.open(bundle, site=None) as scorer:
        count = scorer.prompts.state.heads[0].bank.entries[0].prompts[0].words
    words = facts["prompt_words"][0, :count].sum(axis=0)
    return float(region @ words / np.linalg.norm(words))


def test_a_region_is_grounded_as_the_original_aligned_it(call: Call, asg_bundle: Path) -> None:
    answer = call("ground", asg_bundle, IMAGE, *REGION, "--json")
    assert answer.code == 0, answer.err
    (document,) = answer.documents
    jsonschema.validate(document, json.loads(SCHEMA.read_text(encoding="utf-8")))
    first = document["findings"][0]
    assert first["key"] == next(iter(PROMPTS))
    assert first["value"] == pytest.approx(
        original_similarity(asg_bundle, (200, 500), (100.5, 380)), abs=2e-6
    )
    assert document["seen"] == pytest.approx(1.0)
    assert [head["kind"] for head in document["heads"]] == ["similarity"]
    assert document["bundle"]["model"]["intended_use"] == "tests"


def test_sentences_are_asked_and_not_kept(call: Call, asg_bundle: Path) -> None:
    sentence = next(iter(PROMPTS.values()))
    for _ in range(2):
        answer = call("ground", asg_bundle, IMAGE, *REGION, "--sentence", sentence, "--json")
        (document,) = answer.documents
        values = {each["key"]: each["value"] for each in document["findings"]}
        assert values["sentence 1"] == pytest.approx(values[next(iter(PROMPTS))], abs=1e-6)


def test_a_sentence_takes_no_name_of_a_finding(call: Call, asg_bundle: Path, site: Path) -> None:
    options = (*REGION[:-1], "--site", site)
    added = call("prompts", asg_bundle, "add", "sentence 1", "mild edema", "--site", site)
    assert added.code == 0, added.err
    answer = call("ground", asg_bundle, IMAGE, *options, "--sentence", "pleural effusion", "--json")
    assert answer.code == 0, answer.err
    asked = {each["key"]: each["prompts"] for each in answer.documents[0]["findings"]}
    assert asked["sentence 1"] == ["mild edema"]
    assert asked["sentence 2"] == ["pleural effusion"]


def test_a_sentence_alone_is_not_asked_of_pairs(call: Call, open_clip_pair_bundle: Path) -> None:
    answer = call("ground", open_clip_pair_bundle, IMAGE, *REGION, "--sentence", "mild edema", "--json")
    assert answer.code == 1
    (document,) = answer.documents
    assert document["error"]["code"] == "prompt.invalid"
    assert "--negative" in document["error"]["cure"]


@pytest.mark.parametrize("sentence", ["", " "])
def test_an_empty_sentence_asks_nothing(call: Call, asg_bundle: Path, sentence: str) -> None:
    answer = call("ground", asg_bundle, IMAGE, *REGION, "--sentence", sentence)
    assert answer.code == 2
    assert "--sentence: it is empty" in answer.err


def test_people_read_what_the_numbers_are(call: Call, asg_both_bundle: Path) -> None:
    answer = call("ground", asg_both_bundle, IMAGE, *REGION)
    assert answer.code == 0, answer.err
    assert "head prompts: similarity" in answer.out
    assert "head tags: attention" in answer.out
    assert "no segmentation" in answer.out
    alone = call("ground", asg_both_bundle, IMAGE, *REGION, "--head", "tags")
    assert "head prompts" not in alone.out


def test_a_sentence_is_not_asked_of_a_fixed_set(call: Call, asg_both_bundle: Path) -> None:
    answer = call("ground", asg_both_bundle, IMAGE, *REGION, "--head", "tags", "--sentence", "mild edema")
    assert answer.code == 2
    assert "the set of the head tags is fixed" in answer.err


def test_a_region_partly_cropped_says_so(call: Call, asg_bundle: Path) -> None:
    options = ("--rows", "0:700", "--columns", "0:500", "--modality", "DX", "--no-site")
    answer = call("ground", asg_bundle, IMAGE, *options)
    assert "The network saw" in answer.out


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--rows", "10:20"), 2, "--columns"),
        (("--rows", "20", "--columns", "1:2"), 2, "FROM:TO"),
        (("--rows", "-5:20", "--columns", "1:2"), 2, "FROM:TO"),
        (("--rows", "20:10", "--columns", "1:2"), 1, "score.region"),
        (("--rows", "10:9000", "--columns", "1:2"), 1, "score.region"),
        (("--rows", "0:10", "--columns", "1:2"), 1, "crops it away"),
        (("--rows", "10:20", "--columns", "1:2", "--head", "nothing"), 1, "head"),
    ],
)
def test_what_is_no_region_is_refused(
    call: Call, asg_bundle: Path, options: tuple[str, ...], code: int, words: str
) -> None:
    answer = call("ground", asg_bundle, IMAGE, *options, "--modality", "DX", "--no-site")
    assert answer.code == code, answer.err
    assert words in answer.err
    assert not answer.out


def test_a_missing_image_has_no_region(call: Call, asg_bundle: Path, tmp_path: Path) -> None:
    missing = call("ground", asg_bundle, tmp_path / "none.png", *REGION, "--json")
    assert missing.code == 1
    assert missing.documents[0]["error"]["code"] == "image.not-found"
