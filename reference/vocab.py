"""Build the reference model's own WordPiece vocabulary.

``corpus.txt`` holds ordinary words of chest radiology reports, written for this purpose. They become whole
pieces, so common findings are not spelled out; the beginnings and endings that many of them share cover other
words, and single characters the rest.

    python -m reference.vocab reference/text_model/vocab.txt
"""

from __future__ import annotations

import argparse
import re
import string
from collections import Counter
from pathlib import Path

from reference.wordings import MEANINGS

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
CORPUS = Path(__file__).with_name("corpus.txt")
LARGEST = 4000
AFFIX_LENGTHS = range(2, 8)
SHARED_BY = 6  # words that must share a beginning or an ending before it becomes a piece


def words_of_corpus() -> list[str]:
    """Return the distinct words of the corpus and of all wordings, lower case, sorted."""
    wordings = [text for meaning in MEANINGS.values() for text in meaning.training + meaning.held_out]
    text = "\n".join([CORPUS.read_text(encoding="utf-8"), *wordings])
    return sorted(set(re.findall(r"[a-z]+", text.lower())))


def shared_affixes(words: list[str]) -> list[str]:
    """Return beginnings ("pneu") and endings ("##itis") that several words share, sorted."""
    count = Counter(
        affix
        for word in words
        for length in AFFIX_LENGTHS
        if length < len(word)
        for affix in (word[:length], f"##{word[-length:]}")
    )
    return sorted(affix for affix, times in count.items() if times >= SHARED_BY)


def build_vocabulary() -> list[str]:
    """Return the pieces in id order: special ones, characters, affixes, whole words."""
    words = words_of_corpus()
    characters = [*string.digits, *string.ascii_lowercase]
    ordered = [*SPECIAL, *characters, *(f"##{c}" for c in characters), *shared_affixes(words), *words]
    vocabulary = list(dict.fromkeys(ordered))
    if len(vocabulary) > LARGEST:
        raise ValueError(f"{len(vocabulary)} pieces, more than {LARGEST}: shorten {CORPUS.name}")
    return vocabulary


def main() -> None:
    """Write the vocabulary, one piece a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", type=Path)
    out: Path = parser.parse_args().out
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("\n".join(build_vocabulary()) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
