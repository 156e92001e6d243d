"""Rules of provenance, heads and findings, each broken once."""

from __future__ import annotations

from tests.runtime.bundle.manifest_edits import (
    Document,
    Edits,
    alternatives,
    bank_of,
    bank_of_one_vector,
    no_text_at_all,
)

EDITS = Edits()
broken, sound = EDITS.broken, EDITS.sound
sound(alternatives)


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
    bank_of(doc)["ensemble"] = "mean-unit"
    doc["findings"][0]["negative_prompts"] = ["There is no pneumonia."]


def _pairs(doc: Document) -> None:
    bank_of_one_vector(doc)
    bank_of(doc)["ensemble"] = "mean-unit"
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
    bank_of(doc)["ensemble"] = "mean-unit"


@broken("$.heads[0].score_tolerance is above 0.1")
def a_self_test_that_cannot_fail(doc: Document) -> None:
    doc["heads"][0]["score_tolerance"] = 1e308


@broken("$.heads[0].map.tolerance is above 0.1")
def a_self_test_of_maps_that_cannot_fail(doc: Document) -> None:
    doc["heads"][0]["map"]["tolerance"] = 0.2


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


test_a_broken_manifest_is_refused, test_a_sound_manifest_is_read = EDITS.tests()
