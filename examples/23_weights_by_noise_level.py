"""Cut a pipeline's feed-forward layers to 3/8, give every noise level weights of its own for them, and distil."""

import tempfile
from pathlib import Path

import torch

import outpace
from outpace.accel.experts import level_borders, output_change, taylor_importance
from outpace.pipelines.distill import Distillation, distill, record_teacher
from outpace.pipelines.load import call_arguments, load_pipeline

LEVELS = 4

loaded = load_pipeline("dit", device="cpu", progress=False)
loaded.pipe.set_progress_bar_config(disable=True)
dense = loaded.pipe.transformer
prompts = loaded.pocket.prompts(4, "train")
calls = record_teacher(loaded, prompts, call_arguments(loaded, steps=8), progress=False)

some = [calls.take(torch.arange(start, len(calls), 4))[0] for start in range(4)]
importance = taylor_importance(dense, some, output_change)
layout = outpace.Experts(layout=f"0S8E3A{LEVELS}W")
levelled = outpace.convert(
    dense, outpace.Conversion(experts=layout, borders=level_borders(some, LEVELS)), importance=importance
)
pruned = outpace.convert(dense, outpace.Conversion(width=3 / 8), importance=importance)

call, wanted = calls.take(torch.arange(len(calls)))


def error(model):
    with torch.no_grad():
        return float((model(**call)[0] - wanted).square().mean())


assert abs(error(levelled) / error(pruned) - 1) < 1e-3, "it begins as the pruned model"
before = error(levelled)
with tempfile.TemporaryDirectory() as folder:
    settings = Distillation(stages=(("joint", 12),), batch=8, average=0.5)
    distill(dense, levelled, calls, settings, Path(folder), progress=False)
print(f"squared error against the dense model: {before:.4f} pruned, {error(levelled):.4f} after 12 steps")
sizes = [sum(p.numel() for p in model.parameters()) / 1e6 for model in (dense, pruned, levelled)]
print("million parameters: {:.2f} dense, {:.2f} pruned, {:.2f} with weights by noise level".format(*sizes))
