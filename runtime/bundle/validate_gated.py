"""Rules of a manifest about changed graphs: whom they are for, and what was gated."""

from __future__ import annotations

import math

from promptray.runtime.bundle.gated import Gated
from promptray.runtime.bundle.manifest import Graph, Manifest
from promptray.runtime.bundle.refusal import refuse, unique

FP32 = "fp32"


def gated_files(manifest: Manifest) -> list[str]:
    """Return the names that the manifest's ``gated`` refers to."""
    names = []
    for each in manifest.gated:
        names.append(each.answers)
        names += [name for head in each.heads for name in (head.report, head.page)]
        names += [each.text.report, each.text.page] if each.text else []
    return names


def gates_folder(consumer: str) -> str:
    """Return the folder of what belongs to a gated consumer: names of files hold no ``@``."""
    return f"gates/{consumer.replace('@', '/')}"


def changed_heads(manifest: Manifest, consumer: str) -> list[str]:
    """Return the heads whose scores for a consumer come from a graph that is meant for it alone.

    Where one bank is not stored as its original, these are all: its consumers have the image graph. A
    back-end without a class of machines runs fp32 graphs: of those an image tower's student changes scores.
    """
    as_original = manifest.provenance.distilled is None and not _lessened(manifest)
    if "@" not in consumer and as_original:
        return []
    image = _has(manifest, "image", None, consumer)
    return [head.name for head in manifest.heads if image or _has(manifest, "head", head.name, consumer)]


def _lessened(manifest: Manifest) -> bool:
    """Tell whether a bank is stored in less than the original's."""
    return any(head.bank.stored != "float32" for head in manifest.heads)


def check_gated(manifest: Manifest) -> None:
    """Check that changed graphs are for classes of machines they were gated on, with all that this takes.

    Raises
    ------
    BundleError
        ``bundle.format``.
    """
    for index, graph in enumerate(manifest.graphs):
        _check_consumers(f"$.graphs[{index}].consumers", graph)
    pairs = [(graph.title, name) for graph in manifest.graphs for name in graph.consumers]
    unique("$.graphs[...].consumers: of one role", pairs)
    unique("$.gated[...].consumer", [each.consumer for each in manifest.gated])
    asked = {name for _, name in pairs if "@" in name}
    if manifest.provenance.distilled is not None or _lessened(manifest):
        asked |= {name for graph in manifest.graphs if graph.role == "image" for name in graph.consumers}
    if manifest.provenance.distilled_text is not None:
        asked |= {name for graph in manifest.graphs if graph.role == "text" for name in graph.consumers}
    if missing := sorted(asked - {each.consumer for each in manifest.gated}):
        refuse("$.gated", "does not say what its changed graphs passed their gates on", missing[0])
    for index, each in enumerate(manifest.gated):
        _check_one(f"$.gated[{index}]", each, manifest)


def _check_consumers(where: str, graph: Graph) -> None:
    general = [name for name in graph.consumers if "@" not in name]
    if graph.precision != FP32 and general:
        what = f"hold a backend without a class of machines, and the precision is {graph.precision!r}"
        refuse(where, what, general[0])


def _check_one(where: str, gated: Gated, manifest: Manifest) -> None:
    if not any(gated.consumer in graph.consumers for graph in manifest.graphs):
        refuse(f"{where}.consumer", "is none of any graph", gated.consumer)
    folder = gates_folder(gated.consumer)
    _check_file(f"{where}.answers", gated.answers, f"{folder}/answers.safetensors")
    changed = changed_heads(manifest, gated.consumer)
    if [each.head for each in gated.heads] != changed:
        refuse(f"{where}.heads", f"are not those with changed graphs, {', '.join(changed) or 'none'}")
    for number, each in enumerate(gated.heads):
        here, head = f"{where}.heads[{number}]", manifest.head(each.head)
        _check_positive(f"{here}.score_tolerance", each.score_tolerance)
        if (each.map_tolerance is not None) != bool(head and head.map):
            refuse(f"{here}.map_tolerance", "is given exactly where the head has a map")
        if each.map_tolerance is not None:
            _check_positive(f"{here}.map_tolerance", each.map_tolerance)
        _check_file(f"{here}.report", each.report, f"{folder}/head-{each.head}.json")
        _check_file(f"{here}.page", each.page, f"{folder}/head-{each.head}.html")
    # A back-end alone runs fp32 graphs: the text graph is the original's unless it has a student of its own.
    changed_text = "@" in gated.consumer or manifest.provenance.distilled_text is not None
    has_text = changed_text and _has(manifest, "text", None, gated.consumer)
    if (gated.text is not None) != has_text:
        refuse(f"{where}.text", "is given exactly where the text graph is a changed one for this consumer")
    if gated.text is not None:
        if manifest.text is None or gated.text.head != manifest.text.head:
            refuse(f"{where}.text.head", "is not the head that reads text", gated.text.head)
        _check_positive(f"{where}.text.tolerance", gated.text.tolerance)
        _check_file(f"{where}.text.report", gated.text.report, f"{folder}/text.json")
        _check_file(f"{where}.text.page", gated.text.page, f"{folder}/text.html")


def _has(manifest: Manifest, role: str, head: str | None, consumer: str) -> bool:
    return manifest.graph_for(role, [consumer], head) is not None


def _check_file(where: str, found: str, expected: str) -> None:
    if found != expected:
        refuse(where, f"is not {expected!r}", found)


def _check_positive(where: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        refuse(where, "is not a positive number", str(value))
