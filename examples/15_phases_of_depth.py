"""A map of how alike a vision transformer's layers are, the phases it shows, and blocks applied again and again.

python examples/15_phases_of_depth.py [STEPS] [PICTURE]      # 2 steps take seconds, 400 some minutes on one core
"""

import sys

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from outpace.models.phases import dynamics, phases, similarity
from outpace.models.trials.digits import TEST, digits
from outpace.models.trials.raptor import explained, followed, teacher

STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 2
PICTURE = sys.argv[2] if len(sys.argv) > 2 else "phases_of_depth.png"
BLOCKS = (1, 2, 4)

model, seen = teacher(0, 0.4, STEPS)  # learned digits with stochastic depth: up to 0.4 of its blocks were left out
classes = digits()[1][:TEST]


def named_right(states) -> float:
    """Share of held-out digits that the transformer's own head names right from states after the last layer."""
    return float((model.head(states.mean(1)).argmax(-1) == classes).float().mean())


alike = similarity(list(seen[1:]), class_tokens=0)
moved = dynamics(list(seen[:, :TEST]), class_tokens=0)
layers = range(1, len(alike) + 1)
print(f"the transformer: {named_right(seen[-1, :TEST]):.3f} named right")
met = []
for blocks in BLOCKS:
    made = followed(seen, blocks, 0, steps=STEPS)
    lengths = [len(run) for run in phases(alike, count=blocks)]
    met.append([explained(one, wanted) for one, wanted in zip(made, seen[1:, :TEST], strict=True)])
    print(f"phases of {lengths} layers: R2 {met[-1][-1]:.3f}, {named_right(made[-1]):.3f} named right")

figure = Figure(figsize=(12, 3.8), layout="constrained")
map_axes, follow_axes, move_axes = figure.subplots(1, 3)
drawn = map_axes.imshow(alike, extent=(0.5, len(alike) + 0.5, len(alike) + 0.5, 0.5), cmap="viridis")
figure.colorbar(drawn, ax=map_axes, shrink=0.85)
for run in phases(alike, count=BLOCKS[-1]):
    corner = (run.start + 0.5, run.start + 0.5)
    map_axes.add_patch(Rectangle(corner, len(run), len(run), fill=False, edgecolor="white", linewidth=2))
map_axes.set(title="How alike layers are, and four phases", xlabel="layer", ylabel="layer")
for blocks, values in zip(BLOCKS, met, strict=True):
    follow_axes.plot(layers, values, "o-", label=f"{blocks} block{'s' * (blocks > 1)}")
follow_axes.set(title="How closely a few blocks follow it", xlabel="layer", ylabel="R2 of held-out states")
follow_axes.legend()
move_axes.plot(layers, moved.turn, "o-", color="tab:blue")
move_axes.set(title="How states move", xlabel="layer")
move_axes.set_ylabel("degrees a patch turns", color="tab:blue")
rank_axes = move_axes.twinx()
rank_axes.plot(layers, moved.step_rank, "s--", color="tab:red")
rank_axes.set_ylabel("directions of a step (stable rank)", color="tab:red")
figure.savefig(PICTURE, dpi=100, bbox_inches="tight")
