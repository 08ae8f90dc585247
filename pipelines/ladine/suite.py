"""What a classifier is put to: every corruption and the attacks; and what answers: the mixture and its plain parts.

The first two attacks and the third climb on the encoder, as the paper's do, so they only transfer to the mixture; the
last climbs on the mapping networks, through which the mixture can be attacked where its sampling hides gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

import torch

from ...errors import UnknownNameError
from ...registry import suggestion
from .corruptions import CORRUPTIONS, attack
from .sampling import averaged

Attack = Callable[[Any, torch.Tensor, torch.Tensor], torch.Tensor]
"""Pipeline, pictures and classes to worse pictures."""

SEED = 5
"""Of corruptions that draw, and of the samples of an answer."""


def _on_encoder(pipe: Any, images: torch.Tensor, classes: torch.Tensor, **settings: Any) -> torch.Tensor:
    return attack(images, classes, lambda moved: pipe.encoder(moved).log_softmax(-1), **settings)


def _on_mapping(pipe: Any, images: torch.Tensor, classes: torch.Tensor, **settings: Any) -> torch.Tensor:
    return attack(images, classes, lambda moved: pipe.guess(moved).mean(0).clamp(min=1e-12).log(), **settings)


ATTACKS: dict[str, Attack] = {
    "fgsm-3": partial(_on_encoder, radius=0.03),
    "fgsm-10": partial(_on_encoder, radius=0.1),
    "pgd-10": partial(_on_encoder, radius=0.1, steps=10),
    "pgd-10-mapping": partial(_on_mapping, radius=0.1, steps=10),
}

WAYS: Mapping[str, str] = {
    "vit": "plain ViT",
    "temperature": "ViT, temperature-scaled",
    "mapping": "mapping networks, averaged",
    "member": "one member",
    "paper": "LaDiNE, averaged as in the paper",
    "ladine": "LaDiNE",
}
"""Ways to read a picture that one pipeline holds, and what they are called; the first is what others are held to."""


def suite(
    pipe: Any, images_BCYX: torch.Tensor, classes_B: torch.Tensor, names: Collection[str] | None = None
) -> dict[str, torch.Tensor]:
    """The pictures under every corruption and attack, by name, or under those of `names`.

    Raises: UnknownNameError for a name that is neither.
    """
    known = [*CORRUPTIONS, *ATTACKS]
    for name in names or ():
        if name not in known:
            raise UnknownNameError(f"no corruption '{name}'{suggestion(name, known)}")
    made = {}
    for name in known:
        if names is not None and name not in names:
            continue
        if name in ATTACKS:
            made[name] = ATTACKS[name](pipe, images_BCYX, classes_B)
        else:
            made[name] = CORRUPTIONS[name](images_BCYX, torch.Generator().manual_seed(SEED))
    return made


@torch.no_grad()
def ways_of(pipe: Any, images_BCYX: torch.Tensor, made: Any) -> dict[str, torch.Tensor]:
    """Probabilities (B, C) of each of WAYS; `made` is what the pipeline said to the same pictures."""
    logits, iota = pipe.encoder(images_BCYX), pipe.config["iota"]["probabilities"]
    alone = made.labels[: len(made.labels) // pipe.mapping.members]
    return {
        "vit": logits.softmax(-1),
        "temperature": (logits / pipe.config["temperature"]).softmax(-1),
        "mapping": pipe.guess(images_BCYX).mean(0),
        "member": averaged(alone, iota, "probabilities"),
        "paper": averaged(made.labels, pipe.config["iota"]["labels"], "labels"),
        "ladine": averaged(made.labels, iota, "probabilities"),
    }


def ask(pipe: Any, images_BCYX: torch.Tensor, *, steps: int, samples: int | None = None) -> Any:
    """What the pipeline says, with the same draws at every call."""
    drawn = torch.Generator().manual_seed(SEED)
    return pipe(images_BCYX, num_inference_steps=steps, samples=samples, generator=drawn)
