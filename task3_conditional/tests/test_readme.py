"""The READMEs' tables of the second half say what was written down, and what was written down is what was asked for."""

import json
import re
from pathlib import Path

import pytest

from task3_conditional.results.edits import BORDERS, COUNTS, N

STAGE = Path(__file__).parents[1]
RESULTS = STAGE / "results"
CASCADE, FILMS = (json.loads((RESULTS / f"{name}.json").read_text()) for name in ("cascade", "films"))
EDITS = json.loads((RESULTS / "edits.json").read_text())


def found(experiment: str) -> dict[str, dict]:
    """What was found in an experiment of edits.py."""
    return EDITS[experiment]["found"]


def table(
    heading: str, number: int = 0, readme: Path = RESULTS / "README.md"
) -> tuple[list[str], dict[str, list[str]]]:
    """The cells of a table below a heading: its first line, and the others by their first cell."""
    _, _, below = readme.read_text().partition(f"# {heading}\n")
    tables = re.findall(r"(?:^\|.*\n)+", re.split(r"^#", below, flags=re.M)[0], flags=re.M)
    head, _, *lines = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in tables[number].splitlines()]
    assert lines and all(len(line) == len(head) for line in lines)
    rows = {first: cells for first, *cells in lines}
    assert len(rows) == len(lines)
    return head, rows


def says(text: str, *values: float | None) -> None:
    """Assert that the numbers of a text are these, each rounded as it is shown."""
    shown = re.findall(r"\d+(?:\.\d+)?", text)
    expected = []
    for value, own in zip([value for value in values if value is not None], shown, strict=True):
        expected.append(f"{value:.{len(own.partition('.')[2])}f}")
    assert shown == expected, text


def percent(figures: dict, name: str = "judge_agreement") -> float:
    """A share in per cent."""
    return 100 * figures[name]


# --- the tables ---------------------------------------------------------------------------------------------------

CONTROLS = {
    "edges": "edges",
    "edges, no class told": "edges, no class told",
    "low (1,200 steps, not 2,000; not committed)": "edges x 0 and low x 1",
    "edges and low": "edges x 1 and low x 1",
    "half of edges and half of low": "edges x 0.5 and low x 0.5",
}


def test_controls():
    (_, rows), written = table("One control, and two"), found("control")
    base = rows.pop("none: the base")
    says("".join(base), percent(written["edges"], "judge_agreement_base"))
    assert {CONTROLS[name] for name in rows} == set(written)
    for name, cells in rows.items():
        own = written[CONTROLS[name]]
        for cell, value in zip(cells, (own["edge_f1"], percent(own), own.get("consistency_rmse")), strict=True):
            says(cell, value)


PAINTERS = {
    "told (given.kind mask)": "told, class not",
    "told, and the class": "told, class too",
    "RePaint, 1 resampling (replacement)": "RePaint, 1",
    "RePaint, 2 resamplings": "RePaint, 2",
    "RePaint, 5": "RePaint, 5",
    "RePaint, 10": "RePaint, 10",
    "RePaint, 5, and the class": "RePaint, 5, class too",
}


def test_a_hidden_half():
    """The lines are in the order of the experiment, which is that of the picture's rows."""
    (head, rows), written = table("A hidden half"), found("hidden_half")
    assert [PAINTERS[name] for name in rows] == list(written)
    says(head[3], written["told, class not"]["seam_ratio_real"])
    for name, (agrees, over, seam, calls) in rows.items():
        own = written[PAINTERS[name]]
        says(f"{agrees}; {over}; {seam}", percent(own), own["judge_agreement_over_mean"], own["seam_ratio"])
        assert int(calls) == own["calls"]
        assert f"{percent(own, 'judge_agreement_mean'):.1f} %" in (RESULTS / "README.md").read_text()


def test_outpainting():
    (head, rows), written = table("A hidden half", 1), found("hidden_border")
    assert list(rows) == [str(28 - 2 * wide) for wide in BORDERS] and len(written) == 2 * len(rows)
    seams = {name: [] for name in (*head[1:], "real")}
    for wide, cells in zip(BORDERS, rows.values(), strict=True):
        for name, cell in zip(head[1:], cells, strict=True):
            own = written[f"{name}, {wide} pixels"]
            says(cell, percent(own))
            seams[name].append(own["seam_ratio"])
        seams["real"].append(own["seam_ratio_real"])
    text = " ".join((RESULTS / "README.md").read_text().split())
    says(re.search(r"The gradient across the seam is ([^;]*; [^;]*?)\. Of", text)[1], *sum(seams.values(), []))


ENLARGED = {
    "20 steps, made consistent": "enlarged",
    "without that last step": "without the consistency step",
    "bicubic, made consistent": "bicubic, made consistent",
    "5 steps": "5 steps",
    "50 steps": "50 steps",
}


def test_super_resolution():
    (head, rows), written = table("From 7×7 to 28×28"), found("super_resolution")
    assert [ENLARGED[name] for name in rows] == list(written)
    says(head[2], written["enlarged"]["psnr_bicubic"])
    for name, cells in rows.items():
        own = written[ENLARGED[name]]
        says("; ".join(cells), own["psnr"], own["psnr_gain"], percent(own), own["consistency_rmse"])


def test_the_cascade():
    _, rows = table("A cascade, and noise augmentation")
    assert list(rows) == list(CASCADE["found"])
    for name, cells in rows.items():
        for cell, own in zip(cells, CASCADE["found"][name].values(), strict=True):
            says(cell, percent(own), own["judge_distance_over_floor"])


def test_the_level_of_noise():
    (_, rows), written = table("A cascade, and noise augmentation", 1), found("augmentation")
    assert 2 * len(rows) == len(written)
    for level, cells in rows.items():
        for cell, given in zip(cells, ("clean", "with errors of 0.2"), strict=True):
            own = written[f"{given}, level {level}"]
            says(cell, percent(own), own["psnr"])


def test_strengths():
    (_, rows), written = table("Strength in SDEdit"), found("strength")
    assert list(rows) == list(written)
    for name, cells in rows.items():
        own = written[name]
        says("; ".join(cells), percent(own), percent(own, "still"), own["edge_f1"])


def test_colours():
    text, written = (RESULTS / "README.md").read_text(), found("colour")
    sentence = re.search(r"held-out scenes: (.*?)\. The model", text, re.DOTALL)[1]
    own = written["coloured"]
    says(sentence, own["psnr"], written["left grey"]["psnr"], own["luminance_rmse"])


FILM = ("loop_ratio", "worst_step", "seam_ratio", "seam_limit", "seam_beside", "seam_beside_limit")


def test_films():
    """The word "seam" stands with those films alone in which one is visible."""
    head, rows = table("Moving pictures")
    assert len(FILMS["films"]) == sum(map(len, rows.values()))
    for film in FILMS["films"]:
        cell = rows[film["motion"]][head.index(f'"{film["caption"]}"') - 1]
        says(cell, *(film[name] for name in FILM))
        assert ("**seam**" in cell) == (film["seam_visible"] > 0)


def test_the_stage_in_short():
    """The rows of the stage's README that are of the second half."""
    (_, rows), shades = table("Results", readme=STAGE / "README.md"), 255
    edges, half = found("control")["edges"], found("hidden_half")
    larger, films = found("super_resolution")["enlarged"], FILMS["films"]
    blind = [own["judge_agreement_over_mean"] for name, own in half.items() if re.fullmatch(r"RePaint, \d+", name)]
    expected = {
        "ControlNet by edges": [percent(edges, "edge_f1_of_ceiling")],
        "the class, of": [percent(edges), percent(edges, "judge_agreement_base")],
        "7×7 to": [larger["psnr_gain"]],
        "the judge reads": [percent(larger), larger["consistency_rmse"] * shades, shades],
        "a hidden half": [half["told, class not"]["judge_agreement_over_mean"], min(blind), max(blind)],
        "moving pictures": [max(film["loop_ratio"] for film in films)],
    }
    for begins, values in expected.items():
        (cells,) = (cells for name, cells in rows.items() if name.startswith(begins))
        says(cells[1], *values)
    asked, reached = rows["no visible seam"]
    says(asked, len(films))
    assert reached.startswith("in two") and "partly" in reached


# --- what was asked for -------------------------------------------------------------------------------------------


def test_as_many_as_are_drawn_now():
    assert {name: own["n"] for name, own in EDITS.items()} == {name: COUNTS.get(name, N) for name in EDITS}
    assert set(COUNTS) < set(EDITS)


def test_what_was_asked_for():
    """Of the figures that were written down; that they are the models' is tested in test_results.py."""
    edges, larger = found("control")["edges"], found("super_resolution")["enlarged"]
    assert edges["edge_f1_of_ceiling"] >= 0.7 and edges["judge_agreement"] >= edges["judge_agreement_base"]
    assert larger["psnr_gain"] >= 1.5 and larger["judge_agreement"] >= 0.85 and larger["consistency_rmse"] <= 1 / 255
    for own in found("hidden_half").values():
        assert own["judge_agreement_over_mean"] >= 3 and own["known_unchanged"]


@pytest.mark.parametrize("film", FILMS["films"], ids=lambda film: f"{film['motion']} {film['caption']}")
def test_what_was_asked_for_of_films(film):
    """A seam is visible in one canvas alone, over which two films go, which are named."""
    assert film["loop_ratio"] <= 1
    visible = film["seam_ratio"] > film["seam_limit"] or film["seam_beside"] > film["seam_beside_limit"]
    named = film["motion"] in ("pan-up", "pan-down") and film["caption"] == "a red three above a blue seven"
    assert film["seam_visible"] == visible == named
