"""Introduced in task 3; used by task 3.

Pictures of emoji from the font Noto Color Emoji: found through fontconfig, drawn by Pillow.

The font holds one bitmap, 136 pixels wide and 128 high, for each emoji (tables CBDT and CBLC); the newer kind of the
same name, drawn from curves (COLR), is one that Pillow cannot draw. Many emoji are several characters ("woman", joiner,
"rocket": an astronaut), which the font's own rules join: HarfBuzz, through Raqm, applies them.
"""

import subprocess
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, features

from shared.errors import UserError

FAMILY = "Noto Color Emoji"
BITMAPS = 109  # pixels for an em at which the font has its bitmaps, the only size at which it can be opened
KNOWN = "\N{GRINNING FACE}"  # in every emoji font, and not grey
ABSENT = ("\U0010ffff", "\U0001f1ff\U0001f1ff")  # no character and no country: the font may have a stand-in for either
WHERE = "on Debian install fonts-noto-color-emoji; or take NotoColorEmoji.ttf from github.com/googlefonts/noto-emoji"


class Undrawn(Exception):
    """The font has no picture of an emoji; the message says what it has instead."""


def find_font() -> Path:
    """The file of Noto Color Emoji that fontconfig knows.

    Raises:
        UserError: there is no fontconfig, or it knows none.
    """
    try:
        command = ["fc-list", "--format", "%{file}\n", f":family={FAMILY}"]
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError) as error:
        reason = f"fontconfig's fc-list cannot be run ({error})"
        raise UserError(f"{reason}: install fontconfig, or name the font's file by --font") from None
    if not found:
        raise UserError(f"fontconfig finds no {FAMILY}: {WHERE}, and name it by --font")
    bitmaps = [path for path in map(Path, sorted(found)) if has_bitmaps(path)]
    return bitmaps[0] if bitmaps else Path(found[0])  # without any: opening it says what is wrong


def has_bitmaps(path: Path) -> bool:
    """Whether a font file has a table of colour bitmaps; the tables are listed at its start."""
    try:
        with open(path, "rb") as file:
            return b"CBDT" in file.read(1024)
    except OSError:
        return False


class EmojiFont:
    """An open font; `side` is that of the square pictures it draws."""

    def __init__(self, path: Path) -> None:
        """Raises `UserError` where Raqm is missing, and for a file that is no font with bitmaps in colour."""
        if not features.check("raqm"):
            install = "Debian libfribidi0, macOS fribidi of Homebrew, Nix this flake's shell"
            raise UserError(f"Pillow has no Raqm, which joins the parts of an emoji: install FriBiDi ({install})")
        if not path.is_file():
            raise UserError(f"{path} is no file: name the font's by --font")
        try:
            self.font = ImageFont.truetype(str(path), BITMAPS, layout_engine=ImageFont.Layout.RAQM)
        except OSError as error:
            raise UserError(f"{path} cannot be opened as a font with colour bitmaps ({error}): {WHERE}") from None
        self.width = self.font.getlength(KNOWN)
        self.left, self.top, right, bottom = (round(edge) for edge in self.font.getbbox(KNOWN))
        self.size = (right - self.left, bottom - self.top)
        self.side = max(self.size)
        self._drawn = lru_cache(maxsize=1024)(self._draw)
        if self.side < 1 or not is_coloured(self._drawn(KNOWN)):
            raise UserError(f"{path} has no colour bitmaps of emoji (table CBDT): {WHERE}")

    def draw(self, code: str) -> Image.Image:
        """An emoji on white, in the middle of a square of `side` pixels: RGB. Raises `Undrawn` if there is none."""
        if self.font.getlength(code) > 1.5 * self.width:
            raise Undrawn("only in its parts")
        picture = self._drawn(code)
        if any(same(picture, self._drawn(none)) for none in ABSENT):
            raise Undrawn("not in the font")
        if len(code.rstrip("\N{VARIATION SELECTOR-16}")) > 1 and same(picture, self._drawn(code[0])):
            raise Undrawn("only as its first part")  # what follows is in no rule and, being a tag, invisible
        return picture

    def _draw(self, text: str) -> Image.Image:
        picture = Image.new("RGB", (self.side, self.side), "white")
        x, y = ((self.side - size) // 2 for size in self.size)
        place = (x - self.left, y - self.top)
        ImageDraw.Draw(picture).text(place, text, font=self.font, embedded_color=True, fill="black")
        return picture


def same(one: Image.Image, other: Image.Image) -> bool:
    """Whether two pictures have the same pixels."""
    return one.tobytes() == other.tobytes()


def is_coloured(picture: Image.Image) -> bool:
    """Whether any pixel of an RGB picture is not grey."""
    red, green, blue = (channel.tobytes() for channel in picture.split())
    return red != green or green != blue
