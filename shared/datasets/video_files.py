"""Introduced in task 5; used by task 5.

Films on the disk, of three kinds with one face: video files by PyAV, GIFs and folders of frames by Pillow. Each knows
how many `frames` it has and their `height` and `width`, and `read`s some of them. All can be sent to loader processes:
a file is open only while it is read.

What a file declares is not believed. The frames of a video are counted by its packets, and larger pictures than 8K
are refused before memory is taken for them. Formats that name other files to read (playlists) are not known here.
"""

import posixpath
import re
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import numpy as np
import torch
from av.video.reformatter import VideoReformatter
from PIL import Image, ImageOps
from torch import Tensor

from shared.datasets.decode import decode, displayed_size, opaque, open_image
from shared.datasets.sources import is_hidden, is_image

VIDEOS = frozenset(".mp4 .m4v .mov .3gp .avi .mkv .webm .mpg .mpeg .ogv .wmv .flv".split())
GIF = ".gif"
DEMUXERS = "mov,avi,matroska,mpeg,mpegts,ogg,asf,flv"  # FFmpeg's names of those formats; it goes by the content
MAX_PIXELS = 2**25  # of a video's frame: 7680×4320 is less; a decoder keeps up to 16 of them
SILENT = {"vp8"}  # codecs with packets that show nothing


def is_video(name: str) -> bool:
    """Whether a file is a video or a GIF, by its ending, and not hidden."""
    return posixpath.splitext(name)[1].lower() in VIDEOS | {GIF} and not is_hidden(name)


def is_frame(name: str) -> bool:
    """Whether a file may be one frame of a folder."""
    return is_image(name) and not is_video(name)


def pixels(image: Image.Image, channels: int, size: int | None) -> Tensor:
    """One frame, uint8 (channels, H, W); with a `size` resized and cropped as `decode` does it."""
    image = opaque(image).convert("L" if channels == 1 else "RGB")
    if size is not None:
        image = ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(image)).reshape(image.height, image.width, channels).permute(2, 0, 1)


class Film:
    """A video file. Raises what PyAV meets in a damaged one, and `ValueError` for what cannot be shown."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._opened() as (container, stream):
            # AVI numbers frames as they are stored, which is not as they are shown where some look ahead
            numbered = container.format.name == "avi" and stream.codec_context.has_b_frames
            told = not numbered and stream.codec_context.name not in SILENT
            shown = [packet.pts for packet in container.demux(stream) if packet.size and not packet.is_discard]
        told = told and None not in shown and len(set(shown)) == len(shown)
        self.times = array("q", sorted(shown)) if told else None  # of each frame; None: they can only be counted
        if not shown:
            raise ValueError("it holds no frame")
        image = next((upright(frame, VideoReformatter()) for _, frame in self._decoded(0)), None)
        if image is None:
            raise ValueError("none of its frames can be decoded")
        self.height, self.width = image.height, image.width
        self.frames = len(self.times) if self.times else sum(1 for _ in self._decoded(0))

    def read(self, wanted: Sequence[int], channels: int, size: int | None) -> Tensor:
        """Frames by number, ascending: uint8 (len(wanted), channels, H, W)."""
        found: dict[int, Tensor] = {}
        colours = VideoReformatter()
        for first in (wanted[0], 0):  # what does not come after its keyframe is looked for from the beginning
            missing = set(wanted) - set(found)
            for index, frame in self._decoded(first) if missing else ():
                if index in missing:
                    found[index] = pixels(upright(frame, colours), channels, size)
                if index >= wanted[-1]:
                    break
        if len(found) < len(set(wanted)):
            raise ValueError(f"frame {min(set(wanted) - set(found))} cannot be decoded")
        return torch.stack([found[index] for index in wanted])

    def _decoded(self, first: int) -> Iterator[tuple[int, av.VideoFrame]]:
        """Frames as they are shown, with their numbers, from a keyframe not after `first` on."""
        with self._opened() as (container, stream):
            if self.times and first > 0:
                container.seek(self.times[first], stream=stream)
            for count, frame in enumerate(container.decode(stream)):
                if self.times is None:
                    yield count, frame
                elif frame.pts is not None:
                    index = bisect_left(self.times, frame.pts)
                    if index < len(self.times) and self.times[index] == frame.pts:
                        yield index, frame

    def _opened(self) -> "Opened":
        if not self.path.is_file():  # a pipe, say: to open it would wait for ever
            raise ValueError("it is no file")
        return Opened(self.path)


class Opened:
    """A video while it is read: (container, its first video stream)."""

    def __init__(self, path: Path) -> None:
        limits = {"format_whitelist": DEMUXERS, "protocol_whitelist": "file", "max_pixels": str(MAX_PIXELS)}
        self.container = av.open(f"file:{path}", options=limits)  # or a name such as "a:b.mp4" is an address

    def __enter__(self):
        try:
            streams = [stream for stream in self.container.streams.video if stream.codec_context is not None]
            if not streams:
                raise ValueError("it holds no video that can be decoded here")
            context = streams[0].codec_context
            if context.width * context.height > MAX_PIXELS:
                raise ValueError(f"{context.width}×{context.height} is more than the limit of {MAX_PIXELS:,} pixels")
            context.options = {"max_pixels": str(MAX_PIXELS)}
            context.thread_count = 1  # videos are decoded side by side already
            return self.container, streams[0]
        except BaseException:
            self.container.close()
            raise

    def __exit__(self, *_) -> None:
        self.container.close()


def upright(frame: av.VideoFrame, colours: VideoReformatter) -> Image.Image:
    """The picture of a frame, turned as its file says: telephones film sideways.

    The same `colours` for the frames of a film save a great part of the time.
    """
    image = Image.fromarray(colours.reformat(frame, format="rgb24").to_ndarray())
    turns = round(frame.rotation / 90) % 4  # counter-clockwise
    return image.transpose((None, *TURNS)[turns]) if turns else image


TURNS = (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)


class Animation:
    """A GIF. Raises whatever Pillow meets in a damaged one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with opened_file(path) as file:
            image = open_image(file)
            self.height, self.width = image.height, image.width
            self.frames = getattr(image, "n_frames", 1)

    def read(self, wanted: Sequence[int], channels: int, size: int | None) -> Tensor:
        """Frames by number, ascending: uint8 (len(wanted), channels, H, W)."""
        found = []
        with opened_file(self.path) as file:
            image = open_image(file)
            for index in wanted:
                image.seek(index)
                found.append(pixels(image, channels, size))
        return torch.stack(found)


class FrameFolder:
    """A folder whose images are the frames, in the order of the numbers in their names."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.names = sorted((file.name for file in path.iterdir() if is_frame(file.name)), key=natural)
        self.frames = len(self.names)
        with opened_file(path / self.names[0]) as file:
            self.height, self.width = displayed_size(file)

    def read(self, wanted: Sequence[int], channels: int, size: int | None) -> Tensor:
        """Frames by number: uint8 (len(wanted), channels, H, W)."""
        found = []
        for index in wanted:
            with opened_file(self.path / self.names[index]) as file:
                found.append(decode(file, channels, size))
            if found[-1].shape != found[0].shape:
                raise ValueError(f"its frames {self.names[wanted[0]]} and {self.names[index]} are not of one size")
        return torch.stack(found)


def natural(name: str) -> tuple[list[str | int], str]:
    """A key that puts frame_2 before frame_10; what it takes for equal, such as 1.png and 01.png, goes by the name."""
    parts = re.split(r"([0-9]+)", name)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name


def opened_file(path: Path):
    """A regular file, open for reading."""
    if not path.is_file():
        raise ValueError("it is no file")
    return open(path, "rb")


Video = Film | Animation | FrameFolder


def opened(path: Path) -> Video:
    """What lies at a path. Raises whatever makes it unreadable."""
    if path.is_dir():
        return FrameFolder(path)
    return Animation(path) if path.suffix.lower() == GIF else Film(path)


def reason(error: Exception) -> str:
    """Why a film cannot be read, in a few words."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
