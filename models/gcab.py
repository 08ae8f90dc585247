"""GCAB: a vision transformer that learns classes task by task without the earlier tasks' pictures.

Source: Cotogni et al., 2022, arXiv:2211.12292.
Shapes: B batch, C channels, Y X grid, N patches, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from ..kernels.attention import attend
from .companion import MODELS, Companion, Size, check_divides, check_sizes
from .layers.class_attention import GatedClassBlock, TaskGates
from .layers.pictures import drawn_normal, into_patches
from .numbers import picture_batch


@dataclass(frozen=True, kw_only=True, slots=True)
class GcabConfig:
    """Sizes of a GCAB and what keeps it from forgetting; the defaults are the paper's for CIFAR-100 in ten tasks."""

    classes: tuple[int, ...] = ()
    """Of each task that it is built with; `add_task` and `learn_task` add more."""
    tasks: int = 10
    """Tasks that there are gates for."""
    width: int = 384
    """Of the residual stream."""
    heads: int = 12
    """Of attention."""
    blocks: int = 5
    """Of positional attention, before the class attention."""
    expansion: int = 4
    """Hidden units of a block's network over its width."""
    picture: int = 32
    """Pixels of a side."""
    patch: int = 4
    """Pixels of a side of a token."""
    channels: int = 3
    """Of a picture."""
    gated: bool = True
    """Whether tasks keep units of the class attention to themselves."""
    cascade: bool = True
    """Whether features are carried back to an earlier task by the projectors of all tasks since."""
    largest_scale: float = 800.0
    """Of the gates' sigmoid, reached at the end of every epoch."""
    gate_weight: float = 0.05
    """Of the share of free units that a task takes, in the loss."""
    drift_weight: float = 1.77
    """Of the projected features' distance from the last task's, in the loss; 0 is without projectors."""

    def __post_init__(self) -> None:
        check_sizes(self)
        check_divides("width over heads", self.width, self.heads)
        check_divides("pixels of a side over patches", self.picture, self.patch)
        if len(self.classes) > self.tasks:
            raise ConfigError(f"a GCAB has at most as many tasks as gates, not {self.classes} in {self.tasks}")
        if not self.largest_scale >= 1:
            raise ConfigError(f"the largest scale is at least 1, not {self.largest_scale}")


class PositionalAttention(nn.Module):
    """Attention by content and by relative position, blended by a gate a head, which starts with the neighbours.

    Source: d'Ascoli et al., 2021, arXiv:2103.10697.
    """

    offsets_NN3: Tensor

    def __init__(self, width: int, heads: int, side: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.position, self.out = nn.Linear(3, heads), nn.Linear(width, width)
        self.gate = nn.Parameter(torch.ones(heads))
        place = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij"), -1).flatten(0, 1)
        down, right = (place[None] - place[:, None]).unbind(-1)  # from the query to the key
        offsets = torch.stack([right, down, right**2 + down**2], -1).to(self.gate.dtype)
        self.register_buffer("offsets_NN3", offsets, persistent=False)
        # heads look at the places of a square of this side around a patch; what is left of them has no place of its own
        # and begins with small numbers, as in the published code
        around = int(heads**0.5)
        middle = (around - 1) / 2 if around % 2 == 0 else around // 2
        self.apply(drawn_normal)
        with torch.no_grad():
            self.value.weight.copy_(torch.eye(width))
            for head in range(around**2):
                wanted = torch.tensor([head // around - middle, head % around - middle])
                self.position.weight[head] = torch.cat([2 * wanted, torch.tensor([-1.0])])

    def forward(self, x_BND: Tensor) -> Tensor:
        q, k, v = (
            part(x_BND).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        where = self.position(self.offsets_NN3).movedim(-1, 0).softmax(-1)
        blend = self.gate.sigmoid()[:, None, None]
        return self.out(((1 - blend) * attend(q, k, v) + blend * (where @ v)).transpose(1, 2).flatten(-2))


class PositionalBlock(nn.Module):
    """Positional attention, then a network."""

    def __init__(self, config: GcabConfig) -> None:
        super().__init__()
        width = config.width
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = PositionalAttention(width, config.heads, config.picture // config.patch)
        self.up, self.down = nn.Linear(width, config.expansion * width), nn.Linear(config.expansion * width, width)
        for layer in (self.up, self.down):
            drawn_normal(layer)

    def forward(self, x_BND: Tensor) -> Tensor:
        x = x_BND + self.attention(self.norm1(x_BND))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Gcab(nn.Module):
    """Logits of the classes of all tasks (B, classes) from pictures (B, C, Y, X), without being told the task.

    >>> config = GcabConfig(classes=(2, 3), tasks=2, width=16, heads=4, blocks=1, picture=8, channels=1)
    >>> Gcab(config)(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 5])
    """

    def __init__(self, config: GcabConfig) -> None:
        super().__init__()
        self.config = config
        patches, width = (config.picture // config.patch) ** 2, config.width
        self.embed = nn.Linear(config.channels * config.patch**2, width)
        self.positions = nn.Parameter(torch.randn(1, patches, width) * 0.02)
        self.blocks = nn.Sequential(*(PositionalBlock(config) for _ in range(config.blocks)))
        self.class_block = GatedClassBlock(width, config.heads, config.expansion)
        self.gates = TaskGates(config.tasks, width, config.expansion * width, config.largest_scale)
        self.tokens, self.heads = nn.ParameterList(), nn.ModuleList()
        self.projectors = nn.ModuleList()  # the first carries features of the second task back to the first, and so on
        for classes in config.classes:
            self.add_task(classes)

    def add_task(self, classes: int) -> None:
        """A token, a head, and from the second task on a projector; what earlier tasks have learns no more.

        Raises: ConfigError: no gates are left, or no class.
        """
        done = len(self.heads)
        if done == self.config.tasks or classes < 1:
            raise ConfigError(
                f"a task has at least one class, and there are gates for {self.config.tasks} tasks, {done} of them "
                f"taken; build it with more `tasks`"
            )
        width, patches = self.config.width, self.positions.shape[1]
        for old in (self.tokens, self.heads, self.projectors):
            old.requires_grad_(False)
        if done and self.config.gated:
            for part in (*self.blocks.modules(), *self.class_block.modules()):
                if isinstance(part, nn.LayerNorm):
                    part.requires_grad_(False)
        if done == len(self.config.classes):
            self.config = replace(self.config, classes=(*self.config.classes, classes))
        on = self.positions
        self.tokens.append(nn.Parameter(torch.randn(1, 1, width, device=on.device, dtype=on.dtype) * 0.02))
        self.heads.append(nn.Sequential(nn.LayerNorm(width), nn.Linear(width, classes)).to(on))
        if done and self.config.drift_weight:
            self.projectors.append(
                nn.Sequential(
                    nn.Linear(width, width), nn.LayerNorm([patches, width]), nn.ReLU(), nn.Linear(width, width)
                ).to(on)
            )

    def features(self, x_BCYX: Tensor) -> Tensor:
        """(B, N, D) before the class attention."""
        return self.blocks(self.embed(into_patches(x_BCYX, self.config.patch)) + self.positions)

    def read(self, features_BND: Tensor, task: int, scale: float | None = None) -> Tensor:
        """(B, classes of a task), with gates at a scale; 0 or 1 where that is None."""
        gates = self.gates(task, scale) if self.config.gated else None
        token = self.tokens[task].expand(len(features_BND), -1, -1)
        return self.heads[task](self.class_block(token, features_BND, gates)[:, 0])

    def forward(self, x_BCYX: Tensor) -> Tensor:
        """(B, classes of all tasks), the first task's first.

        Raises: ConfigError: there is no task yet.
        """
        if not len(self.heads):
            raise ConfigError("there is no task yet: add_task or learn_task first")
        features, logits = self.features(x_BCYX), []
        for task in reversed(range(len(self.heads))):
            logits.insert(0, self.read(features, task))
            if task and self.config.cascade and len(self.projectors):
                features = self.projectors[task - 1](features)
        return torch.cat(logits, 1)

    def loss(self, x_BCYX: Tensor, class_B: Tensor, scale: float, teacher: Gcab | None) -> Tensor:
        """Of the newest task, whose classes count from 0; `teacher` is the model before it, None for the first.

        Differs from the paper: the distance of features is a root mean square, which does not grow with the batch; the
        default weight is the paper's 0.001 at its own sizes.
        """
        task = len(self.heads) - 1
        features = self.features(x_BCYX)
        logits = self.read(features, task, scale)
        loss = F.binary_cross_entropy_with_logits(logits, F.one_hot(class_B, logits.shape[1]).to(logits))
        if self.config.gated:
            loss = loss + self.config.gate_weight * self.gates.share_of_free(task, scale)
        if teacher is not None and self.config.drift_weight:
            drift = teacher.features(x_BCYX) - self.projectors[-1](features)
            loss = loss + self.config.drift_weight * drift.norm() / drift.numel() ** 0.5
        return loss


Batches = list[tuple[Tensor, Tensor]]
"""Of one epoch: pictures, and classes that count from 0 in each task."""


def learn_task(
    model: Gcab,
    classes: int,
    epochs: Iterable[Batches],
    *,
    rate: float = 1e-3,
    weight_decay: float = 0.0,
    watch: Callable[[Tensor], None] = lambda _loss: None,
) -> None:
    """Add a task to a model and train on its pictures alone.

    What earlier tasks' gates hold open does not change by a bit, as long as `weight_decay` is 0, or so small that it is
    lost in rounding: decay takes from weights that have no gradient, too.

    Args:
        epochs: the batches of each; gates go from soft to hard over every epoch.
        watch: is given every loss.

    Raises: ConfigError: no gates are left, or no class.
    """
    teacher = deepcopy(model).eval().requires_grad_(False) if len(model.heads) else None
    model.add_task(classes)
    task = len(model.heads) - 1
    used = model.gates.used_before(task)
    # a fresh optimiser: momentum of the last task would move what has no gradient any more
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], rate, weight_decay=weight_decay)
    for batches in epochs:
        for step, (pictures, named) in enumerate(batches):
            scale = model.gates.scale_at(step / len(batches))
            optimiser.zero_grad()
            loss = model.loss(pictures, named, scale, teacher)
            loss.backward()
            if model.config.gated:
                model.class_block.protect(used)
                model.gates.compensate(scale)
            optimiser.step()
            model.gates.stay_near()
            watch(loss.detach())


GCAB = MODELS.add(
    "gcab",
    Companion(
        title="Exemplar-free Continual Learning of Vision Transformers via Gated Class-Attention and Cascaded Feature "
        "Drift Compensation",
        source="Cotogni et al., 2022, arXiv:2211.12292",
        summary="a vision transformer that learns classes task by task and keeps no pictures of earlier tasks",
        build=Gcab,
        sizes={
            "cifar-100, first task": Size(config=GcabConfig(classes=(10,)), parameters=10_707_766, said="not said"),
            "cifar-100, ten tasks": Size(
                config=GcabConfig(classes=(10,) * 10), parameters=10_707_766 + 9 * (5_002 + 344_832), said="not said"
            ),
        },
        config=GcabConfig,
        toy=GcabConfig(classes=(2, 3), tasks=3, width=16, heads=4, blocks=1, picture=8, channels=1),
        example=lambda config: (picture_batch(config.picture, channels=config.channels),),
        done=(
            "positional attention, gated class attention, protected gradients, compensated gradients of gates",
            "projectors that carry features back, alone or in a cascade",
            "training task by task (`learn_task`)",
        ),
        left_out=("drop path and the schedule of rates", "training on CIFAR-100, Tiny-ImageNet and ImageNet-100"),
        claim="gates and cascaded projectors together forget less than fine-tuning and than gates without the cascade",
        limits=(
            "weight decay breaks the promise that earlier tasks' weights stay: 1e-6 is lost in rounding, 1e-2 is not",
            "gates protect the class attention alone; the blocks before it drift, and projectors only follow them",
            "at test gates are 0 or 1; the paper's sigmoid(800 e) is the same to 1e-6 where |e| > 0.02",
            "a first task takes about half of the units: with many tasks capacity runs out (`gates.used_before`)",
            "which task a picture is of is not learned: logits of different tasks are never held against each other",
        ),
    ),
)
