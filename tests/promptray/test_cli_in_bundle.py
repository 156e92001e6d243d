"""A command that is told to write into a bundle refuses, and the bundle can still be opened."""

from __future__ import annotations

from pathlib import Path

import pytest

from promptray.runtime.bundle import Bundle
from tests.fuzz.small_bundle import write_small
from tests.promptray.command_line import Call


@pytest.mark.parametrize(
    "command",
    [
        ("bench", "{bundle}", "{image}", "--modality", "DX", "-o", "{place}"),
        ("accept", "{bundle}", "--images", "{films}", "--modality", "DX", "--sla", "p50<9s", "-o", "{place}"),
        ("batch", "{bundle}", "{image}", "--modality", "DX", "-o", "{place}"),
        ("export-triton", "{bundle}", "-o", "{place}"),
        ("score", "{bundle}", "{image}", "--modality", "DX", "--heatmaps", "{place}"),
        ("tune", "{bundle}", "--rounds", "5", "--site", "{bundle}"),
        ("prompts", "{bundle}", "export", "-o", "{place}/prompts.safetensors"),
        ("repack", "{bundle}", "-o", "{place}/new.bundle"),
    ],
    ids=lambda command: command[0],
)
@pytest.mark.parametrize("inside", ["", "graphs/report"])
def test_nothing_is_written_into_a_bundle(
    call: Call, image: Path, tmp_path: Path, command: tuple[str, ...], inside: str
) -> None:
    write_small(tmp_path)
    bundle = tmp_path / "small.bundle"
    places = {"bundle": bundle, "image": image, "films": image.parent, "place": bundle / inside}
    before = sorted(bundle.rglob("*"))
    answer = call(*(part.format(**places) for part in command))
    assert answer.code == 1
    assert "[output.in-bundle]" in answer.err
    assert sorted(bundle.rglob("*")) == before
    Bundle.open(bundle)
