"""Language models with linear, hybrid and full attention learn Python from Python: a picture of how their loss falls.

python examples/05_language_model.py [STEPS]      # 25 steps take seconds, 1000 some minutes on one core
"""

import sys

import torch
import torch.nn.functional as F

from outpace.models.hybrid import AttentionConfig, HybridConfig, HybridLanguageModel
from outpace.models.trials.data import BYTES, python_source, windows

PATTERNS = {
    "linear": ("gla", "gla", "gla", "gla"),
    "hybrid 3:1": ("gla", "gla", "gla", "full"),
    "full": ("full", "full", "full", "full"),
}
STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 25


def train(kinds: tuple[str, ...]) -> list[float]:
    """The loss of every step, in nats a byte."""
    torch.manual_seed(0)
    config = HybridConfig(layer_types=kinds, width=64, vocabulary=BYTES, attention=AttentionConfig(heads=4))
    model, (text, _), generator = HybridLanguageModel(config), python_source(), torch.Generator().manual_seed(0)
    optimiser, losses = torch.optim.AdamW(model.parameters(), lr=2e-3), []
    for _ in range(STEPS):
        piece = windows(text, 8, 64, generator)
        loss = F.cross_entropy(model(piece[:, :-1]).flatten(0, 1), piece[:, 1:].flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


def main() -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4))
    for name, kinds in PATTERNS.items():
        losses = train(kinds)
        last = sum(losses[-10:]) / len(losses[-10:])
        print(f"{name}: {last:.2f} nats a byte after {STEPS} steps")
        axes.plot(losses, label=name)
    axes.set(xlabel="step", ylabel="loss, nats a byte", title="Learning Python from Python's own modules")
    axes.legend()
    figure.savefig("language_model.png", dpi=120)


if __name__ == "__main__":
    main()
