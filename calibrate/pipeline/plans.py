"""The stage that builds TensorRT-RTX plans ahead of time, to travel in the bundle; no GPU is needed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from promptray.calibrate.image_set import Progress
from promptray.calibrate.pipeline.tensorrt_recipe import FLAVOUR, TensorRTRecipe, targets_of
from promptray.export.draft import Draft
from promptray.export.stage_cache import StageCache
from promptray.export.tensorrt import Flavour, build_engine, load_flavour, profiles_for
from promptray.runtime.bundle.engines import EnginePlan, Engines, EngineSource, Precision
from promptray.runtime.bundle.manifest import Graph
from promptray.runtime.graphs import own_bank


class _Facts(msgspec.Struct, frozen=True):
    """What a stage says of its plan."""

    version: str
    targets: list[str]


def with_plans(asked: TensorRTRecipe, made: Draft, stages: StageCache, progress: Progress) -> Draft:
    """Build a plan of every source that the recipe's sets take, each a stage of its own.

    Parameters
    ----------
    asked : TensorRTRecipe
    made : Draft
        With a section `engines`.
    stages : StageCache
    progress : callable

    Raises
    ------
    BuildError
        ``engine.*``: TensorRT-RTX is not installed, or does not take a graph or a compute capability.
    """
    engines = made.manifest.engines
    assert engines is not None  # noqa: S101 - the caller made it
    flavour = load_flavour(FLAVOUR)
    todo = _wanted(asked, made)
    plans, files = [], {}
    for number, source in enumerate(todo):
        part = _part(progress, f"{source.title}, {source.precision}", number, len(todo))
        targets = targets_of(source.precision, asked.ahead_of_time)
        folder = _stage(source, targets, engines, made, flavour, stages, part)
        facts = msgspec.json.decode((folder / "facts.json").read_bytes(), type=_Facts)
        plan = EnginePlan(
            file=f"{source.stem}.{FLAVOUR}.plan",
            flavour=FLAVOUR,
            version=facts.version,
            targets=facts.targets,
            source=source.file,
        )
        plans.append(plan)
        files[plan.file] = folder / "engine.plan"
    manifest = msgspec.structs.replace(made.manifest, engines=msgspec.structs.replace(engines, plans=plans))
    return replace(made, manifest=manifest, files={**made.files, **files})


def _wanted(asked: TensorRTRecipe, made: Draft) -> list[EngineSource]:
    """Return the sources of the set that the recipe asks for, and of fp16 beside 8 bits, each once."""
    precisions = dict.fromkeys(name for role in ("image", "head") for name in asked.schemes(role))
    # A set is named by its narrowest graphs: one that keeps a graph fp32 is no fp32 set.
    typed: list[Precision] = [name for name in precisions if name != "fp32"]
    found = [source for name in typed or ["fp32"] for source in made.manifest.engine_sources(name)]
    return [each for each in dict.fromkeys(found) if targets_of(each.precision, asked.ahead_of_time)]


def _part(progress: Progress, title: str, number: int, of: int) -> Callable[[str, float], None]:
    """Say that a plan is begun, and return what tells of its build."""
    progress("plans", title, number / of)
    return lambda phase, done: progress("plans", f"{title}: {phase}", (number + done) / of)


def _stage(
    source: EngineSource,
    targets: Sequence[str],
    engines: Engines,
    made: Draft,
    flavour: Flavour,
    stages: StageCache,
    progress: Callable[[str, float], None],
) -> Path:
    graph = made.manifest.graph(source.role, source.head)
    head = made.manifest.head(source.head or "")
    assert graph is not None  # noqa: S101 - a source has the graph that runs beside it
    facts: Graph = graph
    own = own_bank(made, head) if head else None
    profiles = profiles_for(facts, made.manifest, engines.settings, own=own)
    content = made.read(source.file)

    def produce(out: Path) -> None:
        built = build_engine(content, profiles, engines.settings, flavour, targets=targets, progress=progress)
        (out / "engine.plan").write_bytes(built.plan)
        (out / "facts.json").write_bytes(
            msgspec.json.encode(_Facts(version=built.version, targets=list(built.targets)))
        )

    key = stages.key(
        "plan",
        {
            "graph": hashlib.sha256(content).hexdigest(),
            "profiles": msgspec.to_builtins(profiles),
            "settings": msgspec.to_builtins(engines.settings),
            "flavour": [flavour.name, flavour.version],
            "targets": list(targets),
        },
    )
    return stages.run("plan", key, produce)[0]
