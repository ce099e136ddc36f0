"""Introduced in task 3; used by task 3.

Draw all emoji with their English and Chinese names as a data set of captions: `prepare-emoji --help`.

What is written is a folder or an LMDB as shared/datasets/captions.py reads it, with a twentieth held out as `test`, a
LICENSE.txt, and a prepared.json that says from what it was made and which emoji the font does not have. It appears
whole, by one renaming, or not at all.
"""

import sys
from dataclasses import dataclass
from typing import Literal

from jsonargparse.typing import PositiveInt

from shared.cli import Parser, command


@dataclass
class EmojiConfig:
    """Which font, how large, and where to."""

    font: str | None = None
    """file of Noto Color Emoji, NotoColorEmoji.ttf (default: the one that fontconfig knows)"""
    size: PositiveInt = 64
    """height and width in pixels; the font's own pictures have 136"""
    out: str | None = None
    """folder to make (default: emoji below the environment's DIFFUSION_DATA, else below data/)"""
    format: Literal["folder", "lmdb"] = "folder"
    """picture files with their names in metadata.jsonl, or one LMDB"""
    overwrite: bool = False
    """put it in the place of what this command wrote there before"""


def run() -> int:
    """Draw, with a bar, and say how many there are and what is left out."""
    parser = Parser(prog="prepare-emoji", description="Draw all emoji, with their names as captions.")
    parser.add_class_arguments(EmojiConfig)
    config = parser.instantiate(parser.parse_args())

    from pathlib import Path

    from shared.datasets.emoji_font import EmojiFont, find_font
    from shared.datasets.emoji_set import COMMAND, collect, described, write_set
    from shared.datasets.published import data_root
    from shared.datasets.whole_folder import NOTE, check_target

    target = (Path(config.out).expanduser() if config.out else data_root(None) / "emoji").resolve()
    check_target(target, COMMAND, config.overwrite)
    path = Path(config.font).expanduser() if config.font else find_font()
    drawn, left_out = collect(EmojiFont(path), config.size)
    counts = write_set(target, drawn, config.format, described(path, config.size, left_out))
    sides = ", ".join(f"{count} {split}" for split, count in counts.items())
    print(f"{len(drawn)} emoji of {config.size}×{config.size} pixels: {target} ({sides})")
    if left_out:
        reasons = ", ".join(f"{len(names)} {reason}" for reason, names in sorted(left_out.items()))
        print(f"left out are {sum(map(len, left_out.values()))}: {reasons} ({NOTE} names them)")
    return 0


def main() -> None:
    """The command `prepare-emoji`."""
    sys.exit(command(run))


if __name__ == "__main__":
    main()
