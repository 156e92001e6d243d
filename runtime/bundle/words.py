"""Words of people in a manifest: how body parts are compared, what a key may not hold, how it is quoted."""

from __future__ import annotations

import re
import unicodedata


def body_part_words(text: str) -> str:
    """Return the words by which body parts are compared: runs of letters and digits, upper case.

    >>> body_part_words(" c-spine, Lateral")
    'C SPINE LATERAL'
    """
    return " ".join(re.findall(r"[^\W_]+", text.upper()))


def key_fault(key: str) -> str | None:
    r"""Return what the schema of keys cannot say against a key: that another one may look the same.

    >>> key_fault("rib\u200b fracture")
    'holds the invisible character U+200B'
    """
    for character in key:
        if unicodedata.category(character) in ("Cc", "Cf", "Cs"):  # control, format, surrogate
            return f"holds the invisible character U+{ord(character):04X}"
    return None if unicodedata.is_normalized("NFC", key) else "is not in Unicode's normal form NFC"


def quoted(key: str) -> str:
    r"""Return a key as a word of a command that a shell takes as it is: keys hold no backslash.

    >>> print(quoted("rib fracture"), quoted('the "$5" sign'))
    "rib fracture" "the \"\$5\" sign"
    """
    return '"' + re.sub(r'(["$`])', r"\\\1", key) + '"'
