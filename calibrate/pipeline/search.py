"""The stage that searches: which layers of a recipe's graphs stay high, so that the rest passes the gates.

A mix is chosen by point estimates on images of its own, and judged by the intervals of the gate on the gate's
images, once. Choosing on the gate's images would be many looks at them, and the best of many looks is
flattered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from promptray.calibrate.gates.report import Gate
from promptray.calibrate.gates.verdict import verdict_of
from promptray.calibrate.image_set import ImageSet, Progress
from promptray.calibrate.pipeline.effects import effects, findings
from promptray.calibrate.pipeline.gate import Asked, Gates
from promptray.calibrate.pipeline.gate_folder import GateFolder
from promptray.calibrate.pipeline.mixes import Mixes
from promptray.calibrate.pipeline.recipe import BuildRecipe
from promptray.calibrate.pipeline.scores import Model
from promptray.calibrate.quantise.search import Mix, fastest_mix
from promptray.calibrate.quantise.search_report import GateValue, SearchReport, TrialOf, search_page, words_of
from promptray.calibrate.quantise.sensitivity import Sensitivity
from promptray.export.stage_cache import StageCache
from promptray.runtime.bundle.validate_gated import changed_heads
from promptray.runtime.errors import BuildError
from promptray.runtime.machine_class import machine_class
from promptray.runtime.version import VERSION

_RANKED = 0.4  # of the time
_SHOWN = 8  # trials that a refusal names
#: Their number is missing where images have no labels, or of one class only: the gate will ask for it.
_OF_LABELS = ("auroc_loss", "class_auroc_loss")


@dataclass(frozen=True)
class Searched:
    """What a search found.

    Attributes
    ----------
    recipe : BuildRecipe
        With the chosen layers in `keep`.
    note : str
        How it was found, for the bundle.
    """

    recipe: BuildRecipe
    note: str


def searched(
    original: Model,
    mixes: Mixes,
    asked: Asked,
    stages: StageCache,
    folder: GateFolder,
    progress: Progress,
) -> Searched:
    """Find the mix with the most multiplications quantised that is inside all bounds on some images.

    Parameters
    ----------
    original : Model
        That the gates hold every mix against.
    mixes : Mixes
        Of the recipe, with all its schemes.
    asked : Asked
        Of images that are not the gate's.
    stages : StageCache
        Every group's effect and every trial is a stage, so that a killed search goes on.
    folder : GateFolder
        Gets the ranking and the trials, whatever comes of it.
    progress : callable

    Raises
    ------
    BuildError
        ``quantise.search`` where no mix is inside all bounds; ``quantise.*``.
    """

    def ranking(stage: str, message: str, fraction: float) -> None:
        progress(stage, message, _RANKED * fraction)

    ranked = effects(mixes, mixes.calibration or asked.images, stages, ranking)
    trials = _Trials(original, mixes, asked, stages, progress)
    mix = fastest_mix(mixes.groups, ranked.most_sensitive, trials.gate)
    report = _report(mixes, asked.images, ranked, mix)
    document = msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n"
    folder.replace({"search.json": document, "search.html": search_page(report).encode()})
    if mix.best is None:
        raise BuildError(
            "quantise.search",
            f"no mix of quantised layers is inside all bounds: {len(mix.trials)} were tried",
            artefact=f"{report.model} on {report.machine}",
            expected="every gate's number inside its bound on the images of the search",
            found="\n".join(_nearest(mix.trials)),
            cure=f"the ranking and all trials are in {folder.name}; take another scheme or calibration, "
            "distil the model (docs/distillation.md), or leave these graphs in fp32",
        )
    on = [name for name in mixes.groups if name not in mix.best.kept]
    return Searched(mixes.recipe(on), _note(mix, asked.images))


class _Trials:
    """Asks the gates about mixes, and keeps every answer."""

    def __init__(
        self,
        original: Model,
        mixes: Mixes,
        asked: Asked,
        stages: StageCache,
        progress: Progress,
    ) -> None:
        self._mixes, self._stages, self._progress, self._asked = mixes, stages, progress, 0
        self._gates = Gates(original, asked, stages, self._tell)

    def gate(self, kept: list[str]) -> tuple[bool, list[GateValue]]:
        """Return whether a mix is inside all bounds, and the numbers."""
        self._asked += 1
        self._tell("search", "quantising", 0.0)
        key = self._stages.key("trial", {**self._mixes.key, **self._gates.key, "kept": sorted(kept)})
        folder, _ = self._stages.run("trial", key, lambda out: self._ask(kept, out))
        found = msgspec.json.decode((folder / "values.json").read_bytes(), type=list[GateValue])
        return all(value.inside for value in found), found

    def _tell(self, _: str, message: str, fraction: float) -> None:
        most = 2 * len(self._mixes.groups)
        done = (self._asked - 1 + fraction) / most
        self._progress(
            "search", f"trial {self._asked} of {most} at most: {message}", _RANKED + (1 - _RANKED) * done
        )

    def _ask(self, kept: list[str], out: Path) -> None:
        values: list[GateValue] = []
        with self._mixes.made([name for name in self._mixes.groups if name not in kept]) as changed:
            manifest, model = changed.draft.manifest, Model(changed.draft)
            names = changed_heads(manifest, model.consumer)
            for head in manifest.heads:
                if head.name in names:
                    held = self._gates.hold(model, head, f"head-{head.name}", "scores")
                    values += [_value(head.name, gate) for gate in held.report.gates]
        (out / "values.json").write_bytes(msgspec.json.encode(values))


def _value(head: str, gate: Gate) -> GateValue:
    inside = (
        gate.name in _OF_LABELS
        if gate.value is None
        else verdict_of(gate.value, gate.value, gate.bound, gate.sense) == "passed"
    )
    return GateValue(
        head=head, gate=gate.name, finding=gate.finding, value=gate.value, bound=gate.bound,
        sense=gate.sense, inside=inside,
    )  # fmt: skip


def _report(mixes: Mixes, images: ImageSet, ranked: Sensitivity, mix: Mix[list[GateValue]]) -> SearchReport:
    on = [name for name in mixes.groups if mix.best is None or name not in mix.best.kept]
    return SearchReport(
        schema="promptray-search",
        schema_version=1,
        software=f"promptray {VERSION}",
        model=mixes.fp32.manifest.name,
        machine=machine_class(),
        images=images.facts,
        schemes={title: str(each.__struct_config__.tag) for title, each in mixes.schemes.items()},
        beside=mixes.beside,
        findings=findings(mixes),
        sensitivity=ranked,
        trials=mix.trials,
        best=mix.best,
        keep=None if mix.best is None else mixes.kept(on),
    )


def _note(mix: Mix[list[GateValue]], images: ImageSet) -> str:
    assert mix.best is not None  # noqa: S101 - the caller looked
    kept = ", ".join(mix.best.kept) or "nothing"
    return (
        f"A search chose the layers that stay high, by point estimates on {images.facts.images} images "
        f"({images.source}), in {len(mix.trials)} trials: {kept}. {mix.best.share:.0%} of the "
        "multiplications are quantised. The gate's images had no part in it."
    )


def _nearest(trials: Sequence[TrialOf]) -> list[str]:
    """Return the trials with the fewest numbers out of bounds, for the refusal."""
    order = sorted(trials, key=lambda each: (sum(not value.inside for value in each.verdict), -each.share))
    lines = [f"{each.share:.0%} quantised: {words_of(each)}" for each in order[:_SHOWN]]
    return lines + ([f"and {len(order) - _SHOWN} more"] if len(order) > _SHOWN else [])
