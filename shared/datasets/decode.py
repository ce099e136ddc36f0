"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

One image file into pixels: any mode becomes 8-bit greyscale or colour, upright, of the size asked for.
"""

import functools
import warnings
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from shared.datasets.config import Crop

# Pictures only: Pillow goes by a file's content, and for EPS it would run that content in Ghostscript.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")
LANCZOS = Image.Resampling.LANCZOS
ORIENTATION, SIDEWAYS = 0x0112, (5, 6, 7, 8)  # EXIF: the tag, and its values that exchange width and height

# Pillow warns of an image above its limit and refuses one of twice that; `open_image` refuses both.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
# And of EXIF data that it cannot read, which nobody needs; what is wrong with the pixels is an exception.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


@functools.cache
def known_formats() -> tuple[str, ...]:
    """Those of FORMATS that the installed Pillow was built with."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@functools.cache
def extensions() -> frozenset[str]:
    """The file name endings, lower case with their dot, of those formats."""
    registered = Image.registered_extensions()
    return frozenset(ending for ending, name in registered.items() if name in known_formats())


def open_image(file: BinaryIO) -> Image.Image:
    """The image, its header read and nothing decoded. Raises `ValueError` for no picture or one too large."""
    try:
        image = Image.open(file, formats=known_formats())
    except Image.UnidentifiedImageError:
        raise ValueError("its content is none of " + ", ".join(known_formats())) from None
    if image.width * image.height > Image.MAX_IMAGE_PIXELS:
        limit = f"{Image.MAX_IMAGE_PIXELS:,}"
        raise ValueError(f"{image.width}×{image.height} is more than the limit of {limit} pixels")
    return image


def displayed_size(file: BinaryIO) -> tuple[int, int]:
    """(height, width) after EXIF orientation, from the header alone."""
    image = open_image(file)
    if image.format == "TIFF":  # Pillow has exchanged them already
        return image.height, image.width
    exif = Image.Image.getexif(image)  # the base class's: that of PNG decodes the pixels to look behind them
    turned = exif.get(ORIENTATION) in SIDEWAYS
    return (image.width, image.height) if turned else (image.height, image.width)


def decode(file: BinaryIO, channels: int, size: int | None, crop: Crop = "centre") -> Tensor:
    """One image as uint8 (channels, H, W), channels 1 or 3; of several frames, the first.

    With a `size`, the shorter side is brought to it (Lanczos, antialiased) and a square cut out, the centre or one
    drawn from torch's generator: (channels, size, size). Raises as `upright`; nothing has been drawn then.
    """
    image = upright(file, channels, size)
    if size is not None:
        image = ImageOps.fit(image, (size, size), LANCZOS) if crop == "centre" else drawn_square(image, size)
    pixels = torch.from_numpy(np.array(image))  # (H, W) or (H, W, 3)
    return pixels[None] if channels == 1 else pixels.permute(2, 0, 1).contiguous()


def drawn_square(image: Image.Image, size: int) -> Image.Image:
    """A square of an image whose shorter side is brought to `size`, any of those that lie on whole pixels of it.

    Only the square is ever made: of an image a pixel high and millions wide, the whole would fill the memory.
    """
    shorter = min(image.size)
    places = [int(torch.randint(side * size // shorter - size + 1, ())) for side in image.size]
    left, top = (place * shorter / size for place in places)
    return image.resize((size, size), LANCZOS, box=(left, top, left + shorter, top + shorter))


def upright(file: BinaryIO, channels: int, size: int | None = None) -> Image.Image:
    """One image, decoded: 8 bits, of mode "L" for 1 channel and "RGB" for 3, as it is to be looked at.

    It is to be reduced to no less than `size`, where one is given. Raises whatever Pillow meets in a damaged file, and
    `ValueError` for pixels without a defined black and white.
    """
    image = open_image(file)
    if size is not None:
        # A large JPEG is decoded at 1/2, 1/4 or 1/8, which is faster; twice the size leaves Lanczos its part.
        image.draft(None, (2 * size, 2 * size))
    image = ImageOps.exif_transpose(image)
    return opaque(eight_bit(image)).convert("L" if channels == 1 else "RGB")


def eight_bit(image: Image.Image) -> Image.Image:
    """16-bit greyscale scaled to 8 bits (Pillow's `convert` may clip); any other mode as it is."""
    if image.mode == "F":
        raise ValueError("floating-point pixels have no defined black and white")
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image).astype(np.int64)  # mode "I" has 32 bits, but PNG and PGM fill only 16 of them
    if values.min() < 0 or values.max() > 65535:
        raise ValueError("integers of more than 16 bits have no defined white")
    values = (values + 128) // 257  # to the nearest: 65535 = 255 · 257
    return Image.fromarray(values.astype(np.uint8))


def opaque(image: Image.Image) -> Image.Image:
    """What is transparent (by alpha or by colour) laid over white, as a page would show it."""
    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
