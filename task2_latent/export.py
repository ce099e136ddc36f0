"""Make small files of a diffusion's run, for sampling only: `python -m task2_latent.export RUN FOLDER`.

`diffusion.safetensors` has the averaged weights in bfloat16, `autoencoder.safetensors` those of the autoencoder as they
are: the latents were made with these. No optimizer, no raw weights. This is how the committed models were made.
"""

import shutil
import sys
from pathlib import Path

from shared.cli import Parser, command


def run() -> int:
    """Write the files."""
    parser = Parser(prog="python -m task2_latent.export", description="A run as two small files.")
    parser.add_argument("run", type=Path, help="a diffusion's run folder")
    parser.add_argument("folder", type=Path, help="where the files go")
    asked = parser.parse_args()

    from shared.errors import UserError
    from shared.files import write_whole
    from shared.latents.stored import COPY, autoencoder_of
    from shared.training.weights import newest, write_small

    path = newest(asked.run)
    if (autoencoder := autoencoder_of(path)) is None:
        raise UserError(f"{path} has no {COPY} beside it: give the run of a diffusion")
    asked.folder.mkdir(parents=True, exist_ok=True)
    write_small(path, asked.folder / "diffusion.safetensors")
    write_whole(asked.folder / COPY, lambda temporary: shutil.copyfile(autoencoder, temporary))
    for file in ("diffusion.safetensors", COPY):
        print(f"{asked.folder / file}: {(asked.folder / file).stat().st_size / 2**20:.2f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(command(run))
