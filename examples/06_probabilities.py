"""Read digits with LaDiNE: what each may be, how sure that is, and what noise and a crop do to it."""

from pathlib import Path

import torch
from PIL import Image

import outpace
from outpace.pipelines.ladine.corruptions import CORRUPTIONS
from outpace.pipelines.pocket.ladine import held_out_digits

pipe = outpace.load_pocket("ladine")
digits, classes = held_out_digits("test")
chosen = [10, 34]
names = ("clean", "noise-50", "crop-80")

rows = []
for index in chosen:
    pictures = torch.cat(
        [CORRUPTIONS[name](digits[index : index + 1], torch.Generator().manual_seed(2)) for name in names]
    )
    made = pipe(pictures, num_inference_steps=20, generator=torch.Generator().manual_seed(0), output_type="pil")
    rows.append(made.images)
    for place, name in enumerate(names):
        said = int(made.probabilities[place].argmax())
        print(
            f"a {int(classes[index])}, {name}: read as {said} with probability {made.probabilities[place, said]:.2f}; "
            f"95 % of the samples lie {made.width[place, said]:.2f} apart"
        )

width, height = rows[0][0].size
sheet = Image.new("RGB", (width * len(names), height * len(chosen)))
for y, row in enumerate(rows):
    for x, chart in enumerate(row):
        sheet.paste(chart, (width * x, height * y))
folder = Path("out/examples")
folder.mkdir(parents=True, exist_ok=True)
sheet.save(folder / "probabilities.png")
print(f"Look at {folder}/probabilities.png")
