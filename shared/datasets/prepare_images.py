"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

Make a data set of a folder or zip of images: `prepare-images --help`.

What cannot be read, is too small or too long is dropped; the others are brought to one size and written into a folder,
a zip or an LMDB, sub-folders as they were. A prepared.json in it says what was asked for and names what was dropped and
why. It appears whole, by one renaming, or not at all. The work is done in shared/datasets/prepared_set.py.
"""

import sys
from dataclasses import dataclass
from typing import Literal

from jsonargparse.typing import NonNegativeFloat, NonNegativeInt, PositiveInt, restricted_number_type

from shared.cli import Parser, command

Quality = restricted_number_type("Quality", int, [(">=", 1), ("<=", 100)])


@dataclass
class PrepareConfig:
    """What to drop, how large to make the others, and where to put them."""

    out: str
    """folder, zip or folder of an LMDB to make"""
    format: Literal["folder", "zip", "lmdb"] = "folder"
    """picture files in folders, one zip of them, or one LMDB; read by --data.name folder, and lmdb"""
    size: PositiveInt | None = None
    """pixels of the shorter side, brought to it by Lanczos's filter (default: as it is); smaller images than this are
    enlarged, where min_side is not as large"""
    crop: Literal["none", "centre"] = "none"
    """centre cuts out a square; none keeps the longer side, for --data.crop random"""
    channels: Literal[1, 3] = 3
    """1 is greyscale, 3 is colour"""
    min_side: NonNegativeInt = 32
    """drop what is less wide or high, in pixels; 0 drops none"""
    min_bytes: NonNegativeInt = 256
    """drop files of fewer bytes; 0 drops none"""
    max_aspect: NonNegativeFloat = 0.0
    """drop what is more than this many times as long as it is wide; 0 drops none"""
    duplicates: bool = True
    """keep files that equal an earlier one byte for byte; false drops them"""
    encoding: Literal["png", "jpeg", "webp"] = "png"
    """of the pictures written; png loses nothing"""
    quality: Quality = 95
    """of jpeg and webp, from 1 to 100"""
    workers: PositiveInt = 4
    """images that are decoded at a time"""
    dry_run: bool = False
    """write nothing: say what would be dropped, and why"""
    overwrite: bool = False
    """put it in the place of what this command wrote there before"""


def run() -> int:
    """Prepare, with a bar, and say how many there are, and what was dropped."""
    parser = Parser(prog="prepare-images", description="Make a data set of a folder or zip of images.")
    parser.add_argument("source", type=str, help="folder or zip of images")
    parser.add_class_arguments(PrepareConfig)
    parsed = parser.parse_args()
    source = parsed.pop("source")
    config = PrepareConfig(**vars(parser.instantiate(parsed)))

    from pathlib import Path

    from shared.datasets.prepared_set import prepare
    from shared.datasets.whole_folder import NOTE

    target = Path(config.out).expanduser().resolve()
    done = prepare(Path(source).expanduser(), target, config)
    would = "would be " if config.dry_run else ""
    if config.dry_run:
        for name, reason in done.dropped:
            print(" ".join(f"dropped: {name} ({reason})".split()))
    print(f"{done.kept} images {would}written: {target}")
    if done.dropped:
        reasons = ", ".join(f"{count} {kind}" for kind, count in sorted(done.counts().items()))
        where = "" if config.dry_run else f" ({NOTE} in it names them)"
        print(f"{len(done.dropped)} {would}dropped: {reasons}{where}")
    return 0


def main() -> None:
    """The command `prepare-images`."""
    sys.exit(command(run))


if __name__ == "__main__":
    main()
