"""What becomes of a bundle's section `engines` when its findings change."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from promptray.export.tensorrt.profiles import MOST_PROMPTS
from promptray.runtime.bundle.engines import Engines


@dataclass(frozen=True)
class RepackedPlan:
    """What became of a plan that travels in the bundle.

    Attributes
    ----------
    file : str
    kept : bool
    why : str
    """

    file: str
    kept: bool
    why: str


def repacked_engines(engines: Engines, findings: int) -> tuple[Engines, tuple[RepackedPlan, ...]]:
    """Return the section for a bundle of so many findings of its free head, and what became of its plans.

    A plan takes as many prompts as it was built for. With more findings all plans are left out, since half a
    set is never used, and engines built from now on take them all.

    Parameters
    ----------
    engines : Engines
    findings : int

    Returns
    -------
    engines : Engines
    plans : tuple of RepackedPlan
    """
    settings, prompts = engines.settings, engines.settings.prompts
    most = prompts.most if prompts else MOST_PROMPTS
    kept = findings <= most
    why = f"it was built for up to {most} prompts, and there are {findings} findings now"
    plans = tuple(RepackedPlan(plan.file, kept, why) for plan in engines.plans)
    if kept:
        return engines, plans
    if prompts is not None:
        settings = msgspec.structs.replace(settings, prompts=msgspec.structs.replace(prompts, most=findings))
    return msgspec.structs.replace(engines, settings=settings, plans=[]), plans
