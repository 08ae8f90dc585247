"""A Mask2Former learns shapes behind exits, a gate learns who may leave early: a picture of what each exit sees.

python examples/13_segment_with_exits.py [STEPS] [PICTURE]      # 5 steps take seconds, 1000 some minutes on two cores
"""

import sys

import torch
from matplotlib.figure import Figure

from outpace.models.eco_m2f import encoder_of, exit_data, fit_gate, semantic_map
from outpace.models.trials.eco_m2f import SIDE, train
from outpace.models.trials.scenes import CLASSES, Scene, mean_overlap, scenes

STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 5
PICTURE = sys.argv[2] if len(sys.argv) > 2 else "segment_with_exits.png"
PRICE = 0.005  # of a layer, in units of overlap: the higher, the earlier pictures leave


def batch(count: int, seed: int) -> tuple[torch.Tensor, list[Scene]]:
    drawn = scenes(count, SIDE, torch.Generator().manual_seed(seed))
    return torch.stack([scene.picture for scene in drawn]), drawn


def said(output: object, drawn: list[Scene]) -> tuple[torch.Tensor, list[float]]:
    """The class of every pixel, and the mean overlap with the truth of each picture."""
    maps = semantic_map(output, (SIDE, SIDE))
    return maps, [mean_overlap(one, scene.classes, len(CLASSES)) for one, scene in zip(maps, drawn, strict=True)]


model = train(0, drawn=True, steps=STEPS).eval()
encoder = encoder_of(model)
learned_from = [batch(32, 1000 + number) for number in range(min(8, STEPS // 5))]
fit_gate(encoder, exit_data(model, learned_from, lambda *it: said(*it)[1]), price=PRICE, steps=400, rate=1e-2)

pictures, drawn = batch(32, 10_000)
columns, names = [[scene.classes for scene in drawn]], ["truth"]
for exit in (*encoder.exits, None):  # None: the gate decides
    encoder.exit = exit
    with torch.no_grad():
        maps, overlaps = said(model(pixel_values=pictures), drawn)
    layers, who = encoder.taken_B, "the gate" if exit is None else f"exit {exit}"
    print(f"{who}: mean overlap {sum(overlaps) / len(overlaps):.3f} after {layers.float().mean():.1f} layers")
    if exit in (encoder.first, encoder.last, None):
        columns.append(list(maps))
        names.append(who)

figure = Figure(figsize=(8, 8), layout="constrained")
grid = figure.subplots(5, len(columns) + 1)
for row, axes in enumerate(grid):
    axes[0].imshow(pictures[row].movedim(0, -1).numpy())
    for place, (column, axis) in enumerate(zip(columns, axes[1:], strict=True)):
        axis.imshow(column[row].numpy(), cmap="tab10", vmin=0, vmax=9, interpolation="nearest")
        last = place == len(columns) - 1
        axis.set_title(f"left after {encoder.taken_B[row]}" if last else names[place], fontsize=9)
    for axis in axes:
        axis.axis("off")
figure.savefig(PICTURE, dpi=110)
