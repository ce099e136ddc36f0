"""Introduced in task 5; used by task 5.

Where films come from: any tree of video files, GIFs and folders of frames, sub-folders as classes; and UCF-101.
"""

import os
import posixpath
from pathlib import Path
from typing import NamedTuple

from shared.datasets.published import data_root
from shared.datasets.sources import arrange, is_hidden
from shared.datasets.video_clips import Clips, StreamedClips, clips_of
from shared.datasets.video_config import VideoConfig
from shared.datasets.video_files import GIF, VIDEOS, is_frame, is_video, reason
from shared.errors import UserError

PAGE = "crcv.ucf.edu/data/UCF101.php"


class Listing(NamedTuple):
    """The films below a folder, as `arrange` takes them."""

    path: Path
    names: list[str]  # of files and of folders of frames, sorted, with forward slashes
    wrapped: bool = False


def load_videos(config: VideoConfig) -> Clips | StreamedClips:
    """The clips of the films at `config.root`: 3 channels unless told otherwise, resized and cropped if told a size.

    `Clips` where they fit into memory and `config.cache` is set, else `StreamedClips`.

    Raises:
        UserError: there is no film, or as `clips_of`.
    """
    if config.root is None:
        raise UserError("the data set videos needs --data.root: a folder of videos, GIFs, or folders of frames")
    listing = listed(Path(config.root).expanduser())
    entries, classes = arrange(listing, config.split)
    return clips_of([(listing.path / name, label) for name, label in entries], classes, config)


def load_ucf101(config: VideoConfig) -> Clips | StreamedClips:
    """UCF-101 (Soomro, Zamir & Shah 2012, arXiv:1212.0402), one of its three divisions into training and test videos.

    Below the root lie `UCF-101/<class>/v_….avi` and `ucfTrainTestlist/`, as they are unpacked.

    Raises:
        UserError: one of its lists is missing or damaged, or as `clips_of`.
    """
    root = data_root(config.root)
    where = f"get UCF101.rar and UCF101TrainTestSplits-RecognitionTask.zip from {PAGE} and unpack them in {root}"
    lists = root / "ucfTrainTestlist"
    names = []
    for path in (lists / "classInd.txt", lists / f"{config.split}list0{config.fold}.txt"):
        try:
            names.append([line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()])
        except (OSError, ValueError) as error:
            raise UserError(f"cannot read {path} ({reason(error)}): {where}") from None
    classes = [parts[-1] for parts in names[0]]
    films = [parts[0] for parts in names[1]]
    wrong = [name for name in films if name.split("/")[0] not in classes or name.count("/") != 1 or "\\" in name]
    if wrong or not films:
        raise UserError(f"{path} is damaged{f': it names {wrong[0]}' if wrong else ''}; {where} again")
    label = {name: number for number, name in enumerate(classes)}
    return clips_of([(root / "UCF-101" / name, label[name.split("/")[0]]) for name in films], classes, config)


def listed(root: Path) -> Listing:
    """All films in a folder and its sub-folders; symbolic links are followed, each folder once.

    A folder with images and without videos of its own is one film.
    """
    if not root.is_dir():
        raise UserError(f"{root} is no folder: --data.root must name one of videos, GIFs, or folders of frames")

    def unlistable(error: OSError) -> None:
        raise UserError(f"the folder {error.filename} cannot be listed ({error.strerror}): mend its permissions")

    names, seen = [], set()
    for folder, below, files in os.walk(root, followlinks=True, onerror=unlistable):
        if os.path.realpath(folder) in seen:  # a link to a folder above: the walk would never end
            below.clear()
            continue
        seen.add(os.path.realpath(folder))
        below[:] = sorted(name for name in below if not is_hidden(name))
        inside = Path(folder).relative_to(root).as_posix()
        videos = [posixpath.normpath(f"{inside}/{file}") for file in files if is_video(file)]
        names += videos or [inside] * any(map(is_frame, files))
    if not names:
        endings = ", ".join(sorted(VIDEOS | {GIF}))
        raise UserError(f"no videos in {root} or its sub-folders: expected {endings}, or folders of numbered images")
    return Listing(root, sorted(names))
