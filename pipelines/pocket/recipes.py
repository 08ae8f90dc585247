"""The pocket pipelines that we ship or can train: what each makes, how it is called, checked and trained again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from .pocket import POCKETS, Pocket, Split


def scaled(recipe: Any, budget: float | None) -> Any:
    """`recipe` with all its steps multiplied by `budget`; None leaves it."""
    from .training import FitSettings

    if budget is None:
        return recipe
    runs = {f.name: getattr(recipe, f.name) for f in fields(recipe)}
    return replace(
        recipe,
        **{
            name: replace(run, steps=max(1, round(run.steps * budget)))
            for name, run in runs.items()
            if isinstance(run, FitSettings)
        },
    )


def _digit_prompts(count: int, split: Split) -> list[int]:
    # What is new to a class-conditional model is the noise; the first class differs so that batches of splits do too.
    first = {"held_out": 0, "train": 3, "calibration": 7}[split]
    return [(first + index) % 10 for index in range(count)]


def _check_digits(media: Sequence[Any], prompts: Sequence[Any]) -> list[dict[str, float]]:
    from .digits import check_digits

    return check_digits(media, prompts)


def _digit_features(media: Sequence[Any]) -> Any:
    from .digits import digit_features

    return digit_features(media)


def _train_dit(
    folder: Path, *, budget: float | None = None, device: str = "cpu", progress: bool = True
) -> tuple[Any, dict[str, Any]]:
    from .dit import DiTRecipe, train_dit

    return train_dit(folder, scaled(DiTRecipe(), budget), device=device, progress=progress)


def _train_lego(
    folder: Path, *, budget: float | None = None, device: str = "cpu", progress: bool = True
) -> tuple[Any, dict[str, Any]]:
    from .lego import LegoRecipe, train_lego

    return train_lego(folder, scaled(LegoRecipe(), budget), device=device, progress=progress)


def _scene_prompts(count: int, split: Split) -> list[str]:
    from .scenes import scene_captions

    return scene_captions(count, split)


def _check_scenes(media: Sequence[Any], prompts: Sequence[Any]) -> list[dict[str, float]]:
    from .scenes import check_scenes

    return check_scenes(media, prompts)


def _train_flux(
    folder: Path, *, budget: float | None = None, device: str = "cpu", progress: bool = True
) -> tuple[Any, dict[str, Any]]:
    from .flux import FluxRecipe, train_flux

    return train_flux(folder, scaled(FluxRecipe(), budget), device=device, progress=progress)


def _check_large_scenes(media: Sequence[Any], prompts: Sequence[Any]) -> list[dict[str, float]]:
    from .flux_large import check_large_scenes

    return check_large_scenes(media, prompts)


def _train_flux_large(
    folder: Path, *, budget: float | None = None, device: str = "cpu", progress: bool = True
) -> tuple[Any, dict[str, Any]]:
    from .flux_large import LARGE, train_flux_large

    return train_flux_large(folder, scaled(LARGE, budget), device=device, progress=progress)


def _photo_prompts(count: int, split: Split) -> list[str]:
    # Every caption is trained on; what is new is the noise, as with digits.
    from .photographs import CAPTIONS

    first = {"held_out": 0, "train": 3, "calibration": 7}[split]
    return [CAPTIONS[(first + index) % len(CAPTIONS)] for index in range(count)]


def _unguided(prompts: Sequence[Any], seeds: Sequence[int]) -> dict[str, Any]:
    from .photo import unguided

    return unguided(prompts)


def _check_photographs(media: Sequence[Any], prompts: Sequence[Any]) -> list[dict[str, float]]:
    from .photographs import check_photographs

    return check_photographs(media, prompts)


def _train_photo(
    folder: Path, *, budget: float | None = None, device: str = "cpu", progress: bool = True
) -> tuple[Any, dict[str, Any]]:
    from .photo import PHOTO, train_photo

    return train_photo(folder, scaled(PHOTO, budget), device=device, progress=progress)


def _clip_prompts(count: int, split: Split) -> list[str]:
    from .clips import prompts

    return prompts(count, split)


def _check_clips(media: Sequence[Any], prompts: Sequence[Any]) -> list[dict[str, float]]:
    from .clips import check

    return check(list(media), list(prompts))


def _train_wan(
    folder: Path, *, budget: float | None = None, device: str = "cpu", progress: bool = True
) -> tuple[Any, dict[str, Any]]:
    from .wan import WanRecipe, train_wan

    return train_wan(folder, scaled(WanRecipe(), budget), device=device, progress=progress)


def _check_long_clips(media: Sequence[Any], prompts: Sequence[Any]) -> list[dict[str, float]]:
    from .wan_long import check_long_clips

    return check_long_clips(media, prompts)


def _train_wan_long(
    folder: Path, *, budget: float | None = None, device: str = "cpu", progress: bool = True
) -> tuple[Any, dict[str, Any]]:
    from .wan_long import WanLongRecipe, train_wan_long

    return train_wan_long(folder, scaled(WanLongRecipe(), budget), device=device, progress=progress)


def _task_prompts(count: int, split: Split) -> list[str]:
    from ..vdt import TASKS

    tasks, first = list(TASKS), {"held_out": 0, "train": 3, "calibration": 5}[split]
    return [tasks[(first + index) % len(tasks)] for index in range(count)]


def _known_clips(prompts: Sequence[Any], seeds: Sequence[int]) -> dict[str, Any]:
    from ..vdt import TASKS
    from .moving_digits import known_clips

    return {"frames": known_clips(seeds)} if any(TASKS[task].knows for task in prompts) else {}


def _check_moving_digits(media: Sequence[Any], prompts: Sequence[Any]) -> list[dict[str, float]]:
    from .moving_digits import check_moving_digits

    return check_moving_digits(media, prompts)


def _train_vdt(
    folder: Path, *, budget: float | None = None, device: str = "cpu", progress: bool = True
) -> tuple[Any, dict[str, Any]]:
    from .vdt import VDTRecipe, train_vdt

    return train_vdt(folder, scaled(VDTRecipe(), budget), device=device, progress=progress)


def _shape_prompts(count: int, split: Split) -> list[str]:
    from .shapes import SHAPES

    first = {"held_out": 0, "train": 1, "calibration": 2}[split]
    return [SHAPES[(first + index) % len(SHAPES)] for index in range(count)]


def _check_shapes(media: Sequence[Any], prompts: Sequence[Any]) -> list[dict[str, float]]:
    from .shapes import check_shapes

    return check_shapes(media, prompts)


def _train_dit3d(
    folder: Path, *, budget: float | None = None, device: str = "cpu", progress: bool = True
) -> tuple[Any, dict[str, Any]]:
    from .dit3d import DiT3DRecipe, train_dit3d

    return train_dit3d(folder, scaled(DiT3DRecipe(), budget), device=device, progress=progress)


DIGITS = (
    "the 1797 digits of 8 x 8 pixels that come with scikit-learn (UCI Optical Recognition of Handwritten Digits, "
    "E. Alpaydin and C. Kaynak, 1998, CC BY 4.0), enlarged to 32 x 32, turned, shifted and inked in random hues"
)
"""What the pockets of digits are trained on."""


def _ladine_prompts(count: int, split: Split) -> list[str]:
    from .ladine import digit_prompts

    return digit_prompts(count, split)


def _ladine_pictures(prompts: Sequence[Any], seeds: Sequence[int]) -> dict[str, Any]:
    from .ladine import pictures_of

    return pictures_of(prompts, seeds)


def _check_charts(media: Sequence[Any], prompts: Sequence[Any]) -> list[dict[str, float]]:
    from .ladine import check_charts

    return check_charts(media, prompts)


def _train_ladine(
    folder: Path, *, budget: float | None = None, device: str = "cpu", progress: bool = True
) -> tuple[Any, dict[str, Any]]:
    from .ladine import LadineRecipe, train_ladine

    return train_ladine(folder, scaled(LadineRecipe(), budget), device=device, progress=progress)


POCKETS.add(
    "dit",
    Pocket(
        name="dit",
        summary="handwritten digits by class, in colour, 32 x 32",
        kind="image",
        example="0",
        prompts=_digit_prompts,
        check=_check_digits,
        features=_digit_features,
        train=_train_dit,
        call={"guidance_scale": 4.0},
        prompt_argument="class_labels",
        bar={"digit": 0.95},
        data=DIGITS,
    ),
)
POCKETS.add(
    "lego",
    Pocket(
        name="lego",
        summary="handwritten digits by class from three bricks that can be left out, 32 x 32 or any larger size",
        kind="image",
        example="0",
        prompts=_digit_prompts,
        check=_check_digits,
        features=_digit_features,
        train=_train_lego,
        call={"guidance_scale": 3.0},
        prompt_argument="class_labels",
        steps=20,
        bar={"digit": 0.90},
        data=DIGITS,
    ),
)
POCKETS.add(
    "flux",
    Pocket(
        name="flux",
        summary="captioned scenes of one or two coloured shapes, 48 x 48",
        kind="image",
        example="a green circle right of a blue circle on black",
        prompts=_scene_prompts,
        check=_check_scenes,
        train=_train_flux,
        call={"height": 48, "width": 48, "max_sequence_length": 12, "guidance_scale": 1.0},
        bar={"colour": 0.90, "shape": 0.80},
        data="procedural scenes drawn by `outpace.pipelines.pocket.scenes`; 10 of the 78 pairs of things were held out",
    ),
)
POCKETS.add(
    "flux-large",
    Pocket(
        name="flux-large",
        summary="the scenes of flux at 256 x 256, with blocks heavy enough to time",
        kind="image",
        example="a green circle right of a blue circle on black",
        prompts=_scene_prompts,
        check=_check_large_scenes,
        train=_train_flux_large,
        call={"height": 256, "width": 256, "max_sequence_length": 12, "guidance_scale": 1.0},
        data="procedural scenes drawn by `outpace.pipelines.pocket.scenes`; 10 of the 78 pairs of things were held out",
    ),
)
POCKETS.add(
    "photo",
    Pocket(
        name="photo",
        summary="crops of ten photographs, 128 x 128, guided: harder than drawn scenes",
        kind="image",
        example="brick from near",
        prompts=_photo_prompts,
        given=_unguided,
        check=_check_photographs,
        train=_train_photo,
        call={"height": 128, "width": 128, "max_sequence_length": 12, "guidance_scale": 1.0, "true_cfg_scale": 6.0},
        bar={"subject": 0.80},
        data="crops of photographs that come with scikit-image (brick, cat, coffee, coins, grass, gravel, rocket and "
        "stars: CC0, public domain or no known restrictions) and scikit-learn (flower and temple: danielbuechele and "
        "vultilion, CC BY 2.0)",
    ),
)
POCKETS.add(
    "wan",
    Pocket(
        name="wan",
        summary="captioned clips of one moving shape, 9 frames of 32 x 32",
        kind="video",
        example="a purple circle moves right quickly",
        prompts=_clip_prompts,
        check=_check_clips,
        train=_train_wan,
        call={"height": 32, "width": 32, "num_frames": 9, "max_sequence_length": 8, "guidance_scale": 3.0},
        bar={"direction": 0.90, "colour": 0.90},
        data="procedural clips drawn by `outpace.pipelines.pocket.clips`; 24 of the 144 captions were held out",
    ),
)
POCKETS.add(
    "wan-long",
    Pocket(
        name="wan-long",
        summary="captioned clips of one moving shape, 33 frames of 64 x 64: attention over 4352 tokens",
        kind="video",
        example="a purple circle moves right quickly",
        prompts=_clip_prompts,
        check=_check_long_clips,
        train=_train_wan_long,
        call={"height": 64, "width": 64, "num_frames": 33, "max_sequence_length": 8, "guidance_scale": 3.0},
        steps=30,
        bar={"colour": 0.85},
        data="procedural clips drawn by `outpace.pipelines.pocket.clips` in front of soft random textures; 24 of the "
        "144 captions were held out",
    ),
)
POCKETS.add(
    "vdt",
    Pocket(
        name="vdt",
        summary="clips of a moving digit, 8 frames of 16 x 16: predicted, interpolated, animated, completed or new",
        kind="video",
        example="unconditional",
        prompts=_task_prompts,
        given=_known_clips,
        check=_check_moving_digits,
        train=_train_vdt,
        prompt_argument="task",
        bar={"digit": 0.65, "same": 0.60},
        data="procedural clips drawn by `outpace.pipelines.pocket.moving_digits`; known frames are drawn from the seed",
    ),
)
POCKETS.add(
    "dit3d",
    Pocket(
        name="dit3d",
        summary="point clouds of spheres, boxes, tori and cylinders, 256 points",
        kind="image",
        example="sphere",
        prompts=_shape_prompts,
        check=_check_shapes,
        train=_train_dit3d,
        call={"guidance_scale": 1.5},
        prompt_argument="class_labels",
        bar={"shape": 0.80},
        data="procedural clouds drawn by `outpace.pipelines.pocket.shapes`",
    ),
)
POCKETS.add(
    "ladine",
    Pocket(
        name="ladine",
        summary="charts of what a handwritten digit may be, with probabilities and intervals, clean or made worse",
        kind="image",
        example="0 clean",
        prompts=_ladine_prompts,
        given=_ladine_pictures,
        forecasts=False,
        check=_check_charts,
        train=_train_ladine,
        prompt_argument="pictures",
        steps=20,
        bar={"digit": 0.60},
        data="the 1797 digits of 8 x 8 pixels that come with scikit-learn (UCI Optical Recognition of Handwritten "
        "Digits, E. Alpaydin and C. Kaynak, 1998, CC BY 4.0): 1200 train, 300 calibrate, 297 test",
    ),
)
