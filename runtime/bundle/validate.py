"""Rules of a manifest that span fields; ``docs/bundle-format.md`` states each of them.

The schema says what each field may hold. Here is what fields mean together: that each head can be fed from
the image graph and its bank, that preprocessing ends at the network's size, that nothing is named twice.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

from promptray.runtime.bundle.image_rules import Door, Preprocessing
from promptray.runtime.bundle.manifest import (
    ALTERNATIVES,
    BankRule,
    Dims,
    Finding,
    Graph,
    Head,
    Manifest,
    MapFacts,
    TensorFacts,
    bank_id,
)
from promptray.runtime.bundle.names import check_names
from promptray.runtime.bundle.refusal import refuse, unique
from promptray.runtime.bundle.validate_engines import check_engines
from promptray.runtime.bundle.validate_gated import check_gated, gated_files
from promptray.runtime.bundle.validate_preprocessing import check_preprocessing
from promptray.runtime.bundle.words import body_part_words, key_fault
from promptray.runtime.errors import PromptError
from promptray.runtime.exam_rule import rule_fault
from promptray.runtime.wording import require_wordings

LEAST_GOLDEN = 16
#: Most that a golden score, a map, or an encoded finding as a share of its largest number, may be off.
LARGEST_TOLERANCE = 0.1
#: A template holds the place of the finding's name once.
TEMPLATE = r"[^{}]*\{\}[^{}]*"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_CREATED = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_TOKEN_INPUTS = (
    TensorFacts(name="input_ids", dtype="int64", dims=[1, "tokens"]),
    TensorFacts(name="word_matrix", dtype="float32", dims=[1, "words", "tokens"]),
)


def check_manifest(manifest: Manifest, *, files_known: bool = True) -> None:
    """Check every rule that spans fields.

    Parameters
    ----------
    manifest : Manifest
        A manifest that satisfies the schema.
    files_known : bool
        False before the files are hashed (while a bundle is written): ``files`` is not looked at.

    Raises
    ------
    BundleError
        ``bundle.format`` with the field's path, or ``bundle.unsafe-path``.
    """
    check_names(referenced_files(manifest))
    if files_known:
        check_names(manifest.files)
        for name in referenced_files(manifest):
            if name not in manifest.files:
                refuse("$.files", f"does not list {name!r}, which the manifest refers to")
    _check_provenance(manifest)
    _check_door(manifest.door)
    _check_heads(manifest)
    _check_findings(manifest)
    check_preprocessing(manifest.preprocessing)
    _check_graphs(manifest)
    _check_text(manifest)
    _check_golden(manifest)
    _check_examination(manifest)
    check_gated(manifest)
    check_engines(manifest)
    unique("$: a file's role", referenced_files(manifest))


def referenced_files(manifest: Manifest) -> list[str]:
    """Return the names the manifest refers to outside ``files``."""
    names = [graph.file for graph in manifest.graphs]
    names += [manifest.golden.tensors, *manifest.golden.images, manifest.parity]
    names += [head.bank.file for head in manifest.heads]
    if manifest.text:
        names.append(manifest.text.tokenizer)
    if manifest.engines:
        names += manifest.engines.files
    return names + gated_files(manifest)


def _check_provenance(manifest: Manifest) -> None:
    provenance = manifest.provenance
    if not _CREATED.fullmatch(provenance.created):
        refuse("$.provenance.created", "is not YYYY-MM-DDThh:mm:ssZ", provenance.created)
    named = [("checkpoint", provenance.checkpoint), ("recipe", provenance.recipe)]
    named += [(f"sources[{index}]", source) for index, source in enumerate(provenance.sources)]
    for field, source in named:
        if re.search(r"[/\\:]", source.name):
            refuse(f"$.provenance.{field}.name", "is a path, not a base name")


def _check_door(door: Door) -> None:
    for index, part in enumerate(door.refused_body_parts):
        if not body_part_words(part):
            where = f"$.door.refused_body_parts[{index}]"
            refuse(where, "has no letter or digit, so it refuses nothing", part)


def _check_heads(manifest: Manifest) -> None:
    unique("$.heads[...].name", [head.name for head in manifest.heads])
    if manifest.text and manifest.text_head is None:
        refuse("$.text.head", "no head has this name", manifest.text.head)
    free = [head.name for head in manifest.heads if head.set == "free"]
    if len(free) > 1:
        refuse("$.heads", "holds several free ones, and prompts can be added to one at most", ", ".join(free))
    for index, head in enumerate(manifest.heads):
        where = f"$.heads[{index}]"
        if head.set == "free" and manifest.text_head is not head:
            refuse(f"{where}.set", "is free, and only the head that '$.text' names reads text", head.set)
        if head.set == "free" and head.relation == "ordinal":
            what = "is free, and a scale of which a step may be added or left out has other places"
            refuse(f"{where}.set", what, head.set)
        if (head.activation == "softmax") != (head.relation != "independent"):
            refuse(f"{where}.activation", f"does not go with relation {head.relation!r}", head.activation)
        if head.relation == "pair" and manifest.text_head is not head:
            refuse(f"{where}.relation", "is of findings with negative prompts, and the head reads no text")
        _check_tolerance(f"{where}.score_tolerance", head.score_tolerance)
        if head.map:
            _check_map(f"{where}.map", head.map, manifest.preprocessing)
        _check_bank(f"{where}.bank", head)


def _check_map(where: str, facts: MapFacts, rule: Preprocessing) -> None:
    _check_tolerance(f"{where}.tolerance", facts.tolerance)
    if facts.grid[0] > rule.height or facts.grid[1] > rule.width:
        refuse(f"{where}.grid", f"is finer than {rule.height} x {rule.width}", str(facts.grid))


def _check_tolerance(where: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        refuse(where, "is not a positive number", str(value))
    if value > LARGEST_TOLERANCE:
        what = f"is above {LARGEST_TOLERANCE}, which would make the self-test one that cannot fail"
        refuse(where, what, str(value))


def _check_findings(manifest: Manifest) -> None:
    unique("$.findings[...]: head and key", [(finding.head, finding.key) for finding in manifest.findings])
    names = [head.name for head in manifest.heads]
    for index, finding in enumerate(manifest.findings):
        where = f"$.findings[{index}]"
        fault = key_fault(finding.key)
        if fault:
            refuse(f"{where}.key", fault, ascii(finding.key))
        head = manifest.head(finding.head)
        if head is None:
            refuse(f"{where}.head", f"no head has this name; there is {', '.join(names)}", finding.head)
        _check_wordings(f"{where}.prompts", finding, head, manifest)
    places = [names.index(finding.head) for finding in manifest.findings]
    if places != sorted(places):
        refuse("$.findings", "are not those of the first head, then those of the next")
    for index, head in enumerate(manifest.heads):
        _check_set(f"$.heads[{index}]", head, [each.key for each in manifest.findings_of(head.name)])


def _check_set(where: str, head: Head, keys: Sequence[str]) -> None:
    if head.relation in ALTERNATIVES and len(keys) == 1:
        refuse("$.findings", f"holds one of head {head.name!r}, and alternatives are at least two")
    if not keys:
        refuse("$.findings", f"holds none of head {head.name!r}, which no self-test would look at")
    if head.groups and head.relation not in ALTERNATIVES:
        refuse(f"{where}.groups", "adds up findings that are no alternatives", head.relation)
    for name, members in head.groups.items():
        if name in keys:
            refuse(f"{where}.groups", "names a group as a finding of the head", name)
        unique(f"{where}.groups.{name}", members)
        unknown = [key for key in members if key not in keys]
        if unknown:
            refuse(f"{where}.groups.{name}", "names no finding of this head", unknown[0])


def _check_wordings(where: str, finding: Finding, head: Head, manifest: Manifest) -> None:
    if manifest.text_head is not head:
        if finding.prompts or finding.negative_prompts:
            refuse(where, f"are given, and head {head.name!r} reads no text", finding.key)
        return
    if not all(text.strip() for text in (*finding.prompts, *finding.negative_prompts)):
        refuse(where, "holds an empty one, and the head scores prompts", finding.key)
    try:
        require_wordings(
            head.bank.ensemble, head.relation, finding.key, finding.prompts, finding.negative_prompts
        )
    except PromptError as error:
        refuse(where, f"cannot be scored: {error.message}", error.found)


def _check_bank(where: str, head: Head) -> None:
    bank = head.bank
    if bank.file != (name := f"banks/{head.name}.safetensors"):
        refuse(f"{where}.file", f"is not {name!r}", bank.file)
    if "layout" not in bank.identity or not any(map(_SHA256.fullmatch, bank.identity.values())):
        what = "does not hold 'layout' and the hash of what made the bank, so a foreign one would pass"
        refuse(f"{where}.identity", what, ", ".join(bank.identity))
    if bank.id != bank_id(bank.identity):
        refuse(f"{where}.id", f"is not the hash of its identity, {bank_id(bank.identity)}", bank.id)
    if bank.identity.get("stored", "float32") != bank.stored:
        what = "is not what its identity says, so a bank of other numbers would pass"
        refuse(f"{where}.stored", what, bank.stored)
    unique(f"{where}.tensors[...].name", ["offsets", *(tensor.name for tensor in bank.tensors)])
    for index, tensor in enumerate(bank.tensors):
        names = [dim for dim in tensor.dims if isinstance(dim, str)]
        if tensor.dims[:1] != ["prompts"] or names not in (["prompts"], ["prompts", "rows"]):
            what = "is not 'prompts' first and 'rows' at most once"
            refuse(f"{where}.tensors[{index}].dims", what, str(names))
        if bank.ensemble == "mean-unit" and (
            tensor.dtype != "float32" or len(tensor.dims) != 2 or "rows" in names
        ):
            what = "is no float32 vector for each prompt, and only those have a mean"
            refuse(f"{where}.tensors[{index}]", what, _text(tensor))
    _check_rows(where, bank, head)


def _check_rows(where: str, bank: BankRule, head: Head) -> None:
    ragged = any("rows" in tensor.dims for tensor in bank.tensors)
    if ragged and head.set == "fixed":
        refuse(f"{where}.tensors", "have rows, by which the prompts of a fixed set would be scored apart")
    buckets = bank.row_buckets
    if bool(buckets) != ragged or buckets != sorted(set(buckets)):
        what = "is a rising list, empty exactly when no tensor has rows"
        refuse(f"{where}.row_buckets", what, str(buckets))
    if (bank.row_bias is not None) != ragged:
        refuse(f"{where}.row_bias", "is given exactly when a tensor has rows", str(bank.row_bias))
    if ragged:
        bias = _named(bank.tensors, str(bank.row_bias))
        if bias is None or (bias.dtype, bias.dims) != ("float32", ["prompts", "rows"]):
            what = "does not name a float32 tensor (prompts, rows)"
            refuse(f"{where}.row_bias", what, str(bank.row_bias))
    if not -1e30 <= bank.row_bias_padding <= -1e4:
        # Smaller in size leaves weight on padding rows, larger overflows when a bias is added.
        what = "is not between -1e30 and -1e4"
        refuse(f"{where}.row_bias_padding", what, str(bank.row_bias_padding))


def _check_graphs(manifest: Manifest) -> None:
    unique("$.graphs[...].file", [graph.file for graph in manifest.graphs])
    for index, graph in enumerate(manifest.graphs):
        where = f"$.graphs[{index}]"
        if graph.role == "head" and (graph.head is None or manifest.head(graph.head) is None):
            names = ", ".join(head.name for head in manifest.heads)
            refuse(f"{where}.head", f"does not name the head it is of; there is {names}", str(graph.head))
        if graph.role != "head" and graph.head is not None:
            refuse(f"{where}.head", f"is given, and the role is {graph.role!r}", graph.head)
        folder = graph.role if graph.head is None else f"{graph.role}/{graph.head}"
        if graph.file != (name := f"graphs/{folder}/{graph.precision}-{graph.opset}.onnx"):
            refuse(f"{where}.file", f"is not {name!r}", graph.file)
        unique(f"{where}.inputs[...].name", [tensor.name for tensor in graph.inputs])
        unique(f"{where}.outputs[...].name", [tensor.name for tensor in graph.outputs])
        reference = manifest.graph(graph.role, graph.head)
        if reference and (graph.inputs, graph.outputs) != (reference.inputs, reference.outputs):
            refuse(where, f"has other inputs or outputs than {reference.file!r} of the same role")
    image = manifest.graph("image")
    if image is None:
        refuse("$.graphs", "an image graph is required")
    _check_image_graph(image, manifest.preprocessing)
    for head in manifest.heads:
        graph_of_head = manifest.graph("head", head.name)
        if graph_of_head is None:
            refuse("$.graphs", "a graph is required for every head", f"none for {head.name!r}")
        _check_head_graph(graph_of_head, image, head)


def _check_image_graph(graph: Graph, rule: Preprocessing) -> None:
    pixels = TensorFacts(
        name="pixels", dtype="float32", dims=["batch", rule.channels, rule.height, rule.width]
    )
    if graph.inputs != [pixels]:
        refuse(f"{graph.file}: inputs", f"is not the one tensor {_text(pixels)}", _texts(graph.inputs))
    for tensor in graph.outputs:
        if tensor.dims[:1] != ["batch"]:
            refuse(f"{graph.file}: outputs", "an image feature does not begin with 'batch'", _text(tensor))
        if any(isinstance(dim, str) for dim in tensor.dims[1:]):  # its memory is made before a call
            refuse(f"{graph.file}: outputs", "an image feature has a second size that varies", _text(tensor))


def _check_head_graph(graph: Graph, image: Graph, head: Head) -> None:
    bank = head.bank.tensors
    where = f"image features and bank tensors of head {head.name!r}: names"
    unique(where, [tensor.name for tensor in (*image.outputs, *bank)])
    for tensor in graph.inputs:
        source = _named(image.outputs, tensor.name) or _named(bank, tensor.name)
        if source is None:
            what = "neither the image graph nor the head's bank gives"
            refuse(f"{graph.file}: inputs", what, tensor.name)
        if source != tensor:
            refuse(f"{graph.file}: inputs", f"{_text(tensor)} is not what feeds it", _text(source))
    for given, what in ((image.outputs, "image feature"), (bank, "bank tensor")):
        if not any(_named(given, tensor.name) for tensor in graph.inputs):
            where = f"{graph.file}: inputs"
            refuse(where, f"hold no {what}, so the scores would not depend on any", _texts(graph.inputs))
    bias = head.bank.row_bias
    if bias and not _named(graph.inputs, bias):
        refuse(f"{graph.file}: inputs", "lack the row bias of the bank, so padding rows would count", bias)
    if sorted(graph.outputs, key=lambda tensor: tensor.name) != _head_outputs(head):
        refuse(f"{graph.file}: outputs", f"are not {_texts(_head_outputs(head))}", _texts(graph.outputs))


def _head_outputs(head: Head) -> list[TensorFacts]:
    dims: Dims = ["batch", "prompts"]
    outputs = [TensorFacts(name="logits", dtype="float32", dims=dims)]
    if head.map:
        outputs.append(TensorFacts(name="maps", dtype="float32", dims=[*dims, *head.map.grid]))
    return outputs


def _check_text(manifest: Manifest) -> None:
    graph, rule, head = manifest.graph("text"), manifest.text, manifest.text_head
    if rule is None or head is None:  # that there is a head of that name was checked with the heads
        if graph is not None:
            refuse("$.graphs", "hold a text graph, which needs 'text'")
        return
    for index, template in enumerate(rule.templates):
        if re.fullmatch(TEMPLATE, template) is None:
            where = f"$.text.templates[{index}]"
            refuse(where, "does not hold {} exactly once and no other brace", template)
    if head.bank.ensemble == "none" and len(rule.templates) > 1:
        refuse("$.text.templates", "are several, and the model scores one wording", str(len(rule.templates)))
    if graph is None:
        return
    for tensor in graph.inputs:
        if tensor not in _TOKEN_INPUTS:
            refuse(f"{graph.file}: inputs", f"not one of {_texts(_TOKEN_INPUTS)}", _text(tensor))
    rows = {tensor.name: (tensor.dtype, tensor.dims[1:]) for tensor in head.bank.tensors}
    if {tensor.name: (tensor.dtype, tensor.dims) for tensor in graph.outputs} != rows:
        what = f"are not the tensors of the bank of head {head.name!r} without 'prompts'"
        refuse(f"{graph.file}: outputs", what, _texts(graph.outputs))


def _check_golden(manifest: Manifest) -> None:
    golden = manifest.golden
    unique("$.golden.images", golden.images)
    if len(golden.images) < LEAST_GOLDEN:
        refuse("$.golden.images", f"needs at least {LEAST_GOLDEN} images", str(len(golden.images)))


def _check_examination(manifest: Manifest) -> None:
    fault = rule_fault(manifest.examination, manifest.heads) if manifest.examination else None
    if fault:
        refuse(f"$.examination.{fault.field}", f"{fault.what}; {fault.expected} would do", fault.found)


def _named(tensors: Iterable[TensorFacts], name: str) -> TensorFacts | None:
    return next((tensor for tensor in tensors if tensor.name == name), None)


def _text(tensor: TensorFacts) -> str:
    return f"{tensor.name} {tensor.dtype} ({', '.join(map(str, tensor.dims))})"


def _texts(tensors: Iterable[TensorFacts]) -> str:
    return "; ".join(map(_text, tensors))
