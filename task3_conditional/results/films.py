"""The figures of films: `python task3_conditional/results/films.py [--out FOLDER] [--frames F] [--seed S]`.

Every motion of some captions, with the defaults of `task3-animate` except what is asked for. What is found goes to
FOLDER/films.json, and is printed; with --sheets, FOLDER gets each film's frames and what they were cut from as well.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from shared import films, pictures
from shared.files import write_text
from task3_conditional.animate import AnimateConfig, filmed, told, told_around
from task3_conditional.editing_measures import animation_figures
from task3_conditional.model import COMMITTED_TEXT, RESULTS, Model, load
from task3_conditional.motion import MOTIONS

CAPTIONS = ("a red three above a blue seven", "a green four to the left of a red seven")
COLUMNS = ("loop_ratio", "worst_step", "seam_ratio", "seam_limit", "seam_beside", "seam_beside_limit", "seam_visible")


def measured(model: Model, caption: str, config: AnimateConfig, sheets: Path | None) -> dict[str, Any]:
    """The figures of one film."""
    begun = time.perf_counter()
    film = filmed(model, told(model, caption, None), told_around(config, model, caption), config, config.seed)
    seconds = time.perf_counter() - begun
    if sheets:
        name = f"{CAPTIONS.index(caption)}-{config.motion}"
        pictures.save(films.contact_sheet(film.clip, upscale=2), sheets / f"{name}.png")
        for number, canvas in enumerate(film.canvases):
            pictures.save(pictures.grid(canvas, upscale=4), sheets / f"{name}-canvas-{number}.png")
    figures = animation_figures(film.clip, film.canvases, film.pieces, film.joined)
    return {"caption": caption, "motion": config.motion, **figures, "seconds": round(seconds, 1)}


def table(found: list[dict[str, Any]]) -> str:
    """The figures as Markdown."""
    lines = [["caption", "motion", *COLUMNS], ["---"] * (2 + len(COLUMNS))]
    for figures in found:
        cells = [figures[name] for name in COLUMNS]
        lines.append([figures["caption"], figures["motion"], *("" if c is None else f"{c:.2f}" for c in cells)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> None:
    """Make the films, and keep their figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--sheets", action="store_true", help="write what there is to see of each film too")
    for name in ("frames", "steps", "resample", "jump", "seed"):
        parser.add_argument(f"--{name}", type=int, default=getattr(AnimateConfig, name))
    asked = vars(parser.parse_args())
    out, sheets = asked.pop("out"), asked.pop("sheets")
    torch.set_num_threads(1)
    model, found = load(COMMITTED_TEXT), []
    for caption in CAPTIONS:
        for motion in MOTIONS:
            config = AnimateConfig(motion=motion, **asked)
            found.append(measured(model, caption, config, out if sheets else None))
            print(table(found[-1:]).splitlines()[-1], flush=True)
    write_text(out / "films.json", json.dumps({"asked": asked, "films": found}, indent=1) + "\n")
    print(f"\n{table(found)}", flush=True)


if __name__ == "__main__":
    main()
