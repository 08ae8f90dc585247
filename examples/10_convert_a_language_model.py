"""A Llama learns Python from Python, loses its attention, and gets most of its loss back: a picture of the way.

python examples/10_convert_a_language_model.py [STEPS] [PICTURE]      # 20 steps take seconds, 300 under 5 minutes
"""

import sys

import torch
from matplotlib.figure import Figure
from transformers import LlamaConfig, LlamaForCausalLM

from outpace.models.layers.low_rank import add_low_rank, fold_low_rank
from outpace.models.liger import LIGER_LAYERS, LigerConfig, convert, step
from outpace.models.trials.data import python_source, windows

STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 20
PICTURE = sys.argv[2] if len(sys.argv) > 2 else "convert_a_language_model.png"
TUNING = max(1, STEPS // 3)
TEXT, HELD_OUT = python_source()


def loss_of(model: torch.nn.Module, pieces: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(model(pieces[:, :-1]).logits.flatten(0, 1), pieces[:, 1:].flatten())


def learn(model: torch.nn.Module, steps: int, rate: float) -> list[float]:
    """The loss on held-out text before every tenth part of the way, and at its end."""
    optimiser, losses = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate), []
    generator, test = torch.Generator().manual_seed(0), windows(HELD_OUT, 64, 64, torch.Generator().manual_seed(0))
    for i in range(steps + 1):
        if i % max(1, steps // 10) == 0:
            losses.append(loss_of(model, test).item())
        optimiser.zero_grad()
        loss_of(model, windows(TEXT, 16, 64, generator)).backward()
        optimiser.step()
    return losses


torch.manual_seed(0)
config = LlamaConfig(vocab_size=128, hidden_size=64, intermediate_size=192, num_hidden_layers=3, num_attention_heads=4)
model = LlamaForCausalLM(config)
before = learn(model, STEPS, 2e-3)
after = learn(add_low_rank(convert(model, LigerConfig(window=8)), LIGER_LAYERS), TUNING, 2e-3)
fold_low_rank(model)
print(f"nats a byte: trained {before[-1]:.2f}, converted {after[0]:.2f}, tuned {after[-1]:.2f}")
text = torch.tensor([list(b"def ")])
with torch.no_grad():
    logits, state = step(model, text, None)
    for _ in range(60):
        text = torch.cat([text, logits[:, -1:].argmax(-1)], 1)
        logits, state = step(model, text[:, -1:], state)
kept = sum(one.keys.numel() + one.values.numel() for one in state.layers)
print(f"{bytes(text[0].tolist()).decode()!r}, written with {kept} keys and values, however long the text")
axes = (figure := Figure(figsize=(6, 4))).subplots()
for name, start, steps, losses in (("softmax", 0, STEPS, before), ("gated state, window of 8", STEPS, TUNING, after)):
    axes.plot([start + i * max(1, steps // 10) for i in range(len(losses))], losses, "o-", label=name)
axes.set(xlabel="step", ylabel="loss on held-out text, nats a byte", title="A Llama loses its attention")
axes.legend()
figure.savefig(PICTURE, dpi=120)
