"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

Which data each step sees: a function of (seed, step), and of nothing that happened before. So a resumed run goes on
exactly where it stopped, and several processes, or gradient accumulation, see the same samples in the same steps.

Micro-batch j of optimizer step n holds the positions (n · accumulate + j) · batch … + batch of an endless sequence
that goes through the data again and again, each time in a new order.
"""

import hashlib
import math
import os
import random
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from shared.datasets.images import InMemory, Tensors
from shared.datasets.ranges import to_unit
from shared.datasets.streamed import turns
from shared.errors import UserError
from shared.training.config import TrainConfig

Batch = tuple[Tensor, dict[str, Tensor]]  # (x, cond)


def derive(*parts: int | str) -> int:
    """A seed from a tuple of seeds and counters: unrelated for any two tuples, below 2^63."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


class Order:
    """The endless sequence: sample `order(position)`, every sample once per pass."""

    def __init__(self, size: int, seed: int):
        """Over `size` samples."""
        self.size, self.seed, self.epoch = size, seed, -1

    def __call__(self, position: int) -> int:
        """The index of the sample at a position."""
        epoch, place = divmod(position, self.size)
        if epoch != self.epoch:
            generator = torch.Generator().manual_seed(derive(self.seed, "order", epoch))
            self.epoch, self.permutation = epoch, torch.randperm(self.size, generator=generator).tolist()
        return self.permutation[place]


class Seeded(Dataset):
    """A data set asked by (index, seed): whatever it draws at random while loading a sample comes from that seed."""

    def __init__(self, dataset: Dataset):
        """Any data set with `(x, cond)` at an index."""
        self.dataset = dataset

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        """The sample, its random crops and flips decided by the key alone, in whichever worker it is loaded."""
        index, seed = key
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        return self.dataset[index]


def micro_batches(
    config: TrainConfig, size: int, first_step: int, rank: int, world: int
) -> Iterator[list[tuple[int, int]]]:
    """Endlessly, the (index, seed) pairs of this process's micro-batches, from optimizer step `first_step` on."""
    order, step = Order(size, config.seed), first_step
    while True:
        for j in range(rank, config.accumulate, world):
            start = (step * config.accumulate + j) * config.batch
            yield [(order(p), derive(config.seed, "sample", p)) for p in range(start, start + config.batch)]
        step += 1


def resident(
    dataset: InMemory | Tensors, keys: Iterator[list[tuple[int, int]]], device: torch.device
) -> Iterator[Batch]:
    """Batches of a small data set that lies on the device as one tensor, with no loader in the way.

    They are those that `Seeded` would give: what is drawn for a sample comes from its own seed.
    """
    if isinstance(dataset, InMemory):
        x, given, flip = dataset.images.to(device), to_unit, dataset.flip
    else:
        x, given, flip = dataset.x.to(device), lambda values: values, False
    cond = {name: values.to(device) for name, values in dataset.cond.items()}
    for batch in keys:
        index = on_device([index for index, _ in batch], device)
        samples = x[index]
        if flip:
            turned = on_device([turns(torch.Generator().manual_seed(seed)) for _, seed in batch], device)
            samples = torch.where(turned.view(-1, *[1] * (samples.ndim - 1)), samples.flip(-1), samples)
        yield given(samples), {name: values[index] for name, values in cond.items()}


def on_device(values: list[int] | list[bool], device: torch.device) -> Tensor:
    """Numbers as a tensor on a device, which is not waited for."""
    return torch.tensor(values, pin_memory=device.type == "cuda").to(device, non_blocking=True)


def apart(worker: int) -> None:
    """Take a worker out of the reach of Ctrl-C, which a terminal sends to all: the step at hand needs its data."""
    os.setpgrp()


def streamed(
    dataset: Dataset, keys: Iterator[list[tuple[int, int]]], device: torch.device, workers: int
) -> Iterator[Batch]:
    """Batches loaded by worker processes ahead of their use."""
    loader = DataLoader(
        Seeded(dataset),
        batch_sampler=keys,
        num_workers=workers,
        worker_init_fn=apart,
        pin_memory=device.type == "cuda",
        multiprocessing_context="spawn" if workers else None,  # forking a process that runs threads can hang it
    )
    for x, cond in loader:
        yield x.to(device, non_blocking=True), {k: v.to(device, non_blocking=True) for k, v in cond.items()}


def batches(
    dataset: Dataset,
    config: TrainConfig,
    first_step: int,
    device: torch.device,
    rank: int = 0,
    world: int = 1,
) -> Iterator[Batch]:
    """Endlessly, this process's micro-batches `(x, cond)` on the device, from optimizer step `first_step` on.

    Raises:
        UserError: the data set is empty, or gives something other than float images within [-1, 1].
    """
    check_data(dataset)
    keys = micro_batches(config, len(dataset), first_step, rank, world)
    # not a subclass with an own way to a sample: it may do more than look it up
    if getattr(type(dataset), "__getitem__", None) in (InMemory.__getitem__, Tensors.__getitem__):
        return resident(dataset, keys, device)
    return streamed(dataset, keys, device, config.workers)


def check_data(dataset: Dataset) -> None:
    """Raise UserError unless some samples of a data set are `(x, cond)`, x a float image or clip, alike, in [-1, 1]."""
    if not hasattr(dataset, "__len__"):
        raise UserError("the data set has no length: one with __len__ and __getitem__ is needed")
    if len(dataset) == 0:
        raise UserError("the data set is empty: there is nothing to train on")
    samples = [dataset[i] for i in range(0, len(dataset), max(1, len(dataset) // 16))]
    for sample in samples:
        if not (
            isinstance(sample, tuple)
            and len(sample) == 2
            and isinstance(sample[0], Tensor)
            and isinstance(sample[1], dict)
        ):
            raise UserError(
                f"the data set gives {type(sample).__name__}: pairs (image tensor, dict of tensors) are needed"
            )
    check_range([x for x, _ in samples], getattr(dataset, "ranged", True))


def check_range(samples: list[Tensor], ranged: bool = True) -> None:
    """Raise UserError unless these are float images or clips that use [-1, 1]: not 0 … 255, and not [0, 1] either.

    What is no image, such as latents, is not `ranged`: it has only to be finite.
    """
    for x in samples:
        if not torch.is_floating_point(x) or x.ndim not in (3, 4) or x.numel() == 0:
            needed = "float images (C, H, W), or clips (C, F, H, W), are needed"
            raise UserError(f"the data set gives {x.dtype} of shape {tuple(x.shape)}: {needed}")
        if x.shape != samples[0].shape:
            raise UserError(f"the data set mixes sizes: {tuple(samples[0].shape)} and {tuple(x.shape)}")
    low, high = (bound.item() for bound in torch.stack(samples).aminmax())
    if not ranged:
        if not (math.isfinite(low) and math.isfinite(high)):
            raise UserError("the data set gives values that are not finite")
        return
    if not (low >= -1.001 and high <= 1.001) or (low >= 0 and high > 0):  # so put that NaN is refused too
        raise UserError(f"the data set gives values from {low:.3g} to {high:.3g}: images must use the range [-1, 1]")
