"""Two players make handwritten digits, a generator of windows and a critic of wavelets: a picture of what is made.

python examples/12_generate_digits.py [TURNS] [PICTURE]      # 4 turns take seconds, 800 under 5 minutes on two cores
"""

import sys

import torch
from matplotlib.figure import Figure

from outpace.kernels.wavelets import haar
from outpace.models.trials.styleswin import blocking, config_of, learned, real_digits

TURNS = int(sys.argv[1]) if len(sys.argv) > 1 else 4
PICTURE = sys.argv[2] if len(sys.argv) > 2 else "generate_digits.png"

model, real = learned(config_of(), 0, steps=TURNS), real_digits()
with torch.no_grad():
    made = model(torch.randn(64, 32, generator=torch.Generator().manual_seed(7)))
    # between two styles, digits change into each other
    ends = torch.randn(2, 32, generator=torch.Generator().manual_seed(9))
    between = model(torch.lerp(ends[0], ends[1], torch.linspace(0, 1, 8)[:, None]))
print(f"steps across the borders of windows over those inside: made {blocking(made):.3f}, real {blocking(real):.3f}")

rows = [
    ("real digits", real[:8]),
    ("made", made[:8]),
    ("made", made[8:16]),
    ("from one style to another", between),
    ("what the critic sees: differences across", haar(made[:8])[:, 2:3]),
]
figure = Figure(figsize=(8, 5.6))
for axes, (name, pictures) in zip(figure.subplots(len(rows), 8), rows, strict=True):
    axes[0].set_title(name, fontsize=9, loc="left")
    for axis, picture in zip(axes, pictures, strict=True):
        axis.imshow(picture[0].numpy(), cmap="gray", vmin=-1, vmax=1)
        axis.axis("off")
figure.savefig(PICTURE, dpi=110, bbox_inches="tight")
