"""Keep 3/8 of a pipeline's feed-forward layers, where and when they are worth most, fit them to the whole, distil."""

import tempfile
from pathlib import Path

import torch

import outpace
from outpace.accel.experts import level_importance, spread_experts, start_levels
from outpace.pipelines.distill import Distillation, distill, record_teacher
from outpace.pipelines.load import call_arguments, load_pipeline

LAYOUT = "0S16E6A4W"

loaded = load_pipeline("dit", device="cpu", progress=False)
loaded.pipe.set_progress_bar_config(disable=True)
dense = loaded.pipe.transformer
prompts = loaded.pocket.prompts(4, "train")
calls = record_teacher(loaded, prompts, call_arguments(loaded, steps=8), progress=False)

some = [calls.take(torch.arange(start, len(calls), 4))[0] for start in range(4)]
measured = level_importance(dense, some, 4)
spread = spread_experts(dense, measured, LAYOUT)
settings = outpace.Conversion(experts=outpace.Experts(layout=LAYOUT), borders=measured.borders, spread=spread)
model = outpace.convert(dense, settings, importance=measured.scores)
over_all = {path: scores.mean(0) for path, scores in measured.scores.items()}
pruned = outpace.convert(dense, outpace.Conversion(width=3 / 8), importance=over_all)

call, wanted = calls.take(torch.arange(len(calls)))


def error(model):
    with torch.no_grad():
        return float((model(**call)[0] - wanted).square().mean())


errors = {"pruned alike everywhere": error(pruned), "spread": error(model)}
start_levels(model, some)
errors["and fitted"] = error(model)
assert errors["and fitted"] < errors["spread"] < errors["pruned alike everywhere"]
with tempfile.TemporaryDirectory() as folder:
    steps = Distillation(stages=(("joint", 12),), batch=8, average=0.5, rate=1e-4)
    distill(dense, model, calls, steps, Path(folder), progress=False)
errors["after 12 steps"] = error(model)
print("squared error against the dense model:", ", ".join(f"{what} {far:.4f}" for what, far in errors.items()))
for path in ("transformer_blocks.0.ff", "transformer_blocks.23.ff"):
    print(f"{path} runs {model.get_submodule(path).active} of 16 experts, from clean to noisy")
outpace.set_active(model, 0.2)  # another share of the multiplications, at any time
print(f"with a fifth of the feed-forward layers instead of three eighths: {error(model):.4f}")
