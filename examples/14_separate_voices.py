"""A MossFormer learns to take two voices apart: spectrograms of what it hears and makes, and how clear that is.

python examples/14_separate_voices.py [STEPS] [PICTURE]      # 4 steps take seconds, 1200 some minutes on one core
"""

import sys

import torch
from matplotlib.figure import Figure

from outpace.models.layers.separation import in_best_order, si_sdr
from outpace.models.mossformer import Mossformer, MossformerConfig
from outpace.models.trials.fit import fit
from outpace.models.trials.voices import mixtures

STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 4
PICTURE = sys.argv[2] if len(sys.argv) > 2 else "separate_voices.png"
RATE = 4000

torch.manual_seed(0)
model = Mossformer(MossformerConfig(width=48, blocks=2, group=16, key_width=32, filter=9, dropout=0.0))
generator = torch.Generator().manual_seed(0)


def loss(_step: int) -> torch.Tensor:
    """Decibels short of the voices, in the order of speakers that suits what came out."""
    mixture, voices = mixtures(8, 1600, RATE, generator)
    return -in_best_order(model(mixture), voices)[1].mean()


fit(model, loss, steps=STEPS)

mixture, voices = mixtures(32, 6000, RATE, torch.Generator().manual_seed(10_000))  # longer than any it learned from
with torch.no_grad():
    made, reached = in_best_order(model(mixture), voices)
mixed = si_sdr(mixture[:, None].expand_as(voices), voices)
before, after = (round(float(decibels.mean()), 1) + 0.0 for decibels in (mixed, reached))  # and not -0.0
print(f"SI-SDR {before} dB in mixtures, {after} dB after {STEPS} steps")

shown = (reached - mixed).mean(1).argsort()[len(mixed) // 2]  # neither the best nor the worst
parts = {"mixture": mixture[shown]}
for i, name in enumerate(("low voice", "high voice")):
    parts[name] = voices[shown, i]
    parts[f"{name} out of the mixture, {mixed[shown, i]:.1f} to {reached[shown, i]:.1f} dB"] = made[shown, i]
figure = Figure(figsize=(9, 7), layout="constrained")
grid = figure.subplots(3, 2, sharex=True, sharey=True)
grid[0, 1].axis("off")
told = f"SI-SDR, mean of {len(mixed)} mixtures:\n{before} dB as they are\n{after} dB separated"
grid[0, 1].text(0, 0.5, told, va="center", transform=grid[0, 1].transAxes)
for axes, (title, sound) in zip([grid[0, 0], *grid[1:].flat], parts.items(), strict=True):
    heard = sound / sound.abs().max() + 1e-5 * torch.randn_like(sound)  # pauses have a level, too
    axes.specgram(heard, NFFT=256, noverlap=224, Fs=RATE, vmin=-100, vmax=-30)
    axes.set(title=title, ylabel="Hz")
    axes.label_outer()
for axes in grid[-1]:
    axes.set_xlabel("s")
figure.savefig(PICTURE, dpi=100)
