"""Data for the first stage of a cascade: pictures of another data set in the low resolution that the second is told."""

from jsonargparse.typing import PositiveInt
from torch import Tensor

from shared.datasets import DataConfig, load
from shared.datasets.images import InMemory, Tensors
from shared.datasets.ranges import to_unit
from shared.errors import UserError
from task3_conditional.config import GivenConfig
from task3_conditional.given import averaged, check_given


class Averaged(Tensors):
    """Pictures (C, H / factor, W / factor) in [-1, 1], each pixel the mean of a square; `own_data` of a config.

    They are not rounded to 256 shades: the second stage is told them as exactly, see `given.draw_lowered`.
    """

    ranged = True  # they are images: the training says so where one leaves [-1, 1]

    def __init__(self, data: DataConfig | None = None, factor: PositiveInt = 4):
        """Of a data set that is held in memory (default: the digits).

        Args:
            data: which.
            factor: `given.factor` of the second stage.

        Raises:
            UserError: the data set is not held in memory, or the factor does not divide its pictures.
        """
        config = data or DataConfig()
        whole = load(config)
        if not isinstance(whole, InMemory):
            raise UserError(f"{config.name} is not held in memory: only such data sets are averaged down")
        check_given(GivenConfig(kind="low", factor=factor), ["image"], whole.shape)
        super().__init__(means(whole.images, factor), whole.cond)
        self.classes, self.skipped = whole.classes, whole.skipped


def means(images: Tensor, factor: int) -> Tensor:
    """uint8 (N, C, H, W) as floats (N, C, H / factor, W / factor) in [-1, 1]: the means of squares of pixels."""
    return averaged(to_unit(images), factor)
