"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

The only two places where pixels change their range: stored images are uint8 in [0, 255], networks see float
in [-1, 1].
"""

import torch
from torch import Tensor


def to_unit(images: Tensor) -> Tensor:
    """uint8 images of any shape -> float32 in [-1, 1] on the same device: 0 -> -1, 255 -> 1.

    Raises `TypeError` for anything but uint8: floats may be in [0, 1] or in [-1, 1], and guessing hides
    errors.
    """
    if images.dtype != torch.uint8:
        raise TypeError(f"to_unit takes uint8 images, not {images.dtype}")
    return images.float().div_(127.5).sub_(1)


def to_uint8(x: Tensor) -> Tensor:
    """Float images of any shape in [-1, 1] -> the nearest uint8; what lies outside (samples may) is clamped.

    The exact inverse of `to_unit`. Raises `TypeError` for integers, which are no images in [-1, 1].
    """
    if not x.is_floating_point():
        raise TypeError(f"to_uint8 takes float images in [-1, 1], not {x.dtype}")
    return x.float().clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)
