"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

One page to look at: what the committed models draw and reach, and one's own runs: `report --help`.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from shared.cli import Parser, command
from shared.errors import UserError

if TYPE_CHECKING:
    from shared.experiments.report.content import Report


@dataclass
class ReportConfig:
    """What to show, and where to write it."""

    out: str = "report.html"
    """the page: one file, which opens from the disk without a network"""
    folder: str | None = None
    """folder of your runs (default: runs, if it is there)"""


def run() -> int:
    """Read, write the page, and say what is on it."""
    parser = Parser(prog="report", description="Write one HTML page of all stages and of your own runs.")
    parser.add_argument("--stage", nargs="+", default=None, metavar="STAGE", help="such as task1 task3, or all")
    parser.add_class_arguments(ReportConfig)
    given = parser.parse_args()
    config = ReportConfig(**{field.name: given[field.name] for field in fields(ReportConfig)})
    return write(config, given["stage"])


def gather(names: Sequence[str], folder: Path, every: bool) -> "Report":
    """Read all that the page shows: of these stages, and of their runs or of every run in the folder."""
    from shared.experiments.papers import papers
    from shared.experiments.report.content import Report
    from shared.experiments.report.runs import add_runs
    from shared.experiments.report.stages import add_stages

    report = Report()
    add_stages(report, names)
    add_runs(report, folder, None if every else names)
    for row in report.tried(papers) or []:
        report.papers.setdefault(str(row.protocol.get("data", "not stated")), []).append(row)
    report.close()
    return report


def write(config: ReportConfig, stages: list[str] | None) -> int:
    """Write the page.

    Raises:
        UserError: there is no such stage, or the page cannot lie there.
    """
    from shared.experiments.provenance import git
    from shared.experiments.report.page import render
    from shared.experiments.report.stages import chosen
    from shared.experiments.tables import clean, size, warn
    from shared.files import write_text

    names, out, folder = chosen(stages), Path(config.out), Path(config.folder or "runs")
    if out.is_dir():
        raise UserError(f"--out {out} is a folder: name a file, such as {out / 'report.html'}")
    if out.suffix not in (".html", ".htm"):
        raise UserError(f"--out is {out}: a page's name ends in .html")
    out.parent.mkdir(parents=True, exist_ok=True)
    report = gather(names, folder, not stages)
    if config.folder and not folder.is_dir():
        report.problems.append(f"--folder {folder} is no folder: there are no runs on the page")
    commit = git("show", "-s", "--format=%h of %cs", "HEAD")
    page = render(report, commit.strip() if commit else None)
    write_text(out, page)
    warn(report.problems)
    shown = f"{len(report.stages)} stages, {len(report.runs)} runs, {size(len(page.encode()))}"
    print(clean(f"written: {out} ({shown}); open it in a browser"))
    return 0


def main() -> None:
    """The command `report`."""
    sys.exit(command(run))


if __name__ == "__main__":
    main()
