"""Every rule that spans fields of the manifest, broken once."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from promptray.runtime.bundle.manifest import bank_id
from promptray.runtime.bundle.parse import parse_manifest
from promptray.runtime.errors import BundleError
from tests import bundle_factory as factory

Document = dict[str, Any]
Edit = Callable[[Document], object]
BROKEN: list[tuple[str, str, Edit]] = []
SOUND: list[tuple[str, Edit]] = []


def broken(says: str) -> Callable[[Edit], Edit]:
    """Register an edit that must be refused with these words."""

    def register(edit: Edit) -> Edit:
        BROKEN.append((edit.__name__, says, edit))
        return edit

    return register


def _bank(doc: Document) -> Document:
    bank: Document = doc["heads"][0]["bank"]
    return bank


def sound(edit: Edit) -> Edit:
    """Register an edit that must stay valid."""
    SOUND.append((edit.__name__, edit))
    return edit


# The rule of examinations


def _examination(**changes: Any) -> Document:
    return {"views": ["L CC", "R CC"], "over_views": "mean", "over_sides": "mean", **changes}


@sound
def examination(doc: Document) -> None:
    doc["examination"] = _examination(require_all=True)


@sound
def examination_of_one_side(doc: Document) -> None:
    doc["examination"] = _examination(views=["L CC"], over_sides="none")


@broken("$.examination.views[1] is no view that tags can state")
def examination_of_an_unknown_view(doc: Document) -> None:
    doc["examination"] = _examination(views=["L CC", "R XX"])


@broken("$.examination.views names a view twice")
def examination_of_a_view_twice(doc: Document) -> None:
    doc["examination"] = _examination(views=["L CC", "L CC"])


@broken("$.examination.views gives some views a side and some none")
def examination_with_half_the_sides(doc: Document) -> None:
    doc["examination"] = _examination(views=["L CC", "CC"])


@broken("$.examination.over_sides pools sides, and the views have none")
def examination_that_pools_no_sides(doc: Document) -> None:
    doc["examination"] = _examination(views=["PA", "LL"])


@broken("$.examination.over_views takes the greatest of alternatives that have no order")
def examination_with_the_greatest_of_alternatives(doc: Document) -> None:
    doc["heads"][0].update(relation="exclusive", activation="softmax")
    doc["examination"] = _examination(over_views="max")


# Provenance, heads and findings


@broken("$.findings[1].key holds the invisible character U+200B")
def key_with_an_invisible_character(doc: Document) -> None:
    doc["findings"][1]["key"] = "rib\u200b fracture"


@broken("$.findings[0].key holds the invisible character U+0085")
def key_with_a_control_character(doc: Document) -> None:
    doc["findings"][0]["key"] = "rib\u0085fracture"


@broken("$.findings[0].key is not in Unicode's normal form NFC")
def key_that_is_not_composed(doc: Document) -> None:
    doc["findings"][0]["key"] = "e\u0301panchement"


@sound
def key_that_is_composed(doc: Document) -> None:
    doc["findings"][0]["key"] = "\u00e9panchement"


@broken("$.provenance.created")
def created_without_zone(doc: Document) -> None:
    doc["provenance"]["created"] = "2026-01-31T12:00:00"


@broken("$.provenance.checkpoint.name is a path")
def path_of_the_builder(doc: Document) -> None:
    doc["provenance"]["checkpoint"]["name"] = "/home/someone/model.ckpt"


@broken("$.provenance.recipe.name is a path")
def windows_path_of_the_builder(doc: Document) -> None:
    doc["provenance"]["recipe"]["name"] = "C:\\models\\recipe.yaml"


@broken("$.door.refused_body_parts[1] has no letter or digit")
def body_part_without_words(doc: Document) -> None:
    doc["door"]["refused_body_parts"] = ["breast", " - "]


@broken("$.findings[1].head no head has this name")
def head_that_does_not_exist(doc: Document) -> None:
    doc["findings"][1]["head"] = "abdomen"


@broken("$.findings[...]: head and key is not unique")
def same_key_twice(doc: Document) -> None:
    doc["findings"][1]["key"] = doc["findings"][0]["key"]


@broken("$.findings[0].prompts holds an empty one")
def blank_prompt(doc: Document) -> None:
    doc["findings"][0]["prompts"] = [" "]


@broken("$.findings[0].prompts cannot be scored: a finding needs a prompt")
def finding_without_prompt(doc: Document) -> None:
    doc["findings"][0]["prompts"] = []


@broken("$.findings[0].prompts cannot be scored: this model scores one wording")
def ensemble_where_there_is_none(doc: Document) -> None:
    doc["findings"][0]["prompts"] = ["There is pneumonia.", "Pneumonia is seen."]


@broken("$.findings[0].prompts cannot be scored: only a head of pairs")
def negative_prompt_of_an_independent_finding(doc: Document) -> None:
    bank_of_one_vector(doc)
    _bank(doc)["ensemble"] = "mean-unit"
    doc["findings"][0]["negative_prompts"] = ["There is no pneumonia."]


def _pairs(doc: Document) -> None:
    bank_of_one_vector(doc)
    _bank(doc)["ensemble"] = "mean-unit"
    doc["heads"][0].update(relation="pair", activation="softmax")
    for finding in doc["findings"]:
        finding["negative_prompts"] = ["There is nothing."]


@sound
def pairs(doc: Document) -> None:
    _pairs(doc)


@broken("$.findings[1].prompts cannot be scored: this head asks each finding against its negative")
def pair_without_negative(doc: Document) -> None:
    _pairs(doc)
    doc["findings"][1]["negative_prompts"] = []


@broken("$.findings[0].prompts cannot be scored: the prompt and its negative are the same")
def pair_of_the_same(doc: Document) -> None:
    _pairs(doc)
    doc["findings"][0]["negative_prompts"] = doc["findings"][0]["prompts"]


@broken("$.heads[0].bank.tensors[1] is no float32 vector for each prompt")
def a_mean_of_rows(doc: Document) -> None:
    _bank(doc)["ensemble"] = "mean-unit"


@broken("$.heads[0].score_tolerance is above 0.1")
def a_self_test_that_cannot_fail(doc: Document) -> None:
    doc["heads"][0]["score_tolerance"] = 1e308


@broken("$.heads[0].map.tolerance is above 0.1")
def a_self_test_of_maps_that_cannot_fail(doc: Document) -> None:
    doc["heads"][0]["map"]["tolerance"] = 0.2


@sound
def alternatives(doc: Document) -> None:
    doc["heads"][0].update(relation="exclusive", activation="softmax")


@broken("$.findings holds one of head 'chest', and alternatives are at least two")
def one_alternative(doc: Document) -> None:
    doc["heads"][0].update(relation="exclusive", activation="softmax")
    doc["findings"] = doc["findings"][:1]


@broken("$.heads[0].activation does not go with relation 'exclusive'")
def alternatives_without_softmax(doc: Document) -> None:
    doc["heads"][0]["relation"] = "exclusive"


@broken("$.heads[0].activation does not go with relation 'independent'")
def softmax_over_independent_findings(doc: Document) -> None:
    doc["heads"][0]["activation"] = "softmax"


@sound
def a_yes_or_no_of_each(doc: Document) -> None:
    doc["heads"][0]["activation"] = "sigmoid"


@broken("$.heads[0].activation does not go with relation 'exclusive'")
def sigmoid_of_alternatives(doc: Document) -> None:
    doc["heads"][0].update(relation="exclusive", activation="sigmoid")


@broken("$.heads[0].bank.tensors have rows, by which the prompts of a fixed set would be scored apart")
def fixed_set_with_rows(doc: Document) -> None:
    doc["heads"][0]["set"] = "fixed"


@broken("$.findings holds none of head 'chest'")
def fixed_set_of_nothing(doc: Document) -> None:
    bank_of_one_vector(doc)
    doc["heads"][0]["set"] = "fixed"
    doc["findings"] = []


@broken("$.findings holds none of head 'chest', which no self-test would look at")
def free_set_of_nothing(doc: Document) -> None:
    doc["findings"] = []


@sound
def a_scale(doc: Document) -> None:
    bank_of_one_vector(doc)
    doc["heads"][0].update(relation="ordinal", activation="softmax", set="fixed")


@broken("$.heads[0].set is free, and a scale of which a step may be added or left out has other places")
def a_scale_that_may_be_edited(doc: Document) -> None:
    doc["heads"][0].update(relation="ordinal", activation="softmax")


@broken("$.heads[0].groups names a group as a finding of the head")
def group_called_as_a_finding(doc: Document) -> None:
    alternatives(doc)
    doc["heads"][0]["groups"] = {"finding 0": ["finding 0", "finding 1"]}


@broken("$.heads[0].relation is of findings with negative prompts, and the head reads no text")
def pairs_without_text(doc: Document) -> None:
    no_text_at_all(doc)
    doc["heads"][0].update(relation="pair", activation="softmax")


# Files


@broken("does not list 'parity.json'")
def file_not_listed(doc: Document) -> None:
    del doc["files"]["parity.json"]


@broken("does not list 'golden/images/016.png'")
def image_not_listed(doc: Document) -> None:
    doc["golden"]["images"].append("golden/images/016.png")


@pytest.mark.parametrize("role", ["text", "golden", "parity", "image"])
@pytest.mark.parametrize("other", ["parity.json", "tokenizer.json", "golden/images/003.png", factory.BANK])
def test_a_file_has_one_role(role: str, other: str) -> None:
    def edit(doc: Document) -> None:
        if role == "image":
            doc["golden"]["images"][0] = other
        elif role == "parity":
            doc["parity"] = other
        else:
            doc[role]["tokenizer" if role == "text" else "tensors"] = other

    own = {"text": "tokenizer.json", "parity": "parity.json"}.get(role)
    if own == other:
        parse_manifest(_edited(edit))
        return
    with pytest.raises(BundleError, match="is not unique") as caught:
        parse_manifest(_edited(edit))
    assert (caught.value.code, caught.value.found) == ("bundle.format", other)


# Preprocessing


@broken("may be larger than the result")
def pads_smaller_than_the_resize(doc: Document) -> None:
    doc["preprocessing"]["steps"][1]["size"] = 39


@broken("may be larger than the result")
def pads_a_picture_of_any_size(doc: Document) -> None:
    del doc["preprocessing"]["steps"][0]


@broken("does not cut a square")
def crops_more_than_there_is(doc: Document) -> None:
    doc["preprocessing"]["steps"][2]["size"] = 42


@broken("does not cut a square")
def crops_before_padding(doc: Document) -> None:
    doc["preprocessing"]["steps"][1:] = [{"op": "centre_crop", "size": factory.SIDE}]


@broken("do not end at height x width")
def ends_at_another_size(doc: Document) -> None:
    doc["preprocessing"]["steps"].pop()


@broken("do not end at height x width")
def ends_at_an_unknown_size(doc: Document) -> None:
    doc["preprocessing"]["steps"][1:] = []


@broken("one number for each of 3 channels")
def one_mean_for_three_channels(doc: Document) -> None:
    doc["preprocessing"]["normalise"]["mean"] = [0.5]


@broken("cannot normalise")
def divides_by_zero(doc: Document) -> None:
    doc["preprocessing"]["normalise"]["std"] = [0.25, 0.0, 0.25]


def two_filters(doc: Document, first: str, second: str, levels: str) -> None:
    side = factory.SIDE
    doc["preprocessing"]["levels"] = levels
    doc["preprocessing"]["steps"] = [
        {"op": "resize_longer_side", "size": 2 * side, "interpolation": first, "rounding": "truncate-both"},
        {"op": "pad_square", "size": 2 * side},
        {"op": "squash", "size": side, "interpolation": second},
    ]


@sound
def whole_levels_then_fractions(doc: Document) -> None:
    two_filters(doc, "lanczos", "cubic", "float32")


@sound
def lanczos_of_whole_levels(doc: Document) -> None:
    two_filters(doc, "lanczos", "bicubic", "uint8")


@broken("give fractions to a filter of whole levels")
def fractions_then_whole_levels(doc: Document) -> None:
    two_filters(doc, "bicubic", "lanczos", "float32")


@broken("keeps fractions, and no filter gives any")
def fractions_of_which_there_are_none(doc: Document) -> None:
    two_filters(doc, "lanczos", "area", "float32")


@broken("cubic is a filter of fractions")
def cubic_of_whole_levels(doc: Document) -> None:
    two_filters(doc, "lanczos", "cubic", "uint8")


@sound
def pads_only(doc: Document) -> None:
    doc["preprocessing"]["steps"] = [
        {"op": "resize_longer_side", "size": factory.SIDE, "interpolation": "area"},
        {"op": "pad_square", "size": factory.SIDE, "value": 7},
    ]


# Bank


@broken("$.heads[0].bank.id is not the hash of its identity")
def bank_with_a_foreign_id(doc: Document) -> None:
    _bank(doc)["id"] = bank_id({"weights": "another"})


def _identify(doc: Document, **identity: str) -> None:
    _bank(doc).update(identity=identity, id=bank_id(identity))


@broken("$.heads[0].bank.identity does not hold 'layout' and the hash of what made the bank")
def bank_of_no_identity(doc: Document) -> None:
    _identify(doc)


@broken("$.heads[0].bank.identity does not hold 'layout' and the hash of what made the bank")
def bank_of_no_hash(doc: Document) -> None:
    _identify(doc, layout="1", weights="some")


@broken("$.heads[0].bank.identity does not hold 'layout' and the hash of what made the bank")
def bank_of_no_layout(doc: Document) -> None:
    _identify(doc, weights="0f" * 32)


@broken("$.heads[0].bank.file is not 'banks/chest.safetensors'")
def bank_under_another_name(doc: Document) -> None:
    _bank(doc)["file"] = "prompts.safetensors"
    doc["files"]["prompts.safetensors"] = doc["files"][factory.BANK]


@broken("$.heads[0].bank.tensors[...].name is not unique")
def bank_tensor_twice(doc: Document) -> None:
    _bank(doc)["tensors"].append(_bank(doc)["tensors"][0])


@broken("$.heads[0].bank.tensors[...].name is not unique")
def bank_tensor_called_offsets(doc: Document) -> None:
    _bank(doc)["tensors"][0] = {**_bank(doc)["tensors"][0], "name": "offsets"}


@broken("$.heads[0].bank.tensors[0].dims")
def prompts_not_first(doc: Document) -> None:
    _bank(doc)["tensors"][0] = {**_bank(doc)["tensors"][0], "dims": [factory.WIDTH, "prompts"]}


@broken("$.heads[0].bank.tensors[0].dims")
def rows_twice(doc: Document) -> None:
    _bank(doc)["tensors"][0] = {**_bank(doc)["tensors"][0], "dims": ["prompts", "rows", "rows"]}


@broken("$.heads[0].bank.row_buckets")
def buckets_that_fall(doc: Document) -> None:
    _bank(doc)["row_buckets"] = [8, 4]


@broken("row_buckets")
def bucket_without_bound(doc: Document) -> None:
    _bank(doc)["row_buckets"] = [4, 4097]


@broken("row_buckets")
def buckets_without_end(doc: Document) -> None:
    _bank(doc)["row_buckets"] = list(range(1, 66))


@broken("$.heads[0].bank.row_buckets")
def no_buckets(doc: Document) -> None:
    _bank(doc)["row_buckets"] = []


@broken("$.heads[0].bank.row_bias")
def no_row_bias(doc: Document) -> None:
    _bank(doc)["row_bias"] = None


@broken("$.heads[0].bank.row_bias")
def row_bias_of_another_shape(doc: Document) -> None:
    _bank(doc)["row_bias"] = "query"


@broken("$.heads[0].bank.row_bias_padding")
def padding_that_counts(doc: Document) -> None:
    _bank(doc)["row_bias_padding"] = 0.0


# Graphs


def _rename_graph(graph: Document, doc: Document, name: str) -> None:
    graph["file"] = name
    doc["files"][name] = {"sha256": "0" * 64, "size": 0}


@broken("$.graphs[0].file is not 'graphs/image/fp32-20.onnx'")
def graph_under_another_name(doc: Document) -> None:
    _rename_graph(doc["graphs"][0], doc, "graphs/image/model.onnx")


@broken("$.graphs[...].file is not unique")
def graph_twice(doc: Document) -> None:
    doc["graphs"].append(doc["graphs"][0])


@broken("a graph is required for every head")
def no_head_graph(doc: Document) -> None:
    del doc["graphs"][1]


@broken("an image graph is required")
def no_image_graph(doc: Document) -> None:
    del doc["graphs"][0]


@broken("is not the one tensor pixels float32 (batch, 3, 32, 32)")
def image_graph_of_another_side(doc: Document) -> None:
    doc["graphs"][0]["inputs"][0]["dims"][3] = 64


@broken("does not begin with 'batch'")
def feature_without_batch(doc: Document) -> None:
    doc["graphs"][0]["outputs"][0]["dims"][0] = 1


@broken("neither the image graph nor the head's bank gives")
def head_input_from_nowhere(doc: Document) -> None:
    doc["graphs"][1]["inputs"][0]["name"] = "nothing"


@broken("is not what feeds it")
def head_input_of_another_shape(doc: Document) -> None:
    doc["graphs"][1]["inputs"][0]["dims"] = ["batch", 99]


@broken("inputs hold no bank tensor, so the scores would not depend on any")
def head_without_a_bank_tensor(doc: Document) -> None:
    bank_of_one_vector(doc)
    doc["graphs"][1]["inputs"] = doc["graphs"][1]["inputs"][:2]


@broken("inputs hold no image feature, so the scores would not depend on any")
def head_without_an_image_feature(doc: Document) -> None:
    doc["graphs"][1]["inputs"] = doc["graphs"][1]["inputs"][2:]


@broken("lack the row bias")
def head_without_row_bias(doc: Document) -> None:
    doc["graphs"][1]["inputs"].pop()


@broken("outputs are not logits")
def head_without_logits(doc: Document) -> None:
    doc["graphs"][1]["outputs"][0]["name"] = "scores"


@broken("outputs are not logits")
def head_without_the_declared_map(doc: Document) -> None:
    doc["graphs"][1]["outputs"].pop()


@broken("outputs are not logits")
def head_with_an_undeclared_map(doc: Document) -> None:
    doc["heads"][0]["map"] = None


@broken("names is not unique")
def feature_called_as_a_bank_tensor(doc: Document) -> None:
    doc["graphs"][0]["outputs"][0]["name"] = "query"


@broken("has other inputs or outputs than 'graphs/image/fp32-20.onnx'")
def variant_of_another_shape(doc: Document) -> None:
    variant = copy.deepcopy(doc["graphs"][0])
    variant["opset"] = 17
    variant["outputs"].pop()
    _rename_graph(variant, doc, "graphs/image/fp32-17.onnx")
    doc["graphs"].append(variant)


@sound
def variant_of_another_opset(doc: Document) -> None:
    variant = {**doc["graphs"][0], "opset": 17}
    _rename_graph(variant, doc, "graphs/image/fp32-17.onnx")
    doc["graphs"].append(variant)


@sound
def no_text_graph(doc: Document) -> None:
    del doc["graphs"][2]


@sound
def no_map(doc: Document) -> None:
    doc["heads"][0]["map"] = None
    doc["graphs"][1]["outputs"].pop()


@sound
def no_text_at_all(doc: Document) -> None:
    bank_of_one_vector(doc)
    doc["heads"][0]["set"] = "fixed"
    doc["text"] = None
    doc["graphs"] = doc["graphs"][:2]
    for finding in doc["findings"]:
        finding["prompts"] = []


@sound
def bank_of_one_vector(doc: Document) -> None:
    _bank(doc).update(tensors=_bank(doc)["tensors"][:1], row_buckets=[], row_bias=None)
    doc["graphs"][1]["inputs"] = doc["graphs"][1]["inputs"][:3]
    doc["graphs"][2]["outputs"] = doc["graphs"][2]["outputs"][:1]


# Text


@broken("$.text.templates[0] does not hold {} exactly once and no other brace")
def template_with_another_brace(doc: Document) -> None:
    doc["text"]["templates"] = ["There is {} {0.__class__}."]


@broken("$.text.templates[0] does not hold {} exactly once and no other brace")
def template_with_braces_in_braces(doc: Document) -> None:
    doc["text"]["templates"] = ["{{}}"]


@broken("$.text.templates[0] does not hold {} exactly once")
def template_without_a_place(doc: Document) -> None:
    doc["text"]["templates"] = ["There is something."]


@broken("$.text.templates are several, and the model scores one wording")
def templates_where_there_is_no_ensemble(doc: Document) -> None:
    doc["text"]["templates"] = ["There is {}.", "{} is seen."]


@broken("hold a text graph, which needs 'text'")
def text_graph_without_rule(doc: Document) -> None:
    no_text_at_all(doc)
    doc["graphs"] = factory.graphs()
    doc["graphs"][1]["inputs"] = doc["graphs"][1]["inputs"][:3]


@broken("$.heads[0].set is free, and only the head that '$.text' names reads text")
def free_head_without_text(doc: Document) -> None:
    doc["text"] = None


@broken("$.text.head no head has this name")
def text_of_another_head(doc: Document) -> None:
    doc["text"]["head"] = "abdomen"


@broken("not one of input_ids int64 (1, tokens)")
def text_graph_with_another_input(doc: Document) -> None:
    doc["graphs"][2]["inputs"][0]["name"] = "token_type_ids"


@broken("are not the tensors of the bank of head 'chest' without 'prompts'")
def text_graph_that_lacks_a_tensor(doc: Document) -> None:
    doc["graphs"][2]["outputs"].pop()


# Golden set


@broken("needs at least 16 images")
def fifteen_golden_images(doc: Document) -> None:
    doc["golden"]["images"].pop()


@broken("$.golden.images is not unique")
def one_golden_image_sixteen_times(doc: Document) -> None:
    doc["golden"]["images"] = doc["golden"]["images"][:1] * 16


@broken("$.heads[0].score_tolerance is not a positive number")
def golden_without_tolerance(doc: Document) -> None:
    doc["heads"][0]["score_tolerance"] = 0.0


@broken("$.heads[0].map.grid is finer than")
def map_that_does_not_fit(doc: Document) -> None:
    doc["heads"][0]["map"]["grid"] = [3, factory.SIDE + 1]
    doc["graphs"][1]["outputs"][1]["dims"] = ["batch", "prompts", 3, factory.SIDE + 1]


@sound
def map_that_does_not_divide_evenly(doc: Document) -> None:
    doc["heads"][0]["map"]["grid"] = [3, 3]
    doc["graphs"][1]["outputs"][1]["dims"] = ["batch", "prompts", 3, 3]


# Two heads: one of prompts, one a fixed set without text


@sound
def two_heads(doc: Document) -> None:
    factory.add_fixed_head(doc)


@sound
def two_fixed_heads(doc: Document) -> None:
    no_text_at_all(doc)
    factory.add_fixed_head(doc)


@broken("$.heads holds several free ones")
def two_free_heads(doc: Document) -> None:
    factory.add_fixed_head(doc)
    doc["heads"][1]["set"] = "free"


@broken("$.heads[...].name is not unique")
def two_heads_of_one_name(doc: Document) -> None:
    doc["heads"].append(doc["heads"][0])


@broken("$.heads[1].bank.file is not 'banks/tags.safetensors'")
def two_heads_of_one_bank(doc: Document) -> None:
    factory.add_fixed_head(doc)
    doc["heads"][1]["bank"]["file"] = factory.BANK


@broken("breaks the schema")
def head_called_as_a_folder(doc: Document) -> None:
    doc["heads"][0]["name"] = "../chest"


@broken("$.findings[...]: head and key is not unique")
def same_key_twice_in_the_second_head(doc: Document) -> None:
    factory.add_fixed_head(doc)
    doc["findings"][3]["key"] = doc["findings"][2]["key"]


@broken("$.findings are not those of the first head, then those of the next")
def findings_of_heads_mixed(doc: Document) -> None:
    factory.add_fixed_head(doc)
    doc["findings"].reverse()


@broken("$.findings[2].prompts are given, and head 'tags' reads no text")
def wordings_in_a_head_without_text(doc: Document) -> None:
    factory.add_fixed_head(doc)
    doc["findings"][2]["prompts"] = ["edema"]


@broken("$.findings holds none of head 'tags'")
def second_head_of_nothing(doc: Document) -> None:
    factory.add_fixed_head(doc)
    doc["findings"] = doc["findings"][:2]


@broken("$.heads[1].groups.both names no finding of this head")
def group_of_another_heads_findings(doc: Document) -> None:
    factory.add_fixed_head(doc)
    doc["heads"][1].update(
        relation="exclusive", activation="softmax", groups={"both": ["finding 0", "finding 1"]}
    )


@broken("a graph is required for every head")
def second_head_without_graph(doc: Document) -> None:
    factory.add_fixed_head(doc)
    doc["graphs"].pop()


@broken("$.graphs[1].head does not name the head it is of; there is chest")
def graph_without_its_head(doc: Document) -> None:
    doc["graphs"][1]["head"] = None


@broken("$.graphs[1].head does not name the head it is of; there is chest")
def graph_of_a_foreign_head(doc: Document) -> None:
    doc["graphs"][1]["head"] = "abdomen"


@broken("$.graphs[0].head is given, and the role is 'image'")
def image_graph_of_a_head(doc: Document) -> None:
    doc["graphs"][0]["head"] = factory.HEAD


@broken("$.graphs[3].file is not 'graphs/head/tags/fp32-20.onnx'")
def graph_in_the_folder_of_another_head(doc: Document) -> None:
    factory.add_fixed_head(doc)
    _rename_graph(doc["graphs"][3], doc, "graphs/head/chest/fp32-17.onnx")


@broken("neither the image graph nor the head's bank gives")
def graph_that_takes_the_other_heads_bank(doc: Document) -> None:
    factory.add_fixed_head(doc)
    doc["graphs"][3]["inputs"][1] = doc["graphs"][1]["inputs"][2]


@broken("are not the tensors of the bank of head 'tags' without 'prompts'")
def text_graph_for_another_head(doc: Document) -> None:
    no_text_at_all(doc)
    factory.add_fixed_head(doc)
    doc["text"] = {**factory.document()["text"], "head": factory.TAGS}
    doc["graphs"].append(factory.graphs()[2])
    for finding in doc["findings"][2:]:
        finding["prompts"] = ["edema"]


# The cases above, run


def _edited(edit: Edit) -> bytes:
    document = json.loads(factory.listed(factory.document()))
    edit(document)
    for head in document["heads"][1:]:
        for name in (head["bank"]["file"], f"graphs/head/{head['name']}/fp32-20.onnx"):
            document["files"].setdefault(name, {"sha256": "0" * 64, "size": 0})
    return json.dumps(document).encode()


@pytest.mark.parametrize(("name", "says", "edit"), BROKEN, ids=[name for name, _, _ in BROKEN])
def test_a_broken_manifest_is_refused(name: str, says: str, edit: Edit) -> None:
    with pytest.raises(BundleError) as caught:
        parse_manifest(_edited(edit))
    assert caught.value.code == "bundle.format"
    assert says in caught.value.message
    assert caught.value.cure


@pytest.mark.parametrize(("name", "edit"), SOUND, ids=[name for name, _ in SOUND])
def test_a_sound_manifest_is_read(name: str, edit: Edit) -> None:
    parse_manifest(_edited(edit))
