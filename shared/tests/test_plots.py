"""Pictures of comparisons: what is read back from their axes is what was put in, and nothing that was refused."""

import math
import warnings
from pathlib import Path

import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from shared.experiments import comparison
from shared.experiments.comparison import compare
from shared.experiments.history import Run
from shared.experiments.plots import COLOURS, MARKERS, NAMED, figures_against, loss_curves, save, smoothed, style
from shared.experiments.seeds import group
from shared.experiments.sources import named_sources
from shared.tests.made_evaluations import evaluation, make, published


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    """An empty current folder, with its own list of published figures."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(comparison, "FILE", published(tmp_path / "papers.yaml"))
    return tmp_path


def drawn(names: str, against: str, figures: tuple = ("judge_distance",), log: str = "none", grouped: bool = False):
    """The picture of runs against something."""
    found = compare(named_sources(names.split(), Path("runs"))[0], figures=figures, against=against)
    return figures_against(group(found) if grouped else found, figures, log)


def points(axes) -> dict[str, list[tuple]]:
    """What the lines of a panel show, by the names that the legend gives them."""
    found = {}
    for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
        line = handle.lines[0] if hasattr(handle, "lines") else handle
        found[name] = list(zip(*(map(float, data) for data in line.get_data()), strict=True))
    return found


def numbers(axes) -> set[float]:
    """Every height that anything in a panel is drawn at."""
    return {float(y) for line in axes.lines for y in line.get_ydata()}


def test_a_figure_is_drawn_at_its_values_and_refused_runs_are_not():
    for name, width, distance in (("a", 8, 1.25), ("b", 32, 2.5), ("c", 16, 3.75)):
        evaluation(make(name, width=width), distance)
    evaluation(make("few", width=64), 77.0, n=64)
    figure = drawn("a b c few", "network.width")
    (axes,) = figure.axes
    lines = points(axes)
    assert lines.pop("Ours, table 1 (P): 4.500") == [(0, 4.5), (1, 4.5)]  # a level line, from edge to edge
    assert lines == {"a": [(8, 1.25)], "b": [(32, 2.5)], "c": [(16, 3.75)]}
    assert numbers(axes) == {1.25, 2.5, 3.75, 4.5}
    assert axes.get_xlabel() == "network.width" and axes.get_ylabel() == "judge distance\n(lower is better)"
    assert [text.get_text() for text in figure.legends[0].texts] == ["a", "b", "c", "Ours, table 1 (P): 4.500"]


def test_the_test_above_would_notice_a_comparison_that_refuses_nothing(monkeypatch):
    monkeypatch.setattr(comparison, "differences", lambda *_: [])
    with pytest.raises(AssertionError):
        test_a_figure_is_drawn_at_its_values_and_refused_runs_are_not()


def test_checkpoints_of_a_run_are_joined_in_the_order_of_the_axis():
    for i in (3, 1, 2):
        evaluation(make("a"), 10.0 - i, f"2026-01-0{i}", step=i, images=1000 * i, seconds=0.5 * i)
        evaluation(make("b"), 20.0 - i, f"2026-01-0{i}", step=i, images=2000 * i, seconds=1.5 * i)
    for axis, a, b in (("images", 1000, 2000), ("seconds", 0.5, 1.5), ("steps-of-training", 1, 1)):
        lines = points(drawn("a b", axis).axes[0])
        assert lines["a"] == [(i * a, 10.0 - i) for i in (1, 2, 3)]
        assert lines["b"] == [(i * b, 20.0 - i) for i in (1, 2, 3)]
    assert drawn("a", "seconds").axes[0].get_xlabel() == "wall-clock time of training, s"
    assert drawn("a", "images").axes[0].get_xlabel() == "images seen in training"


def test_published_figures_are_points_where_the_axis_is_one_of_theirs():
    run = make("a")
    for i, steps in enumerate((50, 10)):
        evaluation(run, float(steps), f"2026-01-0{i}", steps=steps)
    lines = points(drawn("a", "steps").axes[0])
    assert lines["a"] == [(10, 10.0), (50, 50.0)]
    assert lines["Ours, table 2 (P)"] == [(7, 4.625)] and lines["Ours, table 1 (P)"] == [(50, 4.5)]


def test_published_figures_of_another_protocol_are_not_drawn():
    evaluation(make("a"), 1.0, weights="swa")
    assert numbers(drawn("a", "seconds").axes[0]) == {1.0}


def test_each_figure_has_a_panel_with_its_own_values():
    evaluation(make("a", width=8), 4.0, figures={"judge_confident": 0.25})
    evaluation(make("b", width=16), 5.0, figures={"judge_confident": 0.75})
    upper, lower = drawn("a b", "network.width", ("judge_confident", "judge_distance"), log="y").axes
    assert points(upper) == {"a": [(8, 0.25)], "b": [(16, 0.75)]}
    assert points(lower) | {"Ours, table 1 (P): 4.500": None} == {
        "a": [(8, 4.0)],
        "b": [(16, 5.0)],
        "Ours, table 1 (P): 4.500": None,
    }
    assert upper.yaxis.get_major_formatter()(0.25) == "25%" and "(higher is better)" in upper.get_ylabel()
    assert {axes.get_yscale() for axes in (upper, lower)} == {"log"} and lower.get_xscale() == "linear"


def test_numbers_and_texts_share_an_axis():
    for name, guidance in (("a", "none"), ("b", 3), ("c", 1.5)):
        evaluation(make(name), 1.0 + ord(name), guidance=guidance)
    (axes,) = drawn("a b c", "guidance").axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1.5", "3", "none"]
    assert points(axes) == {"a": [(2, 98.0)], "b": [(1, 99.0)], "c": [(0, 100.0)], "Ours, table 1 (P)": [(2, 4.5)]}


def test_texts_have_a_place_each_and_no_logarithm():
    for name, sampler in (("a", "heun"), ("b", "ddpm"), ("c", "ddim")):
        evaluation(make(name), 1.0 + ord(name), sampler=sampler)
    evaluation(make("d"), 1.0, sampler="euler", n=64)
    (axes,) = drawn("a b c d", "sampler", log="both").axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["ddim", "ddpm", "heun"]
    lines = points(axes)
    assert (lines["a"], lines["b"], lines["c"]) == ([(2, 98.0)], [(1, 99.0)], [(0, 100.0)])
    assert (axes.get_xscale(), axes.get_yscale()) == ("linear", "log")


def test_seeds_are_one_point_with_their_spread():
    for seed, distance in ((0, 4.0), (1, 5.0), (2, 6.0)):
        evaluation(make(f"s{seed}", seed=seed), distance)
    evaluation(make("wide", width=64), 7.0)
    (axes,) = drawn("s0 s1 s2 wide", "network.width", grouped=True).axes
    assert points(axes)["s0 (3 seeds)"] == [(32, 5.0)] and points(axes)["wide"] == [(64, 7.0)]
    (spread,) = [bars for bars in axes.collections if len(bars.get_segments())]
    assert spread.get_segments()[0].tolist() == [[32, 4.0], [32, 6.0]]  # mean and standard deviation by hand


def test_nothing_to_draw_is_no_picture():
    evaluation(make("a"), 4.0, seconds=None)
    assert drawn("a", "seconds") is None
    assert loss_curves({"a": Run(make("b", loss=())), "outside": None}) is None


def test_many_runs_look_alike_and_few_do_not():
    looks = {(style(i)["color"], style(i)["marker"]) for i in range(42)}
    assert len(looks) == 42 == len(COLOURS) * len(MARKERS)
    for i in range(NAMED + 1):
        evaluation(make(f"r{i}", width=i + 1), float(i + 5))
    figure = drawn(" ".join(f"r{i}" for i in range(NAMED + 1)), "network.width")
    assert [text.get_text() for text in figure.legends[0].texts] == ["13 runs", "Ours, table 1 (P): 4.500"]
    assert numbers(figure.axes[0]) == {float(i + 5) for i in range(NAMED + 1)} | {4.5}


def test_a_run_looks_the_same_in_every_picture():
    for name in "abc":
        evaluation(make(name), 5.0, seconds=None if name == "a" else 2.0)
    runs = {name: Run(Path("runs/task1", name)) for name in "abc"}
    figures = (drawn("a b c", "images"), drawn("a b c", "seconds"), loss_curves(runs))
    for figure in figures:
        handles = dict(zip(*reversed(figure.axes[0].get_legend_handles_labels()), strict=True))
        line = getattr(handles["b"], "lines", [handles["b"]])[0]
        assert (line.get_color(), line.get_marker()) == (COLOURS[1], MARKERS[1])


# Loss curves


def test_a_loss_is_drawn_raw_and_smoothed_against_images():
    (axes,) = loss_curves({"a": Run(make("a", loss=(4.0, 2.0, 1.0))), "b": Run(make("b", loss=(3.0, 3.0)))}).axes
    raw = [line for line in axes.lines if line.get_alpha()]
    assert [line.get_xydata().tolist() for line in raw] == [
        [[3200, 4.0], [6400, 2.0], [9600, 1.0]],
        [[3200, 3.0], [6400, 3.0]],
    ]
    decay = math.exp(-3200 / (9600 / 30))
    second = (decay * 4 + 2) / (decay + 1)
    third = (decay**2 * 4 + decay * 2 + 1) / (decay**2 + decay + 1)
    lines = points(axes)
    assert [x for x, _ in lines["a"]] == [3200, 6400, 9600]
    assert [y for _, y in lines["a"]] == pytest.approx([4.0, second, third], rel=1e-12)
    assert [y for _, y in lines["b"]] == [3.0, 3.0]
    assert axes.get_ylabel() == "training loss" and axes.get_xlabel().startswith("images seen in training")


def test_the_axis_of_a_loss_is_logarithmic_unless_told_or_negative():
    runs = {"a": Run(make("a"))}
    assert loss_curves(runs).axes[0].get_yscale() == "log"
    assert loss_curves(runs, "none").axes[0].get_yscale() == "linear"
    assert loss_curves({**runs, "b": Run(make("b", loss=(1.0, -1.0)))}).axes[0].get_yscale() == "linear"


def test_smoothing_keeps_a_constant_and_the_level_of_noise():
    assert smoothed([(float(x), 7.0) for x in range(1, 50)], 5.0) == pytest.approx([7.0] * 49)
    means = smoothed([(float(x), x % 2) for x in range(1, 2000)], 100.0)
    assert means[0] == 1.0 and abs(means[-1] - 0.5) < 0.01  # no start but the first value pulls at it


def test_losses_that_measure_different_things_have_a_panel_each():
    runs = {"a": Run(make("a", loss=(1.0,))), "b": Run(make("b", loss=(2.0,))), "c": Run(make("c", loss=(3.0,)))}
    config = Path("runs/task1/b/config.yaml")
    config.write_text(config.read_text().replace("predict: eps", "predict: x0"))
    upper, lower = loss_curves(runs).axes
    assert (upper.get_title(), lower.get_title()) == ("diffusion.predict eps", "diffusion.predict x0")
    assert {name: y for name, ((_, y),) in points(upper).items()} == {"a": 1.0, "c": 3.0}
    assert points(lower) == {"b": [(3200, 2.0)]}


# Files


def test_a_picture_is_written_whole_and_small(here):
    evaluation(make("a"), 4.0)
    path = save(loss_curves({"a": Run(Path("runs/task1/a"))}, "both"), here / "loss.png")
    with Image.open(path) as picture:
        picture.load()
        assert picture.format == "PNG" and picture.width > 800
        shades = {pixel for _, pixel in picture.convert("RGB").getcolors(1 << 24)}
    assert tuple(round(255 * c) for c in to_rgb(COLOURS[0])) in shades
    assert path.stat().st_size < 100_000 and not list(here.glob(".partial*"))


@pytest.mark.parametrize("name", ["$x^{2", "_hidden", "a" * 200, "图", "%s {0} \\n"])
def test_any_name_of_a_run_can_be_drawn(name, here):
    evaluation(make(name), 4.0)
    evaluation(make("zero", loss=(0.0, -1.0)), 0.0, images=0, seconds=0)
    runs = {source.name: source for source in named_sources([name, "zero"], Path("runs"))[0]}
    pictures = [
        figures_against(compare(list(runs.values()), against="images"), ["judge_distance"], "both"),
        loss_curves({name: source.run for name, source in runs.items()}, "both"),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for picture in pictures:
            save(picture, here / "picture.png")
            assert {text.get_text() for text in picture.legends[0].texts} > {"zero"}
