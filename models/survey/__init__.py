"""The survey of techniques for faster inference, as a cost model: architectures, techniques, and what each saves.

>>> from outpace.models.survey import ARCHITECTURES, MACHINES, TECHNIQUES, cost, least_seconds
>>> llama = ARCHITECTURES["llama-2-7b"]()
>>> step = cost(llama, 1, cached=2047)  # one token after 2047 others
>>> f"{step.parameters:,} parameters, {step.flops / 1e9:.1f} GFLOP, {step.cache_bytes / 2**30:.0f} GiB of keys"
'6,738,415,616 parameters, 14.3 GFLOP, 1 GiB of keys'
>>> least_seconds(step, MACHINES["H100 SXM"])[1]
'memory'
>>> quantised = cost(TECHNIQUES["int4"].change(llama), 1, cached=2047)
>>> round(step.weight_bytes / quantised.weight_bytes, 1)
3.4
"""

from ..companion import MODELS, Companion
from .architectures import ARCHITECTURES
from .cost import MACHINES, Attention, Cost, Machine, Matrix, Part, Table, cost, least_seconds
from .techniques import AXES, TECHNIQUES, Technique

__all__ = [
    "ARCHITECTURES",
    "AXES",
    "MACHINES",
    "TECHNIQUES",
    "Attention",
    "Cost",
    "Machine",
    "Matrix",
    "Part",
    "Table",
    "Technique",
    "cost",
    "least_seconds",
]

MODELS.add(
    "survey",
    Companion(
        title="A Survey of Techniques for Optimizing Transformer Inference",
        source="Chitty-Venkata, Mittal, Emani, Vishwanath, Somani, 2023, arXiv:2307.07982",
        summary="what a transformer costs, and what a technique saves: parameters, FLOPs, bytes, a roofline",
        use="outpace.models.survey.cost(parts, tokens) counts what an architecture costs",
        done=(
            f"a cost model of parts, and {len(ARCHITECTURES)} published models in it: {', '.join(ARCHITECTURES)}",
            f"{len(TECHNIQUES)} techniques on the survey's axes, each a function from parts to parts: "
            f"{', '.join(TECHNIQUES)}",
            "the least time on a machine, and whether arithmetic or memory sets it",
        ),
        left_out=(
            "architecture search: it changes the numbers that an architecture is called with, not its parts",
            "accelerators other than by the two numbers of a roofline",
            "the survey's tables of accuracy: numbers of others are not repeated here",
        ),
        claim="techniques of different axes save different things: parameters, FLOPs, bytes of weights or of the cache",
        limits=(
            "activations are not counted among the bytes: a kernel may keep them on chip, or not",
            "experts that several tokens choose are taken to be chosen evenly at random",
            "the roofline is a bound from a maker's numbers, and no measurement",
        ),
    ),
)
