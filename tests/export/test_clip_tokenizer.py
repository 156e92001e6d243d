"""CLIP's tokenizer against open_clip's, on the published vocabulary; and vocabularies that are refused."""

from __future__ import annotations

import gzip
import json
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from promptray.export.clip_tokenizer import PUBLISHED, clip_files, read_clip_vocabulary
from promptray.runtime.bundle.manifest import TextRule
from promptray.runtime.errors import BuildError
from promptray.runtime.text import TextEncoder
from tests.chexzero_tiny import SimpleTokenizer, default_bpe, merge_lines

TOKENS, START, END = 49408, 49406, 49407
CONTEXT = 77


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published")
    shutil.copy(default_bpe(), folder / PUBLISHED)
    return folder


@pytest.fixture(scope="module")
def encoder(published: Path) -> TextEncoder:
    vocabulary = read_clip_vocabulary(published / "weights.pt", None, TOKENS)
    rule = TextRule(
        head="findings", cleaning="clip", tokenizer="tokenizer.json", context=CONTEXT, templates=["{}"]
    )
    return TextEncoder(rule, vocabulary.tokenizer_json(context=CONTEXT))


ORIGINAL = SimpleTokenizer()

TEXTS = [
    "no pleural effusion",
    "Enlarged Cardiomediastinum",
    "There's  no\tpneumothorax; it isn't seen. They've 2 views, we'll compare, I'd say.",
    "5mm nodule (≥ 5 µm²), T12/L1, 12½ %",
    "&amp;lt;b&gt;  Röntgen “ﬁbrosis” – ‘bat’s-wing’",
    "'s 's''s !'s a's b'S",
    "## a##b ##",
    "日本語の所見 ٣٤ हिन्दी 🫁",
    "İstanbul ǅ Ω ß",
    "antidisestablishmentarianism",
    "\u00a0 \u3000",
    "",
]


def ids(encoder: TextEncoder, text: str) -> list[int]:
    found: list[int] = encoder.encode(text).arrays["input_ids"][0].tolist()
    return found


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_ids_are_open_clips(encoder: TextEncoder, text: str) -> None:
    assert ids(encoder, text) == [START, *ORIGINAL.encode(text), END]


def settled(character: str) -> bool:
    """Whether every library's version of Unicode knows the character, and a prompt may hold it."""
    return unicodedata.category(character) not in ("Cn", "Cs", "Cc", "Cf", "Co")


@settings(max_examples=400, deadline=None)
@given(
    st.text(st.characters().filter(settled), max_size=40)
    | st.lists(st.sampled_from([*"abst'’.,/%-(# \n0129½²", "'ll", "effusion", "&amp;", "É", "ß"])).map(
        "".join
    )
)
def test_ids_of_any_text_are_open_clips(encoder: TextEncoder, text: str) -> None:
    # Of all letters only the long s is an s to the original where it looks for 's, and to no one else.
    assume("ſ" not in text)
    expected = [START, *ORIGINAL.encode(text), END]
    assert ids(encoder, text) == (expected if len(expected) <= CONTEXT else [*expected[: CONTEXT - 1], END])


def test_a_long_prompt_is_cut_and_closed_as_open_clip_does(encoder: TextEncoder) -> None:
    text = "lung " * 75
    whole = encoder.encode(text)
    assert (whole.wording.words, whole.wording.truncated) == (75, False)
    cut = encoder.encode(f"{text} cardiomegaly")
    assert cut.arrays["input_ids"][0].tolist() == ORIGINAL(f"{text} cardiomegaly", CONTEXT)[0].tolist()
    assert (cut.wording.words, cut.wording.truncated) == (75, True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", 0),
        ("effusion", 1),
        ("cardiomegaly", 1),
        ("No pneumothorax.", 3),
        ("it isn't 12 mm", 6),
        ("## a##b", 4),
    ],
)
def test_words_are_counted_and_not_pieces(encoder: TextEncoder, text: str, words: int) -> None:
    encoded = encoder.encode(text)
    assert encoded.wording.words == words
    assert encoded.arrays["word_matrix"].shape == (1, words + 2, len(encoded.arrays["input_ids"][0]))
    assert (encoded.arrays["word_matrix"].sum(axis=1) == 1).all()


def test_a_special_piece_in_a_prompt_is_text(encoder: TextEncoder) -> None:
    """Unlike in the original, where it would end the prompt, and the words after it would go unread."""
    found = ids(encoder, "no <|endoftext|> effusion")
    assert found.count(END) == 1
    assert found[-1] == END
    assert START not in found[1:]


def test_the_hubs_two_files_are_the_same_vocabulary(published: Path, tmp_path: Path) -> None:
    expected = read_clip_vocabulary(published / "weights.pt", None, TOKENS)
    write_hub(tmp_path, TOKENS)
    assert read_clip_vocabulary(Path("elsewhere/weights.pt"), tmp_path, TOKENS) == expected
    assert [path.name for path in clip_files(Path("elsewhere/weights.pt"), tmp_path)] == [
        "merges.txt", "vocab.json",
    ]  # fmt: skip
    assert clip_files(published / "weights.pt", None) == [published / PUBLISHED]


def write_hub(folder: Path, tokens: int) -> None:
    """Write merges.txt and vocab.json as model hubs have them."""
    (folder / "merges.txt").write_text("\n".join(merge_lines(tokens - 514)) + "\n", encoding="utf-8")
    pieces = list(ORIGINAL.encoder)[: tokens - 2]
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    numbers = {piece: number for number, piece in enumerate(pieces)}
    (folder / "vocab.json").write_text(json.dumps(numbers), encoding="utf-8")


SMALL = 514 + 60


def rewrite(change: Callable[[list[str]], list[str]]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        with gzip.open(folder / PUBLISHED, "wb") as file:
            file.write("\n".join(change(merge_lines(60))).encode())

    return write


def swapped_ids(folder: Path) -> None:
    (folder / PUBLISHED).unlink()
    write_hub(folder, SMALL)
    numbers = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    numbers["a"], numbers["b"] = numbers["b"], numbers["a"]
    (folder / "vocab.json").write_text(json.dumps(numbers), encoding="utf-8")


def no_ids(folder: Path) -> None:
    (folder / PUBLISHED).unlink()
    write_hub(folder, SMALL)
    (folder / "vocab.json").unlink()


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "none": (lambda folder: (folder / PUBLISHED).unlink(), "cannot be read (FileNotFoundError)"),
    "a folder": (
        lambda folder: ((folder / PUBLISHED).unlink(), (folder / PUBLISHED).mkdir()), "cannot be read"
    ),
    "no gzip": (lambda folder: (folder / PUBLISHED).write_bytes(b"#version"), "cannot be read (BadGzipFile)"),
    "cut off": (
        lambda folder: (folder / PUBLISHED).write_bytes((folder / PUBLISHED).read_bytes()[:-30]),
        "cannot be read (EOFError)",
    ),
    "no text": (
        lambda folder: (folder / PUBLISHED).write_bytes(gzip.compress(b"\xff\xfe")), "UnicodeDecodeError"
    ),
    "a bomb": (
        lambda folder: (folder / PUBLISHED).write_bytes(gzip.compress(bytes(65 * 2**20))), "cannot be read"
    ),
    "too few merges": (rewrite(lambda lines: lines[:-1]), "is not the checkpoint's"),
    "a merge of three": (rewrite(lambda lines: [*lines[:-1], "a b c"]), "line 61"),
    "a merge of one": (rewrite(lambda lines: [*lines[:-1], "a"]), "no merge"),
    "pieces that no line makes": (rewrite(lambda lines: [*lines[:-1], "effus ion</w>"]), "line 61"),
    "a merge twice": (rewrite(lambda lines: [*lines[:-1], lines[1]]), "line 61"),
    "another order of bytes": (swapped_ids, "the ids do not follow"),
    "merges without ids": (no_ids, "cannot be read (FileNotFoundError)"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_vocabulary_that_is_not_the_checkpoints_is_refused(tmp_path: Path, case: str) -> None:
    spoil, message = REFUSED[case]
    rewrite(lambda lines: lines)(tmp_path)
    assert len(read_clip_vocabulary(tmp_path / "weights.pt", None, SMALL).merges) == 60
    spoil(tmp_path)
    with pytest.raises(BuildError) as refusal:
        read_clip_vocabulary(tmp_path / "weights.pt", None, SMALL)
    assert refusal.value.code == "text-model.invalid"
    assert message in str(refusal.value)
    assert str(tmp_path) not in str(refusal.value)


@pytest.mark.parametrize("tokens", [0, 513])
def test_an_embedding_too_small_for_the_bytes_is_refused(published: Path, tokens: int) -> None:
    with pytest.raises(BuildError, match="is not the checkpoint's"):
        read_clip_vocabulary(published / "weights.pt", None, tokens)


def test_another_vocabulary_of_the_published_size_is_refused(tmp_path: Path) -> None:
    """Its last two merges change places: still a vocabulary, but not CLIP's."""
    lines = merge_lines(TOKENS - 514)
    lines[-2:] = reversed(lines[-2:])
    with gzip.open(tmp_path / PUBLISHED, "wb") as file:
        file.write("\n".join(lines).encode())
    with pytest.raises(BuildError, match="not the merges that CLIP was published with"):
        read_clip_vocabulary(tmp_path / "weights.pt", None, TOKENS)
