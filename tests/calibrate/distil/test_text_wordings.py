from __future__ import annotations

from pathlib import Path

import pytest

from promptray.calibrate.distil.text_phrases import generated, topic
from promptray.calibrate.distil.text_settings import TextDistil
from promptray.calibrate.distil.text_wordings import Wordings, gather, read_wordings, token_hash
from promptray.runtime.errors import BuildError
from promptray.runtime.text import EncodedPrompt, TextEncoder
from tests.calibrate.distil import pupils

# Of packs, all but two; the lexicon knows none but the last three.
NAMES = (
    "bone cement", "alveolar pattern", "cervical rib", "pseudonodule", "dual chamber device",
    "electrical device", "esophagic dilatation", "costophrenic angle blunting", "suboptimal study",
    "scattered fibroglandular density", "axial hyperostosis", "heart insufficiency",
    "osteosynthesis material", "lepidic adenocarcinoma", "zyzzyva sign", "swyer anomaly",
    "scoliosis", "gynecomastia", "goiter",
)  # fmt: skip
SECRET = "There is mbwana's zzyzx granuloma."


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    text = pupils.open_clip().text
    assert text is not None
    return TextEncoder(text.rule, text.tokenizer)


def gathered(encoder: TextEncoder, *excluded: str, file: Path | None = None, **changes: object) -> Wordings:
    settings = TextDistil(**{"layers": 1, "generated": 400, **changes})  # type: ignore[arg-type]
    return gather(settings, encoder, file=file, templates=["a photo of {}"], excluded=excluded)


def texts(part: tuple[EncodedPrompt, ...]) -> list[str]:
    return [each.wording.text for each in part]


def test_what_a_wording_names_is_in_one_part(encoder: TextEncoder, tmp_path: Path) -> None:
    file = tmp_path / "wordings.txt"
    said = ("There is evidence of {}.", "No {} is seen in the left lung.", "Known mild {}, right apex.")
    file.write_text("\n".join(each.format(name) for name in NAMES for each in said), encoding="utf-8")
    held = 0
    for seed in range(3):
        found = gathered(encoder, file=file, held_out=40, seed=seed)
        assert len(found.held_out) == 40
        assert len(found.train) > 5 * len(found.val) > 0
        for name in NAMES:
            parts = [sum(name in text.lower() for text in texts(part)) for part in (
                found.train, found.val, found.held_out
            )]  # fmt: skip
            assert parts in ([sum(parts), 0, 0], [0, sum(parts), 0], [0, 0, 1]), name
            held += parts[2]
    assert held >= 5


def test_findings_of_the_recipe_are_in_no_part_however_they_are_written(encoder: TextEncoder) -> None:
    for wanted in texts(gathered(encoder).train)[:3]:
        # The fixture's tokenizer lowers, so another case is the same wording to the model.
        found = gathered(encoder, wanted.upper())
        left = {token_hash(each) for part in (found.train, found.val, found.held_out) for each in part}
        assert token_hash(encoder.encode(wanted)) not in left


def test_the_same_settings_give_the_same_and_another_seed_others(encoder: TextEncoder) -> None:
    first, again, other = gathered(encoder), gathered(encoder), gathered(encoder, seed=1)
    assert first.sha256 == again.sha256 != other.sha256
    assert generated(300, 0) == generated(300, 0) != generated(300, 1)
    assert generated(0, 0) == {}


def test_topics_are_what_a_wording_names() -> None:
    assert topic("There is an enlarged heart.") == topic("no cardiomegaly") == "cardiomegaly"
    assert topic("No bone cement is seen.") == topic("Severe bone cement in the left hilum") == "bone cement"
    assert topic("The lungs show zyzzyva.") == topic("There is no mild zyzzyva.") == "zyzzyva"
    assert topic("肺  野") == "肺 野"


def test_wordings_of_a_file_are_learned_and_equal_ones_are_one(encoder: TextEncoder, tmp_path: Path) -> None:
    file = tmp_path / "wordings.txt"
    lines = [
        f"There is {term} today." for term in ("oedema", "a mass", "a fracture", "pneumothorax", "scoliosis")
    ]
    file.write_text("\n\n".join([*lines, *lines, *(line.upper() for line in lines)]), encoding="utf-8")
    found = gathered(encoder, file=file, generated=0, validation=0.5)
    assert sorted(texts(found.train) + texts(found.val) + texts(found.held_out)) == sorted(lines)


def test_too_few_wordings_are_refused(encoder: TextEncoder, tmp_path: Path) -> None:
    file = tmp_path / "wordings.txt"
    file.write_text("There is a mass.\n", encoding="utf-8")
    with pytest.raises(BuildError, match="too few") as refusal:
        gathered(encoder, file=file, generated=0)
    assert refusal.value.code == "distil.wordings"


@pytest.mark.parametrize(
    "content", [f"{SECRET}\n".encode() + b"\xff\xfe", None, b"x" * 30_000 + SECRET.encode()]
)
def test_a_bad_file_is_refused_without_a_word_of_it(
    encoder: TextEncoder, tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "wordings.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(BuildError) as refusal:
        gathered(encoder, file=file, generated=0)
    assert refusal.value.code == "distil.wordings"
    assert "zzyzx" not in str(refusal.value)


def test_marks_and_blanks_of_a_file_are_no_wordings(tmp_path: Path) -> None:
    file = tmp_path / "wordings.txt"
    file.write_bytes("\ufeff  There is a mass. \r\n\r\n \nThere is edema.".encode())
    assert read_wordings(file) == ["There is a mass.", "There is edema."]
