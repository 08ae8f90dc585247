"""How far is the faster picture from the plain one, and would fewer steps have been better? Measured in Python."""

import numpy as np
import torch

import outpace
from outpace.evaluation import METRICS

pipe = outpace.load_pocket("dit")
pipe.set_progress_bar_config(disable=True)
DIGITS = [0, 1, 4, 7]
PLAIN_STEPS = 50


def pictures(steps: int) -> list[np.ndarray]:
    """The digits from the same noise, whatever else is changed."""
    noise = [torch.Generator().manual_seed(100 + digit) for digit in DIGITS]
    made = pipe(class_labels=DIGITS, generator=noise, num_inference_steps=steps, output_type="np")
    return list(made.images)


def psnr(some: list[np.ndarray], others: list[np.ndarray]) -> float:
    """Mean over the digits, in dB; higher is closer."""
    return float(np.mean([METRICS["psnr"].measure(a, b) for a, b in zip(some, others, strict=True)]))


plain = pictures(PLAIN_STEPS)
print(f"{'what':<24}{'blocks saved':>14}{'PSNR to plain':>16}")
for threshold in (0.05, 0.1, 0.2, 0.4):
    with outpace.accelerate(pipe, outpace.GatedTaylor(threshold=threshold)) as run:
        fast = pictures(PLAIN_STEPS)
    speedup = run.trace.totals()["predicted_speedup"]
    print(f"{f'threshold {threshold}':<24}{speedup:>13.2f}x{psnr(fast, plain):>13.1f} dB")

for steps in (33, 25, 17):
    print(f"{f'{steps} steps':<24}{PLAIN_STEPS / steps:>13.2f}x{psnr(pictures(steps), plain):>13.1f} dB")
