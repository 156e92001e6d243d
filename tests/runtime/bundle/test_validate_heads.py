"""Rules of two heads: one of prompts, one a fixed set without text."""

from __future__ import annotations

from tests import bundle_factory as factory
from tests.runtime.bundle.manifest_edits import Document, Edits, no_text_at_all, rename_graph

EDITS = Edits()
broken, sound = EDITS.broken, EDITS.sound


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
    rename_graph(doc["graphs"][3], doc, "graphs/head/chest/fp32-17.onnx")


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


test_a_broken_manifest_is_refused, test_a_sound_manifest_is_read = EDITS.tests()
