"""Rules of a manifest that span fields; ``docs/bundle-format.md`` states each of them.

The schema says what each field may hold. Here is what fields mean together: that the head can be fed from
the image graph and the bank, that preprocessing ends at the network's size, that nothing is named twice.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Iterable
from typing import NoReturn

from promptray.runtime.bundle.manifest import (
    ALTERNATIVES,
    WHOLE_LEVELS,
    BankRule,
    CentreCrop,
    Dims,
    Door,
    Finding,
    Graph,
    Head,
    Manifest,
    PadSquare,
    Preprocessing,
    ResizeLongerSide,
    ResizeShorterSide,
    Squash,
    TensorFacts,
    bank_id,
    body_part_words,
    key_fault,
)
from promptray.runtime.bundle.names import MANIFEST, check_names
from promptray.runtime.errors import BundleError, PromptError
from promptray.runtime.exam_rule import rule_fault
from promptray.runtime.wording import require_wordings

LEAST_GOLDEN = 16
#: Most that a golden score or map may be off.
LARGEST_TOLERANCE = 0.1
#: Pixels a side: beyond what any network of radiographs reads, and its float32 picture is 200 MB.
LARGEST_NETWORK = 4096
#: A template holds the place of the finding's name once.
TEMPLATE = r"[^{}]*\{\}[^{}]*"
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
                _refuse("$.files", f"does not list {name!r}, which the manifest refers to")
    _check_provenance(manifest)
    _check_door(manifest.door)
    _check_findings(manifest)
    _check_preprocessing(manifest.preprocessing)
    _check_bank(manifest)
    _check_graphs(manifest)
    _check_text(manifest)
    _check_golden(manifest)
    _check_examination(manifest)


def referenced_files(manifest: Manifest) -> list[str]:
    """Return the names the manifest refers to outside ``files``."""
    names = [graph.file for graph in manifest.graphs]
    names += [manifest.golden.tensors, *manifest.golden.images, manifest.parity]
    if manifest.bank:
        names.append(manifest.bank.file)
    if manifest.text:
        names.append(manifest.text.tokenizer)
    return names


def _check_provenance(manifest: Manifest) -> None:
    provenance = manifest.provenance
    if not _CREATED.fullmatch(provenance.created):
        _refuse("$.provenance.created", "is not YYYY-MM-DDThh:mm:ssZ", provenance.created)
    named = [("checkpoint", provenance.checkpoint), ("recipe", provenance.recipe)]
    named += [(f"sources[{index}]", source) for index, source in enumerate(provenance.sources)]
    for field, source in named:
        if re.search(r"[/\\:]", source.name):
            _refuse(f"$.provenance.{field}.name", "is a path, not a base name")


def _check_door(door: Door) -> None:
    for index, part in enumerate(door.refused_body_parts):
        if not body_part_words(part):
            where = f"$.door.refused_body_parts[{index}]"
            _refuse(where, "has no letter or digit, so it refuses nothing", part)


def _check_findings(manifest: Manifest) -> None:
    if len(manifest.heads) != 1:
        _refuse("$.heads", "version 2 describes exactly one head", str(len(manifest.heads)))
    head = manifest.heads[0]
    _unique("$.findings[...].key", [finding.key for finding in manifest.findings])
    for index, finding in enumerate(manifest.findings):
        fault = key_fault(finding.key)
        if fault:
            _refuse(f"$.findings[{index}].key", fault, ascii(finding.key))
        if finding.head != head.name:
            _refuse(
                f"$.findings[{index}].head", f"no head has this name; there is {head.name!r}", finding.head
            )
        _check_wordings(f"$.findings[{index}]", finding, manifest)
    if head.relation in ALTERNATIVES and len(manifest.findings) == 1:
        _refuse("$.findings", "holds one, and alternatives are at least two")
    _check_groups(head, {finding.key for finding in manifest.findings})
    if (head.activation == "softmax") != (head.relation != "independent"):
        _refuse("$.heads[0].activation", f"does not go with relation {head.relation!r}", head.activation)
    if head.bank != "free" and not manifest.findings:
        _refuse("$.findings", f"is empty, and a head with bank {head.bank!r} cannot be given any")


def _check_groups(head: Head, keys: set[str]) -> None:
    if head.groups and head.relation not in ALTERNATIVES:
        _refuse("$.heads[0].groups", "adds up findings that are no alternatives", head.relation)
    for name, members in head.groups.items():
        where = f"$.heads[0].groups.{name}"
        _unique(where, members)
        unknown = [key for key in members if key not in keys]
        if unknown:
            _refuse(where, "names no finding", unknown[0])


def _check_wordings(where: str, finding: Finding, manifest: Manifest) -> None:
    head, bank = manifest.heads[0], manifest.bank
    no_text = manifest.text is None and manifest.graph("text") is None
    if bank is None or no_text:  # whether they may be is checked with the bank
        if (head.bank == "none" or bank) and (finding.prompts or finding.negative_prompts):
            _refuse(f"{where}.prompts", "are given, and the model has no text")
        return
    if not all(text.strip() for text in (*finding.prompts, *finding.negative_prompts)):
        _refuse(f"{where}.prompts", "holds an empty one, and the head scores prompts", finding.key)
    try:
        require_wordings(bank.ensemble, head.relation, finding.key, finding.prompts, finding.negative_prompts)
    except PromptError as error:
        _refuse(f"{where}.prompts", f"cannot be scored: {error.message}", error.found)


def _check_preprocessing(rule: Preprocessing) -> None:
    side: int | None = None  # known once the picture is square whatever the image
    shortest: int | None = None  # no side is smaller, once that is sure
    longest: int | None = None  # no side is larger, once that is sure
    for index, step in enumerate(rule.steps):
        where = f"$.preprocessing.steps[{index}]"
        if step.size > LARGEST_NETWORK:
            _refuse(where, f"makes a picture larger than {LARGEST_NETWORK} a side", str(step.size))
        match step:
            case ResizeLongerSide():
                side, shortest, longest = None, None, step.size
            case ResizeShorterSide():
                side, shortest, longest = None, step.size, None
            case Squash():
                side = shortest = longest = step.size
            case PadSquare():
                if longest is None or longest > step.size:
                    _refuse(where, "pads a picture that may be larger than the result")
                side = shortest = longest = step.size
            case CentreCrop():
                if shortest is None or shortest < step.size:
                    _refuse(where, "does not cut a square out of a picture that is surely as large")
                side = shortest = longest = step.size
    if rule.colour == "rgb" and rule.channels != 3:
        _refuse("$.preprocessing.colour", "keeps three channels, and the network takes another number")
    _check_levels(rule)
    if side is None or (rule.height, rule.width) != (side, side):
        _refuse("$.preprocessing", "the steps do not end at height x width", f"{side} x {side}")
    for name, values in (("mean", rule.normalise.mean), ("std", rule.normalise.std)):
        where = f"$.preprocessing.normalise.{name}"
        if len(values) != rule.channels:
            _refuse(where, f"needs one number for each of {rule.channels} channels", str(len(values)))
        if not all(math.isfinite(value) for value in values) or (name == "std" and min(values) <= 0):
            _refuse(where, "holds a number that cannot normalise", str(values))


def _check_levels(rule: Preprocessing) -> None:
    filters = [step.interpolation for step in rule.steps if not isinstance(step, PadSquare | CentreCrop)]
    whole = [name in WHOLE_LEVELS for name in filters]
    if rule.levels == "float32" and all(whole):
        _refuse("$.preprocessing.levels", "keeps fractions, and no filter gives any", str(filters))
    if rule.levels == "float32" and whole != sorted(whole, reverse=True):
        _refuse("$.preprocessing.steps", "give fractions to a filter of whole levels", str(filters))
    if rule.levels == "uint8" and "cubic" in filters:
        _refuse("$.preprocessing.levels", "rounds to 8 bits, and cubic is a filter of fractions", "uint8")


def _check_bank(manifest: Manifest) -> None:
    head, bank = manifest.heads[0], manifest.bank
    if (bank is None) != (head.bank == "none"):
        _refuse(
            "$.bank", "is there exactly when a head uses a bank", f"head {head.name!r} has bank {head.bank!r}"
        )
    if bank is None:
        return
    if bank.id != bank_id(bank.identity):
        _refuse("$.bank.id", f"is not the hash of its identity, {bank_id(bank.identity)}", bank.id)
    _unique("$.bank.tensors[...].name", ["offsets", *(tensor.name for tensor in bank.tensors)])
    for index, tensor in enumerate(bank.tensors):
        names = [dim for dim in tensor.dims if isinstance(dim, str)]
        if tensor.dims[:1] != ["prompts"] or names not in (["prompts"], ["prompts", "rows"]):
            _refuse(
                f"$.bank.tensors[{index}].dims", "is not 'prompts' first and 'rows' at most once", str(names)
            )
        if bank.ensemble == "mean-unit" and (
            tensor.dtype != "float32" or len(tensor.dims) != 2 or "rows" in names
        ):
            where = f"$.bank.tensors[{index}]"
            _refuse(where, "is no float32 vector for each prompt, and only those have a mean", _text(tensor))
    _check_rows(bank, head)


def _check_rows(bank: BankRule, head: Head) -> None:
    ragged = any("rows" in tensor.dims for tensor in bank.tensors)
    if ragged and head.bank == "fixed_set":
        _refuse("$.bank.tensors", "have rows, by which the prompts of a fixed set would be scored apart")
    buckets = bank.row_buckets
    if bool(buckets) != ragged or buckets != sorted(set(buckets)):
        _refuse("$.bank.row_buckets", "is a rising list, empty exactly when no tensor has rows", str(buckets))
    if (bank.row_bias is not None) != ragged:
        _refuse("$.bank.row_bias", "is given exactly when a tensor has rows", str(bank.row_bias))
    if ragged:
        bias = _named(bank.tensors, str(bank.row_bias))
        if bias is None or (bias.dtype, bias.dims) != ("float32", ["prompts", "rows"]):
            _refuse("$.bank.row_bias", "does not name a float32 tensor (prompts, rows)", str(bank.row_bias))
    if not -1e30 <= bank.row_bias_padding <= -1e4:
        # Smaller in size leaves weight on padding rows, larger overflows when a bias is added.
        _refuse("$.bank.row_bias_padding", "is not between -1e30 and -1e4", str(bank.row_bias_padding))


def _check_graphs(manifest: Manifest) -> None:
    _unique("$.graphs[...].file", [graph.file for graph in manifest.graphs])
    for index, graph in enumerate(manifest.graphs):
        where = f"$.graphs[{index}]"
        if graph.file != (name := f"graphs/{graph.role}/{graph.precision}-{graph.opset}.onnx"):
            _refuse(f"{where}.file", f"is not {name!r}", graph.file)
        _unique(f"{where}.inputs[...].name", [tensor.name for tensor in graph.inputs])
        _unique(f"{where}.outputs[...].name", [tensor.name for tensor in graph.outputs])
        reference = manifest.graph(graph.role)
        if reference and (graph.inputs, graph.outputs) != (reference.inputs, reference.outputs):
            _refuse(where, f"has other inputs or outputs than {reference.file!r} of the same role")
    image, head = manifest.graph("image"), manifest.graph("head")
    if image is None or head is None:
        _refuse("$.graphs", "an image graph and a head graph are required")
    _check_image_graph(image, manifest.preprocessing)
    _check_head_graph(head, image, manifest)


def _check_image_graph(graph: Graph, rule: Preprocessing) -> None:
    pixels = TensorFacts(
        name="pixels", dtype="float32", dims=["batch", rule.channels, rule.height, rule.width]
    )
    if graph.inputs != [pixels]:
        _refuse(f"{graph.file}: inputs", f"is not the one tensor {_text(pixels)}", _texts(graph.inputs))
    for tensor in graph.outputs:
        if tensor.dims[:1] != ["batch"]:
            _refuse(f"{graph.file}: outputs", "an image feature does not begin with 'batch'", _text(tensor))


def _check_head_graph(graph: Graph, image: Graph, manifest: Manifest) -> None:
    bank = manifest.bank.tensors if manifest.bank else []
    _unique("image features and bank tensors: names", [tensor.name for tensor in (*image.outputs, *bank)])
    for tensor in graph.inputs:
        source = _named(image.outputs, tensor.name) or _named(bank, tensor.name)
        if source is None:
            _refuse(f"{graph.file}: inputs", "neither the image graph nor the bank gives", tensor.name)
        if source != tensor:
            _refuse(f"{graph.file}: inputs", f"{_text(tensor)} is not what feeds it", _text(source))
    bias = manifest.bank.row_bias if manifest.bank else None
    if bias and not _named(graph.inputs, bias):
        _refuse(f"{graph.file}: inputs", "lack the row bias of the bank, so padding rows would count", bias)
    if sorted(graph.outputs, key=lambda tensor: tensor.name) != _head_outputs(manifest.heads[0]):
        expected = _texts(_head_outputs(manifest.heads[0]))
        _refuse(f"{graph.file}: outputs", f"are not {expected}", _texts(graph.outputs))


def _head_outputs(head: Head) -> list[TensorFacts]:
    dims: Dims = ["batch", "prompts"]
    outputs = [TensorFacts(name="logits", dtype="float32", dims=dims)]
    if head.map:
        outputs.append(TensorFacts(name="maps", dtype="float32", dims=[*dims, *head.map.grid]))
    return outputs


def _check_text(manifest: Manifest) -> None:
    graph, bank, rule = manifest.graph("text"), manifest.bank, manifest.text
    for index, template in enumerate(rule.templates if rule else ()):
        if re.fullmatch(TEMPLATE, template) is None:
            where = f"$.text.templates[{index}]"
            _refuse(where, "does not hold {} exactly once and no other brace", template)
    if rule and bank and bank.ensemble == "none" and len(rule.templates) > 1:
        _refuse("$.text.templates", "are several, and the model scores one wording", str(len(rule.templates)))
    if graph is None:
        return
    if rule is None or bank is None:
        _refuse("$.graphs", "a text graph needs 'text' and 'bank'")
    for tensor in graph.inputs:
        if tensor not in _TOKEN_INPUTS:
            _refuse(f"{graph.file}: inputs", f"not one of {_texts(_TOKEN_INPUTS)}", _text(tensor))
    rows = {tensor.name: (tensor.dtype, tensor.dims[1:]) for tensor in bank.tensors}
    if {tensor.name: (tensor.dtype, tensor.dims) for tensor in graph.outputs} != rows:
        _refuse(
            f"{graph.file}: outputs", "are not the bank's tensors without 'prompts'", _texts(graph.outputs)
        )


def _check_golden(manifest: Manifest) -> None:
    golden, grid = manifest.golden, manifest.heads[0].map
    _unique("$.golden.images", golden.images)
    if len(golden.images) < LEAST_GOLDEN:
        _refuse("$.golden.images", f"needs at least {LEAST_GOLDEN} images", str(len(golden.images)))
    for name in ("score_tolerance", "map_tolerance"):
        value = getattr(golden, name)
        if not (math.isfinite(value) and value > 0):
            _refuse(f"$.golden.{name}", "is not a positive number", str(value))
        if value > LARGEST_TOLERANCE:
            what = f"is above {LARGEST_TOLERANCE}, which would make the self-test one that cannot fail"
            _refuse(f"$.golden.{name}", what, str(value))
    rule = manifest.preprocessing
    if grid and (grid.grid[0] > rule.height or grid.grid[1] > rule.width):
        _refuse("$.heads[0].map.grid", f"is finer than {rule.height} x {rule.width}", str(grid.grid))


def _check_examination(manifest: Manifest) -> None:
    fault = rule_fault(manifest.examination, manifest.heads) if manifest.examination else None
    if fault:
        _refuse(f"$.examination.{fault.field}", f"{fault.what}; {fault.expected} would do", fault.found)


def _named(tensors: Iterable[TensorFacts], name: str) -> TensorFacts | None:
    return next((tensor for tensor in tensors if tensor.name == name), None)


def _text(tensor: TensorFacts) -> str:
    return f"{tensor.name} {tensor.dtype} ({', '.join(map(str, tensor.dims))})"


def _texts(tensors: Iterable[TensorFacts]) -> str:
    return "; ".join(map(_text, tensors))


def _unique(where: str, values: Iterable[Hashable]) -> None:
    seen: set[Hashable] = set()
    for value in values:
        if value in seen:
            _refuse(where, "is not unique", str(value))
        seen.add(value)


def _refuse(where: str, message: str, found: str | None = None) -> NoReturn:
    raise BundleError(
        "bundle.format",
        f"{where} {message}",
        artefact=MANIFEST,
        found=found,
        cure="build the bundle again with `promptray build`",
    )
