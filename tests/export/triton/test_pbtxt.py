"""The writer's text is what Triton's own classes read."""

from __future__ import annotations

import pytest
from google.protobuf import text_format

from promptray.export.triton.config import tensor
from promptray.export.triton.pbtxt import Word, mapping, to_pbtxt
from promptray.runtime.bundle.manifest import TensorFacts
from tests.export.triton.triton_server import parse


@pytest.mark.parametrize(
    "text",
    ["plain", 'quote " and \\ backslash', "two\nlines\ttab", "плеврит 胸水 😀", "\x00\x7f", "\\012", ""],
)
def test_every_text_comes_back(text: str) -> None:
    written = to_pbtxt({"name": text, "parameters": mapping({text: {"string_value": text}})})
    assert written.isascii()
    config = parse(written)
    assert config.name == text
    assert config.parameters[text].string_value == text


def test_lists_words_numbers_and_messages() -> None:
    config = parse(
        to_pbtxt(
            {
                "max_batch_size": 4,
                "input": [{"name": "a", "data_type": Word("TYPE_FP32"), "dims": [3, -1]}, {"name": "b"}],
                "response_cache": {"enable": True},
                "dynamic_batching": {},
            }
        )
    )
    assert [(each.name, list(each.dims)) for each in config.input] == [("a", [3, -1]), ("b", [])]
    assert config.response_cache.enable
    assert config.HasField("dynamic_batching")


def test_what_the_schema_does_not_know_is_refused() -> None:
    with pytest.raises(text_format.ParseError, match="max_batch"):
        parse(to_pbtxt({"max_batch": 4}))


def test_a_value_of_no_field_is_refused() -> None:
    with pytest.raises(TypeError, match="float"):
        to_pbtxt({"name": 0.5})  # type: ignore[dict-item]


def test_a_tensor_of_the_batch_alone_is_reshaped() -> None:
    """Triton has no tensor without a dimension of its own."""
    config = parse(to_pbtxt({"input": [tensor(TensorFacts(name="x", dtype="float32", dims=["batch"]))]}))
    (found,) = config.input
    assert list(found.dims) == [1]
    assert found.HasField("reshape")
    assert list(found.reshape.shape) == []


def test_a_dimension_with_a_name_varies() -> None:
    config = parse(
        to_pbtxt({"input": [tensor(TensorFacts(name="x", dtype="int64", dims=["batch", "n", 3]))]})
    )
    assert list(config.input[0].dims) == [-1, 3]
