"""Introduced in task 3; used by task 3.

The emoji as a data set on the disk: drawn, divided into train and test, written whole or not at all.
"""

import hashlib
import json
from collections.abc import Iterator
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image
from tqdm import tqdm

from shared.datasets.caption_files import METADATA
from shared.datasets.captions_lmdb import Record, write_captioned
from shared.datasets.emoji_font import FAMILY, EmojiFont, Undrawn
from shared.datasets.emoji_names import Emoji, all_emoji
from shared.datasets.whole_folder import NOTE, replacing
from shared.errors import UserError
from shared.files import write_text

COMMAND = "prepare-emoji"
HELD_OUT = 20  # one group in so many
LEAST = 8  # pixels

LICENSE = """\
The pictures are drawn from the font Noto Color Emoji, copyright Google Inc., which is licensed under the SIL Open Font
License, Version 1.1: https://openfontlicense.org. Its sources, https://github.com/googlefonts/noto-emoji, say: emoji
fonts are under the SIL Open Font License, version 1.1; tools and most image resources are under the Apache license,
version 2.0; flag images are in the public domain or otherwise exempt from copyright. Noto is a trademark of Google Inc.

The names are those of Unicode: the English ones of emoji-test.txt, the Chinese ones of the Common Locale Data
Repository (CLDR); copyright Unicode, Inc., under the Unicode License: https://www.unicode.org/license.txt. They come by
the Python package emoji, https://github.com/carpedm20/emoji, copyright Taehoon Kim and Kevin Wurster, under the New BSD
License.
"""


class Drawn(NamedTuple):
    """One emoji and its picture, a PNG."""

    emoji: Emoji
    png: bytes


def collect(font: EmojiFont, size: int) -> tuple[list[Drawn], dict[str, list[str]]]:
    """All emoji that a font has, size × size pixels, and the others: by what is wrong with them, their names.

    Raises:
        UserError: the font's pictures are smaller, or the names are not installed.
    """
    if not LEAST <= size <= font.side:
        raise UserError(f"--size is {size}: it must be from {LEAST} to {font.side}, the size of the font's pictures")
    drawn, left_out = [], {}
    for emoji in tqdm(all_emoji(), "drawing", unit="emoji", disable=None):
        try:
            picture = font.draw(emoji.code).resize((size, size), Image.Resampling.LANCZOS)
        except Undrawn as reason:
            left_out.setdefault(str(reason), []).append(f"{emoji.code} {emoji.en}")
            continue
        file = BytesIO()
        picture.save(file, "PNG", optimize=True)
        drawn.append(Drawn(emoji, file.getvalue()))
    return drawn, left_out


def splits(drawn: list[Drawn]) -> list[str]:
    """ "train" or "test" for each; about a twentieth is held out. By their names, so the same in every run.

    The skin tones of an emoji are one group, and stay together; so do groups with a picture in common, such as the
    flags of Norway and of its islands. No picture of the test part has been seen in training.
    """
    leader = {emoji.group: emoji.group for emoji, _ in drawn}

    def led(group: str) -> str:
        while leader[group] != group:
            group = leader[group]
        return group

    first: dict[bytes, str] = {}  # the group that a picture was first seen in
    for emoji, png in drawn:
        one, other = sorted((led(first.setdefault(png, emoji.group)), led(emoji.group)))
        leader[other] = one
    return ["test" if number(led(emoji.group)) % HELD_OUT == 0 else "train" for emoji, _ in drawn]


def number(text: str) -> int:
    """A number that is the same for the same text, everywhere and for ever, and otherwise as good as random."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def write_set(target: Path, drawn: list[Drawn], form: str, about: dict[str, Any]) -> dict[str, int]:
    """Write the set beside the target, force it to the disk, and rename it. Returns the counts of the splits.

    Args:
        target: nothing, or what `check_target` lets pass.
        drawn: at least one emoji.
        form: "folder" or "lmdb".
        about: what it was made from, for the note.

    Raises:
        OSError, UserError: it cannot be written; what was at the target is still there.
    """
    sides = splits(drawn)
    counts = {split: sides.count(split) for split in ("train", "test")}
    with replacing(target, COMMAND) as made:
        made.mkdir()
        {"folder": write_folder, "lmdb": write_captioned}[form](made, records(drawn, sides))
        note = {"made_by": COMMAND, "format": form, "pictures": counts, **about}
        write_text(made / "LICENSE.txt", LICENSE)
        write_text(made / NOTE, json.dumps(note, indent=2, ensure_ascii=False) + "\n")
    return counts


def records(drawn: list[Drawn], sides: list[str]) -> Iterator[Record]:
    """What is written for each emoji."""
    for (emoji, png), side in zip(drawn, sides, strict=True):
        fields = {"en": emoji.en, "zh": emoji.zh, "emoji": emoji.code}
        yield Record(f"{side}/{emoji.file_name}.png", png, fields)


def write_folder(folder: Path, written: Iterator[Record]) -> None:
    """Write pictures into folders train and test, each with its metadata."""
    lines: dict[str, list[str]] = {"train": [], "test": []}
    for name, png, fields in written:
        side, _, file_name = name.partition("/")
        (folder / side).mkdir(exist_ok=True)
        (folder / name).write_bytes(png)
        lines[side].append(json.dumps({"file_name": file_name, **fields}, ensure_ascii=False))
    for side, rows in lines.items():
        if rows:
            write_text(folder / side / METADATA, "".join(f"{row}\n" for row in rows))


def described(font: Path, size: int, left_out: dict[str, list[str]]) -> dict[str, Any]:
    """What a set is made from, and what it lacks."""
    return {
        "size": size,
        "font": {"family": FAMILY, "file": font.name, "sha256": hashlib.sha256(font.read_bytes()).hexdigest()},
        "names": f"emoji {version('emoji')}",
        "left_out": left_out,
    }
