"""The text side's self-test: on this machine, it must encode a finding as the bundle's bank holds it."""

from __future__ import annotations

import numpy as np

from promptray.runtime.errors import BundleError
from promptray.runtime.graphs import BundleContent, Graphs, own_bank

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
        ``bundle.golden`` beyond :data:`TOLERANCE`; ``bundle.format`` for a tokenizer that cannot be used.
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
    worst = 0.0
    for name, expected in stored.tensors.items():
        found = made.tensors[name]
        if found.shape != expected.shape:
            worst = np.inf
            break
        largest = max(float(np.abs(expected).max(initial=0.0)), 1e-6)
        worst = max(worst, float(np.abs(found - expected).max(initial=0.0)) / largest)
    if not worst <= TOLERANCE:
        raise BundleError(
            "bundle.golden",
            "on this machine the text side encodes a finding otherwise than the bundle holds it",
            artefact=f"{manifest.name} {bundle.short_hash}: {stored.key}",
            expected=f"within {TOLERANCE:g} of the largest number",
            found=f"off by {worst:.3g}",
            cure="add no prompts here; run `promptray doctor`; reinstall onnxruntime and tokenizers",
        )
    return worst
