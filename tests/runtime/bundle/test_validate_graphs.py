"""Rules of graphs and of the text side, each broken once."""

from __future__ import annotations

import copy

from tests import bundle_factory as factory
from tests.runtime.bundle.manifest_edits import (
    Document,
    Edits,
    bank_of_one_vector,
    no_text_at_all,
    rename_graph,
)

EDITS = Edits()
broken, sound = EDITS.broken, EDITS.sound
sound(no_text_at_all)


@broken("$.graphs[0].file is not 'graphs/image/fp32-20.onnx'")
def graph_under_another_name(doc: Document) -> None:
    rename_graph(doc["graphs"][0], doc, "graphs/image/model.onnx")


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


@broken("has a second size that varies")
def feature_of_unknown_size(doc: Document) -> None:
    doc["graphs"][0]["outputs"][0]["dims"][1] = "patches"


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
    rename_graph(variant, doc, "graphs/image/fp32-17.onnx")
    doc["graphs"].append(variant)


@sound
def variant_of_another_opset(doc: Document) -> None:
    variant = {**doc["graphs"][0], "opset": 17, "consumers": ["tensorrt"]}
    rename_graph(variant, doc, "graphs/image/fp32-17.onnx")
    doc["graphs"].append(variant)


@sound
def no_text_graph(doc: Document) -> None:
    del doc["graphs"][2]


@sound
def no_map(doc: Document) -> None:
    doc["heads"][0]["map"] = None
    doc["graphs"][1]["outputs"].pop()


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


test_a_broken_manifest_is_refused, test_a_sound_manifest_is_read = EDITS.tests()
