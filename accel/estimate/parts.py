"""Which part of a transformer a module is: attention, feed-forward, modulation, embedding, by where it stands.

diffusers names the modules of its transformers alike, so a few words tell them apart. What they do not tell is "rest":
nothing in the published models, which a test holds.
"""

from __future__ import annotations

import re
from collections import Counter

from torch import nn

from ..families import Stack, find_family
from .account import Piece
from .recording import Recording

SELF, CROSS = "self-attention", "text and cross-attention"
PROJECTIONS, FFN, FUSED = "attention projections", "feed-forward", "attention and feed-forward in one product"
MODULATION, EMBEDDERS, OUTPUT, REST = "modulation and norms", "embedders", "output", "rest"
PARTS = (SELF, PROJECTIONS, FFN, FUSED, CROSS, MODULATION, EMBEDDERS, OUTPUT, REST)
"""In the order they are shown."""

OUTSIDE = "outside the blocks"
"""The stack of what is in no block."""

_INSIDE = (
    (FUSED, r"to_qkv_mlp_proj|single_transformer_blocks\.\d+\.(attn\.to_out|proj_out)(\.(weight|bias))?$"),
    (FFN, r"\.(ff|ff_context|ffn|feed_forward|img_mlp|txt_mlp|proj_mlp|experts)(\.|$)"),
    (PROJECTIONS, r"\.(attn|attn\d|attention)(\.|$)"),
    (
        MODULATION,
        r"\.(norm\w*|img_mod|txt_mod|adaLN_modulation|scale_shift_table|attention_norm\d|ffn_norm\d)(\.|$)|^block_routers",
    ),
)
_OUTSIDE = (
    (OUTPUT, r"^(norm_out|proj_out|proj_out_\d|norm_final|all_final_layer|scale_shift_table)(\.|$)"),
    (MODULATION, r"modulation|block_routers|distilled_guidance_layer|time_proj|adaln_single|^time_embed\.linear"),
    (EMBEDDERS, ""),
)


def part_of(path: str, stack: Stack | None) -> str:
    """The part that the module (or weight) at `path` is, in a block of `stack` or outside of the blocks."""
    rules = _OUTSIDE if stack is None else _INSIDE
    part = next((part for part, words in rules if re.search(words, path)), REST)
    # Of a fused proj_out that was converted, attention's own projection is left beside the experts.
    own = (*stack.attention, "proj_out") if stack is not None else ()
    other = stack is not None and part == PROJECTIONS and path.split(".")[2] not in own
    return CROSS if other else part


def pieces_of(transformer: nn.Module, recording: Recording, tokens: int) -> tuple[Piece, ...]:
    """FLOPs of `recording` and the numbers in the state of `transformer`, by stack and part: all of them, once.

    Args:
        tokens: tokens that become the picture.

    Raises: UnsupportedModelError where no family says what its stacks are.
    """
    stacks = find_family(transformer).stacks
    flops: Counter[tuple[str, str]] = Counter()
    numbers: Counter[tuple[str, str]] = Counter()
    for running, site in recording.attention:
        stack = next(filter(None, (_stack_of(path, stacks, whole=True) for path in running)), None)
        flops[_name(stack), SELF if site.is_own(tokens) else CROSS] += site.flops
    for running, counted in recording.products.items():
        stack = next(filter(None, (_stack_of(path, stacks, whole=True) for path in running)), None)
        part = part_of(running[-1], stack)
        # What an attention multiplies by itself, outside its projections, is attention written out (linear, in Sana).
        written_out = part == PROJECTIONS and running[-1].count(".") == 2
        flops[_name(stack), SELF if written_out else part] += counted
    for path, weight in transformer.state_dict().items():
        stack = _stack_of(path, stacks, whole=False)
        numbers[_name(stack), part_of(path, stack)] += weight.numel()
    return tuple(
        Piece(stack=stack, part=part, flops=flops[stack, part], parameters=numbers[stack, part])
        for stack in dict.fromkeys((OUTSIDE, *(stack.path for stack in stacks)))
        for part in PARTS
        if flops[stack, part] or numbers[stack, part]
    )


def _stack_of(path: str, stacks: tuple[Stack, ...], *, whole: bool) -> Stack | None:
    """The stack of which `path` is a block; where not `whole`, also of which it is inside a block."""
    matches = re.fullmatch if whole else re.match
    return next((stack for stack in stacks if matches(rf"{re.escape(stack.path)}\.\d+", path)), None)


def _name(stack: Stack | None) -> str:
    return OUTSIDE if stack is None else stack.path
