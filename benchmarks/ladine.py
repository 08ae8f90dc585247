"""LaDiNE beside its rivals on digits, clean, corrupted and attacked: three trainings of everything.

    make bench-ladine     # or: python benchmarks/ladine.py [--seeds COUNT] [--budget FACTOR] [--out FOLDER]

Rivals: the plain ViT (it is LaDiNE's own encoder), the same temperature-scaled, three ViTs averaged (a deep ensemble),
the mapping networks averaged without diffusion, one member of the mixture, and one member guided by the ViT's own
answer as CARD is. All are trained on the same 1200 digits with the same augmentation, and whatever is calibrated is
calibrated on the same 300 clean ones. Attacks climb on the ViT of the seed, the last on its mapping networks.

Checkpoints and answers stay in out/bench/ladine, so that an interrupted run goes on. Writes
benchmarks/results/ladine.json and docs/results_ladine.md. One thread, about ten minutes of processor time.
"""

from __future__ import annotations

import argparse
import io
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch

from outpace.evaluation.atomic import make_folder, write_json
from outpace.evaluation.calibration import CLEAN, calibration_results
from outpace.evaluation.records import fingerprint
from outpace.evaluation.report.calibration import calibration_markdown
from outpace.files import write_bytes, write_text
from outpace.pipelines.ladine import LadineDenoiser, LadinePipeline
from outpace.pipelines.ladine.calibration import fit_iota
from outpace.pipelines.ladine.sampling import averaged, draw_labels
from outpace.pipelines.ladine.suite import SEED, WAYS, ask, suite, ways_of
from outpace.pipelines.ladine.training import train_encoder, train_members
from outpace.pipelines.pocket.ladine import (
    SIDE,
    STEPS,
    LadineRecipe,
    build_encoder,
    draw_strokes,
    held_out_digits,
    train_mixture,
)
from outpace.pipelines.pocket.recipes import scaled

ROOT = Path(__file__).resolve().parent.parent
ENSEMBLE = 3
"""ViTs of the deep ensemble, as many as LaDiNE has members."""
ALL_STEPS, FEW_STEPS = 100, 10
LABELS = {
    "vit": WAYS["vit"],
    "temperature": WAYS["temperature"],
    "ensemble": f"{ENSEMBLE} ViTs averaged",
    "card": "one member on the ViT's answer",
    "mapping": WAYS["mapping"],
    "member": WAYS["member"],
    "paper": WAYS["paper"],
    "ladine": f"LaDiNE, {STEPS} steps",
    "ladine-few": f"LaDiNE, {FEW_STEPS} steps",
    "ladine-all": f"LaDiNE, {ALL_STEPS} steps",
}


def train_vits(recipe: LadineRecipe, folder: Path) -> list[Any]:
    """The ViTs of one seed; the first is LaDiNE's encoder."""
    vits = []
    for place in range(ENSEMBLE):
        run = replace(recipe.encoder, seed=recipe.encoder.seed + 10 * place)
        vit = build_encoder(replace(recipe, encoder=run))
        name = "encoder" if place == 0 else f"rival-{place}"
        train_encoder(vit, draw_strokes, run, folder, name=name, progress=sys.stderr.isatty())
        vits.append(vit)
    return vits


class Card:
    """One diffusion member guided by the answer of a plain ViT, as Han et al., 2022, arXiv:2206.07275, have it."""

    def __init__(self, pipe: LadinePipeline, recipe: LadineRecipe, folder: Path) -> None:
        self.encoder, self.scheduler = pipe.encoder, pipe.scheduler
        pictures, classes = draw_strokes(recipe.pictures, torch.Generator().manual_seed(recipe.denoiser.seed))
        torch.manual_seed(recipe.denoiser.seed)
        self.denoiser = LadineDenoiser(members=1, sample_size=SIDE, num_train_timesteps=recipe.times)
        with torch.no_grad():
            guided = torch.cat([self.guess(part) for part in pictures.split(512)], 1)
        train_members(
            self.denoiser,
            self.scheduler,
            pictures,
            classes,
            guided,
            recipe.denoiser,
            folder,
            name="card",
            progress=sys.stderr.isatty(),
        )
        clean, right = held_out_digits("calibration")
        self.iota = fit_iota(self.labels(clean), right)

    @torch.no_grad()
    def guess(self, images: torch.Tensor) -> torch.Tensor:
        return self.encoder(images).softmax(-1)[None]

    def labels(self, images: torch.Tensor) -> torch.Tensor:
        # As many samples as the mixture draws in all, so that it does not lose for want of them.
        return draw_labels(
            self.denoiser,
            self.scheduler,
            images,
            self.guess(images),
            samples=60,
            steps=STEPS,
            generator=torch.Generator().manual_seed(SEED),
        )

    def probabilities(self, images: torch.Tensor) -> torch.Tensor:
        return averaged(self.labels(images), self.iota, "probabilities")


def run_seed(seed: int, budget: float | None, home: Path) -> tuple[dict[str, dict[str, Any]], dict[str, float]]:
    """Probabilities of every way under every corruption, and figures on the intervals and the members."""
    recipe: LadineRecipe = scaled(LadineRecipe().of_seed(seed), budget)
    folder = make_folder(home / f"seed-{seed}")
    vits = train_vits(recipe, folder)
    pipe, _ = train_mixture(vits[0], recipe, folder, progress=sys.stderr.isatty())
    card = Card(pipe, recipe, folder)
    pictures, classes = held_out_digits("test")
    mark = fingerprint(asdict(recipe), list(LABELS.items()), STEPS, FEW_STEPS, ALL_STEPS, SEED)
    cells: dict[str, dict[str, np.ndarray]] = {}
    for name, worse in suite(pipe, pictures, classes).items():
        path = folder / f"{name}.npz"
        cell = read_cell(path, mark)
        if cell is None:
            cell = measure(pipe, vits, card, worse, recipe.members)
            write_cell(path, mark, cell)
            print(f"seed {seed}, {name}: done", file=sys.stderr, flush=True)
        cells[name] = cell
    chosen = {name: torch.tensor(cell["ladine"]).argmax(1) for name, cell in cells.items()}
    worse = [name for name in cells if name != CLEAN]
    width = torch.cat([torch.tensor(cells[name]["width"]).gather(1, chosen[name][:, None])[:, 0] for name in worse])
    good = torch.cat([chosen[name] == classes for name in worse])
    figures = {
        "width_wrong": float(width[~good].mean()),
        "width_right": float(width[good].mean()),
        "auroc": auroc(-width, good),
        "members_disagree": float(np.mean([cell["apart"] for cell in cells.values()])),
        "iota": pipe.config["iota"]["probabilities"],
        "temperature": pipe.config["temperature"],
        "card_iota": card.iota,
    }
    return {name: {way: cell[way] for way in LABELS} for name, cell in cells.items()}, figures


def measure(
    pipe: LadinePipeline, vits: list[Any], card: Card, worse: torch.Tensor, members: int
) -> dict[str, np.ndarray]:
    """Probabilities of every way for the same pictures, how wide LaDiNE's samples lie, where its members disagree."""
    said = ask(pipe, worse, steps=STEPS)
    found = ways_of(pipe, worse, said)
    with torch.no_grad():
        found["ensemble"] = torch.stack([vit(worse).softmax(-1) for vit in vits]).mean(0)
    found["card"] = card.probabilities(worse)
    for way, steps in (("ladine-few", FEW_STEPS), ("ladine-all", ALL_STEPS)):
        found[way] = ask(pipe, worse, steps=steps).probabilities
    each = said.labels.unflatten(0, (members, -1)).mean(1).argmax(-1)
    found |= {"width": said.width, "apart": (each != each[0]).any(0)}
    return {key: value.double().numpy() for key, value in found.items()}


def read_cell(path: Path, mark: str) -> dict[str, np.ndarray] | None:
    """What was kept of a corruption; None where nothing was, or of other settings."""
    if not path.is_file():
        return None
    with np.load(path) as held:
        return {key: held[key] for key in held.files} if str(held["mark"]) == mark else None


def write_cell(path: Path, mark: str, cell: dict[str, np.ndarray]) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, mark=np.array(mark), **cell)  # pyright: ignore[reportArgumentType]
    write_bytes(path, buffer.getvalue())


def auroc(score: torch.Tensor, positive: torch.Tensor) -> float:
    """Chance that a positive scores higher than another; ties count half."""
    above = score[positive][:, None] - score[~positive][None]
    return float(((above > 0).float() + 0.5 * (above == 0).float()).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description="LaDiNE beside its rivals on digits.")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--budget", type=float, help="multiplies all steps of training; 0.02 is a rehearsal")
    parser.add_argument("--work", type=Path, default=ROOT / "out" / "bench" / "ladine", help="checkpoints")
    parser.add_argument("--out", type=Path, help="where both files go, instead of their places in the repository")
    options = parser.parse_args()
    torch.set_num_threads(1)
    runs, figures = {}, {}
    for seed in range(options.seeds):
        runs[seed], figures[seed] = run_seed(seed, options.budget, options.work)
    _, classes = held_out_digits("test")
    mean = {key: float(np.mean([one[key] for one in figures.values()])) for key in figures[0]}
    results = calibration_results(
        runs,
        classes.numpy(),
        LABELS,
        title="LaDiNE on digits: accuracy and calibration",
        command=" ".join(["python benchmarks/ladine.py", *sys.argv[1:]]),
        notes=[
            "Every way is trained on the same 1200 digits and calibrated, where it is, on the same 300 clean ones. "
            "fgsm and pgd climb on the ViT of the seed and only transfer to the ways that are not that ViT; "
            "pgd-10-mapping climbs on the mapping networks.",
            f"The middle 95 % of LaDiNE's samples of the chosen class (CPIW) are {mean['width_right']:.2f} wide on "
            f"corrupted pictures that it reads rightly and {mean['width_wrong']:.2f} on others; as a score of "
            f"correctness its AUROC is {mean['auroc']:.2f}. Members disagree on {100 * mean['members_disagree']:.0f} % "
            "of pictures.",
        ],
    )
    results["figures"] = figures
    home = options.out
    write_json((make_folder(home) if home else ROOT / "benchmarks" / "results") / "ladine.json", results, indent=1)
    text = calibration_markdown(results)
    write_text((home or ROOT / "docs") / "results_ladine.md", text)
    print(text)


if __name__ == "__main__":
    main()
