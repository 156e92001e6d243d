"""What is compiled must have the inputs and outputs that the manifest says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from promptray.runtime.errors import ScoringError

#: What the image graph takes.
PIXELS = "pixels"

#: Name -> type and number of dimensions.
Tensors = Mapping[str, tuple[str, int]]


class DeclaredTensor(Protocol):
    """An input or output as a manifest, or the format, says it is."""

    @property
    def name(self) -> str:
        """Its name in the graph."""
        ...

    @property
    def dtype(self) -> str:
        """NumPy's name of its type."""
        ...

    @property
    def dims(self) -> Sequence[int | str]:
        """Fixed sizes, and names of those that vary."""
        ...


class DeclaredGraph(Protocol):
    """A graph of a bundle with its inputs and outputs: a manifest's ``Graph``, or the one that prepares."""

    @property
    def role(self) -> str:
        """What it is for."""
        ...

    @property
    def head(self) -> str | None:
        """Which head's, where it is one's."""
        ...

    @property
    def title(self) -> str:
        """What people call it."""
        ...

    @property
    def file(self) -> str:
        """Its name in the bundle."""
        ...

    @property
    def inputs(self) -> Sequence[DeclaredTensor]:
        """What it takes."""
        ...

    @property
    def outputs(self) -> Sequence[DeclaredTensor]:
        """What it gives."""
        ...


def require_declared(
    facts: DeclaredGraph, inputs: Tensors, outputs: Tensors, more: Tensors | None = None
) -> None:
    """Refuse a graph whose inputs or outputs are not those of the manifest, and `more` outputs.

    Raises
    ------
    ScoringError
        ``backend.failed``, naming those that differ.
    """
    for kind, declared, found in (("inputs", facts.inputs, inputs), ("outputs", facts.outputs, outputs)):
        expected = {tensor.name: (tensor.dtype, len(tensor.dims)) for tensor in declared}
        if kind == "outputs":
            expected |= more or {}
        if expected != found:
            differing = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
            raise ScoringError(
                "backend.failed",
                f"the {facts.role} graph has other {kind} than the manifest says",
                artefact=facts.file,
                expected=", ".join(f"{name} {expected.get(name, 'absent')}" for name in differing[:5]),
                found=", ".join(f"{name} {found.get(name, 'absent')}" for name in differing[:5]),
                cure="build the bundle again",
            )
