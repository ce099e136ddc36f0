"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

One image file made into one of a data set, or dropped with the reason.
"""

import hashlib
from io import BytesIO
from typing import NamedTuple

from PIL import Image, ImageOps

from shared.datasets.decode import LANCZOS, displayed_size, upright
from shared.datasets.prepare_images import PrepareConfig
from shared.datasets.sources import MAX_MEMBER, Source

MAX_NAME = 480  # bytes: LMDB's keys have at most 511


class Dropped(Exception):
    """A file is not used: `kind` is why in two words, for counting; the message says it fully."""

    def __init__(self, kind: str, why: str) -> None:
        super().__init__(why)
        self.kind = kind


class Made(NamedTuple):
    """What became of one file."""

    digest: bytes  # of the file as it was
    picture: bytes | Dropped  # the new file; empty in a dry run


def made(source: Source, name: str, config: PrepareConfig) -> Made:
    """One file, read once; dropped, or resized and encoded."""
    digest = b""
    try:
        check_name(name)
        data = content(source, name)
        digest = hashlib.blake2b(data, digest_size=16).digest()
        if len(data) < config.min_bytes:
            raise Dropped("of too few bytes", f"{len(data)} bytes, fewer than {config.min_bytes}")
        return Made(digest, encoded(resized(data, config), config))
    except Dropped as dropped:
        return Made(digest, dropped)


def check_name(name: str) -> None:
    """Raise `Dropped` for a name that cannot be written everywhere."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise Dropped("badly named", "its name is not UTF-8") from None
    if size > MAX_NAME:
        raise Dropped("badly named", f"its name has {size} bytes, more than {MAX_NAME}")


def content(source: Source, name: str) -> bytes:
    """A file's bytes. Raises `Dropped`."""
    try:
        with source.open(name) as file:
            data = file.read(MAX_MEMBER + 1)
    except Exception as error:  # a zip's member may be damaged in many ways
        raise Dropped("unreadable", f"cannot be read: {error or type(error).__name__}") from None
    if len(data) > MAX_MEMBER:
        raise Dropped("of too many bytes", f"more than {MAX_MEMBER:,} bytes")
    return data


def resized(data: bytes, config: PrepareConfig) -> Image.Image:
    """The image in a file's bytes, upright, 8 bits, of the size asked for. Raises `Dropped`."""
    try:
        check_shape(*displayed_size(BytesIO(data)), config)
        image = upright(BytesIO(data), config.channels, config.size)
    except Dropped:
        raise
    except Exception as error:  # Pillow's decoders raise whatever they trip over in a damaged file
        raise Dropped("unreadable", f"cannot be read as an image: {error or type(error).__name__}") from None
    shorter = min(image.size)
    side = config.size or shorter
    if config.crop == "centre":
        return ImageOps.fit(image, (side, side), LANCZOS)
    width, height = (max(side, round(length * side / shorter)) for length in image.size)
    return image if side == shorter else image.resize((width, height), LANCZOS)


def check_shape(height: int, width: int, config: PrepareConfig) -> None:
    """Raise `Dropped` for an image that is too small, too long, or would become too large."""
    shorter, longer = min(height, width), max(height, width)
    if shorter < config.min_side:
        raise Dropped("too small", f"{width}×{height} pixels, less than {config.min_side} on a side")
    if config.max_aspect and longer > config.max_aspect * shorter:
        raise Dropped("too long", f"{width}×{height} pixels, more than {config.max_aspect:g} to 1")
    side = config.size or shorter
    if config.crop == "none" and side * side * longer / shorter > Image.MAX_IMAGE_PIXELS:
        raise Dropped("too long", f"{width}×{height} pixels, which {side} on the shorter side would make too large")


def encoded(image: Image.Image, config: PrepareConfig) -> bytes:
    """The image as a file; nothing in a dry run. Raises `Dropped` for what the format cannot hold."""
    if config.dry_run:
        return b""
    file = BytesIO()
    options = {"optimize": True} if config.encoding == "png" else {"quality": config.quality}
    try:
        image.save(file, config.encoding.upper(), **options)
    except Exception as error:  # WebP has at most 16,383 pixels on a side
        raise Dropped("not encodable", f"cannot be written as {config.encoding}: {error}") from None
    return file.getvalue()
