"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

The forms of a data set, with one face: the whole set as one tensor, or files decoded one by one.

Both yield `(x, cond)`: `x` (C, H, W) float32 in [-1, 1] and `cond` {"label": long scalar}; both have `shape`
(C, H, W) and `classes`. Whatever is random in an item is drawn from torch's generator, which the training loop
seeds for each item: neither the number of loader processes nor a restart changes what a step sees.
"""

import torch.nn.functional as F
from torch import Tensor, tensor
from torch.utils.data import Dataset

from shared.datasets.config import Crop
from shared.datasets.decode import decode
from shared.datasets.ranges import to_unit
from shared.datasets.sources import Source
from shared.datasets.streamed import Item, Streamed, Unreadable, turns
from shared.errors import UserError


class InMemory(Dataset):
    """A data set held as one tensor: `images` uint8 (N, C, H, W), `labels` long (N,), one name per class.

    Clips of video have a further axis, (N, C, F, H, W). `cond` holds the labels and what else is said of each sample,
    tensors (N, …) by name. The training loop puts `images` and `cond` on the device as they are, with no loader in the
    way. With `flip`, half of the samples are turned left-right, drawn anew each time; `skipped` names what is left out.
    """

    flip = False

    def __init__(
        self, images: Tensor, labels: Tensor, classes: list[str], more: dict[str, Tensor] | None = None
    ) -> None:
        if images.ndim not in (4, 5) or labels.shape != images.shape[:1]:
            shapes = f"{tuple(images.shape)} and {tuple(labels.shape)}"
            raise ValueError(f"images must be (N, C, H, W), or clips (N, C, F, H, W), and labels (N,), not {shapes}")
        self.images, self.labels, self.classes = images, labels.long(), classes
        self.cond = {"label": self.labels, **(more or {})}
        if any(len(values) != len(images) for values in self.cond.values()):
            raise ValueError(f"{len(images)} samples need as many of each condition")
        self.shape: tuple[int, ...] = tuple(images.shape[1:])
        self.skipped: list[str] = []

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> Item:
        image = self.images[i]
        x = to_unit(image.flip(-1) if self.flip and turns() else image)
        return x, {name: values[i] for name, values in self.cond.items()}


class Tensors(Dataset):
    """Any samples held as one tensor, such as latents: `x` float (N, …), and conditions (N, …) by name.

    They are given as they are: the range [-1, 1] of images does not hold for them.
    """

    ranged = False

    def __init__(self, x: Tensor, cond: dict[str, Tensor]) -> None:
        if any(len(values) != len(x) for values in cond.values()):
            raise ValueError(f"{len(x)} samples need as many of each condition")
        self.x, self.cond = x, cond
        self.shape = tuple(x.shape[1:])

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> Item:
        return self.x[i], {name: values[i] for name, values in self.cond.items()}


class ImageFolder(Streamed):
    """Image files of a source, decoded when asked for; `entries` are (name in the source, label).

    `size` None keeps the images as they are, and all must then be as large as the first. The constructor decodes the
    first that can be read, so that a source of nothing readable is reported at once.
    """

    def __init__(
        self,
        source: Source,
        entries: list[tuple[str, int]],
        classes: list[str],
        channels: int,
        size: int | None,
        crop: Crop = "centre",
        flip: bool = False,
        share: float = 0.0,
    ) -> None:
        """`crop` says which square of an image is cut out; `share` of them may be unreadable and are left out."""
        self.source, self.entries, self.classes = source, entries, classes
        self.channels, self.size, self.crop = channels, size, crop
        super().__init__(len(entries), share, flip)

    def said(self, index: int) -> dict[str, Tensor]:
        return {"label": tensor(self.entries[index][1])}

    def pixels(self, index: int) -> Tensor:
        """Image `index`, uint8 (C, H, W). Raises `Unreadable`, and `UserError` for another size than the first's."""
        pixels = self._decoded(index)
        if self.shape is not None and tuple(pixels.shape) != self.shape:
            raise self.mixed_sizes(index, pixels.shape[1], pixels.shape[2])
        return pixels

    def mixed_sizes(self, index: int, height: int, width: int) -> UserError:
        """The error for image `index` of another size than the first readable one."""
        same = next(i for i in range(len(self)) if not self.unreadable[i])
        first, other = (self.source.where(self.entries[i][0]) for i in (same, index))
        sizes = f"{first} is {self.shape[2]}×{self.shape[1]} pixels and {other} {width}×{height}"
        return UserError(f"{sizes}: bring all images to one size, for instance with --data.size 64")

    def _decoded(self, index: int) -> Tensor:
        name = self.entries[index][0]
        try:
            with self.source.open(name) as file:
                return decode(file, self.channels, self.size, self.crop)
        except Exception as error:  # Pillow's decoders raise whatever they trip over in a damaged file
            raise Unreadable(self.source.where(name), str(error) or type(error).__name__) from None


Images = InMemory | ImageFolder


def padded(images: Tensor, size: int | None, name: str) -> Tensor:
    """uint8 images (N, C, H, H) with an even black margin: (N, C, size, size); None leaves them as they are.

    An odd pixel goes right and below. Raises `UserError` for a size below H: shrinking is not offered.
    """
    height = images.shape[-1]
    if size is None or size == height:
        return images
    if size < height:
        limit = f"--data.size must be at least {height}"
        raise UserError(f"{name} is {height}×{height} and can only be padded: {limit}")
    before, after = (size - height) // 2, (size - height + 1) // 2
    return F.pad(images, (before, after, before, after))
