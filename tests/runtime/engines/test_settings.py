"""Settings that no device takes are refused wherever they come from: a build with them may never end."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from promptray.runtime.engines.settings import (
    MOST_IMAGES,
    MOST_PROMPTS,
    MOST_WORKSPACE,
    Range,
    Settings,
)
from promptray.runtime.limits import MAX_SIDE

MOST = {"images": MOST_IMAGES, "prompts": MOST_PROMPTS, "sides": MAX_SIDE}


@pytest.mark.parametrize("key", MOST)
def test_a_range_has_an_end(key: str) -> None:
    ranges: dict[str, Any] = {key: Range(tuned=1, most=MOST[key])}
    assert msgspec.convert(msgspec.to_builtins(Settings(**ranges)), Settings) == Settings(**ranges)
    for most in (MOST[key] + 1, 2**31 - 1, 2**70):
        stated = {key: {"tuned": 1, "most": most}}
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(stated, Settings)
        with pytest.raises(ValueError, match=f"{key}.most is {most}, and at most {MOST[key]}"):
            Settings(**{key: Range(tuned=1, most=most)})


@pytest.mark.parametrize("found", [MOST_WORKSPACE + 1, 2**70])
def test_the_workspace_has_an_end(found: int) -> None:
    assert Settings(workspace_bytes=MOST_WORKSPACE).workspace_bytes == MOST_WORKSPACE
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"workspace_bytes": found}, Settings)
    with pytest.raises(ValueError, match="workspace_bytes"):
        msgspec.structs.replace(Settings(), workspace_bytes=found)
