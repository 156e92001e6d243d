"""A recipe's quantised model with some groups of layers high: what sensitivity and search look at."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import msgspec

import promptray.calibrate
from promptray.calibrate.image_set import ImageSet
from promptray.calibrate.pipeline.changed_graph import Quantise
from promptray.calibrate.pipeline.quantised import Changed, quantised
from promptray.calibrate.pipeline.recipe import BY_GROUPS, BuildRecipe
from promptray.calibrate.pipeline.scores import Model
from promptray.calibrate.quantise import Scheme, quantise
from promptray.calibrate.quantise.once import quantise_with_ranges_once
from promptray.calibrate.quantise.session import versions
from promptray.export.draft import Draft
from promptray.export.stage_cache import StageCache
from promptray.runtime.bundle.manifest import Graph


def _quietly(stage: str, message: str, fraction: float) -> None:
    """Show nothing."""


class Mixes:
    """Choices of layers for the graphs that a recipe quantises by groups.

    A group is named after its graph, too: ``image: encoder.blocks.3``. Groups that the recipe keeps high are
    not among those to choose from; with banks in less only the image graph's are. Changed graphs are made
    anew for every mix and not kept: of a model of 300 MB there would be some twenty. What was measured of
    them is kept by the callers.

    Parameters
    ----------
    recipe : BuildRecipe
        With a section `quantise`.
    fp32 : Draft
        Of the original, or of a student.
    calibration : ImageSet, optional
        What ranges are taken from.
    stages : StageCache
    only : collection of str, optional
        Titles of the graphs to look at; by default every graph with such a scheme.
    others : bool, optional
        Whether graphs with other schemes are quantised beside, as the bundle's will be, or stay fp32.
    change : callable, optional
        Quantises one graph.
    """

    def __init__(
        self,
        recipe: BuildRecipe,
        fp32: Draft,
        calibration: ImageSet | None,
        stages: StageCache,
        *,
        only: Collection[str] | None = None,
        others: bool = False,
        change: Quantise = quantise,
    ) -> None:
        assert recipe.quantise is not None  # noqa: S101 - the caller looked
        self.fp32, self.calibration = fp32, calibration
        self._recipe, self._asked, self._stages = recipe, recipe.quantise, stages
        self._others = others
        self._change = quantise_with_ranges_once() if change is quantise else change
        wanted = [(graph, self._asked.scheme_of(graph.role, graph.head)) for graph in fp32.manifest.graphs]
        # A bank in less beside an fp32 image graph and a changed head would be for two consumers.
        only_image = others and self._asked.bank != "float32" and isinstance(self._asked.image, BY_GROUPS)
        self.schemes: dict[str, Scheme] = {
            graph.title: scheme
            for graph, scheme in wanted
            if isinstance(scheme, BY_GROUPS)
            and (only is None or graph.title in only)
            and not (graph.role == "head" and only_image)
        }
        """Of the graphs to choose in, by title."""

    @property
    def beside(self) -> dict[str, str]:
        """Schemes of the graphs that are quantised in every mix, without a choice of layers, by title."""
        asked = self._asked if self._others else None
        return {
            graph.title: str(scheme.__struct_config__.tag)
            for graph in self.fp32.manifest.graphs
            if asked is not None
            and graph.title not in self.schemes
            and (scheme := asked.scheme_of(graph.role, graph.head)) is not None
        }

    @cached_property
    def key(self) -> dict[str, object]:
        """What every mix depends on, beside the choice itself."""
        return {
            "model": Model(self.fp32).key,
            "schemes": {title: msgspec.to_builtins(scheme) for title, scheme in self.schemes.items()},
            "others": msgspec.to_builtins(self._asked) if self._others else None,
            "calibration": self.calibration.sha256s if self.calibration else None,
            "change": f"{self._change.__module__}.{self._change.__qualname__}",
            "tools": versions(),
        }

    @cached_property
    def groups(self) -> dict[str, int]:
        """Every group with its multiplications for one image."""
        key = self._stages.key("groups", self.key)

        def look(out: Path) -> None:
            with self._made(self._recipe_of({title: [] for title in self.schemes})) as changed:
                found: dict[str, int] = {}
                for title in self.schemes:
                    for layer in changed.reports[title].quantised:
                        name = f"{title}: {layer.group}"
                        found[name] = found.get(name, 0) + layer.products
            (out / "groups.json").write_bytes(msgspec.json.encode(found))

        folder, _ = self._stages.run("groups", key, look)
        return msgspec.json.decode((folder / "groups.json").read_bytes(), type=dict[str, int])

    def kept(self, on: Collection[str]) -> dict[str, list[str]]:
        """Return what stays high where the groups `on` are quantised, by graph; not of graphs without any."""
        found: dict[str, list[str]] = {}
        for title in self.schemes:
            own = [name for name in self.groups if name.partition(": ")[0] == title]
            if set(own) & set(on):
                found[title] = [name.partition(": ")[2] for name in own if name not in on]
        return found

    def recipe(self, on: Collection[str]) -> BuildRecipe:
        """Return the recipe of a mix: the groups `on` quantised, all others named in `keep`."""
        return self._recipe_of(self.kept(on))

    @contextmanager
    def made(self, on: Collection[str]) -> Iterator[Changed]:
        """Make a mix; its graphs are gone afterwards."""
        with self._made(self.recipe(on)) as changed:
            yield changed

    @contextmanager
    def _made(self, recipe: BuildRecipe) -> Iterator[Changed]:
        with tempfile.TemporaryDirectory() as folder:
            stages = StageCache(Path(folder), promptray.calibrate)
            yield quantised(recipe, self.fp32, self.calibration, stages, _quietly, change=self._change)

    def _recipe_of(self, kept: dict[str, list[str]]) -> BuildRecipe:
        chosen: dict[str, Scheme | None] = {}
        for graph in self.fp32.manifest.graphs:
            scheme = self._asked.scheme_of(graph.role, graph.head)
            chosen[graph.title] = self._chosen(graph, scheme, kept)
        heads = {
            head.name: scheme
            for head in self.fp32.manifest.heads
            if (scheme := chosen[f"head {head.name}"]) is not None
        }
        made = msgspec.structs.replace(
            self._asked,
            image=chosen["image"],
            head=None,
            heads=heads,
            text=chosen.get("text"),
            bank=self._asked.bank if self._others else "float32",
        )
        return msgspec.structs.replace(self._recipe, quantise=made)

    def _chosen(self, graph: Graph, scheme: Scheme | None, kept: dict[str, list[str]]) -> Scheme | None:
        if graph.title in self.schemes:
            if scheme is None or graph.title not in kept:
                return None
            return msgspec.structs.replace(scheme, keep=[*scheme.keep, *kept[graph.title]])
        return scheme if self._others else None
