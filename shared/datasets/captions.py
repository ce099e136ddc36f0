"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

Your own images with captions, in any number of languages: a folder in one of two layouts, or an LMDB.

A folder with a `metadata.jsonl`, as Hugging Face's imagefolder has it: a line for each picture names the file,
relative to the folder of the metadata, and its captions. There may be several such files, each in the folder of its
pictures or above. Pictures that no line names are left out; of a picture with several lines all captions count:

    {"file_name": "train/0001.png", "text": "a red house"}
    {"file_name": "train/0002.png", "en": ["a boat", "a boat at sea"], "zh": "一艘船"}

A folder without one: captions lie beside their picture, one on each line.

    train/0001.png  train/0001.txt
    train/0002.png  train/0002.en.txt  train/0002.zh.txt

An LMDB (a folder with `data.mdb`, or that file by another name): shared/datasets/captions_lmdb.py says what is in it.

Which languages are read is `--data.languages '[en, zh]'`; "text" and ".txt", which name none, are in the first of
them where nothing else is. Each picture must have a caption in each of these languages. Folders `train` and `test`
are the splits, as in any folder of images.
"""

import re
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from shared.datasets import folder
from shared.datasets.caption_files import Said, read_folder
from shared.datasets.captions_lmdb import CaptionDatabase
from shared.datasets.config import DataConfig
from shared.datasets.database import is_lmdb
from shared.datasets.images import Images
from shared.datasets.published import data_root
from shared.datasets.sources import Source, arrange, open_source
from shared.errors import UserError

LANGUAGE = re.compile(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]+)*")  # en, zh, zh-Hans; but neither "text" nor "file_name"


class Captioned(Dataset):
    """Pictures with their captions: `(x, {"caption": long scalar})`, an index into `captions`.

    The caption is drawn from torch's generator, uniformly among those of the picture. `shape` is that of `x`:
    (C, H, W).
    """

    def __init__(self, pictures: Images, texts: list[list[str]]) -> None:
        """Pictures, decoded or decoded when asked for, and as many lists of one or more captions."""
        if len(pictures) != len(texts) or not all(texts):
            raise ValueError(f"{len(pictures)} pictures need as many lists of captions, none of them empty")
        self.pictures, self.shape = pictures, pictures.shape
        index: dict[str, int] = {}
        self._of = [[index.setdefault(text, len(index)) for text in own] for own in texts]
        self.captions: list[str] = list(index)

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, i: int) -> tuple[Tensor, dict[str, Tensor]]:
        x, _ = self.pictures[i]
        own = self._of[i]
        drawn = int(torch.randint(len(own), ())) if len(own) > 1 else 0
        return x, {"caption": tensor(own[drawn])}

    def captions_of(self, i: int) -> list[int]:
        """All captions of picture `i`, as indices into `captions`, in the order of the languages asked for."""
        return self._of[i]


def load_captions(config: DataConfig) -> Captioned:
    """The pictures with captions at `config.root`, of whichever layout; for emoji also where `prepare-emoji` puts them.

    3 channels unless told otherwise, resized and cropped if a size is given; decoded once if they fit into memory,
    else when asked for. Raises `UserError` for whatever is missing or damaged: a picture, a caption, a line.
    """
    languages = checked_languages(config.languages)
    source, said_of = opened(found_root(config), languages)
    texts = chosen(source, [name for name, _ in arrange(source, config.split)[0]], said_of, languages)
    pictures = folder.arranged(source, config, share=0.0)  # another picture in its place would have another caption
    if folder.held(pictures):
        return Captioned(folder.decoded(pictures), texts)
    if config.size is None:
        folder.check_sizes(pictures)
    return Captioned(pictures, texts)


def checked_languages(languages: tuple[str, ...]) -> tuple[str, ...]:
    """The languages, if there is one, each named once and by its code. Raises `UserError` if not."""
    wrong = [language for language in languages if not LANGUAGE.fullmatch(language)]
    if wrong:
        raise UserError(f"--data.languages has {wrong[0]!r}: name languages by their codes, such as en or zh")
    if not languages or len(set(languages)) != len(languages):
        raise UserError("--data.languages must name at least one language, and none twice")
    return tuple(languages)


def found_root(config: DataConfig) -> Path:
    """Where the pictures lie. Raises `UserError` if nothing is there."""
    if config.root is None and config.name != "emoji":
        raise UserError(f"the data set {config.name} needs --data.root: a folder or LMDB of images with captions")
    root = data_root(None) / "emoji" if config.root is None else Path(config.root).expanduser()
    if not root.exists():
        emoji = "draw them by prepare-emoji, or name their folder by --data.root"
        others = "--data.root must name a folder or LMDB of images with captions"
        raise UserError(f"{root} does not exist: {emoji if config.name == 'emoji' else others}")
    return root


def opened(root: Path, languages: tuple[str, ...]) -> tuple[Source, Callable[[str], Said]]:
    """Where pictures come from, and the function that tells what is said of each of its `names`."""
    if is_lmdb(root):
        database = CaptionDatabase(root)
        return database, lambda name: database.said(name, languages)
    if not root.is_dir():
        raise UserError(f"{root} is neither a folder nor an LMDB: --data.root must name one, of images with captions")
    tree = open_source(root)
    tree.names, said_of = read_folder(tree, languages)
    return tree, said_of


def chosen(
    source: Source, names: list[str], said_of: Callable[[str], Said], languages: tuple[str, ...]
) -> list[list[str]]:
    """The captions of each picture in the languages. Raises `UserError` where there is none in one of them."""
    quiet = True if len(names) < folder.SHOW_PROGRESS else None  # None: shown on a terminal only
    said = [said_of(name) for name in tqdm(names, "reading captions", leave=False, disable=quiet)]
    for language in languages:
        missing = [name for name, of in zip(names, said, strict=True) if not of.get(language)]
        if missing:
            others = f", nor have {len(missing) - 1} others" if len(missing) > 1 else ""
            advice = f"add it, or leave {language} out of --data.languages"
            raise UserError(f"{source.where(missing[0])} has no caption in {language}{others}: {advice}")
    return [[text for language in languages for text in of[language]] for of in said]
