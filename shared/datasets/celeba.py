"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

CelebA: 202,599 photographs of faces with 40 attributes each (Liu et al. 2015, Deep Learning Face Attributes in the
Wild, arXiv:1411.7766), through torchvision, from files on disk; downloaded only when told to.

The aligned images are 178×218. Of each the square of 128×128 around the point (89, 121) is used, which holds the face:
the crop of Progressive GAN (Karras et al. 2018, arXiv:1710.10196; `create_celeba` in its dataset_tool.py) and of DDIM
(Song et al. 2021, arXiv:2010.02502; datasets/__init__.py of its code), beside whose figures others put theirs. Papers
on scores often take the central 140×140 instead: figures of the two crops do not compare.
"""

from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor, from_numpy

from shared import _torchvision
from shared.datasets.config import DataConfig
from shared.datasets.decode import open_image
from shared.datasets.published import data_root
from shared.datasets.streamed import Streamed, Unreadable
from shared.errors import UserError

ALIGNED = (178, 218)  # width and height of the images
SIDE = 128
BOX = (89 - SIDE // 2, 121 - SIDE // 2, 89 + SIDE // 2, 121 + SIDE // 2)  # left, top, right, bottom
PAGE = "mmlab.ie.cuhk.edu.hk/projects/CelebA.html"


class Faces(Streamed):
    """Face images, decoded when asked for: `(x, {"attributes": (A,) long in {0, 1}})`, x (3, size, size) in [-1, 1].

    `attributes` are the names of the A attributes, `shape` is that of x. The constructor decodes the first image that
    can be read, so that a folder of nothing readable is reported at once.
    """

    def __init__(
        self,
        folder: Path,
        names: list[str],
        values: Tensor,
        attributes: list[str],
        size: int,
        flip: bool = False,
        share: float = 0.0,
    ) -> None:
        """Files in a folder, `values` (N, A) of their attributes; `share` of them may be unreadable."""
        if values.shape != (len(names), len(attributes)):
            expected = (len(names), len(attributes))
            raise ValueError(f"values must be {expected}, a row for each file, not {tuple(values.shape)}")
        self.folder, self.names, self.values = folder, names, values.long()
        self.attributes, self.size = attributes, size
        super().__init__(len(names), share, flip)

    def said(self, index: int) -> dict[str, Tensor]:
        return {"attributes": self.values[index]}

    def pixels(self, index: int) -> Tensor:
        """Image `index`, cropped and resized: uint8 (3, size, size). Raises `Unreadable`."""
        path = self.folder / self.names[index]
        try:
            with open(path, "rb") as file:
                return cropped(open_image(file), self.size)
        except Exception as error:  # Pillow's decoders raise whatever they trip over in a damaged file
            why = str(error) or type(error).__name__
            raise Unreadable(str(path), why, "an image of CelebA", "fetch it again") from None


def cropped(image: Image.Image, size: int) -> Tensor:
    """The face in an aligned image, reduced (Lanczos, antialiased): uint8 (3, size, size).

    Raises `ValueError` for an image that is not 178×218: the crop would show something else.
    """
    if image.size != ALIGNED:
        raise ValueError(f"{image.width}×{image.height} is not the {ALIGNED[0]}×{ALIGNED[1]} of aligned images")
    face = image.convert("RGB").crop(BOX).resize((size, size), Image.Resampling.LANCZOS)
    return from_numpy(np.array(face)).permute(2, 0, 1).contiguous()


def load_celeba(config: DataConfig) -> Faces:
    """The 162,770 images of the training part, or the 19,962 of the test part; 64×64 unless told otherwise.

    Raises `UserError` where it is absent, damaged, or cannot have the size or channels asked for.
    """
    if config.channels not in (None, 3):
        raise UserError(f"celeba has 3 channels, not {config.channels}: leave out --data.channels")
    size = config.size or 64
    if size > SIDE:
        raise UserError(f"celeba is {SIDE}×{SIDE} and can only be reduced: --data.size must be at most {SIDE}")
    root = data_root(config.root)
    data = opened(root, config)
    attributes = [name for name in data.attr_names if name]  # the line of names ends in a space
    folder, flip = root / data.base_folder / "img_align_celeba", config.flip and config.split == "train"
    return Faces(folder, data.filename, data.attr, attributes, size, flip, config.bad_share)


def opened(root: Path, config: DataConfig):
    """torchvision's data set, opened; every failure becomes a `UserError` that says what to do."""
    _torchvision.prepare()
    from torchvision.datasets import CelebA

    folder = root / CelebA.base_folder
    there = folder.is_dir()
    try:
        return CelebA(root, split=config.split, download=config.download)
    except Exception as error:  # RuntimeError, OSError, ImportError, …: torchvision has none of its own
        reason = f"{type(error).__name__}: {error}"
    by_hand = f"fetch img_align_celeba.zip and the five text files from {PAGE} and unpack the zip"
    if config.download:
        raise UserError(f"CelebA could not be downloaded to {folder} ({reason}): {by_hand} there")
    if there:
        raise UserError(f"CelebA in {folder} is incomplete or damaged ({reason}): {by_hand} there again")
    elsewhere = f"set DIFFUSION_DATA or --data.root to the folder that holds {CelebA.base_folder}"
    raise UserError(f"CelebA is not in {folder}: {by_hand} there, try --data.download true, or {elsewhere}")
