"""Sisters of the pockets that settings are chosen on: another seed, depth, width and split of the data, the same code.

A default, a preset or a weight that was chosen on `flux` fits `flux`. Figures are therefore reported on its sister
too, which nobody looks at while choosing. Sisters are not shipped; their recipes are here, and the fingerprints
of those that committed figures were taken with, and what their cards say, lie in SISTER_FACTS.
"""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...registry import Registry
from .pocket import POCKETS, Pocket, Split
from .recipes import scaled

SISTER_FACTS = Path(__file__).parent / "weights" / "sisters.json"
"""By name: "weights", the digest that results carry too, and the card; `benchmarks/run.py --sisters` writes it."""

SEED = 1000
"""Added to every seed of a pocket, that of its weights and those of its training."""


def dit_recipe() -> Any:
    """18 blocks of width 80 instead of 24 of width 64, trained on the last 1500 strokes instead of the first."""
    from .dit import DiTRecipe

    return _reseeded(replace(DiTRecipe(), blocks=18, heads=5, first_stroke=297))


def flux_recipe() -> Any:
    """3 double and 15 single blocks of width 112 instead of 4 and 20 of width 96; other pairs are held out."""
    from .flux import FluxRecipe

    plain = FluxRecipe()
    return _reseeded(
        replace(
            plain,
            autoencoder=replace(plain.autoencoder, steps=900),
            denoiser=replace(plain.denoiser, steps=1700),
            double_blocks=3,
            single_blocks=15,
            head_width=28,
            rope_axes=(4, 12, 12),
            fold=6,
        )
    )


def wan_recipe() -> Any:
    """16 blocks of width 96 instead of 20 of width 80; other captions are held out."""
    from .wan import WanRecipe

    plain = WanRecipe()
    return _reseeded(
        replace(
            plain,
            autoencoder=replace(plain.autoencoder, steps=1000),
            denoiser=replace(plain.denoiser, steps=800),
            blocks=16,
            heads=4,
            head_width=24,
            feed_forward=288,
            fold=4,
        )
    )


def photo_recipe() -> Any:
    """3 double and 15 single blocks of width 192 instead of 2 and 14 of width 256; crops from the right half only."""
    from .photo import PHOTO

    return _reseeded(
        replace(
            PHOTO,
            autoencoder=replace(PHOTO.autoencoder, steps=1600),
            denoiser=replace(PHOTO.denoiser, steps=1800),
            double_blocks=3,
            single_blocks=15,
            head_width=48,
            rope_axes=(12, 18, 18),
            left_from=0.5,
        )
    )


def _reseeded(recipe: Any) -> Any:
    from .training import FitSettings

    runs = {f.name: getattr(recipe, f.name) for f in fields(recipe)}
    return replace(
        recipe,
        seed=recipe.seed + SEED,
        **{name: replace(run, seed=run.seed + SEED) for name, run in runs.items() if isinstance(run, FitSettings)},
    )


def _train_dit(
    folder: Path, *, budget: float | None = None, device: str = "cpu", progress: bool = True
) -> tuple[Any, dict[str, Any]]:
    from .dit import train_dit

    return train_dit(folder, scaled(dit_recipe(), budget), device=device, progress=progress)


def _train_flux(
    folder: Path, *, budget: float | None = None, device: str = "cpu", progress: bool = True
) -> tuple[Any, dict[str, Any]]:
    from .flux import train_flux

    return train_flux(folder, scaled(flux_recipe(), budget), device=device, progress=progress)


def _train_photo(
    folder: Path, *, budget: float | None = None, device: str = "cpu", progress: bool = True
) -> tuple[Any, dict[str, Any]]:
    from .photo import train_photo

    whole = photo_recipe()
    return train_photo(folder, scaled(whole, budget), whole=whole, device=device, progress=progress)


def _train_wan(
    folder: Path, *, budget: float | None = None, device: str = "cpu", progress: bool = True
) -> tuple[Any, dict[str, Any]]:
    from .wan import train_wan

    return train_wan(folder, scaled(wan_recipe(), budget), device=device, progress=progress)


def _scene_prompts(count: int, split: Split) -> list[str]:
    from .scenes import scene_captions

    return scene_captions(count, split, fold=flux_recipe().fold)


def _clip_prompts(count: int, split: Split) -> list[str]:
    from .clips import prompts

    return prompts(count, split, fold=wan_recipe().fold)


SISTERS: Registry[Pocket] = Registry("sister")
"""By the name of the pocket that each is the sister of."""


def _add(name: str, **changes: Any) -> None:
    pocket = POCKETS[name]
    SISTERS.add(
        name, replace(pocket, name=f"{name}-sister", summary=f"{pocket.summary}; the sister of {name}", **changes)
    )


_add("dit", train=_train_dit)
_add(
    "flux",
    train=_train_flux,
    prompts=_scene_prompts,
    data="procedural scenes drawn by `outpace.pipelines.pocket.scenes`; 12 of the 78 pairs of things were held out",
)
_add("photo", train=_train_photo)
_add("wan", train=_train_wan, prompts=_clip_prompts)


def sister_of(name: str) -> Pocket:
    """The sister of the pocket `name`. Raises: UnknownNameError for no pocket; InputError where it has none."""
    POCKETS[name]
    if name not in SISTERS:
        raise InputError(f"the pocket '{name}' has no sister; these have one: {', '.join(SISTERS)}")
    return SISTERS[name]


def trained(name: str) -> Pocket:
    """The pocket or the sister that a card names ("flux", "flux-sister"). Raises: UnknownNameError for neither."""
    return SISTERS[name.removesuffix("-sister")] if is_sister(name) else POCKETS[name]


def is_sister(name: str) -> bool:
    """True for the name of a sister."""
    return name.endswith("-sister") and name.removesuffix("-sister") in SISTERS
