"""Introduced in task 3; used by tasks 3, 5.

Clips as people look at them: a GIF or an MP4 in which they move side by side, and a sheet that shows their frames.

Clips are (N, C, F, H, W) in [-1, 1], C 1 or 3; what lies outside is clamped. Files appear whole or not at all.
"""

import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from einops import rearrange
from PIL import Image
from torch import Tensor

from shared.files import write_whole
from shared.pictures import grid

SHORTEST = 20  # milliseconds of a GIF's frame: viewers slow down what is shorter
PALETTE_FRAMES = 16  # of a GIF in colour, spread over it, from which its 256 colours are chosen
COLOURS = 256
QUALITY = {"libx264": {"crf": "14"}, "mpeg4": {"qmin": "1", "qmax": "3"}}  # H.264, and what every FFmpeg can write


def frames(clips: Tensor, columns: int | None = None, upscale: int = 1) -> Iterator[Image.Image]:
    """The pictures of a film in which all clips move together, in rows; as square as may be unless columns are given.

    A clip alone has no lines around it: its film can be given back as it is.

    Raises:
        ValueError: `clips` are no clips, or there is none.
    """
    if clips.ndim != 5 or clips.shape[1] not in (1, 3) or 0 in clips.shape:
        raise ValueError(f"clips must be (N, 1 or 3, F, H, W), not {tuple(clips.shape)}")
    return (grid(images, columns, upscale, gap=2 if len(clips) > 1 else 0) for images in clips.unbind(2))


def save_gif(clips: Tensor, path: Path, fps: float = 8, columns: int | None = None, upscale: int = 1) -> Path:
    """Write clips as a GIF that begins again for ever, greys exactly, colours by one palette of 256.

    GIF counts time in hundredths of a second, and shows at most 50 frames each. Frames that are equal to the one before
    are written as a longer stay of that one.

    Raises:
        ValueError: as `frames`.
        OSError: it could not be written.
    """
    pictures = list(frames(clips, columns, upscale))
    if pictures[0].mode == "RGB":
        palette = palette_of(pictures[:: math.ceil(len(pictures) / PALETTE_FRAMES)])
        pictures = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(
        path,
        lambda file: pictures[0].save(
            file, "GIF", save_all=True, append_images=pictures[1:], duration=stays(len(pictures), fps), loop=0
        ),
    )
    return path


def stays(count: int, fps: float) -> list[int]:
    """Milliseconds of each frame in whole hundredths of a second, so that they never drift from `fps`."""
    each = max(1000 / fps, SHORTEST)
    ends = [round(number * each / 10) * 10 for number in range(count + 1)]
    return [end - start for start, end in zip(ends, ends[1:], strict=False)]


def palette_of(pictures: list[Image.Image]) -> Image.Image:
    """The 256 colours that serve these pictures best: a palette for each would make a film flicker."""
    sheet = Image.fromarray(np.concatenate([np.asarray(picture) for picture in pictures]))
    return sheet.quantize(COLOURS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)


def save_mp4(clips: Tensor, path: Path, fps: float = 8, columns: int | None = None, upscale: int = 1) -> Path:
    """Write clips as an MP4 that every browser plays: H.264 with 4:2:0 colour, or MPEG-4 where there is no x264.

    Its sides are even, as 4:2:0 needs: a white line is added where they are not. Colour is halved in resolution; an
    `upscale` of 2 keeps that of each pixel.

    Raises:
        ValueError: as `frames`.
        OSError: it could not be written.
    """
    pictures = frames(clips, columns, upscale)
    codec = next(name for name in QUALITY if name in av.codecs_available)
    path.parent.mkdir(parents=True, exist_ok=True)

    def write(file: Path) -> None:
        with av.open(f"file:{file}", "w", format="mp4", options={"movflags": "faststart"}) as container:
            stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1000), options=QUALITY[codec])
            stream.pix_fmt = "yuv420p"
            for picture in pictures:
                pixels = evened(np.asarray(picture.convert("RGB")))
                if not stream.codec_context.is_open:  # the first frame
                    stream.height, stream.width = pixels.shape[:2]
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode())

    write_whole(path, write)
    return path


def evened(pixels: np.ndarray) -> np.ndarray:
    """A picture (H, W, 3) with a white line right and below where that makes its sides even."""
    height, width, _ = pixels.shape
    return np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), constant_values=255)


def contact_sheet(clips: Tensor, rows: int = 8, columns: int = 16, upscale: int = 1) -> Image.Image:
    """The first `rows` clips, one below the other, their frames side by side: every j-th if there are many.

    Raises:
        ValueError: as `frames`.
    """
    frames(clips)
    shown = clips[:rows, :, :: math.ceil(clips.shape[2] / columns)]
    return grid(rearrange(shown, "n c f h w -> (n f) c h w"), shown.shape[2], upscale)
