"""GCAB learns digits two by two without keeping any: how well each pair is still told apart after each later one.

python examples/18_learn_task_by_task.py [EPOCHS] [PICTURE]      # 1 epoch takes seconds, 40 some minutes on one core
"""

import sys

from matplotlib.figure import Figure

from outpace.models.trials.gcab import TASKS, config_of, learn_digits

EPOCHS = int(sys.argv[1]) if len(sys.argv) > 1 else 1
PICTURE = sys.argv[2] if len(sys.argv) > 2 else "learn_task_by_task.png"
METHODS = {
    "fine-tuning": config_of(gated=False, drift_weight=0.0),
    "gates, no cascade": config_of(cascade=False),
    "gates and cascade": config_of(),
}

figure = Figure(figsize=(11, 3.8), layout="constrained")
panels = figure.subplots(1, len(METHODS), sharey=True)
for axes, (name, config) in zip(panels, METHODS.items(), strict=True):
    model, after = learn_digits(config, 0, epochs=EPOCHS)
    print(f"{name}: {sum(after[-1]) / TASKS:.3f} named right once all are learned, the pair being told")
    for task in range(TASKS):
        shares = [row[task] for row in after[task:]]
        axes.plot(range(task + 1, TASKS + 1), shares, "o-", label=f"{2 * task} or {2 * task + 1}")
    axes.axhline(0.5, color="grey", linestyle=":", linewidth=1)
    axes.set(title=f"{name}: {sum(after[-1]) / TASKS:.2f}", xlabel="pairs learned", xticks=range(1, TASKS + 1))
panels[0].set(ylabel="named right, the pair being told", ylim=(0, 1.03))
panels[0].legend(loc="lower left", fontsize=8)
figure.savefig(PICTURE, dpi=100)
