"""What is compiled must have the inputs and outputs that the manifest says."""

from __future__ import annotations

from collections.abc import Mapping

from promptray.runtime.bundle.manifest import Graph as GraphFacts
from promptray.runtime.errors import ScoringError

#: Name -> type and number of dimensions.
Tensors = Mapping[str, tuple[str, int]]


def require_declared(facts: GraphFacts, inputs: Tensors, outputs: Tensors) -> None:
    """Refuse a graph whose inputs or outputs are not those of the manifest.

    Raises
    ------
    ScoringError
        ``backend.failed``, naming those that differ.
    """
    for kind, declared, found in (("inputs", facts.inputs, inputs), ("outputs", facts.outputs, outputs)):
        expected = {tensor.name: (tensor.dtype, len(tensor.dims)) for tensor in declared}
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
