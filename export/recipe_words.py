"""msgspec's messages in the words of someone who writes YAML."""

from __future__ import annotations

import re

_WORDS = {
    "str": "text",
    "int": "a whole number",
    "float": "a decimal number",
    "bool": "true or false",
    "array": "a list",
    "object": "a mapping",
    "null": "nothing",
}  # of msgspec's messages


def in_words(what: str) -> str:
    """Say it in the words of YAML, and the rule for keys in any words."""
    if "matching regex" in what:
        return "this cannot be a key: 1 to 128 characters, no leading space, no slash, no control character"
    if not what.startswith("Expected"):
        what = what.replace("Object contains unknown field", "unknown key")
        what = what.replace("Object missing required field", "missing key")
        return what.replace("Invalid enum value", "this value is not known:")
    what = re.sub("`([a-z |]+)`", lambda kinds: _kinds(kinds[1]), what)
    for sign, more, least in ((">=", "more", "at least"), ("<=", "fewer", "at most")):
        what = re.sub(f"text of length {sign} (\\d+)", rf"text of \1 or {more} characters", what)
        what = re.sub(f"a list of length {sign} (\\d+)", rf"a list of \1 or {more} entries", what)
        what = what.replace(f" {sign} ", f" of {least} ")
    unquoted = re.match("Expected (text|text or a list of texts), got (a whole|a decimal|true)", what)
    return f"{what}; put it in quotes" if unquoted else what


def _kinds(names: str) -> str:
    """Name msgspec's ``str | array | null`` as people do; that a key may be left out is not said."""
    kinds = [name for name in names.split(" | ") if name != "null" or names == "null"]
    return (
        "text or a list of texts"
        if kinds == ["str", "array"]
        else " or ".join(_WORDS[kind] for kind in kinds)
    )
