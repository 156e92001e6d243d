"""The text side's self-test: on this machine, it must encode a finding as the bundle's bank holds it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from promptray.runtime.backends import HOST
from promptray.runtime.errors import BundleError
from promptray.runtime.gated_answers import read_gated
from promptray.runtime.golden import read_golden
from promptray.runtime.graphs import BundleContent, Graphs, own_bank
from promptray.runtime.machine_class import consumers_here

Array = NDArray[Any]

#: How far an encoded prompt may be off, as a share of its largest number. Other processors round otherwise,
#: by about 1e-6 in fp32; another tokenizer or a damaged graph is off by far more.
TOLERANCE = 1e-3


def check_text(bundle: BundleContent, graphs: Graphs) -> float | None:
    """Encode the first finding again and compare with the bank.

    Returns
    -------
    float or None
        Largest difference as a share of the largest number; None where the bundle encodes no text.

    Raises
    ------
    BundleError
        ``bundle.golden`` beyond :data:`TOLERANCE`, or that of a changed text graph; ``bundle.format`` for a
        tokenizer that cannot be used.
    ScoringError
        ``backend.*`` or ``score.not-finite``.
    """
    manifest = bundle.manifest
    head = manifest.text_head
    if head is None or manifest.graph("text") is None or not manifest.findings_of(head.name):
        return None
    stored = own_bank(bundle, head).entries[0]
    prompts, negative_prompts = stored.texts
    made = graphs.encode(stored.key, prompts, negative_prompts, allow_empty=True)
    # Whatever scores, this is where text is encoded.
    gated, expected, tolerance = manifest.gated_for(consumers_here(HOST)), stored.tensors, TOLERANCE
    if gated is not None and gated.text is not None:
        expected = read_gated(bundle, gated, read_golden(bundle).answers).text
        tolerance = gated.text.tolerance
    worst = difference(made.tensors, expected)
    if not worst <= tolerance:
        raise BundleError(
            "bundle.golden",
            "on this machine the text side encodes a finding otherwise than the bundle holds it",
            artefact=f"{manifest.name} {bundle.short_hash}: {stored.key}",
            expected=f"within {tolerance:g} of the largest number",
            found=f"off by {worst:.3g}",
            cure="add no prompts here; run `promptray doctor`; reinstall onnxruntime and tokenizers",
        )
    return worst


def difference(made: Mapping[str, Array], expected: Mapping[str, Array]) -> float:
    """Return the largest difference of an encoded finding, as a share of its tensor's largest number."""
    worst = 0.0
    for name, stored in expected.items():
        found = made[name]
        if found.shape != stored.shape:
            return np.inf
        largest = max(float(np.abs(stored).max(initial=0.0)), 1e-6)
        worst = max(worst, float(np.abs(found - stored).max(initial=0.0)) / largest)
    return worst
