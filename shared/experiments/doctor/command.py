"""Introduced in task 1; used by task 1.

What is wrong with a run or a data set: `doctor --help`. It looks for the failures that people report most; each finding
says what was measured, why it matters and what to change.
"""

import json
import sys
from pathlib import Path
from typing import Literal

from jsonargparse.typing import NonNegativeInt, PositiveInt

from shared.cli import Parser, command
from shared.errors import UserError
from shared.experiments.tables import clean, warn

UNEXAMINED = 2  # exit status


def doctor(
    target: str,
    n: PositiveInt = 256,
    samples: NonNegativeInt = 64,
    seed: NonNegativeInt = 0,
    trust: bool = False,
    folder: str = "runs",
    format: Literal["text", "json"] = "text",
) -> int:
    """Look for what is wrong, and say what to change.

    Args:
        target: a run (its folder or name), a checkpoint, or a metrics.jsonl; or a data set: a config file, a folder,
            a zip, or a name such as digits
        n: samples of the data to look at; of clips an eighth
        samples: samples to draw of a model, none for 0; of clips an eighth
        seed: of the choice and of all noise
        trust: build data sets and networks of one's own, which runs the code that a config names
        folder: folder of all runs, in which a name is looked for
        format: for a person, or for a program

    Returns:
        0 where nothing was found, 1 where something was.
    """
    from shared.experiments.doctor.examined import Asked
    from shared.experiments.doctor.finding import as_facts, as_text, findings
    from shared.experiments.doctor.gather import gather

    found = gather(target, Asked(n, seed, trust), samples, Path(folder))
    if format == "json":
        print(json.dumps(as_facts(found.about, found.checked) | {"problems": found.problems}, indent=2))
    else:
        print(as_text(found.about, found.checked), end="")
        warn(found.problems)
    return int(bool(findings(found.checked)))


def run() -> int:
    """Examine; 2 where that cannot be done."""
    parser = Parser(prog="doctor", description="Find what is wrong with a run or a data set, and what to change.")
    parser.add_function_arguments(doctor, as_positional=True)
    options = parser.parse_args()
    try:
        return doctor(**vars(options))
    except UserError as error:
        print(f"doctor: error: {clean(error)}", file=sys.stderr)
    except OSError as error:
        where = clean(error.filename or options.target)
        print(f"doctor: error: cannot read {where}: {error.strerror or error}", file=sys.stderr)
    return UNEXAMINED


def main() -> None:
    """The command `doctor`."""
    sys.exit(command(run))


if __name__ == "__main__":
    main()
