"""Watch a language model learn Python: how the largest activation behind each layer grows, and the curve it follows.

python examples/11_analyse_a_training.py [STEPS] [PICTURE]      # 60 steps take seconds, 1500 a few minutes on one core
"""

import sys

import torch
import torch.nn.functional as F

from outpace.models.hybrid import AttentionConfig, HybridConfig, HybridLanguageModel
from outpace.models.massive import fit_curve, ratios
from outpace.models.trials.data import BYTES, python_source, windows
from outpace.models.trials.fit import fit

STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 60
PICTURE = sys.argv[2] if len(sys.argv) > 2 else "training.png"
LENGTH = 64


def main() -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    torch.manual_seed(0)
    attention = AttentionConfig(heads=4)
    config = HybridConfig(layer_types=("full",) * 4, width=64, hidden=128, vocabulary=BYTES, attention=attention)
    model, (text, held_out), generator = HybridLanguageModel(config), python_source(), torch.Generator().manual_seed(0)
    watched = windows(held_out, 10, LENGTH, generator)[:, :-1]
    probes, seen, losses = {round((STEPS + 1) ** (i / 39)) - 1 for i in range(40)}, {}, []

    def loss(step: int) -> torch.Tensor:
        if step in probes:
            with torch.no_grad(), ratios(model.blocks) as seen[step]:
                model(watched)
        piece = windows(text, 8, LENGTH, generator)
        value = F.cross_entropy(model(piece[:, :-1]).flatten(0, 1), piece[:, 1:].flatten())
        losses.append(value.item())
        return value

    fit(model, loss, steps=STEPS + 1)
    print(f"{sum(losses[-10:]) / 10:.2f} nats a byte after {STEPS} steps")

    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for layer, values in enumerate(zip(*seen.values(), strict=True)):
        curve, line = fit_curve(list(seen), values)
        turn = f"turns at step {curve.peak:.0f}" if curve.peak and curve.peak < STEPS else "did not turn yet"
        print(f"layer {layer}: ratio {values[0]:.1f} to {values[-1]:.1f}, R2 of the curve {line.r_squared:.2f}, {turn}")
        (drawn,) = axes.plot(list(seen), line.values_N, label=f"layer {layer}, R2 {line.r_squared:.2f}")
        axes.plot(list(seen), values, ".", color=drawn.get_color())
    axes.set(xscale="symlog", xlabel="step", ylabel="largest over median activation", title="Measured, and fitted")
    axes.legend()
    figure.savefig(PICTURE, dpi=120)


if __name__ == "__main__":
    main()
