"""Clips of films on the disk: exactly the frames written, whatever the container, and one line for what fails.

Every film is written here, each frame of one grey value that tells its number.
"""

import os
import pickle
import shutil
import warnings
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from av.video.frame import PictureType
from PIL import Image
from torch.utils.data import DataLoader

from shared.datasets import video_clips, video_files
from shared.datasets.images import InMemory
from shared.datasets.video import load_video
from shared.datasets.video_clips import Clips, StreamedClips, words
from shared.datasets.video_config import VideoConfig
from shared.datasets.video_files import Film, opened
from shared.errors import UserError
from shared.training.config import TrainConfig
from shared.training.data import batches

AHEAD = {"b_strategy": 0, "sc_threshold": 0}  # have the encoder store frames before those that are shown first
NEAR = 3  # grey values that a lossy codec may be off; frames are at least 7 apart


def grey(number: int) -> int:
    return 10 + 7 * number


def encode(path: Path, pictures: list[np.ndarray], codec: str, rotation: int = 0, **options) -> Path:
    """A video of RGB arrays (H, W, 3)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10, options={name: str(value) for name, value in options.items()})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        if rotation:
            stream.set_display_rotation(rotation)
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def flat(frames: int, size: tuple[int, int] = (32, 48), begin: int = 0) -> list[np.ndarray]:
    """Frames of one grey value each, height × width."""
    return [np.full((*size, 3), grey(begin + i), np.uint8) for i in range(frames)]


def gif(path: Path, frames: int, begin: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *others = [Image.fromarray(picture[..., 0]) for picture in flat(frames, begin=begin)]
    first.save(path, save_all=True, append_images=others, duration=100, loop=0)
    return path


def folder(path: Path, frames: int, begin: int = 0) -> Path:
    """Numbered so that sorting by characters gets it wrong."""
    path.mkdir(parents=True)
    for i, picture in enumerate(flat(frames, begin=begin)):
        Image.fromarray(picture).save(path / f"frame_{i}.png")
    return path


def mp4(path: Path, frames: int, size: tuple[int, int] = (32, 48), begin: int = 0) -> Path:
    """H.264 with frames that look ahead, and a keyframe now and then."""
    return encode(path, flat(frames, size, begin), "libx264", g=8, bf=3, **AHEAD)


KINDS = {
    "mp4": mp4,
    "mov": lambda path, frames, **o: encode(path, flat(frames, **o), "mpeg4", g=8, bf=2, b=8_000_000, **AHEAD),
    "mkv": lambda path, frames, **o: encode(
        path, flat(frames, **o), "libx264", g=5, bf=2, **AHEAD, **{"x264-params": "open-gop=1"}
    ),
    "avi": lambda path, frames, **o: encode(
        path, flat(frames, **o), "libx264", g=8, bf=3, **AHEAD
    ),  # its timestamps lie
    "webm": lambda path, frames, **o: encode(path, flat(frames, **o), "libvpx", g=12),
    "gif": gif,
    "": folder,
}


def loaded(root: Path, **config):
    return load_video(VideoConfig(**{"name": "videos", "root": str(root), "frames": 4, "channels": 1, **config}))


def complaint(root: Path | None, **config) -> str:
    with pytest.raises(UserError) as caught:
        loaded(root, **config) if root else load_video(VideoConfig(name="videos"))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def numbers(x: torch.Tensor) -> list[int]:
    """Which frames a clip (C, F, H, W) in [-1, 1] shows; -1 for what is none of them."""
    values = (x + 1) * 127.5
    assert (values.amax((0, 2, 3)) - values.amin((0, 2, 3))).max() <= 2 * NEAR
    means = values.mean((0, 2, 3))
    found = ((means - 10) / 7).round()
    return [int(n) if abs(grey(int(n)) - m) <= NEAR else -1 for n, m in zip(found, means, strict=True)]


# --- the right frames -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cache", [True, False])
def test_clips_are_exactly_the_frames_asked_for(tmp_path, kind, cache):
    KINDS[kind](tmp_path / f"film.{kind}".rstrip("."), 30)
    data = loaded(tmp_path, cache=cache)
    assert type(data) is (Clips if cache else StreamedClips)
    assert data.shape == (1, 4, 32, 48) and len(data) == 7 and data.skipped == []
    assert [numbers(x) for x, _ in (data[i] for i in range(7))] == [list(range(4 * i, 4 * i + 4)) for i in range(7)]
    wide = loaded(tmp_path, cache=cache, stride=3, hop=5)
    expected = [list(range(start, start + 10, 3)) for start in range(0, 21, 5)]  # the last begins at 20, ends at 29
    assert [numbers(x) for x, _ in (wide[i] for i in range(len(wide)))] == expected


@pytest.mark.parametrize("kind", ["mp4", "mov", "mkv", "avi"])
def test_the_films_written_here_do_look_ahead(tmp_path, kind):
    """Else the tests above would say nothing of frames that are stored in another order than shown."""
    with av.open(str(KINDS[kind](tmp_path / f"film.{kind}", 30))) as container:
        assert PictureType.B in [frame.pict_type for frame in container.decode(video=0)]


@pytest.mark.parametrize("frames", [4, 12])
def test_the_last_frame_is_used(tmp_path, frames):
    mp4(tmp_path / "a.mp4", frames)
    data = loaded(tmp_path)
    assert numbers(data[len(data) - 1][0])[-1] == frames - 1 and len(data) == frames // 4


def test_a_clip_in_the_middle_does_not_decode_from_the_beginning(tmp_path, monkeypatch):
    film = Film(mp4(tmp_path / "a.mp4", 30))
    seen = []
    decoded = Film._decoded
    monkeypatch.setattr(
        Film, "_decoded", lambda self, first: (seen.append(n) or (n, f) for n, f in decoded(self, first))
    )
    film.read([26, 27], 1, None)
    assert min(seen) > 10 and seen[-1] == 27  # keyframes lie 8 apart


def test_what_lies_before_its_keyframe_is_found_from_the_beginning(tmp_path, monkeypatch):
    """Should a container lead to a keyframe that comes too late."""
    film = Film(mp4(tmp_path / "a.mp4", 30))
    decoded = Film._decoded
    monkeypatch.setattr(Film, "_decoded", lambda self, first: decoded(self, min(first + 12, 29) if first else 0))
    assert ((film.read([9, 10], 1, None).float().mean((1, 2, 3)) - 10) / 7).round().tolist() == [9, 10]


def every_kind(root: Path, pictures: list[np.ndarray]) -> None:
    """The same film as a video, as frames and as a GIF."""
    encode(root / "a/film.mp4", pictures, "libx264", crf=1)
    (root / "b").mkdir()
    first, *others = [Image.fromarray(picture) for picture in pictures]
    for i, image in enumerate([first, *others]):
        image.save(root / f"b/{i}.png")
    first.save(root / "c.gif", save_all=True, append_images=others)


def test_colour_and_position_survive(tmp_path):
    """A picture of four colours: no channel, row or column is exchanged."""
    picture = np.zeros((34, 50, 3), np.uint8)  # sides that need filling in a video
    picture[:16, :24], picture[:16, 24:], picture[16:, :24] = (200, 30, 30), (30, 200, 30), (30, 30, 200)
    every_kind(tmp_path, [picture + np.eye(1, 50, 49 - i, dtype=np.uint8)[..., None] * 99 for i in range(4)])
    data = loaded(tmp_path, channels=None)
    assert data.shape == (3, 4, 34, 50) and len(data) == 3
    for clip in data.images:
        inner = clip.permute(1, 2, 3, 0)[:, 2:14, 2:22].float()
        assert (inner - torch.tensor([200.0, 30, 30])).abs().max() < 12
        assert (clip[:, 0, 8, 36].float() - torch.tensor([30.0, 200, 30])).abs().max() < 12
        assert (clip[:, 0, 24, 12].float() - torch.tensor([30.0, 30, 200])).abs().max() < 12


def test_a_film_made_sideways_is_turned_upright(tmp_path):
    picture = np.zeros((32, 48, 3), np.uint8)
    picture[:, :24] = 220  # bright on the left
    encode(tmp_path / "a.mp4", [picture] * 4, "libx264", rotation=90)
    with av.open(str(tmp_path / "a.mp4")) as container:
        turn = next(container.decode(video=0)).rotation
    assert turn % 360 in (90, 270)
    clip = loaded(tmp_path).images[0, 0, 0].float()
    assert clip.shape == (48, 32)
    # counter-clockwise by 90° brings the left side down, by 270° up
    bright, dark = (clip[36:], clip[:12]) if turn % 360 == 90 else (clip[:12], clip[36:])
    assert bright.mean() > 200 and dark.mean() < 20


@pytest.mark.parametrize("channels", [1, 3])
def test_a_size_resizes_the_short_side_and_cuts_the_centre(tmp_path, channels):
    """A slope of grey: halved, each pixel is the mean of two columns, the first of them the sixteenth."""
    slope = np.broadcast_to(np.arange(64)[None, :, None] * 3, (32, 64, 3)).astype(np.uint8)
    every_kind(tmp_path, [slope + np.uint8(4 * i) for i in range(4)])
    data = loaded(tmp_path, size=16, channels=channels)
    assert data.shape == (channels, 4, 16, 16) and len(data) == 3
    expected = 3 * (16.5 + 2 * np.arange(16))[None, :] + 4 * np.arange(4)[:, None]
    for clip in data.images.float().numpy():
        assert abs(clip - expected[None, :, None]).max() < 4 and abs((clip - expected[None, :, None]).mean()) < 1


# --- classes, captions, splits ----------------------------------------------------------------------------------------


def test_sub_folders_are_classes_and_their_names_captions(tmp_path):
    mp4(tmp_path / "JumpRope/a.mp4", 9)
    gif(tmp_path / "yo_yo/b.GIF", 4, begin=10)
    folder(tmp_path / "JumpRope/deep/frames", 5, begin=20)
    (tmp_path / "JumpRope/cover.png").write_bytes((tmp_path / "JumpRope/deep/frames/frame_0.png").read_bytes())
    (tmp_path / "notes.txt").write_text("no film")
    mp4(tmp_path / ".hidden/x.mp4", 4)
    data = loaded(tmp_path)
    assert data.classes == ["JumpRope", "yo_yo"] and data.captions == ["jump rope", "yo yo"]
    items = [data[i] for i in range(len(data))]
    assert [numbers(x)[0] for x, _ in items] == [0, 4, 20, 10]  # sorted by path
    assert [int(cond["label"]) for _, cond in items] == [0, 0, 0, 1]
    assert all(cond["caption"] == cond["label"] and cond["label"].dtype == torch.long for _, cond in items)


@pytest.mark.parametrize(
    ("name", "caption"),
    [("ApplyEyeMakeup", "apply eye makeup"), ("YoYo", "yo yo"), ("TVShow-2", "tv show 2"), (".", "a video")],
)
def test_a_class_in_words(name, caption):
    assert words(name) == caption


def test_train_and_test_folders_are_splits(tmp_path):
    gif(tmp_path / "train/a/1.gif", 4, begin=1)
    folder(tmp_path / "train/b/2", 4, begin=2)
    gif(tmp_path / "test/b/3.gif", 4, begin=3)
    train, test = loaded(tmp_path), loaded(tmp_path, split="test")
    assert train.classes == test.classes == ["a", "b"]
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 1], [1]) and numbers(test[0][0])[0] == 3
    gif(tmp_path / "loose.gif", 4)
    gif(tmp_path / "other/4.gif", 4)
    assert "no test part" in complaint(tmp_path, split="test")


def test_a_folder_of_nothing_but_frames_is_one_film(tmp_path):
    folder(tmp_path / "frames", 8)
    data = loaded(tmp_path / "frames")
    assert [numbers(x) for x, _ in (data[0], data[1])] == [[0, 1, 2, 3], [4, 5, 6, 7]] and data.captions == ["a video"]


def test_links_are_followed_once(tmp_path):
    gif(tmp_path / "set/a/1.gif", 4)
    gif(tmp_path / "elsewhere/2.gif", 4)
    (tmp_path / "set/a/again").symlink_to(tmp_path / "set", target_is_directory=True)
    (tmp_path / "set/b").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "set/dangling.mp4").symlink_to(tmp_path / "nowhere.mp4")
    data = loaded(tmp_path / "set", skip=0.5)
    assert len(data) == 2 and data.classes == [".", "a", "b"] and "dangling.mp4 (it is no file)" in data.skipped[0]


@pytest.fixture(scope="module")
def ucf(tmp_path_factory) -> Path:
    """UCF-101's layout, with two classes, in its own container and codec."""
    root = tmp_path_factory.mktemp("ucf")
    lists = root / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "classInd.txt").write_text("1 ApplyEyeMakeup\r\n2 YoYo\r\n")
    films = {f"{c}/v_{c}_g{g:02}_c01.avi": (c, g) for c in ("ApplyEyeMakeup", "YoYo") for g in (1, 8)}
    for i, name in enumerate(films):
        encode(root / "UCF-101" / name, flat(5, (24, 32), begin=5 * i), "mpeg4")
    for fold, held in ((1, 1), (2, 8)):
        test = [name for name, (_, g) in films.items() if g == held]
        train = [f"{name} {['ApplyEyeMakeup', 'YoYo'].index(c) + 1}" for name, (c, g) in films.items() if g != held]
        (lists / f"testlist0{fold}.txt").write_text("\n".join(test) + "\n")
        (lists / f"trainlist0{fold}.txt").write_text("\n".join(train) + "\n")
    return root


@pytest.mark.parametrize(
    ("split", "fold", "begins"), [("train", 1, [5, 15]), ("test", 1, [0, 10]), ("train", 2, [0, 10])]
)
def test_ucf101_is_divided_by_its_lists(ucf, monkeypatch, split, fold, begins):
    monkeypatch.setenv("DIFFUSION_DATA", str(ucf))
    data = load_video(VideoConfig(name="ucf101", split=split, fold=fold, frames=4, channels=1))
    assert [numbers(x)[0] for x, _ in (data[0], data[1])] == begins and len(data) == 2
    assert data.captions == ["apply eye makeup", "yo yo"] and data.labels.tolist() == [0, 1]


def test_ucf101_that_is_missing_or_damaged_is_said(ucf, tmp_path):
    def said(root: Path, **config) -> str:
        with pytest.raises(UserError) as caught:
            load_video(VideoConfig(name="ucf101", root=str(root), frames=4, **config))
        return str(caught.value)

    assert "classInd.txt" in said(tmp_path) and "crcv.ucf.edu" in said(tmp_path)
    assert "trainlist03.txt" in said(ucf, fold=3)
    copy = shutil.copytree(ucf, tmp_path / "copy")
    (copy / "UCF-101/YoYo/v_YoYo_g01_c01.avi").unlink()
    assert "v_YoYo_g01_c01.avi (it is no file)" in said(copy, split="test")
    for line in ("../../secret.avi", "YoYo/../../../secret.avi", "Unknown/v.avi 3"):
        (copy / "ucfTrainTestlist/trainlist01.txt").write_text(line)
        assert "trainlist01.txt is damaged" in said(copy)


# --- what goes wrong --------------------------------------------------------------------------------------------------


def text(path: Path) -> None:
    path.write_text("this is no video\n" * 50)


def zero(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    mp4(path, 20)
    path.write_bytes(path.read_bytes()[:-700])  # which takes its table away


def unknown_codec(path: Path) -> None:
    mp4(path, 6)
    content = path.read_bytes()
    assert content.count(b"avc1") == 2
    path.write_bytes(content.replace(b"avc1", b"zz99").replace(b"avcC", b"zzzC"))


def playlist(path: Path) -> None:
    """A list that names another file: what it names must not be read."""
    mp4(path, 6).rename(path.with_name("secret.bin"))
    path.write_text("ffconcat version 1.0\nfile secret.bin\n")


def sound(path: Path) -> None:
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=16_000)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate = 16_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


def scrambled(path: Path) -> None:
    """It opens, and no frame of it can be decoded."""
    mp4(path, 20)
    content = bytearray(path.read_bytes())
    start = content.index(b"mdat") + 4
    end = content.index(b"moov") - 4
    content[start:end] = bytes((7 * i) % 251 for i in range(end - start))
    path.write_bytes(content)


DAMAGES = [text, zero, cut, unknown_codec, playlist, sound, scrambled]


@pytest.mark.parametrize("damage", DAMAGES)
def test_an_unreadable_film_is_left_out_and_named(tmp_path, capfd, damage):
    root = tmp_path / "set"
    for i in range(2):
        gif(root / f"{i}.gif", 4, begin=i)
    damage(root / "x.mp4")
    data = loaded(root, skip=0.5)
    assert len(data) == 2 and len(data.skipped) == 1 and str(root / "x.mp4") in data.skipped[0]
    assert "(" in data.skipped[0] and "\n" not in data.skipped[0]
    assert capfd.readouterr() == ("", "")  # FFmpeg's own complaints are not shown
    message = complaint(root)
    assert "1 of 3 videos cannot be read" in message and "x.mp4 (" in message and "--data.skip 0.34" in message


@pytest.mark.parametrize("damage", [text, zero])
def test_a_broken_gif_or_frame_too(tmp_path, damage):
    for i in range(2):
        gif(tmp_path / f"{i}.gif", 4)
    damage(tmp_path / "x.gif")
    folder(tmp_path / "frames", 6)
    damage(tmp_path / "frames/frame_3.png")
    for cache, clips, broken in ((True, 2, 2), (False, 3, 1)):  # a later frame shows only when it is decoded
        data = loaded(tmp_path, skip=0.5, cache=cache)
        assert len(data) == clips and len(data.skipped) == broken
    assert "2 of 4 videos cannot be read" in complaint(tmp_path, skip=0.3)


def test_films_shorter_than_a_clip_are_left_out_and_named(tmp_path):
    mp4(tmp_path / "long.mp4", 10)
    gif(tmp_path / "short.gif", 3)
    data = loaded(tmp_path, skip=0.0)  # it can be read
    assert len(data) == 2 and data.skipped == [f"{tmp_path}/short.gif (3 frames)"]
    message = complaint(tmp_path, frames=11)
    assert "none of 2 videos has the 11 frames" in message and "short.gif (3 frames)" in message
    assert "--data.frames" in message
    assert "the 13 frames" in complaint(tmp_path, frames=5, stride=3)


def test_mixed_sizes_need_a_size_and_the_error_names_two_films(tmp_path):
    mp4(tmp_path / "a.mp4", 4)
    mp4(tmp_path / "b.mp4", 4, size=(48, 32))
    for cache in (True, False):
        message = complaint(tmp_path, cache=cache)
        assert "a.mp4 is 48×32 pixels" in message and "b.mp4 32×48" in message and "--data.size" in message
        assert loaded(tmp_path, cache=cache, size=16).shape == (1, 4, 16, 16)


def test_frames_of_several_sizes_in_one_folder_are_unreadable(tmp_path):
    Image.new("L", (9, 9)).save(folder(tmp_path / "frames", 6) / "frame_2.png")
    gif(tmp_path / "a.gif", 4)
    assert "frame_2.png are not of one size" in loaded(tmp_path, skip=0.5).skipped[0]


def test_a_missing_unnamed_or_empty_folder(tmp_path):
    assert "--data.root" in complaint(None)
    assert "is no folder" in complaint(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("no film")
    message = complaint(tmp_path)
    assert f"no videos in {tmp_path}" in message and ".mp4" in message and ".gif" in message


def test_a_pipe_is_not_waited_for(tmp_path):
    gif(tmp_path / "a.gif", 4)
    for name in ("b.mp4", "c.gif"):
        os.mkfifo(tmp_path / name)
    data = loaded(tmp_path, skip=0.7)
    assert len(data) == 1 and all("(it is no file)" in line for line in data.skipped) and len(data.skipped) == 2


def giant(path: Path, width: int, height: int) -> Path:
    """An MP4 whose header declares other sides than its video has."""
    content = bytearray(mp4(path, 4).read_bytes())
    entry = content.rindex(b"avc1") + 4 + 24  # the sample entry's width and height
    assert content[entry : entry + 4] == bytes([0, 48, 0, 32])
    content[entry : entry + 4] = width.to_bytes(2, "big") + height.to_bytes(2, "big")
    path.write_bytes(content)
    return path


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_film_that_is_giant_is_refused_before_memory_is_taken(tmp_path):
    # a few kB of H.264 that unpack to 34 million pixels a frame
    encode(tmp_path / "x.mp4", [np.zeros((4128, 8192, 3), np.uint8)], "libx264", preset="ultrafast", threads=1)
    with pytest.raises(ValueError, match="8192×4128 is more than the limit"):
        opened(tmp_path / "x.mp4")
    header = b"GIF89a" + (12_000).to_bytes(2, "little") * 2 + b"\x00\x00\x00"
    (tmp_path / "y.gif").write_bytes(header + b"," + bytes(9) + b"\x02\x02\x4c\x01\x00;")
    with pytest.raises(ValueError, match="12000×12000 is more than the limit"):
        opened(tmp_path / "y.gif")


def test_what_a_header_declares_does_not_decide(tmp_path):
    """A size or a number of frames that is not so."""
    film = opened(giant(tmp_path / "a.mp4", 50_000, 50_000))
    assert (film.height, film.width, film.frames) == (32, 48, 4)
    content = bytearray(mp4(tmp_path / "b.mp4", 6).read_bytes())
    at = content.index(b"mvhd") + 4 + 16
    content[at : at + 4] = (0x7FFFFFFF).to_bytes(4, "big")  # its duration
    (tmp_path / "b.mp4").write_bytes(content)
    assert opened(tmp_path / "b.mp4").frames == 6


def test_a_clip_that_fits_nowhere_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    Image.new("L", (9000, 9000)).save(tmp_path / "0.png")
    for i in range(1, 14):
        os.link(tmp_path / "0.png", tmp_path / f"{i}.png")
    monkeypatch.setattr(video_files, "decode", None)
    for cache in (True, False):
        message = complaint(tmp_path, frames=14, cache=cache)
        assert "14 frames of 9000×9000" in message and "--data.size" in message


# --- memory and processes ---------------------------------------------------------------------------------------------


def test_what_fits_is_decided_by_the_decoded_bytes(tmp_path, monkeypatch):
    mp4(tmp_path / "a.mp4", 8)
    for limit, kind in ((2 * 4 * 32 * 48, Clips), (2 * 4 * 32 * 48 - 1, StreamedClips)):
        monkeypatch.setattr(video_clips, "IN_MEMORY", limit)
        assert type(loaded(tmp_path)) is kind


def test_overlapping_clips_are_the_same_streamed_or_held(tmp_path):
    mp4(tmp_path / "a.mp4", 11)
    gif(tmp_path / "b.gif", 6)
    held, streamed = (loaded(tmp_path, hop=1, stride=2, cache=cache) for cache in (True, False))
    assert len(held) == len(streamed) == (11 - 7 + 1)
    for i in range(len(held)):
        assert torch.equal(held[i][0], streamed[i][0]) and held[i][1] == streamed[i][1]


@pytest.mark.slow
def test_clips_come_through_loader_processes(tmp_path):
    for begin, kind in ((0, "mp4"), (8, "gif"), (16, "")):
        KINDS[kind](tmp_path / f"{begin:02}.{kind}".rstrip("."), 8, begin=begin)
    data = loaded(tmp_path, cache=False)
    data[0]
    loader = DataLoader(data, batch_size=6, num_workers=2, multiprocessing_context="spawn")
    ((x, _),) = loader
    assert x.shape == (6, 1, 4, 32, 48) and [numbers(clip)[0] for clip in x] == [0, 4, 8, 12, 16, 20]


def test_a_film_that_breaks_later_is_replaced_in_whichever_process(tmp_path):
    for i in range(3):
        mp4(tmp_path / f"{i}.mp4", 8, begin=8 * i)
    data = loaded(tmp_path, cache=False)
    again = pickle.loads(pickle.dumps(data))
    assert [numbers(again[i][0])[0] for i in range(6)] == [0, 4, 8, 12, 16, 20]
    text(tmp_path / "1.mp4")  # exchanged behind our back
    with pytest.warns(UserWarning, match=r"1\.mp4 cannot be read \(Invalid data.*\): another clip"):
        assert numbers(again[3][0])[0] == 16  # the next film's first
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert numbers(again[4][0])[0] == 16  # which is whole
    for i in (0, 2):
        text(tmp_path / f"{i}.mp4")
    with pytest.warns(UserWarning), pytest.raises(UserError, match="repair or remove"):
        data[0]


def test_the_training_holds_clips_in_memory_with_all_that_is_said_of_them(tmp_path):
    """Which batch it gives is that of a loader, `caption` included."""
    for i in range(3):
        gif(tmp_path / f"c{i}/a.gif", 8, begin=8 * i)
    held, streamed = loaded(tmp_path), loaded(tmp_path, cache=False)
    config = TrainConfig(batch=4, workers=0)
    for _, (x, cond), (y, other) in zip(
        range(3), *(batches(d, config, 0, torch.device("cpu")) for d in (held, streamed)), strict=False
    ):
        assert torch.equal(x, y) and x.shape == (4, 1, 4, 32, 48) and x.dtype == torch.float32
        assert {k: v.tolist() for k, v in cond.items()} == {k: v.tolist() for k, v in other.items()}
    assert list(cond) == ["label", "caption"]


def test_conditions_must_be_as_many_as_samples():
    images, labels = torch.zeros(3, 1, 2, 4, 4, dtype=torch.uint8), torch.zeros(3)
    assert InMemory(images, labels, ["a"], {"caption": torch.arange(3)})[2][1]["caption"] == 2
    with pytest.raises(ValueError, match="3 samples"):
        InMemory(images, labels, ["a"], {"caption": torch.arange(2)})
    with pytest.raises(ValueError, match="clips"):
        InMemory(images[..., None], labels, ["a"])
