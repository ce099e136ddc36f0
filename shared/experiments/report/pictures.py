"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

Pictures and films for a page that is one file: bytes that Pillow has read to their end, as data: URIs. Whatever a file
is called, only what it holds counts: nothing but a raster picture of a sensible size reaches the page.
"""

import base64
import io
import warnings
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageSequence

from shared.errors import UserError

FORMATS = {"PNG": "image/png", "JPEG": "image/jpeg", "GIF": "image/gif", "WEBP": "image/webp"}
LARGEST = 4 << 20  # bytes of a file that is put into the page as it is
PIXELS = 25_000_000  # of one frame; a file of a few bytes can claim any number
FRAMES = 400
ALL_PIXELS = 200_000_000  # of all frames together
SIDE = 1600  # pixels: what is wider or higher is made smaller, and nobody sees it on a page


@dataclass(frozen=True)
class Picture:
    """A picture or a film, as the page has it."""

    alt: str
    """what is seen, for who does not see it"""
    source: str
    """data: URI"""
    width: int
    """pixels"""
    height: int
    still: str | None = None
    """data: URI of a film's last frame; None of what does not move"""
    caption: str | None = None
    """HTML of a trusted page, or None: the alternative text"""
    name: str = ""
    """of the file"""

    @property
    def bytes(self) -> int:
        """What it adds to the page."""
        return len(self.source) + len(self.still or "")


def data_uri(kind: str, content: bytes) -> str:
    """Bytes as a URI that needs no network."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def read_picture(path: Path, alt: str, caption: str | None = None) -> Picture:
    """Read a picture or a film.

    Args:
        path: PNG, JPEG, GIF or WebP, by what it holds.
        alt: its alternative text.
        caption: see `Picture`.

    Raises:
        UserError: it is none of them, is damaged, or is too large to be held.
    """
    if not path.is_file():
        raise UserError(f"{path} is not there, or is no regular file: a picture is left out")
    try:
        if path.stat().st_size > 16 * LARGEST:
            raise ValueError(f"it has {path.stat().st_size:,} bytes")
        content = path.read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=list(FORMATS)) as image:
                return encode(image, content, alt, caption, path.name)
    except OSError as error:
        problem = error.strerror or "it is damaged, or neither PNG, JPEG, GIF nor WebP"
    except (ValueError, SyntaxError, EOFError, MemoryError, IndexError, KeyError, TypeError) as error:
        problem = " ".join(str(error).split()) or "it is damaged"  # all that Pillow raises on damaged files
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        problem = "it claims more pixels than a page can show"
    raise UserError(f"cannot show {path}: {problem}")


def encode(image: Image.Image, content: bytes, alt: str, caption: str | None, name: str) -> Picture:
    """An opened picture, every frame of it read."""
    width, height = image.size
    frames = getattr(image, "n_frames", 1)
    if width * height > PIXELS or frames > FRAMES or width * height * frames > ALL_PIXELS:
        raise ValueError(f"{width} x {height} pixels and {frames} frames are more than a page can show")
    for frame in ImageSequence.Iterator(image):
        frame.load()
        last = frame
    if frames == 1:
        whole = len(content) <= LARGEST and max(width, height) <= SIDE
        uri = data_uri(FORMATS[image.format], content) if whole else data_uri("image/png", png(last))
        return Picture(alt, uri, width, height, caption=caption, name=name)
    if len(content) > LARGEST:
        raise ValueError(f"a film of {len(content):,} bytes; the page holds {LARGEST:,}")
    uri = data_uri(FORMATS[image.format], content)
    return Picture(alt, uri, width, height, data_uri("image/png", png(last)), caption, name)


def png(image: Image.Image) -> bytes:
    """One frame as a PNG without what else its file said, made smaller where it is larger than a page shows."""
    plain = image.convert("RGBA" if "A" in image.getbands() or "transparency" in image.info else "RGB")
    plain.thumbnail((SIDE, SIDE))
    colours = plain.getcolors(256) if plain.mode == "RGB" else None
    if colours:  # as a palette it takes a third, and loses nothing
        plain = plain.convert("P", palette=Image.Palette.ADAPTIVE, colors=256)
    file = io.BytesIO()
    plain.info.clear()
    plain.save(file, "PNG", optimize=True)
    return file.getvalue()
