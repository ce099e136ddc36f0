"""Make a small file of a run, for sampling only: `python -m task5_video.export RUN FILE`.

The averaged weights in bfloat16 and the config; no optimizer, no raw weights. This is how the committed model was made.
"""

import sys
from pathlib import Path

from shared.cli import Parser, command


def run() -> int:
    """Write the file."""
    parser = Parser(prog="python -m task5_video.export", description="A run as one small file.")
    parser.add_argument("run", type=Path, help="a run's folder, or a checkpoint")
    parser.add_argument("file", type=Path, help="the safetensors file to write")
    asked = parser.parse_args()

    from shared.training.weights import write_small

    facts = write_small(asked.run, asked.file)
    print(f"{asked.file}: {asked.file.stat().st_size / 2**20:.2f} MiB, step {facts.get('step')}")
    return 0


if __name__ == "__main__":
    sys.exit(command(run))
