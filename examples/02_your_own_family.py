"""Teach outpace a transformer it has never seen: one small description of where its blocks are."""

import torch
from torch import nn

import outpace
from outpace.accel import Stack


class Block(nn.Module):
    """Takes and returns the tokens; `warmth` has no batch dimension, so it is named in `shared` below."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, tokens: torch.Tensor, warmth: torch.Tensor) -> torch.Tensor:
        return tokens + 0.1 * warmth * self.mix(tokens)


class Painter(nn.Module):
    """A denoiser: embedding, a list of blocks run in order, output head."""

    def __init__(self, width: int = 32, depth: int = 12) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(4, width), nn.Linear(width, 4)
        self.layers = nn.ModuleList(Block(width) for _ in range(depth))

    def forward(self, hidden_states: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        tokens = self.embed(hidden_states)
        for layer in self.layers:
            tokens = layer(tokens, 1 + timestep[0] / 1000)
        return self.head(tokens)


outpace.register_family(
    outpace.Family(
        name="painter",
        transformers=("Painter",),
        stacks=(Stack(path="layers", returns=("tokens",), hidden="tokens", shared=("warmth",)),),
    )
)

torch.manual_seed(0)
painter = Painter().eval()
with outpace.accelerate(painter, outpace.GatedTaylor(threshold=0.2)) as run, torch.no_grad():
    latents = torch.randn(2, 16, 4)
    for step in range(30):  # Euler steps of a flow from noise (t = 1) to picture (t = 0)
        t = torch.full((2,), 1000 * (1 - step / 30))
        latents = latents - painter(latents, t) / 30
print(run.summary())
