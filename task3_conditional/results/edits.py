"""The figures and pictures of editing: `python task3_conditional/results/edits.py [NAME ...] [--out FOLDER]`.

Each name is one experiment on held-out digits; without a name, all. What is found goes to FOLDER/edits.json, beside
what was found before, and the tables are printed.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from shared import pictures
from shared.datasets import DataConfig, load
from shared.datasets.held_out import chosen, held_out
from shared.datasets.ranges import to_unit
from shared.errors import UserError
from shared.files import write_text
from shared.metrics.edges import consistency_rmse, edge_f1
from shared.metrics.reconstruction import psnr
from task3_conditional.control_model import controlled, hinted, load_control
from task3_conditional.editing_measures import (
    agreement,
    control_figures,
    inpainting_figures,
    super_resolution_figures,
)
from task3_conditional.given import averaged, enlarged, grey
from task3_conditional.hints import HINTS
from task3_conditional.inpainting import fill, inpaint, mean_filled, on_canvas, outpaint, steps_of
from task3_conditional.model import RESULTS
from task3_conditional.model import load as load_model
from task3_conditional.redrawing import redrawn
from task3_conditional.super_resolution import bicubic, colourise, consistent, enlarge, upsampled

N = 200  # held-out digits, 20 of each class
COUNTS = {"strength": 100, "colour": 100}  # of other experiments
SHOWN = 10
BORDERS = (6, 8, 10)  # pixels of 28 that are hidden on each side


def digits(n: int = N) -> tuple[Tensor, Tensor]:
    """Held-out digits (n, 1, 28, 28), of all classes in turn, and their labels."""
    data = load(DataConfig(name="digits", split="test"))
    order = data.labels.argsort(stable=True).view(10, -1).T.flatten()[:n]
    return to_unit(data.images[order]), data.labels[order]


def edges(images: Tensor) -> Tensor:
    """Edge maps, bool."""
    return HINTS["edges"](images) > 0


def save(name: str, rows: list[Tensor], out: Path) -> None:
    """A sheet: a row for each."""
    pictures.save(pictures.grid(torch.cat([row[:SHOWN].clamp(-1, 1) for row in rows]), SHOWN, 2), out / f"{name}.png")


def control(out: Path) -> dict[str, Any]:
    """ControlNet by edges, on the model by class; and one control against two."""
    real, labels = digits()
    hints = {kind: HINTS[kind](real) for kind in ("edges", "low")}
    one = load_control(RESULTS / "controlnet.safetensors")
    base = one.base.sample(one.base.told(N, label=labels.tolist()), seed=0)
    model = controlled([one])
    samples = model.sample(hinted([one], {"edges": hints["edges"]}, model.told(N, label=labels.tolist())), seed=0)
    found = {"edges": control_figures(samples, base, real, labels, edges)}
    rows = [hints["edges"], samples]
    untold = model.sample(hinted([one], {"edges": hints["edges"]}, model.told(N)), seed=0)
    found["edges, no class told"] = control_figures(untold, base, real, labels, edges)
    second = Path("runs/task3-controlnet/low")
    if not second.exists():
        raise UserError(f"there is no {second}: task3-train-controlnet --hint low --train.steps 1200 --run.name low")
    two, small = load_control(second, one.base), averaged(real, 4)
    found["edges"]["consistency_rmse"] = consistency_rmse(samples, small)
    for weights in ([1.0, 1.0], [0.0, 1.0], [0.5, 0.5]):
        both = controlled([one, two], weights)
        drawn = both.sample(hinted([one, two], hints, both.told(N, label=labels.tolist())), seed=0)
        figures = control_figures(drawn, base, real, labels, edges)
        name = f"edges x {weights[0]:g} and low x {weights[1]:g}"
        found[name] = {**figures, "consistency_rmse": consistency_rmse(drawn, small)}
        rows.append(drawn)
    save("control", [*rows, real], out)
    return found


def super_resolution(out: Path) -> dict[str, Any]:
    """7×7 to 28×28."""
    real, labels = digits()
    low, model = averaged(real, 4), load_model(RESULTS / "sr.safetensors")
    plain = upsampled(model, low)
    found = {
        "enlarged": super_resolution_figures(enlarge(model, low), real, low, labels),
        "without the consistency step": super_resolution_figures(plain, real, low, labels),
        "bicubic, made consistent": super_resolution_figures(consistent(bicubic(low, 4), low, 4), real, low, labels),
    }
    for steps in (5, 50):
        found[f"{steps} steps"] = super_resolution_figures(enlarge(model, low, steps=steps), real, low, labels)
    save(
        "enlarged",
        [enlarged(low, 4, "nearest"), bicubic(low, 4), enlarge(model, low), real],
        out,
    )
    return found


def augmentation(out: Path) -> dict[str, Any]:
    """The level of noise on what a cascade's second stage is given: for clean pictures, and for such with errors."""
    real, labels = digits()
    model, found = load_model(RESULTS / "sr.safetensors"), {}
    low = averaged(real, 4)
    poor = (low + 0.2 * torch.randn(low.shape, generator=torch.Generator().manual_seed(0))).clamp(-1, 1)
    for name, given in (("clean", low), ("with errors of 0.2", poor)):
        for level in (0.0, 0.1, 0.2, 0.3):
            samples = upsampled(model, given, level=level)
            found[f"{name}, level {level:g}"] = {
                "judge_agreement": agreement(samples, labels),
                "psnr": super_resolution_figures(samples, real, low, labels)["psnr"],
            }
    return found


def hidden_half(out: Path) -> dict[str, Any]:
    """The right half of digits painted: by a model that is told, and by RePaint, at several costs."""
    real, labels = digits()
    mask = torch.zeros(1, 1, 28, 28, dtype=torch.bool)
    mask[..., :14] = True
    told, found, rows = load_model(RESULTS / "inpaint.safetensors"), {}, [real.where(mask, 0.0)]
    blind = load_model()

    def measure(name: str, paint: Callable[[], Tensor], calls: int) -> None:
        begun = time.perf_counter()
        samples = paint()
        seconds = time.perf_counter() - begun
        found[name] = {**inpainting_figures(samples, real, mask, labels), "calls": calls, "seconds": seconds}
        rows.append(samples)

    open_class, named = told.told(N), told.told(N, label=labels.tolist())
    measure("told, class not", lambda: fill(told, open_class, real, mask), told.config.sampling.steps)
    measure("told, class too", lambda: fill(told, named, real, mask), told.config.sampling.steps)
    for resample in (1, 2, 5, 10):
        options = {"resample": resample, "jump": 5, "steps": 25}
        measure(
            f"RePaint, {resample}",
            lambda o=options: inpaint(blind, blind.told(N), real, mask, **o),
            steps_of(blind, 25, resample, 5),
        )
    options, whole = {"resample": 5, "jump": 5, "steps": 25}, blind.told(N, label=labels.tolist())
    measure("RePaint, 5, class too", lambda: inpaint(blind, whole, real, mask, **options), steps_of(blind, 25, 5, 5))
    rows.append(mean_filled(real, mask))
    save("painted", [*rows, real], out)
    return found


def hidden_border(out: Path) -> dict[str, Any]:
    """Outpainting: of digits the middle is known, and as many pixels on each side are painted around it."""
    real, labels = digits()
    told, blind, found, rows = load_model(RESULTS / "inpaint.safetensors"), load_model(), {}, []
    for wide in BORDERS:
        middle = real[..., wide:-wide, wide:-wide]
        canvas, mask = on_canvas(middle, (28, 28))
        painted = {
            "told": outpaint(told, told.told(N), middle, by=fill),
            "RePaint, 5": outpaint(blind, blind.told(N), middle, resample=5, jump=5, steps=25),
        }
        for name, samples in painted.items():
            found[f"{name}, {wide} pixels"] = inpainting_figures(samples, real, mask, labels)
        rows += [canvas, *painted.values()]
    save("outpainted", [*rows, real], out)
    return found


def colour(out: Path) -> dict[str, Any]:
    """Scenes without their colours, coloured; against leaving them grey."""
    model = load_model(RESULTS / "colour.safetensors")
    real = chosen(held_out(model)[0], COUNTS["colour"])
    shades = grey(real)
    drawn, plain = colourise(model, shades), shades.expand_as(real)
    save("coloured", [plain, drawn, real], out)
    kept = (grey(drawn) - shades).square().mean().sqrt().item() / 2
    return {"coloured": {"psnr": psnr(drawn, real), "luminance_rmse": kept}, "left grey": {"psnr": psnr(plain, real)}}


def strength(out: Path) -> dict[str, Any]:
    """SDEdit towards another class: how much of the picture stays, and how often the class is the new one."""
    real, labels = digits(100)
    model, found, rows = load_model(), {}, [real]
    wanted = (labels + 1) % 10
    cond = model.told(len(real), label=wanted.tolist())
    for share in (0.2, 0.35, 0.5, 0.65, 0.8, 1.0):
        samples = redrawn(model, cond, real, share)
        found[f"{share:g}"] = {
            "judge_agreement": agreement(samples, wanted),
            "still": agreement(samples, labels),
            "edge_f1": edge_f1(edges(samples), edges(real)).f1,
        }
        rows.append(samples)
    save("strengths", rows, out)
    return found


EXPERIMENTS = {
    "control": control,
    "super_resolution": super_resolution,
    "augmentation": augmentation,
    "hidden_half": hidden_half,
    "hidden_border": hidden_border,
    "strength": strength,
    "colour": colour,
}


def table(found: dict[str, dict[str, Any]]) -> str:
    """Rows of figures as Markdown."""
    names = list(dict.fromkeys(name for figures in found.values() for name in figures))
    lines = [["", *names], ["---"] * (len(names) + 1)]
    for label, figures in found.items():
        cells = [figures.get(name) for name in names]
        lines.append([label, *("" if c is None else str(c) if isinstance(c, int) else f"{c:.3f}" for c in cells)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> None:
    """Run what is named, and keep what is found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[*EXPERIMENTS, []])
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    for name in asked.names or EXPERIMENTS:
        found = EXPERIMENTS[name](asked.out)
        file = asked.out / "edits.json"
        kept = json.loads(file.read_text()) if file.exists() else {}
        write_text(file, json.dumps(kept | {name: {"n": COUNTS.get(name, N), "found": found}}, indent=1) + "\n")
        print(f"{name}\n\n{table(found)}", flush=True)


if __name__ == "__main__":
    main()
