"""Mixture of blocks: of some consecutive blocks only a few run, chosen for each sample at each call.

The block's class is swapped for a subclass of the same name whose forward asks the group first. So weights keep their
names, attention and feed-forward are found where they were, and whatever calls the block goes on doing so.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import ConfigError
from ..denoiser import Rows, echo
from ..families import Stack, find_family
from .modulation import find_modulations
from .scores import ROUTER_DEVIATION, score
from .settings import Conversion
from .sites import find_sites

_TEXT = "encoder_hidden_states"


class GroupRouter(nn.Module):
    """Scores the blocks of a group from what all tokens have in common.

    s = alpha W_x [mean of the picture's tokens, mean of the text's] + (1 - alpha) W_y y, with y the global embedding.

    Source: Dense2MoE (Zheng et al., ICCV 2025, arXiv:2510.09094), mixture of blocks.

    Differs from the paper: means and embedding are normalised first, for they differ by orders of magnitude between
    models and blocks; where text and picture are one sequence already, their mean is over both.

    Args:
        width: of the tokens.
        embedding: width of the global embedding.
        size: blocks in the group.
        alpha: weight of the tokens.
    """

    def __init__(self, width: int, embedding: int, size: int, alpha: float) -> None:
        super().__init__()
        self.width, self.embedding, self.alpha = width, embedding, alpha
        self.tokens = nn.Parameter(torch.empty(size, 2 * width).normal_(std=ROUTER_DEVIATION))
        self.conditioning = nn.Parameter(torch.empty(size, embedding).normal_(std=ROUTER_DEVIATION))

    def forward(self, named: dict[str, Any], stack: Stack) -> Tensor:
        """Scores (B, blocks) in float32, from the first block's arguments."""
        tokens, conditioning = self.features(named, stack)
        return score(tokens, self.tokens) + score(conditioning, self.conditioning)

    def features(self, named: dict[str, Any], stack: Stack) -> tuple[Tensor, Tensor]:
        """What the two matrices see (B, 2 width) and (B, embedding), weighted already; nothing is seen as zeros."""
        text = named.get(_TEXT)
        image_BD = _normalised(named[stack.hidden].float().mean(1))
        text_BD = _normalised(text.float().mean(1)) if isinstance(text, Tensor) else torch.zeros_like(image_BD)
        tokens = self.alpha * torch.cat([image_BD, text_BD], -1)
        y = next((named[name] for name in stack.conditioning if isinstance(named.get(name), Tensor)), None)
        if y is None:
            return tokens, tokens.new_zeros(len(tokens), self.embedding)
        return tokens, (1 - self.alpha) * self._embedded(y).expand(len(tokens), -1)

    def _embedded(self, y: Tensor) -> Tensor:
        if y.ndim > 1:  # shifts, scales and gates one behind the other are seen by their mean
            return _normalised(y.float().flatten(1).unflatten(1, (-1, self.embedding)).mean(1))
        half = self.embedding // 2
        angles = y.float()[:, None] * torch.exp(torch.arange(half, device=y.device) * (-math.log(10_000) / half))
        return functional.pad(torch.cat([angles.cos(), angles.sin()], -1), (0, self.embedding - 2 * half))


@dataclass(slots=True)
class Choice:
    """What a group decided for the call under way."""

    probabilities_BM: Tensor
    """Softmax of the scores."""
    runs_BM: Tensor
    """True where the block runs for the sample."""


class MixedGroup:
    """A group of blocks at work: its first block decides, all of them keep to it.

    Args:
        name: for reports: "blocks 4-7".
        router: scores the blocks; belongs to the transformer.
        stack: that the blocks are in.
        members: the blocks; they belong to the transformer, too.
        active: kappa, how many run.
    """

    def __init__(self, name: str, router: GroupRouter, stack: Stack, members: list[nn.Module], active: int) -> None:
        self.name, self.router, self.stack, self.members, self.active = name, router, stack, members, active
        self.names = list(inspect.signature(members[0].forward).parameters)
        self.choice: Choice | None = None
        self.listener: Callable[[MixedGroup, Choice], None] | None = None

    def run(self, place: int, proceed: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """The group's block at `place`, for the samples that it was chosen for."""
        named = {**dict(zip(self.names, args, strict=False)), **kwargs}
        hidden: Tensor = named[self.stack.hidden]
        choice = self.choice
        # A guidance that leaves layers out may pass over the first block of the group.
        if place == 0 or choice is None or len(choice.runs_BM) != len(hidden):
            choice = self.choice = self._decide(named)
            if self.listener is not None:
                self.listener(self, choice)
        if hidden.is_meta:  # values decide nothing there: the first `active` stand for any as many
            return proceed(*args, **kwargs) if place < self.active else echo(named, self.stack)
        runs = choice.runs_BM[:, place]
        rows = runs.nonzero().flatten().tolist()
        if not rows:
            return echo(named, self.stack)
        if len(rows) == len(runs):
            result = proceed(*args, **kwargs)
        else:
            result = Rows(rows, len(runs), hidden.device).run(proceed, named, self.stack)
        if choice.probabilities_BM.requires_grad:
            result = self._straight_through(choice, place, result, named)
        return result

    def _decide(self, named: dict[str, Any]) -> Choice:
        probabilities = self.router(named, self.stack).softmax(-1)
        chosen = probabilities.detach().topk(self.active, dim=-1).indices
        runs = torch.zeros_like(probabilities, dtype=torch.bool).scatter_(1, chosen, True)
        return Choice(probabilities, runs)

    def _straight_through(self, choice: Choice, place: int, result: Any, named: dict[str, Any]) -> Any:
        # The value stays the block's; its gradient reaches the router as if the change were weighted by the score.
        chance = choice.probabilities_BM[:, place]
        one = chance - chance.detach() + 1.0
        outputs = result if isinstance(result, tuple) else (result,)
        weighted = []
        for name, output in zip(self.stack.returns, outputs, strict=True):
            before = named.get(name)
            if output is not None and before is not None:
                gate = one.reshape(-1, *[1] * (output.ndim - 1)).to(output.dtype)
                output = torch.lerp(before, output, gate) if output.dtype == before.dtype else output
            weighted.append(output)
        return tuple(weighted) if isinstance(result, tuple) else weighted[0]


def mix_blocks(transformer: nn.Module, settings: Conversion) -> None:
    """Make mixtures of the groups of blocks in `settings`, in place. Until routers are trained they choose at random.

    Raises: ConfigError for a group that reaches over the end or into another stack, or that holds the first or the last
        block: those always run, for everything that goes by them (a forecast's gate, its anchor) to hold.
    """
    blocks = find_family(transformer).blocks(transformer)
    modulations = find_modulations(transformer)
    widths = {site.path: site.read().width for site in find_sites(transformer)}
    paths = {id(module): path for path, module in transformer.named_modules()}
    routers = nn.ModuleList()
    for group in settings.groups:
        last = group.first + group.size - 1
        named = f"the group of blocks {group.first}-{last}"
        if last >= len(blocks) - 1:
            raise ConfigError(f"{named} has to end before the last of {len(blocks)} blocks (0-{len(blocks) - 1})")
        members = blocks[group.first : last + 1]
        if len({id(stack) for stack, _ in members}) > 1 or len({type(block) for _, block in members}) > 1:
            raise ConfigError(f"{named} mixes blocks of different kinds; let it end where they change")
        path = paths[id(members[0][1])] + "."
        width = next(value for site, value in widths.items() if f"{site}.".startswith(path))
        embedding = next((linear.in_features for where, linear in modulations.items() if where.startswith(path)), width)
        router = GroupRouter(width, embedding, group.size, settings.text_weight)
        routers.append(router)
        stack, own = members[0][0], [block for _, block in members]
        mixture = MixedGroup(f"blocks {group.first}-{last}", router, stack, own, group.active)
        for place, block in enumerate(own):
            vars(block)["mixture"] = (mixture, place)
            block.__class__ = _mixed(type(block))
    transformer.block_routers = routers


def find_groups(transformer: nn.Module) -> list[MixedGroup]:
    """The groups of blocks of a transformer, in execution order."""
    held = [vars(module).get("mixture") for module in transformer.modules()]
    return [mixture[0] for mixture in held if mixture is not None and mixture[1] == 0]


@functools.cache
def _mixed(cls: type[nn.Module]) -> type[nn.Module]:
    """`cls` with a forward that asks its group first."""

    @functools.wraps(cls.forward)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        mixture, place = self.mixture
        return mixture.run(place, functools.partial(cls.forward, self), args, kwargs)

    return type(cls.__name__, (cls,), {"forward": forward, "__module__": cls.__module__, "__doc__": cls.__doc__})


def _normalised(x: Tensor) -> Tensor:
    return functional.layer_norm(x, x.shape[-1:])
