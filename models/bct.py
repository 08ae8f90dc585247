"""BCT: a trained transformer in integers, block by block, without training it again.

Weights and activations are codes with a power-of-two scale for every block, so that scales are shifts; GELU, softmax
and LayerNorm come from tables. What is compressed here is torch's own `nn.TransformerEncoder`, shaped as BERT.

Source: Dong et al., 2023, arXiv:2304.01483.
Shapes: B batch, T tokens, D width, H heads.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from ..errors import ConfigError
from ..kernels.quantised import (
    Quantised,
    quantise,
    quantised_linear,
    table_activation,
    table_layer_norm,
    table_softmax,
)
from .companion import MODELS, Companion, check_sizes


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockwiseConfig:
    """How few bits, and how many numbers share a scale."""

    weight_bits: int = 8
    """Of every weight, 2 to 8."""
    input_bits: int = 8
    """Of what goes into every product, 2 to 8."""
    block: int | None = 64
    """Numbers along a row that share a scale; a whole tensor where None, as methods by layer do."""

    def __post_init__(self) -> None:
        for name in ("weight_bits", "input_bits"):
            if not 2 <= getattr(self, name) <= 8:
                raise ConfigError(f"{name} of BCT must be 2 to 8, not {getattr(self, name)}")
        check_sizes(self)


class BlockwiseLinear(nn.Module):
    """A linear layer of codes."""

    def __init__(self, weight_OD: Tensor, bias_O: Tensor | None, config: BlockwiseConfig) -> None:
        super().__init__()
        self.config, self.bias_O = config, None if bias_O is None else bias_O.detach()
        self.weight = quantise(weight_OD.detach(), bits=config.weight_bits, block=config.block, power_of_two=True)

    def forward(self, x: Tensor) -> Tensor:
        return quantised_linear(
            x, self.weight, self.bias_O, bits=self.config.input_bits, symmetric=True, power_of_two=True
        )


class BlockwiseLayer(nn.Module):
    """A layer of an encoder: attention, then a feed-forward network with GELU, a LayerNorm behind or before each."""

    def __init__(self, layer: nn.TransformerEncoderLayer, config: BlockwiseConfig) -> None:
        super().__init__()
        attention = layer.self_attn
        if attention.in_proj_weight is None or attention.in_proj_bias is None or not attention.batch_first:
            raise ConfigError("BCT takes encoder layers with batch_first=True, biases and one width of q, k and v")
        if getattr(layer.activation, "__name__", "") != "gelu":
            raise ConfigError("BCT takes encoder layers with activation='gelu'")
        self.config, self.heads, self.norm_first = config, attention.num_heads, layer.norm_first
        self.query_key_value = BlockwiseLinear(attention.in_proj_weight, attention.in_proj_bias, config)
        self.out = BlockwiseLinear(attention.out_proj.weight, attention.out_proj.bias, config)
        self.up = BlockwiseLinear(layer.linear1.weight, layer.linear1.bias, config)
        self.down = BlockwiseLinear(layer.linear2.weight, layer.linear2.bias, config)
        self.norm1, self.norm2 = BlockwiseNorm(layer.norm1, config), BlockwiseNorm(layer.norm2, config)

    def forward(self, x_BTD: Tensor) -> Tensor:
        if self.norm_first:
            x = x_BTD + self.attend(self.norm1(x_BTD))
            return x + self.feed_forward(self.norm2(x))
        x = self.norm1(x_BTD + self.attend(x_BTD))
        return self.norm2(x + self.feed_forward(x))

    def attend(self, x_BTD: Tensor) -> Tensor:
        """Self-attention whose products and weights are codes."""
        parts = self.query_key_value(x_BTD).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k, v = (self.codes(part).dequantised() for part in (parts[0], parts[1], parts[2].mT))
        weights = table_softmax(self.codes(q @ k.mT * q.shape[-1] ** -0.5), block=self.config.block)
        mixed = weights.dequantised().to(v.dtype) @ v.mT
        return self.out(mixed.transpose(1, 2).flatten(-2)).to(x_BTD.dtype)

    def feed_forward(self, x_BTD: Tensor) -> Tensor:
        """Up, GELU by table, down."""
        return self.down(table_activation(self.codes(self.up(x_BTD))).dequantised().to(x_BTD.dtype))

    def codes(self, x: Tensor) -> Quantised:
        """8 bits of what goes into a table or a product of activations."""
        return quantise(x, block=self.config.block, power_of_two=True)


class BlockwiseNorm(nn.Module):
    """A LayerNorm of codes."""

    def __init__(self, norm: nn.LayerNorm, config: BlockwiseConfig) -> None:
        super().__init__()
        self.eps, self.config = norm.eps, config
        self.weight_D, self.bias_D = norm.weight.detach(), norm.bias.detach()

    def forward(self, x_BTD: Tensor) -> Tensor:
        codes = quantise(x_BTD, block=self.config.block, power_of_two=True)
        out = table_layer_norm(codes, self.weight_D, self.bias_D, eps=self.eps, block=self.config.block)
        return out.dequantised().to(x_BTD.dtype)


def blockwise(encoder: nn.TransformerEncoder, config: BlockwiseConfig) -> nn.Sequential:
    """The layers of a trained encoder in codes; the encoder stays as it is.

    Raises: ConfigError: layers that are not BERT's in shape (see `BlockwiseLayer`).

    >>> layer = nn.TransformerEncoderLayer(16, 2, 32, activation="gelu", batch_first=True)
    >>> small = blockwise(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), BlockwiseConfig(weight_bits=4))
    >>> small(torch.randn(1, 5, 16)).shape
    torch.Size([1, 5, 16])
    """
    layers: list[nn.Module] = []
    for layer in encoder.layers:
        if not isinstance(layer, nn.TransformerEncoderLayer):
            raise ConfigError(f"BCT takes nn.TransformerEncoderLayer, not {type(layer).__name__}")
        layers.append(BlockwiseLayer(layer, config))
    if isinstance(encoder.norm, nn.LayerNorm):
        layers.append(BlockwiseNorm(encoder.norm, config))
    return nn.Sequential(*layers)


def compression(model: nn.Module, *, scale_bits: int = 8) -> float:
    """How many times fewer bits the matrices of a compressed model take than in float32, with their scales.

    Raises: ConfigError: the model has no layer of codes.
    """
    weights = [part.weight for part in model.modules() if isinstance(part, BlockwiseLinear)]
    if not weights:
        raise ConfigError(f"{type(model).__name__} has no layer of codes; compress it with blockwise first")
    numbers = sum(one.codes.numel() for one in weights)
    return 32 * numbers / sum(one.bits_a_number(scale_bits=scale_bits) * one.codes.numel() for one in weights)


BCT = MODELS.add(
    "bct",
    Companion(
        title="Blockwise Compression of Transformer-based Models without Retraining",
        source="Dong et al., 2023, arXiv:2304.01483",
        summary="an encoder in integers of 2 to 8 bits with a shift for every block, tables for what is not linear",
        use="outpace.models.bct.blockwise(encoder, BlockwiseConfig()) changes a trained encoder",
        done=(
            "codes with power-of-two scales for every block of weights and activations",
            "GELU, softmax and LayerNorm by whole numbers and tables",
        ),
        left_out=(
            "square blocks: blocks are pieces of rows, along which products are summed",
            "embeddings and heads, which are left to the model; speed: the integers are emulated",
        ),
        claim="a shift for every block costs less accuracy than one for a whole tensor, without training again",
        limits=(
            "a reconstruction from the abstract: no code was published, and the paper's layouts are not known here",
        ),
    ),
)
