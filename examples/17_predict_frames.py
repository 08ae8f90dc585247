"""A PredFormer learns how a digit moves: the frames that follow, predicted, repeated and true.

python examples/17_predict_frames.py [STEPS] [PICTURE]      # 5 steps take seconds, 1500 under 5 minutes on two cores
"""

import sys

import torch
from matplotlib.figure import Figure

from outpace.models.trials.predformer import FRAMES, clips, learned, squares_a_frame

STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 5
PICTURE = sys.argv[2] if len(sys.argv) > 2 else "predict_frames.png"

model = learned("bin-ts", 0, steps=STEPS, moving=1)
seen, after = clips(64, torch.Generator().manual_seed(10_000), held=True, moving=1).split(FRAMES, 1)
with torch.no_grad():
    predicted = model(seen)
repeated = seen[:, -1:].expand_as(after)
print(
    f"squared error of a frame: predicted {squares_a_frame(predicted, after):.1f}, "
    f"the last frame again {squares_a_frame(repeated, after):.1f}"
)

figure = Figure(figsize=(9, 5.2), layout="constrained")
rows = [("seen, then true", after), ("predicted", predicted), ("the last frame again", repeated)]
grid = figure.subplots(2 * len(rows), 2 * FRAMES)
for row, axes in enumerate(grid):
    name, following = rows[row % len(rows)]
    axes[0].set_title(name, fontsize=8, loc="left")
    for axis, frame in zip(axes, torch.cat([seen, following], 1)[row // len(rows)], strict=True):
        axis.imshow(frame[0].numpy(), cmap="gray", vmin=0, vmax=1)
        axis.axis("off")
figure.savefig(PICTURE, dpi=110)
