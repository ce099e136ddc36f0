"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

A report as one HTML page. Jinja escapes every value that the templates print; what is put in as it is are the drawings
of `curves.py` and the HTML that `text.py` makes of a stage's own Markdown.
"""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from shared.experiments.compare_tables import paper_value
from shared.experiments.figures import FIGURES, shown
from shared.experiments.papers import meanings
from shared.experiments.protocol import FINER, text
from shared.experiments.report.content import Curve, Report, Stage
from shared.experiments.report.pictures import Picture
from shared.experiments.report.text import render as render_text
from shared.experiments.tables import amount, clean, duration

HERE = Path(__file__).parent
NONE = "—"
LONGEST = 2000  # characters of a field


def render(report: Report, commit: str | None = None) -> str:
    """The page. The same report gives the same bytes.

    Args:
        report: what it shows.
        commit: of the code, if it is known.
    """
    evaluated = [one for part in (*report.stages, *report.runs) for one in part.measured]
    found = environment()
    found.filters["results"] = lambda stage: results(found, stage)
    return found.get_template("page.html.jinja").render(
        report=report,
        css=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        commit=commit,
        meanings=meanings(),
        measured_data={str(one.evaluation.protocol.get("data")) for one in evaluated},
    )


def environment() -> Environment:
    """Jinja, which escapes everything, and takes an undefined name for a mistake."""
    found = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=printable,
    )
    found.filters |= {
        "amount": lambda value: NONE if value is None else amount(value),
        "duration": lambda value: NONE if value is None else duration(value),
        "field": lambda value: text(value)[:LONGEST],
        "finer": finer,
        "label": lambda name: FIGURES[name].label if name in FIGURES else name,
        "shown": lambda value, name: shown(name, value),
        "published": paper_value,
        "lines": lines,
        "drawn": drawn,
    }
    return found


def printable(value: Any) -> Any:
    """A value as the page has it: no control character, nothing that turns the direction of what follows."""
    return value if isinstance(value, Markup) else clean(value)


def finer(protocol: dict[str, Any]) -> str:
    """What else a published figure's protocol states, in one cell: rows of one table may differ in this alone."""
    stated = [name for name in ("reference", "extractor", *FINER) if protocol.get(name) is not None]
    return "; ".join(f"{name} {text(protocol[name])[:LONGEST]}" for name in stated) or NONE


def lines(content: str) -> Markup:
    """Text of several lines."""
    return Markup("\n").join(escape(clean(line.replace("\t", "    "))) for line in str(content).splitlines())


def drawn(curve: Curve, key: str) -> Markup:
    """A curve as an <svg> element."""
    from shared.experiments.report.curves import curve_svg  # slow to import

    return Markup(curve_svg(curve.points, clean(curve.title), "training loss", key))


def results(found: Environment, stage: Stage) -> Markup:
    """The README of a stage's results. A picture that was shown above is named, one that was not is shown."""
    parts, count = found.get_template("parts.html.jinja").module, 0

    def show(file: str, alt: str) -> str:
        nonlocal count
        picture: Picture | None = stage.others.get(file)
        if picture is None:
            return str(Markup("({})").format(clean(alt)))
        above = next((i for i, other in enumerate(stage.pictures, 1) if other is picture), None)
        if above:
            return str(Markup('<a href="#{}-picture-{}">{} (above)</a>').format(stage.name, above, clean(alt)))
        count += 1
        return str(parts.shot(picture, f"{stage.name}-results-picture-{count}"))

    return render_text(stage.results, 3, f"{stage.name}-results", show)
