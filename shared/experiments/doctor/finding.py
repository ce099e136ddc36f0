"""Introduced in task 1; used by task 1.

What a check of the doctor says: a finding, that all is well, or why it could not tell. Free of torch.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from shared.experiments.tables import clean

State = Literal["finding", "fine", "unknown"]

# Each check of samples is one-sided at this many standard errors: a normal estimate is beyond it once in 30,000 times.
SURE = 4.0


def surely(errors: float, n: int) -> float:
    """So many standard errors of a normal estimate, for one whose error is itself estimated of n draws: Student's t."""
    from scipy import stats

    return float(stats.t.isf(stats.norm.sf(errors), n - 1))


@dataclass(frozen=True)
class Checked:
    """The outcome of one check. All are sentences for a person, with numbers, units and the limit."""

    name: str
    state: State
    measured: str
    """what was measured; of what is unknown, why"""
    why: str = ""
    """of a finding: why it matters"""
    change: str = ""
    """of a finding: what to change"""


def fine(name: str, measured: str) -> Checked:
    """Nothing to find."""
    return Checked(name, "fine", measured)


def unknown(name: str, reason: str) -> Checked:
    """Not told from silence: why nothing could be measured."""
    return Checked(name, "unknown", reason)


def findings(checked: Sequence[Checked]) -> list[Checked]:
    """Those that a person should do something about."""
    return [one for one in checked if one.state == "finding"]


def by_reason(checked: Sequence[Checked]) -> dict[str, list[str]]:
    """The names of the checks that could not be made, by why: one reason may keep several from it."""
    reasons: dict[str, list[str]] = {}
    for one in checked:
        if one.state == "unknown":
            reasons.setdefault(one.measured, []).append(one.name)
    return reasons


def counted(n: int, what: str) -> str:
    """So many things, such as "1 check" or "2 checks"."""
    return f"{n} {what}" + ("" if n == 1 else "s")


def as_text(about: str, checked: Sequence[Checked]) -> str:
    """A report for a terminal; names that came from files are made harmless."""
    lines, found = [about, ""], findings(checked)
    for one in found:
        lines += [f"FINDING  {one.name}"]
        lines += [f"  {what}: {text}" for what, text in (("measured", one.measured), ("why", one.why))]
        lines += [f"  change: {one.change}", ""]
    well = [one for one in checked if one.state == "fine"]
    lines += [f"fine  {one.name}: {one.measured}" for one in well]
    for reason, names in by_reason(checked).items():
        lines.append(f"not examined  {', '.join(names)}: {reason}")
    lines += ["", f"{counted(len(found), 'finding')}; {counted(len(well), 'check')} fine"]
    return "\n".join(clean(line) for line in lines) + "\n"


def as_facts(about: str, checked: Sequence[Checked]) -> dict[str, Any]:
    """The same for a program."""
    return {"examined": about, "findings": len(findings(checked)), "checks": [asdict(one) for one in checked]}
