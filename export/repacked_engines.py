"""What becomes of a bundle's section `engines` when its findings change."""

from __future__ import annotations

import msgspec

from promptray.export.tensorrt.profiles import MOST_PROMPTS
from promptray.runtime.bundle.engines import Engines


def repacked_engines(engines: Engines, findings: int) -> tuple[Engines, tuple[str, ...]]:
    """Return the section for a bundle of so many findings of its free head, and the plans that do not fit it.

    A plan takes as many prompts as it was built for. With more findings all plans are left out, since half a
    set is never used, and engines built from now on take them all.

    Parameters
    ----------
    engines : Engines
    findings : int

    Returns
    -------
    engines : Engines
    left : tuple of str
        Files of plans that are left out.
    """
    prompts = engines.settings.prompts
    if findings <= (prompts.most if prompts else MOST_PROMPTS):
        return engines, ()
    settings = engines.settings
    if prompts is not None:
        settings = msgspec.structs.replace(settings, prompts=msgspec.structs.replace(prompts, most=findings))
    left = tuple(plan.file for plan in engines.plans)
    return msgspec.structs.replace(engines, settings=settings, plans=[]), left
