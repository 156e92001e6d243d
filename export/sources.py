"""The files a recipe names, and the original model."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptray.export.draft import created_now
from promptray.export.families import facts as family_facts
from promptray.export.families import family
from promptray.export.recipe import Recipe
from promptray.runtime.bundle.manifest import Provenance, SourceFile
from promptray.runtime.disk import hash_file
from promptray.runtime.errors import BuildError

if TYPE_CHECKING:
    from promptray.export.families.base import LoadedModel


class Sources:
    """The files a recipe names, and the original model, loaded once and only when asked for.

    What replaces a side of the model (a student its image side) is a subclass that changes :attr:`model`,
    and adds to :meth:`hashes` what the change depends on.

    Parameters
    ----------
    recipe : Recipe
    path : Path
        The recipe's file; paths in it are relative to its folder.

    Raises
    ------
    BuildError
        ``recipe.invalid``, ``checkpoint.not-found``, ``family.unknown``.
    """

    def __init__(self, recipe: Recipe, path: Path) -> None:
        folder = path.resolve().parent
        self.recipe = recipe
        self.recipe_file = SourceFile(name=path.name, sha256=hash_file(path)[0])
        self.facts = family_facts(recipe.family)
        options = self.facts.options
        self.checkpoint = folder / recipe.checkpoint
        self.text_model = folder / recipe.text_model if recipe.text_model else None
        self.golden_folder = folder / recipe.golden.images if recipe.golden else None
        unknown = sorted(set(recipe.model_options) - set(options))
        if unknown:
            raise BuildError(
                "recipe.invalid",
                f"the family {recipe.family} has no such option",
                artefact=f"{path.name}, key model_options.{unknown[0]}",
                expected=f"one of {', '.join(options)}" if options else "no options",
                cure="`promptray families` lists the options",
            )
        if not os.path.isfile(self.checkpoint):  # Path.is_file raises for a path too long for the system
            raise BuildError(
                "checkpoint.not-found",
                "the recipe's checkpoint does not exist",
                artefact=f"{path.name}, key checkpoint",
                expected=f"a file {recipe.checkpoint}, relative to the recipe",
                cure="correct the path",
            )

    @cached_property
    def checkpoint_file(self) -> SourceFile:
        """The checkpoint's name and hash."""
        return SourceFile(name=self.checkpoint.name, sha256=hash_file(self.checkpoint)[0])

    @cached_property
    def source_files(self) -> list[SourceFile]:
        """Name and hash of the other files the model is read from."""
        files = self.facts.source_files(self.checkpoint, self.text_model)
        return [
            SourceFile(name=path.name, sha256=hash_file(path)[0]) for path in files if os.path.isfile(path)
        ]

    @cached_property
    def model(self) -> LoadedModel:
        """The model as torch modules."""
        return family(self.recipe.family).load(self.checkpoint, self.text_model, self.recipe.model_options)

    def hashes(self) -> dict[str, Any]:
        """Return what the exported graphs depend on."""
        return {
            "family": self.facts.name,
            "checkpoint": self.checkpoint_file.sha256,
            "sources": [(source.name, source.sha256) for source in self.source_files],
            "options": self.recipe.model_options,
        }

    def provenance(self, libraries: dict[str, str], read: list[str] | None) -> Provenance:
        """Return where the bundle comes from, as its manifest says it, with the other files read."""
        return Provenance(
            created=created_now(),
            checkpoint=self.checkpoint_file,
            recipe=self.recipe_file,
            sources=[each for each in self.source_files if read is None or each.name in read],
            libraries=libraries,
        )
