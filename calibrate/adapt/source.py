"""The recipe that is adapted: its classes, whether it reads text, and the recipe of what is tuned."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from promptray.export.families import facts as family_facts
from promptray.export.recipe import Recipe, read_recipe
from promptray.runtime.bundle.manifest import ALTERNATIVES
from promptray.runtime.disk import hash_file
from promptray.runtime.errors import BuildError
from promptray.runtime.packs import read_pack

_FAMILIES = ("open_clip", "convnext")
#: What a recipe says of wordings and files, which a tuned checkpoint does not have or has otherwise.
_NOT_TUNED = {"pack", "templates", "text_model", "text_graph"}
_NOT_TUNED_FINDING = {"prompt", "negative_prompt", "allow_empty", "head"}


@dataclass(frozen=True)
class Source:
    """A recipe to adapt.

    Attributes
    ----------
    path : Path
    recipe : Recipe
    family : str
    """

    path: Path
    recipe: Recipe
    family: str

    @property
    def keys(self) -> list[str]:
        """The classes, in the order of the scale where they are one."""
        return [finding.key for finding in self.recipe.findings]

    @property
    def ordinal(self) -> bool:
        """Whether they are the steps of a scale."""
        return self.recipe.relation == "ordinal"

    @property
    def checkpoint(self) -> Path:
        """The checkpoint's path."""
        return self.path.resolve().parent / self.recipe.checkpoint

    @property
    def text_model(self) -> Path | None:
        """The text model's folder."""
        named = self.recipe.text_model
        return self.path.resolve().parent / named if named else None

    @property
    def golden(self) -> list[Path]:
        """The recipe's own golden images; a folder that is not there is the build's to refuse."""
        named = self.recipe.golden
        folder = self.path.resolve().parent / named.images if named else None
        if folder is None or not folder.is_dir():
            return []
        return sorted(path for path in folder.iterdir() if path.is_file())

    @cached_property
    def sha256(self) -> str:
        """Hash of the recipe's file."""
        return hash_file(self.path)[0]

    @cached_property
    def model_sha256(self) -> dict[str, str]:
        """Hashes of the checkpoint and of the files that are read with it."""
        with_it = family_facts(self.family).source_files(self.checkpoint, self.text_model)
        files = [self.checkpoint, *(path for path in with_it if path.is_file())]
        return {path.name: hash_file(path)[0] for path in files}

    @cached_property
    def golden_sha256(self) -> dict[str, str]:
        """Hashes of the recipe's own golden images."""
        return {path.name: hash_file(path)[0] for path in self.golden}

    @cached_property
    def has_text(self) -> bool:
        """Whether the checkpoint scores wordings, so that there is a zero-shot stage. Needs torch."""
        if self.family != "open_clip":
            return False
        from promptray.export.checkpoint import load_checkpoint
        from promptray.export.families.open_clip_checkpoint import published_state
        from promptray.export.families.open_clip_tuned import WEIGHT

        return WEIGHT not in published_state(load_checkpoint(self.checkpoint), self.checkpoint.name)

    def names(self, extra: Mapping[str, str]) -> dict[str, str]:
        """Return what a table may call the classes -> key.

        By rising precedence: what a pack's data set calls them, what the recipe does, their keys, `extra`. A
        name that would mean two classes means none.

        Raises
        ------
        BuildError
            ``adapt.recipe`` if `extra` names a key that the recipe does not have.
        """
        packed = [finding for name in self.recipe.packs for finding in read_pack(name).findings]
        labels = [(finding.label, finding.key) for finding in packed if finding.label]
        own = [(name, f.key) for f in self.recipe.findings for name in (f.display, f.class_name) if name]
        found: dict[str, str] = {}
        for name, key in [*labels, *own]:
            if found.setdefault(name, key) != key:
                found[name] = ""
        unknown = [key for key in extra.values() if key not in self.keys]
        if unknown:
            what = "--class names no class of the recipe"
            raise _refused(self.path, what, ", ".join(self.keys), unknown[0])
        found.update({key: key for key in self.keys})
        return {name: key for name, key in {**found, **extra}.items() if key}

    def tuned_recipe(
        self, stage: str, checkpoint: str, family: str, options: Mapping[str, Any], golden: str, training: str
    ) -> dict[str, Any]:
        """Return the recipe of a tuned checkpoint: this one's, less what was text.

        Parameters
        ----------
        stage : str
            Goes into the name.
        checkpoint : str
            File beside the recipe.
        family, options
            Of the checkpoint.
        golden : str
            Folder of the golden images, where this recipe has its own.
        training : str
            Goes behind the statement of training data.
        """
        content = msgspec.to_builtins(self.recipe)
        content = {
            key: value for key, value in content.items() if key not in _NOT_TUNED and value not in (None, {})
        }
        content["findings"] = [
            {
                key: value
                for key, value in finding.items()
                if key not in _NOT_TUNED_FINDING and value is not None
            }
            | {"class_name": finding["key"]}
            for finding in content["findings"]
        ]
        content |= {
            "name": f"{self.recipe.name[:80]}-{stage}",
            "family": family,
            "checkpoint": checkpoint,
            "model_options": dict(options),
            "relation": self.recipe.relation or "exclusive",
        }
        content["model"]["training_data"] += f". {training}"
        if self.recipe.golden:
            content["golden"]["images"] = golden
        return content


def read_source(path: Path) -> Source:
    """Read a recipe whose findings are classes.

    Raises
    ------
    BuildError
        ``recipe.invalid``, ``family.unknown``, ``checkpoint.not-found``; ``adapt.recipe`` where the findings
        are no alternatives.
    """
    recipe = read_recipe(path)
    source = Source(path, recipe, family_facts(recipe.family).name)
    if source.family not in _FAMILIES:
        raise _refused(path, "its image tower cannot be tuned", " or ".join(_FAMILIES), source.family)
    heads = {finding.head for finding in recipe.findings}
    if recipe.heads or len(heads) > 1:
        named = ", ".join(sorted({*recipe.heads, *(head for head in heads if head)}))
        raise _refused(path, "the classes must be those of one head", "a recipe of one head", named)
    relation = recipe.relation or ("exclusive" if source.family == "convnext" else "independent")
    if relation not in ALTERNATIVES:
        expected = f"relation: {' or '.join(ALTERNATIVES)}"
        raise _refused(path, "the findings must be classes, of which one is true", expected, relation)
    if len(recipe.findings) < 2:
        raise _refused(path, "classes are at least two", "two findings", str(len(recipe.findings)))
    if not os.path.isfile(source.checkpoint):  # Path.is_file raises for a path too long for the system
        raise BuildError(
            "checkpoint.not-found",
            "the recipe's checkpoint does not exist",
            artefact=f"{path.name}, key checkpoint",
            cure="correct the path, which is relative to the recipe",
        )
    return source


def groups_of(source: Source) -> dict[str, Sequence[str]]:
    """Return the recipe's groups that leave some class out: the others say nothing."""
    return {
        name: members for name, members in source.recipe.groups.items() if set(members) != set(source.keys)
    }


def _refused(path: Path, message: str, expected: str, found: str) -> BuildError:
    return BuildError(
        "adapt.recipe",
        message,
        artefact=path.name,
        expected=expected,
        found=found,
        cure="docs/adaptation.md says what recipes can be adapted",
    )
