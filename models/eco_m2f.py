"""ECO-M2F: transformers' Mask2Former, whose pictures leave its pixel encoder after as many layers as they need.

Training has three steps: the model learns with an exit drawn for every batch (`exit_loss`), says how good each exit is
for every picture (`exit_data`), and a gate of one layer learns to name the best (`fit_gate`), for any price of a layer.

Source: Yao et al., 2024, arXiv:2404.15244; Cheng et al., 2022, arXiv:2112.01527 (Mask2Former).
Shapes: B batch, N tokens of three scales, W width, E exits, P pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from .companion import MODELS, Companion, Size, check_divides, check_sizes
from .numbers import picture_batch


@dataclass(frozen=True, kw_only=True, slots=True)
class EcoM2fConfig:
    """Sizes of a Mask2Former on a Swin, and its first exit; the defaults are the paper's for COCO's panoptic task."""

    swin_width: int = 96
    """Channels of the Swin's first stage; each further stage has twice as many."""
    swin_depths: tuple[int, ...] = (2, 2, 6, 2)
    """Blocks of each stage."""
    swin_heads: tuple[int, ...] = (3, 6, 12, 24)
    """Of each stage."""
    window: int = 7
    """Positions of a side of the Swin's windows."""
    width: int = 256
    """Channels of the pixel decoder, of masks and of queries; a multiple of 64: norms of 32 groups leave a mean of 0 to
    groups of one channel, and the gate would see nothing."""
    heads: int = 8
    """Of both decoders."""
    encoder_layers: int = 6
    """Layers of the pixel decoder's encoder: the last exit."""
    encoder_hidden: int = 1024
    """Of the encoder's feed-forward networks."""
    decoder_layers: int = 9
    """Layers that turn queries into masks."""
    decoder_hidden: int = 2048
    """Of their feed-forward networks."""
    queries: int = 100
    """Masks of a picture."""
    classes: int = 133
    """Of masks."""
    first_exit: int = 2
    """Layers that every picture takes."""
    points: int = 12_544
    """Places of a mask that the loss looks at."""

    def __post_init__(self) -> None:
        check_sizes(self, zero=("decoder_layers", "points"))
        if len(self.swin_depths) != 4 or len(self.swin_heads) != 4:
            raise ConfigError(f"a Swin has four depths and four heads, not {self.swin_depths} and {self.swin_heads}")
        for stage, heads in enumerate(self.swin_heads):
            check_divides(f"channels of stage {stage + 1} over heads", self.swin_width * 2**stage, heads)
        check_divides("channels over 32 groups of at least two", self.width, 64)
        check_divides("channels over heads", self.width, self.heads)
        if not 1 <= self.first_exit <= self.encoder_layers:
            raise ConfigError(f"exits are behind layers 1 to {self.encoder_layers}, not {self.first_exit}")


class ExitEncoder(nn.Module):
    """In the place of transformers' encoder, with its layers: each picture of a batch takes as many as `exit` says."""

    def __init__(self, encoder: Any, width: int, first_exit: int) -> None:
        super().__init__()
        self.layers: nn.ModuleList = encoder.layers
        self.places = encoder.get_reference_points
        self.first = first_exit
        self.gate = nn.Linear(width, len(self.layers) - first_exit + 1)
        nn.init.zeros_(self.gate.bias)
        self.exit: int | None = self.last
        """Layers that every picture takes; None where the gate decides for each."""
        self.seen_BW = torch.empty(0, width)
        """What the gate saw of the last batch: the mean of its coarsest scale, before any layer."""
        self.taken_B = torch.empty(0, dtype=torch.long)
        """Layers that each picture of the last batch took."""

    @property
    def last(self) -> int:
        """The last exit: all layers."""
        return len(self.layers)

    @property
    def exits(self) -> range:
        """All of them, by the layers that a picture has taken there."""
        return range(self.first, self.last + 1)

    def forward(
        self,
        inputs_embeds: Tensor,
        attention_mask: Tensor,
        position_embeddings: Tensor,
        spatial_shapes_list: list[tuple[int, int]],
        level_start_index: Tensor,
        valid_ratios: Tensor,
        **_: Any,
    ) -> Any:
        """(B, N, W) of all pictures, each after its last layer, as transformers hands it on."""
        from transformers.modeling_outputs import BaseModelOutput

        x_BNW, (rows, columns) = inputs_embeds, spatial_shapes_list[0]
        self.seen_BW = x_BNW[:, : rows * columns].mean(1).detach()
        self.taken_B = self._exits()
        places = self.places(spatial_shapes_list, valid_ratios, device=x_BNW.device)
        positions = position_embeddings.expand_as(x_BNW)
        for done, layer in enumerate(self.layers):
            going = (self.taken_B > done).nonzero()[:, 0]
            if not len(going):
                break
            out = layer(
                x_BNW[going],
                attention_mask[going],
                position_embeddings=positions[going],
                reference_points=places[going],
                spatial_shapes_list=spatial_shapes_list,
                level_start_index=level_start_index,
            )[0]
            x_BNW = x_BNW.index_copy(0, going, out)
        return BaseModelOutput(last_hidden_state=x_BNW)

    def _exits(self) -> Tensor:
        if self.exit is None:
            return self.gate(self.seen_BW).argmax(-1) + self.first
        if self.exit not in self.exits:
            raise ConfigError(f"this model's exits are {self.first} to {self.last}, not {self.exit}")
        return torch.full((len(self.seen_BW),), self.exit, device=self.seen_BW.device)


@dataclass(frozen=True, kw_only=True, slots=True)
class ExitData:
    """How good each exit was for some pictures: what a gate learns from, for any price of a layer."""

    seen_PW: Tensor
    """What the gate sees of each picture."""
    quality_PE: Tensor
    """From 0 to 1, of each exit."""

    def best(self, price: float) -> Tensor:
        """(P): which exit, from 0, has most quality left after paying `price` for each layer."""
        layers = torch.arange(1, self.quality_PE.shape[1] + 1, device=self.quality_PE.device)
        return (self.quality_PE - price * layers).argmax(-1)


def build_eco(config: EcoM2fConfig) -> nn.Module:
    """transformers' `Mask2FormerForUniversalSegmentation` with fresh weights and exits."""
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig

    swin = SwinConfig.from_dict(
        {
            "embed_dim": config.swin_width,
            "depths": list(config.swin_depths),
            "num_heads": list(config.swin_heads),
            "window_size": config.window,
            "out_features": ["stage1", "stage2", "stage3", "stage4"],
        }
    )
    settings = Mask2FormerConfig(
        backbone_config=swin,
        feature_size=config.width,
        mask_feature_size=config.width,
        hidden_dim=config.width,
        num_attention_heads=config.heads,
        encoder_layers=config.encoder_layers,
        encoder_feedforward_dim=config.encoder_hidden,
        decoder_layers=config.decoder_layers + 1,  # transformers counts what comes before the first
        dim_feedforward=config.decoder_hidden,
        num_queries=config.queries,
        train_num_points=config.points,
    )
    settings.num_labels = config.classes
    model = add_exits(Mask2FormerForUniversalSegmentation(settings), first_exit=config.first_exit)
    model.settings = config
    return model


def add_exits(model: Any, *, first_exit: int = 2) -> Any:
    """The same Mask2Former, trained or not, with exits and a fresh gate; every picture still takes all layers.

    Raises: ConfigError: it has fewer layers than that, or exits already.
    """
    pixels = model.model.pixel_level_module.decoder
    if isinstance(pixels.encoder, ExitEncoder):
        raise ConfigError("this model has exits already; set encoder_of(model).exit to choose among them")
    if not 1 <= first_exit <= len(pixels.encoder.layers):
        raise ConfigError(f"exits are behind layers 1 to {len(pixels.encoder.layers)}, not {first_exit}")
    exits = ExitEncoder(pixels.encoder, model.config.feature_size, first_exit)
    pixels.encoder = exits.to(model.device, model.dtype)
    return model


def encoder_of(model: Any) -> ExitEncoder:
    """Where exits are chosen (`exit`) and told (`taken_B`).

    Raises: ConfigError: the model has no exits.
    """
    encoder = model.model.pixel_level_module.decoder.encoder
    if not isinstance(encoder, ExitEncoder):
        raise ConfigError("this Mask2Former has no exits; call add_exits(model) first")
    return encoder


def exit_loss(model: Any, exit: int, **inputs: Any) -> Tensor:
    """Mask2Former's loss where all pictures leave after `exit` layers, worth more the later that is.

    Args:
        inputs: what transformers' model takes in training: pixel_values, mask_labels, class_labels.
    """
    encoder = encoder_of(model)
    encoder.exit = exit
    return model(**inputs).loss.sum() * (exit / encoder.last)


@torch.no_grad()
def exit_data(
    model: Any, batches: Iterable[tuple[Tensor, Any]], quality: Callable[[Any, Any], Iterable[float]]
) -> ExitData:
    """How good every exit of a trained model is for every picture.

    Args:
        batches: (pictures, what is true of them).
        quality: from the model's output and what is true, a number from 0 to 1 for each picture of a batch.
    """
    encoder, seen, found = encoder_of(model.eval()), [], []
    before = encoder.exit
    for pictures, truth in batches:
        columns = []
        for exit in encoder.exits:
            encoder.exit = exit
            columns.append(torch.tensor(list(quality(model(pixel_values=pictures), truth))))
        seen.append(encoder.seen_BW)
        found.append(torch.stack(columns, -1))
    encoder.exit = before
    return ExitData(seen_PW=torch.cat(seen), quality_PE=torch.cat(found))


def semantic_map(output: Any, size: tuple[int, int]) -> Tensor:
    """(B, Y, X): the class of each pixel of pictures of `size`, from the masks that the model gave."""
    masks = F.interpolate(output.masks_queries_logits, size, mode="bilinear").sigmoid()
    kinds = output.class_queries_logits.softmax(-1)[..., :-1]
    return torch.einsum("bqc,bqyx->bcyx", kinds, masks).argmax(1)


def fit_gate(
    encoder: ExitEncoder,
    data: ExitData,
    *,
    price: float,
    steps: int = 1000,
    rate: float = 1e-4,
    batch: int = 8,
    seed: int = 0,
) -> None:
    """Teach the gate, and nothing else, to name the exit that is best at a price; from now on it decides.

    Args:
        price: of a layer, in units of quality; the higher, the earlier pictures leave.

    Raises: ConfigError: a price below 0, or data of other exits.
    """
    if not price >= 0 or data.quality_PE.shape[1] != encoder.gate.out_features:
        raise ConfigError(
            f"a gate over {encoder.gate.out_features} exits takes their quality and a price of at least 0, not "
            f"{data.quality_PE.shape[1]} exits and {price}"
        )
    best, generator = data.best(price), torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(encoder.gate.parameters(), lr=rate)
    for _ in range(steps):
        chosen = torch.randint(len(best), (batch,), generator=generator)
        optimiser.zero_grad()
        F.cross_entropy(encoder.gate(data.seen_PW[chosen]), best[chosen]).backward()
        optimiser.step()
    encoder.exit = None


ECO_M2F = MODELS.add(
    "eco_m2f",
    Companion(
        title="Efficient Transformer Encoders for Mask2Former-style models",
        source="Yao et al., 2024, arXiv:2404.15244",
        summary="a Mask2Former whose pictures leave its pixel encoder early, where a tiny gate says so",
        build=build_eco,
        sizes={"swin-t": Size(config=EcoM2fConfig(), parameters=47_438_085, said="47M of Mask2Former, and 1,285")},
        config=EcoM2fConfig,
        toy=EcoM2fConfig(
            swin_width=8,
            swin_depths=(1, 1, 1, 1),
            swin_heads=(1, 2, 4, 8),
            window=2,
            width=64,
            heads=2,
            encoder_layers=4,
            encoder_hidden=16,
            decoder_layers=1,
            decoder_hidden=16,
            queries=3,
            classes=2,
            points=16,
        ),
        example=lambda config: (picture_batch(64),),
        done=(
            "exits in transformers' Mask2Former, its published weights included; equal to it at the last exit",
            "training behind drawn exits, the exit data set, the gate for any price of a layer",
            "batches whose pictures leave at different exits, each as if alone",
        ),
        left_out=("panoptic quality: the measure of an exit is a function that you give",),
        claim="with exits drawn in training, early exits are good and the last one stays so",
        limits=(
            "in the trial the last exit loses about a hundredth of overlap to a model that learned behind it alone",
            "losses are weighted k / last for exit k, the paper's k up to a constant, which Adam does not see",
            "the gate learns by cross-entropy as the paper says; the published code does not, and its softmax runs "
            "over the batch",
        ),
    ),
)
