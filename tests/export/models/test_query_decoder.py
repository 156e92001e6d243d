"""The decoder of findings against torch's own, in every shape that a family needs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from promptray.export.models.query_decoder import QueryDecoder

WIDTH, HEADS, LAYERS, FFN = 24, 3, 2, 40


def made(*, outputs: int, input_norm: bool) -> QueryDecoder:
    torch.manual_seed(3)
    decoder = QueryDecoder(
        width=WIDTH, heads=HEADS, layers=LAYERS, ffn=FFN, outputs=outputs, input_norm=input_norm
    )
    for parameter in decoder.parameters():
        nn.init.normal_(parameter, std=0.3)
    return decoder.eval().requires_grad_(False)


def torchs(decoder: QueryDecoder, patches: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
    """Return outputs and the last layer's attention, mean over heads, by torch's transformer layers."""
    layer = nn.TransformerDecoderLayer(WIDTH, HEADS, FFN, dropout=0.0, batch_first=True, norm_first=True)
    norm = nn.LayerNorm(WIDTH)
    stack = nn.TransformerDecoder(layer, LAYERS, norm).eval()
    stack.load_state_dict(decoder.decoder.state_dict())
    if decoder.input_norm:
        patches, queries = norm(patches), norm(queries)
    seen: list[Tensor] = []
    last = stack.layers[-1]
    attend = last.multihead_attn.forward

    def spied(*inputs: Tensor, **options: object) -> tuple[Tensor, Tensor]:
        answer, weights = attend(*inputs, **{**options, "need_weights": True})
        seen.append(weights)
        return answer, weights

    last.multihead_attn.forward = spied
    states = stack(queries.expand(len(patches), -1, -1), patches)
    return decoder.mlp_head(states), seen[0]


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("input_norm", [False, True])
def test_outputs_and_attention_equal_torchs(outputs: int, input_norm: bool) -> None:
    decoder = made(outputs=outputs, input_norm=input_norm)
    patches, queries = torch.randn(3, 10, WIDTH), torch.randn(5, WIDTH)
    with torch.inference_mode():
        found, attention = decoder(patches, queries)
        expected, weights = torchs(decoder, patches, queries)
    assert found.shape == (3, 5, outputs)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(attention, weights, atol=1e-6, rtol=0)


def test_the_order_of_queries_does_not_matter_and_their_set_does() -> None:
    decoder = made(outputs=1, input_norm=False)
    patches, queries = torch.randn(2, 10, WIDTH), torch.randn(5, WIDTH)
    with torch.inference_mode():
        together, _ = decoder(patches, queries)
        backwards, _ = decoder(patches, queries.flip(0))
        alone, _ = decoder(patches, queries[:1])
    torch.testing.assert_close(backwards.flip(1), together, atol=1e-5, rtol=0)
    assert (alone[:, 0] - together[:, 0]).abs().max() > 0.01


def test_the_published_keys() -> None:
    """The last norm twice, and torch's names in the layers."""
    keys = set(made(outputs=1, input_norm=False).state_dict())
    layer = {
        "self_attn.in_proj_weight", "self_attn.in_proj_bias", "self_attn.out_proj.weight",
        "self_attn.out_proj.bias", "multihead_attn.in_proj_weight", "multihead_attn.in_proj_bias",
        "multihead_attn.out_proj.weight", "multihead_attn.out_proj.bias", "linear1.weight", "linear1.bias",
        "linear2.weight", "linear2.bias", "norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias",
        "norm3.weight", "norm3.bias",
    }  # fmt: skip
    ends = {"decoder_norm.weight", "decoder_norm.bias", "decoder.norm.weight", "decoder.norm.bias"}
    expected = {f"decoder.layers.{n}.{name}" for n in range(LAYERS) for name in layer} | ends
    assert keys == expected | {"mlp_head.0.weight", "mlp_head.0.bias"}
