"""A method of your own is one file: settings that are registered by name, and the part that does the work."""

from dataclasses import dataclass
from functools import partial

import outpace
from outpace.accel.part import BlockSite, Part


@outpace.accel.METHODS.register("stale_blocks")
@dataclass(frozen=True, kw_only=True, slots=True)
class StaleBlocks(outpace.accel.Method):
    """Late blocks run every other step; in between they add what they added last."""

    name = "stale_blocks"
    place = "stale blocks"  # one method for each; an own one comes last, next to the block
    first: int = 2  # from this block on, 0 or more

    def part(self, shared):
        return StalePart(shared, self.first)


class StalePart(Part):
    place = StaleBlocks.place
    remembers = ("added", "left_out")  # of a run: every request has its own, made anew by `start`

    def __init__(self, shared, first):
        self.first = first
        super().__init__(shared)

    def start(self):
        self.added, self.left_out = {}, 0

    release = start

    def site(self, denoiser, index, site):
        hidden = denoiser.stacks[index].hidden
        return BlockSite(site, partial(self.block, hidden, index)) if index >= self.first else site

    def block(self, hidden, index, site, args, kwargs):
        assert self.shared.current is not None  # a block runs inside a call
        moment, tokens = self.shared.current.moment, site.named(args, kwargs)[hidden]
        key = (index, moment.branch)
        if moment.step % 2 and key in self.added:
            self.left_out += len(tokens)
        else:
            self.added[key] = site.proceed(*args, **kwargs) - tokens
        return tokens + self.added[key]

    def finish(self, current, call):
        if call is not None:
            call.blocks, self.left_out = call.blocks - self.left_out, 0
        return call


pipe = outpace.load_pocket("dit")
with outpace.accelerate(pipe, StaleBlocks(first=12), outpace.Solver()) as run:
    pipe(class_labels=[3], num_inference_steps=8)
print(run.summary())
