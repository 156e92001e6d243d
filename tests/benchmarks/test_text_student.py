"""The benchmark of smaller text sides divides its wordings as a build does."""

from __future__ import annotations

from pathlib import Path

from benchmarks.text_student import SETTINGS, divided
from promptray.calibrate.distil.text_wordings import Wordings
from promptray.runtime.bundle import Bundle
from promptray.runtime.text import TextEncoder


def test_no_finding_is_learned_and_held_out(reference_bundle: Path) -> None:
    bundle = Bundle.open(reference_bundle)
    assert bundle.manifest.text is not None
    encoder = TextEncoder(bundle.manifest.text, bundle.read(bundle.manifest.text.tokenizer))
    found: Wordings = divided(SETTINGS, encoder, bundle.manifest.text.templates, ["There is pneumonia."])
    parts = [
        [each.wording.text.lower() for each in part] for part in (found.train, found.val, found.held_out)
    ]
    assert len(parts[2]) == SETTINGS.held_out
    assert not any("there is pneumonia." in part for part in parts)
    for named in ("consolidation", "infiltrate", "bone cement", "cervical rib"):
        assert sum(any(named in text for text in part) for part in parts) == 1, named
