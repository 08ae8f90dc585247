"""Say how fast, and get exactly that share of the work; then find the best steps for this pipeline once."""

import torch

import outpace

pipe = outpace.load_pocket("dit")


def picture():
    return pipe(class_labels=[3], generator=torch.Generator().manual_seed(7), num_inference_steps=20).images[0]


plain = picture()
with outpace.accelerate(pipe, speedup=1):
    assert list(picture().getdata()) == list(plain.getdata()), "1 changes nothing, bit for bit"

with outpace.accelerate(pipe, speedup=4) as run:
    picture()
print(run.summary())
computed = [call.step for call in run.trace.calls if call.computed[0]]
print(f"computed steps: {computed}")
assert len(computed) == 5

# Once for a pipeline: real runs with a few prompts, here two; eight and the default cost find more.
method = outpace.ScheduledTaylor.calibrate(pipe, [1, 5], speedup=4.0, cost=8, num_inference_steps=20)
print(f"calibrated: {method.to_dict()}")
with outpace.accelerate(pipe, method) as run:
    picture()
