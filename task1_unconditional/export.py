"""Make a small file of a run, for sampling only: `python -m task1_unconditional.export RUN FILE`.

One set of weights, by default the average, in bfloat16, and the config; no optimizer. This is how the committed model
was made.
"""

import sys
from pathlib import Path

from shared.cli import Parser, command
from shared.training.config import Weights


def run() -> int:
    """Write the file."""
    parser = Parser(prog="python -m task1_unconditional.export", description="A run as one small file.")
    parser.add_argument("run", type=Path, help="a run's folder, or a checkpoint")
    parser.add_argument("file", type=Path, help="the safetensors file to write")
    parser.add_argument("--weights", type=Weights, default="ema", help="which of its weights: see task1-evaluate")
    asked = parser.parse_args()

    from shared.training.weights import how_good, write_small

    facts = write_small(asked.run, asked.file, asked.weights)
    if told := how_good(asked.run, asked.weights):
        print(told, file=sys.stderr)
    size = f"{asked.file.stat().st_size / 2**20:.2f} MiB"
    print(f"{asked.file}: {size}, step {facts.get('step')}, weights {asked.weights}")
    return 0


if __name__ == "__main__":
    sys.exit(command(run))
