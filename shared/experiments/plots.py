"""Introduced in task 1; used by task 1.

Pictures of a comparison: loss curves, and figures against what they are compared by. Import this where a picture is
drawn, as matplotlib is slow to import; nothing of its global state is touched, and no window opened.
"""

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import AutoLocator, EngFormatter, FuncFormatter, LogLocator, NullFormatter, PercentFormatter

from shared.cli import flat
from shared.experiments.axis import along
from shared.experiments.comparison import Comparison, Row
from shared.experiments.figures import FIGURES, shown
from shared.experiments.history import Run
from shared.experiments.protocol import text
from shared.experiments.tables import clean
from shared.files import write_whole

Log = Literal["none", "x", "y", "both"]
# Okabe and Ito's colours, which the colour-blind can tell apart, without the yellow that is faint on white. With seven
# markers to six colours, no two of 42 series look the same.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GREY, DASHES = "#666666", ("--", ":", "-.")  # of published figures
NAMED = 12  # more series than a reader can look up in a legend are drawn alike
SMOOTHED = 30  # a loss is smoothed over one part in so many of the longest curve
OBJECTIVE = ("data", "own_data", "schedule", "diffusion", "bound")  # parts of a config that say what a loss measures

Curve = list[tuple[float, float]]  # (images seen, loss)


def save(figure: Figure, path: Path) -> Path:
    """Write a picture whole or not at all, in the format of its suffix."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a name in a script that the font lacks: boxes will do
        write_whole(path, lambda file: figure.savefig(file, dpi=110))
    return path


def style(i: int) -> dict[str, Any]:
    """Colour and marker of the i-th series."""
    return {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)], "markersize": 6}


def label(name: str, longest: int = 40) -> str:
    """A name as matplotlib prints it: no formula, not hidden for an underscore, not longer than there is room for."""
    name = clean(name)
    name = name if len(name) <= longest else f"{name[: longest // 2 - 1]}…{name[-longest // 2 :]}"
    return " " * name.startswith("_") + name.replace("$", r"\$")


def panels(count: int) -> tuple[Figure, Sequence[Axes]]:
    """A picture of so many panels, one under the other."""
    figure = Figure(figsize=(8.5, 1 + 3.4 * count), layout="constrained")
    return figure, figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0]


def scale(axes: Axes, log: Log) -> None:
    """Logarithmic axes where asked and where there is something positive, with plain numbers; and a light grid."""
    for name, axis, change in (("x", axes.xaxis, axes.set_xscale), ("y", axes.yaxis, axes.set_yscale)):
        if log in (name, "both") and axis.get_data_interval()[1] > 0:
            formatter = axis.get_major_formatter()
            change("log")
            low, high = sorted(axis.get_view_interval())
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)) if high > 10 * low else AutoLocator())
            kept = isinstance(formatter, EngFormatter | PercentFormatter)
            axis.set_major_formatter(formatter if kept else FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_formatter(NullFormatter())
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)


def legend(figure: Figure) -> None:
    """One legend for all panels, on the right: the runs, then the published figures."""
    pairs = [pair for axes in figure.axes for pair in zip(*axes.get_legend_handles_labels(), strict=True)]
    pairs.sort(key=lambda pair: isinstance(pair[0], Line2D) and pair[0].get_color() == GREY)
    entries = {name: handle for handle, name in pairs}
    if entries:
        figure.legend(entries.values(), entries.keys(), loc="outside right upper", fontsize="small", frameon=False)


def loss_curves(runs: Mapping[str, Run | None], log: Log | None = None) -> Figure | None:
    """The loss of runs, by name, against the images that they have seen, raw and smoothed; None if none recorded both.

    Runs whose losses measure different things get a panel for each kind: such losses do not stand side by side. A loss
    soon falls to a small part of where it began, so that its axis is logarithmic unless `log` or its sign says no.
    """
    curves = {name: curve_of(run) for name, run in runs.items() if run}
    curves = {name: curve for name, curve in curves.items() if curve}
    if not curves:
        return None
    kinds = objectives({name: runs[name] for name in curves})
    log = log or ("y" if all(loss > 0 for curve in curves.values() for _, loss in curve) else "none")
    length = max(curve[-1][0] for curve in curves.values()) / SMOOTHED
    figure, every = panels(len(set(kinds.values())))
    for axes, kind in zip(every, sorted(set(kinds.values())), strict=True):
        for i, name in enumerate(runs):  # so that a run looks the same in every picture
            if kinds.get(name) == kind:
                draw_loss(axes, label(name), curves[name], length, style(i))
        axes.set_title(label(kind, 90), fontsize="medium")
        axes.set_ylabel("training loss")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        scale(axes, log)
    every[-1].set_xlabel(f"images seen in training; smoothed over {EngFormatter(places=0, sep='')(length)} of them")
    legend(figure)
    return figure


def curve_of(run: Run) -> Curve:
    """The losses that a run recorded, with the images that it had seen by then."""
    return [(line["images"], line["loss"]) for line in run.metrics if {"images", "loss"} <= line.keys()]


def draw_loss(axes: Axes, name: str, curve: Curve, length: float, look: dict[str, Any]) -> None:
    """One run's loss: the raw one pale, the smoothed one over it."""
    images, loss = zip(*curve, strict=True)
    axes.plot(images, loss, color=look["color"], alpha=0.35, linewidth=0.8)
    axes.plot(images, smoothed(curve, length), label=name, linewidth=1.6, markevery=0.15, **look)


def smoothed(curve: Curve, length: float) -> list[float]:
    """The mean of the values so far, in which those `length` images ago weigh 1/e; not pulled towards any start."""
    total = weight = last = 0.0
    means = []
    for x, value in curve:
        decay = math.exp((last - x) / length)
        total, weight, last = decay * total + value, decay * weight + 1, x
        means.append(total / weight)
    return means


def objectives(runs: Mapping[str, Run]) -> dict[str, str]:
    """What the loss of each run measures, in the fields in which the runs differ."""
    fields = {
        name: {"task": run.task} | {k: v for k, v in flat(run.config).items() if k.partition(".")[0] in OBJECTIVE}
        for name, run in runs.items()
    }
    names = dict.fromkeys(key for values in fields.values() for key in values)
    unlike = [k for k in names if len({json.dumps(v.get(k), default=str) for v in fields.values()}) > 1]
    return {name: ", ".join(f"{k} {text(v.get(k))}" for k in unlike) for name, v in fields.items()}


def figures_against(comparison: Comparison, names: Sequence[str], log: Log = "none") -> Figure | None:
    """Figures of the comparable rows against the comparison's axis, a panel each; None if there is nothing to draw."""
    rows = [row for row in comparison.rows if not row.reasons and row.x is not None]
    names = [name for name in names if any(row.value(name) is not None for row in rows)]
    if not names:
        return None
    published = [row for row in comparison.together if row.paper]
    places = {row.x for row in [*rows, *published] if row.x is not None}
    texts = sorted(places, key=along) if any(isinstance(x, str) for x in places) else []
    figure, every = panels(len(names))
    for axes, name in zip(every, names, strict=True):
        draw_rows(axes, comparison, name, texts)
        draw_published(axes, [row for row in published if row.value(name) is not None], name, texts)
        dress(axes, name, texts)
        if comparison.axis.name == "images":
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        scale(axes, log if not texts else "y" if log in ("y", "both") else "none")
    every[-1].set_xlabel(label(comparison.axis.label, 90))
    legend(figure)
    return figure


def dress(axes: Axes, name: str, texts: list) -> None:
    """The label of a figure's axis, with which way is better; ticks for places that are texts."""
    known = FIGURES.get(name)
    better = f"\n({known.better} is better)" if known and known.better else ""
    axes.set_ylabel(label(known.label if known else name) + better)
    if known and known.format.endswith("%"):
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    if texts:
        axes.set_xticks(range(len(texts)), [label(str(x)) for x in texts])


def place(row: Row, texts: list) -> float:
    """Where a row is drawn: at its number, or at that of its text."""
    return texts.index(row.x) if texts else row.x


def draw_rows(axes: Axes, comparison: Comparison, name: str, texts: list) -> None:
    """The comparable rows' values of one figure, a series for each run; along an axis its points are joined."""
    series: dict[str, list[Row]] = {}
    for row in comparison.together:
        if row.value(name) is not None and row.x is not None and not row.paper:
            series.setdefault(row.name, []).append(row)
    joined = "-" if comparison.axis.kind != "config" and not texts else "none"
    order = list(dict.fromkeys(row.name for row in comparison.rows))  # so that a run looks the same in every picture
    for run in filter(series.get, order):
        rows = series[run]
        words = f"{rows[0].source.name} ({rows[0].seeds} seeds)" if rows[0].seeds > 1 else run
        alike = {"color": COLOURS[0], "marker": MARKERS[0], "label": f"{len(series)} runs"}
        look = alike if len(series) > NAMED else {**style(order.index(run)), "label": label(words)}
        spread = [row.deviations.get(name, math.nan) for row in rows]
        axes.errorbar(
            [place(row, texts) for row in rows],
            [row.value(name) for row in rows],
            yerr=spread if any(row.deviations for row in rows) else None,
            linestyle=joined,
            linewidth=1.2,
            capsize=4,
            **look,
        )


def draw_published(axes: Axes, rows: list[Row], name: str, texts: list) -> None:
    """Comparable published figures: points where the axis is one of a protocol, level lines otherwise."""
    points = {row.name: [other for other in rows if other.name == row.name] for row in rows if row.x is not None}
    for i, (paper, along_axis) in enumerate(points.items()):
        x, y = zip(*((place(row, texts), row.value(name)) for row in along_axis), strict=True)
        joined = "none" if texts else DASHES[i % len(DASHES)]
        axes.plot(x, y, color=GREY, linestyle=joined, marker="o", markerfacecolor="white", label=label(paper))
    for i, row in enumerate(row for row in rows if row.x is None):
        words = f"{label(row.name)}: {row.paper.bound or ''}{shown(name, row.value(name))}"
        axes.axhline(row.value(name), color=GREY, linestyle=DASHES[i % len(DASHES)], linewidth=1.2, label=words)
