"""Noise augmentation in a cascade, measured: `python task3_conditional/results/cascade.py [--n N] [--out FOLDER]`.

Two second stages, which differ in `given.noise` alone, enlarge the same small pictures: real ones, and such as first
stages of different quality have drawn. What is found goes to FOLDER/cascade.json, and the table is printed.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from torch import Tensor

from shared.errors import UserError
from shared.files import write_text
from shared.metrics.report import judge_labelled
from shared.schedulers.config import GuidanceConfig
from task3_conditional.editing_measures import right
from task3_conditional.given import averaged, enlarged
from task3_conditional.model import RESULTS, Model
from task3_conditional.model import load as load_model
from task3_conditional.results.edits import digits, save, table
from task3_conditional.super_resolution import upsampled

N = 500  # all that were held out, 50 of each class
LEVELS = (0.0, 0.05, 0.1, 0.2, 0.3)
SHOWN = ("without", "with, level 0", "with, level 0.1")
RUNS = {
    Path("runs/task3/sr-plain"): "--config task3_conditional/configs/sr.yaml --given.noise 0 --run.name sr-plain",
    Path("runs/task3/small7"): "--config task3_conditional/configs/small7.yaml --run.name small7",
}


def drawn(first: Model, labels: Tensor, scale: float) -> Tensor:
    """Small digits of these classes, by a first stage."""
    return first.sample(first.told(len(labels), label=labels.tolist()), seed=0, guidance=GuidanceConfig(scale=scale))


def small(n: int) -> tuple[dict[str, Tensor], Tensor]:
    """What is to be enlarged, (n, 1, 7, 7) by where it comes from, and the classes (n,) of all of them."""
    real, labels = digits(n)
    first = load_model(RESULTS / "small7.safetensors")
    early = load_model(Path("runs/task3/small7/checkpoints/step-00000500.safetensors"))
    found = {
        "real": averaged(real, 4),
        "drawn, scale 1.5": drawn(first, labels, 1.5),
        "drawn, scale 1": drawn(first, labels, 1.0),
        "drawn after 500 steps, scale 1.5": drawn(early, labels, 1.5),
    }
    return found, labels


def figures(samples: Tensor, labels: Tensor) -> dict[str, float]:
    """Whether they are what was asked for, and how far from real digits."""
    judged = judge_labelled(samples, labels)
    report = judged["judged"]
    return {"judge_agreement": judged["agreement"], "judge_distance_over_floor": report["ratio"]}


def compared(low: Tensor, labels: Tensor, plain: Model, noised: Model) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Figures and samples of the second stage without augmentation, and of the one with it at each level.

    The same pictures are enlarged from the same noise: "gained" are those that the judge reads rightly only of the
    second stage in question, and "lost" those that it does only of the one without augmentation.
    """
    samples = {"without": upsampled(plain, low)}
    samples |= {f"with, level {level:g}": upsampled(noised, low, level=level) for level in LEVELS}
    before, found = right(samples["without"], labels), {}
    for name, images in samples.items():
        after = right(images, labels)
        counts = {"gained": int((after & ~before).sum()), "lost": int((before & ~after).sum())}
        found[name] = {**figures(images, labels), **({} if name == "without" else counts)}
    return found, samples


def main() -> None:
    """Measure, and keep what is found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=N)
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    for run, options in RUNS.items():
        if not run.exists():
            raise UserError(f"there is no {run}: task3-train {options}")
    plain, noised = load_model(next(iter(RUNS))), load_model(RESULTS / "sr.safetensors")
    lows, labels = small(asked.n)
    found, rows = {}, []
    for name, low in lows.items():
        found[name], samples = compared(low, labels, plain, noised)
        print(f"{name}\n\n{table(found[name])}", flush=True)
        if name != "real":
            rows += [enlarged(low, 4, "nearest"), *(samples[shown] for shown in SHOWN)]
    save("cascade", rows, asked.out)
    write_text(asked.out / "cascade.json", json.dumps({"n": asked.n, "found": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
