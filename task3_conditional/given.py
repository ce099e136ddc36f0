"""Pictures that are given beside a sample in training, each made of the sample itself: with a part hidden, without its
colours, or in low resolution. A model that is told them (`condition.image: concatenation`) fills, colours or enlarges.

They are made of a batch where it lies, inside the loss: so what is drawn for them comes from (seed, n, j) as the times
and the noise do, and a data set in memory stays there. Masks are bool (B, 1, H, W), true where the picture is known.
"""

from collections.abc import Callable, Collection
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from shared.conditions.said import Cond
from shared.errors import UserError
from task3_conditional.config import GivenConfig

# --- a part hidden ------------------------------------------------------------------------------------------------

STROKES, CORNERS = 2, 4  # lines in a drawn mask, and the corners of each
THICK = (0.06, 0.14)  # half the width of a line, in sides of the picture


def masked(picture: Tensor, mask: Tensor) -> Tensor:
    """The picture (B, C, H, W), grey (0) where it is hidden, and the mask as one channel more: 1 known, -1 hidden."""
    shown = torch.where(mask, picture, 0.0)
    said = torch.where(mask, 1.0, -1.0).to(picture).expand(len(picture), 1, *picture.shape[2:])
    return torch.cat([shown, said], dim=1)  # (B, C + 1, H, W)


def grid(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The middles of the pixels, y (H, 1) and x (1, W), in sides of the picture."""
    y = (torch.arange(height, device=device) + 0.5) / height
    x = (torch.arange(width, device=device) + 0.5) / width
    return y[:, None], x[None]


def rectangles(box: Tensor, height: int, width: int) -> Tensor:
    """bool (B, H, W), true within boxes (B, 4): top, bottom, left, right, in sides of the picture."""
    y, x = grid(height, width, box.device)
    top, bottom, left, right = box.T[..., None, None]
    return (y > top) & (y < bottom) & (x > left) & (x < right)


def halves(n: int, device: torch.device) -> Tensor:
    """Boxes (n, 4) of a half: the upper, lower, left or right one."""
    four = [[0.0, 0.5, 0.0, 1.0], [0.5, 1.0, 0.0, 1.0], [0.0, 1.0, 0.0, 0.5], [0.0, 1.0, 0.5, 1.0]]
    return torch.tensor(four, device=device)[torch.randint(4, (n,), device=device)]


def boxes(n: int, device: torch.device, least: float, most: float) -> Tensor:
    """Boxes (n, 4) anywhere in the picture, their sides between `least` and `most` of it."""
    sides = least + (most - least) * torch.rand(n, 2, device=device)
    start = torch.rand(n, 2, device=device) * (1 - sides)
    return torch.stack([start, start + sides], dim=2).flatten(1)  # top, bottom, left, right


def strokes(n: int, height: int, width: int, device: torch.device) -> Tensor:
    """bool (n, H, W), true on bent lines as a person draws them."""
    y, x = grid(height, width, device)
    corners = torch.rand(n, STROKES, CORNERS, 2, 1, 1, device=device)
    thick = THICK[0] + (THICK[1] - THICK[0]) * torch.rand(n, STROKES, 1, 1, device=device)
    drawn = torch.zeros(n, height, width, dtype=torch.bool, device=device)
    for line in range(STROKES):
        for corner in range(CORNERS - 1):
            (ay, ax), (by, bx) = corners[:, line, corner].unbind(1), corners[:, line, corner + 1].unbind(1)
            dy, dx = by - ay, bx - ax
            along = (((y - ay) * dy + (x - ax) * dx) / (dy**2 + dx**2).clamp(min=1e-9)).clamp(0, 1)
            drawn |= (y - ay - along * dy) ** 2 + (x - ax - along * dx) ** 2 < thick[
                :, line
            ] ** 2  # to the nearest point
    return drawn


def draw_masks(n: int, height: int, width: int, device: torch.device | str = "cpu") -> Tensor:
    """Masks (n, 1, H, W) from torch's generator. Hidden is, as often each: a half, a rectangle, lines, or a border."""
    device = torch.device(device)
    hidden = torch.stack(
        [
            rectangles(halves(n, device), height, width),
            rectangles(boxes(n, device, 0.25, 0.75), height, width),
            strokes(n, height, width, device),
            ~rectangles(boxes(n, device, 0.4, 0.9), height, width),  # as outpainting asks
        ]
    )  # (4, n, H, W)
    kind = torch.randint(len(hidden), (n,), device=device)
    return ~hidden[kind, torch.arange(n, device=device)][:, None]


# --- without colours ----------------------------------------------------------------------------------------------

LUMA = (0.299, 0.587, 0.114)  # of red, green and blue in the luminance: ITU-R BT.601, as Pillow's mode "L" has it


def grey(picture: Tensor) -> Tensor:
    """The luminance (B, 1, H, W) of colour pictures (B, 3, H, W)."""
    weights = picture.new_tensor(LUMA)[:, None, None]
    return (picture * weights).sum(dim=1, keepdim=True)


# --- in low resolution --------------------------------------------------------------------------------------------


def averaged(picture: Tensor, factor: int) -> Tensor:
    """Pictures (B, C, H, W) in low resolution (B, C, H / factor, W / factor): the mean of each square of pixels."""
    return F.avg_pool2d(picture, factor)


def enlarged(low: Tensor, factor: int, how: str = "bicubic") -> Tensor:
    """(B, C, h, w) to (B, C, factor · h, factor · w), by "nearest" or "bicubic"; the latter may leave [-1, 1]."""
    # antialias: nothing is to be antialiased where pixels become more, but so torch takes Keys' cubic (a = -0.5), which
    # Pillow has and papers compare with; its other one (-0.75) does not even keep a ramp
    options = {} if how == "nearest" else {"antialias": True}
    return F.interpolate(low, scale_factor=factor, mode=how, **options)


def lowered(low: Tensor, level: Tensor, eps: Tensor, config: GivenConfig) -> Tensor:
    """What a model that enlarges is told of pictures (B, C, h, w) of low resolution: (B, C + 1, H, W).

    Noise augmentation (Ho 2022, "Cascaded diffusion models", section 4): the picture has noise eps of a level (B,),
    which is its deviation, and as much less signal as keeps the variance; then it is enlarged. The level is one channel
    more, from -1 (no noise) to 1 (nothing else): a model that knows how far to trust the picture mends what is wrong.
    """
    part = level.to(low)[:, None, None, None]  # (B, 1, 1, 1)
    noisy = (1 - part**2).sqrt() * low + part * eps
    shown = enlarged(noisy, config.factor, config.enlarge)
    return torch.cat([shown, (2 * part - 1).expand(-1, 1, *shown.shape[2:])], dim=1)


def draw_lowered(x: Tensor, config: GivenConfig) -> Tensor:
    """The same of samples (B, C, H, W), each with noise of a level drawn between none and the config's largest."""
    level = config.noise * torch.rand(len(x), device=x.device)
    low = averaged(x, config.factor)
    return lowered(low, level, torch.randn_like(low), config)


# --- in training --------------------------------------------------------------------------------------------------

KINDS: dict[str, Callable[[Tensor, GivenConfig], Cond]] = {
    "none": lambda x, config: {},
    "mask": lambda x, config: {"image": masked(x, draw_masks(len(x), *x.shape[2:], x.device))},
    "grey": lambda x, config: {"image": grey(x)},
    "low": lambda x, config: {"image": draw_lowered(x, config)},
}


def given(x: Tensor, config: GivenConfig) -> Cond:
    """What is given beside samples (B, C, H, W): {"image": (B, C', H, W)}; nothing where the data set gives it."""
    return KINDS[config.kind](x, config)


def check_given(config: GivenConfig, told: Collection[str], shape: tuple[int, ...]) -> None:
    """Raise UserError where the network is told no image, or samples of a shape (C, H, W) have no such picture."""
    if config.kind != "none" and "image" not in told:
        raise UserError(
            f"given.kind is {config.kind}, but the network is told no image: set condition.image to concatenation"
        )
    if config.kind == "grey" and shape[0] != len(LUMA):
        raise UserError(f"given.kind is grey, but the pictures have {shape[0]} channels: only those of 3 have colours")
    if config.kind == "low" and any(side % config.factor for side in shape[1:]):
        size = f"{shape[2]}×{shape[1]}"
        raise UserError(f"given.factor is {config.factor}, which does not divide pictures of {size} pixels: change it")


def shown(data: Dataset, config: GivenConfig) -> Dataset:
    """A data set with what is given beside its samples, to be looked at one by one."""
    return data if config.kind == "none" else Shown(data, config)


class Shown(Dataset):
    """See `shown`. The training makes what is given of whole batches, with `given`."""

    image_ranged = False  # noise, and the corners of what is enlarged smoothly, leave [-1, 1]

    def __init__(self, data: Dataset, config: GivenConfig):
        """Of any data set with `(x, cond)` at an index."""
        self.data, self.config = data, config

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, i: int) -> tuple[Tensor, Cond]:
        x, cond = self.data[i]
        return x, cond | {name: value[0] for name, value in given(x[None], self.config).items()}

    def __getattr__(self, name: str) -> Any:
        """What else the data set says of itself, such as its classes."""
        if name == "data":  # an object that is being unpickled has none yet
            raise AttributeError(name)
        return getattr(self.data, name)
