"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

Image files that are decoded when asked for, by whichever process. One that cannot be read is left out: the next
readable one takes its place, each time, and it is marked in memory that all processes of a machine share, so that the
process that trains can name it.
"""

import torch
from torch import Tensor
from torch.utils.data import Dataset

from shared.datasets.ranges import to_unit
from shared.errors import UserError

Item = tuple[Tensor, dict[str, Tensor]]


class Unreadable(UserError):
    """One image file cannot be decoded. `place` says which, and `why`."""

    def __init__(self, place: str, why: str, kind: str = "an image", advice: str = "repair or remove it") -> None:
        super().__init__(f"{place} cannot be read as {kind} ({why}): {advice}")
        self.place, self.why = place, why


def turns(generator: torch.Generator | None = None) -> bool:
    """Whether to turn an image left-right: half of them are, by one draw from torch's generator."""
    return bool(torch.rand((), generator=generator) < 0.5)


def check_share(bad: int, asked: int, share: float, first: UserError) -> None:
    """Raise `UserError` where more than a share of images cannot be read; `first` says what is wrong with one."""
    if bad and not share:
        raise UserError(str(first))
    if bad > share * asked:
        raise UserError(f"{bad} of {asked} images cannot be read, more than --data.bad-share {share:g} allows: {first}")


class Streamed(Dataset):
    """Images as `(x, cond)`; a subclass says how many there are, and has `pixels` and `said`.

    `flip` turns half of the images left-right, drawn anew each time; `share` is how many of them may be unreadable.
    The shape of x is that of the first readable image.
    """

    def __init__(self, count: int, share: float, flip: bool) -> None:
        """`count` images, the first readable of which is decoded here. Raises `UserError` if too many are not."""
        self.count, self.share, self.flip = count, share, flip
        self.unreadable = torch.zeros(count, dtype=torch.uint8).share_memory_()  # 1 where one was met
        self._why: dict[int, Unreadable] = {}
        self.shape: tuple[int, ...] | None = None
        self.shape = tuple(self._readable(0)[0].shape)

    def pixels(self, index: int) -> Tensor:
        """Image `index`, uint8 (C, H, W). Raises `Unreadable`, before anything is drawn at random."""
        raise NotImplementedError

    def said(self, index: int) -> dict[str, Tensor]:
        """What is said of image `index`."""
        raise NotImplementedError

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> Item:
        pixels, i = self._readable(i)
        return to_unit(pixels.flip(-1) if self.flip and turns() else pixels), self.said(i)

    def _readable(self, i: int) -> tuple[Tensor, int]:
        """The first readable image from i on, and which it is: a function of i, whatever has been met before."""
        if not -self.count <= i < self.count:
            raise IndexError(i)
        for index in ((i + k) % self.count for k in range(self.count)):
            if self.unreadable[index]:
                continue
            try:
                return self.pixels(index), index
            except Unreadable as error:
                self.unreadable[index], self._why[index] = 1, error
                why = error
            self._check(why)
        raise UserError(f"none of {self.count} images can be read, such as {self.skipped[0]}: repair or replace them")

    def _check(self, one: UserError) -> None:
        check_share(int(self.unreadable.sum()), self.count, self.share, one)

    def check_skipped(self) -> None:
        """Raise `UserError` if more than the share have been met, by all processes, that cannot be read."""
        for index in self.unreadable.nonzero().flatten()[:1].tolist():
            self._check(self._reason(index))

    @property
    def skipped(self) -> list[str]:
        """The images met so far that cannot be read, each with the reason."""
        met = map(self._reason, self.unreadable.nonzero().flatten().tolist())
        return [f"{error.place} ({error.why})" for error in met]

    def _reason(self, index: int) -> Unreadable:
        """Why an image cannot be read: another process may have met it, so it is tried once more."""
        if index not in self._why:
            try:
                self.pixels(index)
                self._why[index] = Unreadable(f"image {index}", "it could be read only at another time")
            except Unreadable as error:
                self._why[index] = error
        return self._why[index]

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_why": {}}
