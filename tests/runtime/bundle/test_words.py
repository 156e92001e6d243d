"""A key in a printed command comes through a shell as it is."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from promptray.runtime.bundle.words import quoted


@pytest.mark.parametrize(
    "key", ["rib", "rib fracture", 'a "b"', "$HOME", "`date`", "$(date)", "it's", "épanchement", "a;b&c|d"]
)
def test_a_quoted_key_is_one_word(key: str) -> None:
    shell = shutil.which("sh")
    if shell is None:
        pytest.skip("this system has no POSIX shell")
    command = [shell, "-c", f"printf %s {quoted(key)}"]
    assert subprocess.run(command, capture_output=True, check=True).stdout.decode() == key


def test_plain_keys_stand_between_double_quotes() -> None:
    """As every shell takes them."""
    assert quoted("rib fracture") == '"rib fracture"'
