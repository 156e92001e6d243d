"""Rules of a prompt bank, each broken once."""

from __future__ import annotations

from promptray.runtime.bundle.manifest import bank_id
from tests import bundle_factory as factory
from tests.runtime.bundle.manifest_edits import Document, Edits, bank_of, bank_of_one_vector

EDITS = Edits()
broken, sound = EDITS.broken, EDITS.sound
sound(bank_of_one_vector)


@broken("$.heads[0].bank.id is not the hash of its identity")
def bank_with_a_foreign_id(doc: Document) -> None:
    bank_of(doc)["id"] = bank_id({"weights": "another"})


def _identify(doc: Document, **identity: str) -> None:
    bank_of(doc).update(identity=identity, id=bank_id(identity))


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
    bank_of(doc)["file"] = "prompts.safetensors"
    doc["files"]["prompts.safetensors"] = doc["files"][factory.BANK]


@broken("$.heads[0].bank.tensors[...].name is not unique")
def bank_tensor_twice(doc: Document) -> None:
    bank_of(doc)["tensors"].append(bank_of(doc)["tensors"][0])


@broken("$.heads[0].bank.tensors[...].name is not unique")
def bank_tensor_called_offsets(doc: Document) -> None:
    bank_of(doc)["tensors"][0] = {**bank_of(doc)["tensors"][0], "name": "offsets"}


@broken("$.heads[0].bank.tensors[0].dims")
def prompts_not_first(doc: Document) -> None:
    bank_of(doc)["tensors"][0] = {**bank_of(doc)["tensors"][0], "dims": [factory.WIDTH, "prompts"]}


@broken("$.heads[0].bank.tensors[0].dims")
def rows_twice(doc: Document) -> None:
    bank_of(doc)["tensors"][0] = {**bank_of(doc)["tensors"][0], "dims": ["prompts", "rows", "rows"]}


@broken("$.heads[0].bank.row_buckets")
def buckets_that_fall(doc: Document) -> None:
    bank_of(doc)["row_buckets"] = [8, 4]


@broken("row_buckets")
def bucket_without_bound(doc: Document) -> None:
    bank_of(doc)["row_buckets"] = [4, 4097]


@broken("row_buckets")
def buckets_without_end(doc: Document) -> None:
    bank_of(doc)["row_buckets"] = list(range(1, 66))


@broken("$.heads[0].bank.row_buckets")
def no_buckets(doc: Document) -> None:
    bank_of(doc)["row_buckets"] = []


@broken("$.heads[0].bank.row_bias")
def no_row_bias(doc: Document) -> None:
    bank_of(doc)["row_bias"] = None


@broken("$.heads[0].bank.row_bias")
def row_bias_of_another_shape(doc: Document) -> None:
    bank_of(doc)["row_bias"] = "query"


@broken("$.heads[0].bank.row_bias_padding")
def padding_that_counts(doc: Document) -> None:
    bank_of(doc)["row_bias_padding"] = 0.0


test_a_broken_manifest_is_refused, test_a_sound_manifest_is_read = EDITS.tests()
