"""Which data a step sees: a function of (seed, step) alone."""

import itertools
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, IterableDataset

from shared.datasets.images import InMemory
from shared.errors import UserError
from shared.tests import tiny
from shared.training.data import Order, Seeded, apart, batches, check_data, derive, micro_batches

CPU = torch.device("cpu")
CONFIG = replace(tiny.CONFIG, batch=4, accumulate=2, seed=11, workers=0)


class Noisy(Dataset):
    """Images that every library's generator has a part in, as an augmentation would."""

    def __init__(self, size: int = 13):
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, i: int):
        noise = torch.rand(1, 4, 4) + random.random() + float(np.random.rand())
        return (noise / 3 - 0.5) + i / 100, {"label": torch.tensor(i)}


def take(n: int, config=CONFIG, size: int = 13, first: int = 0, rank: int = 0, world: int = 1):
    """The first n micro-batches of a stream, as lists of (index, seed)."""
    return list(itertools.islice(micro_batches(config, size, first, rank, world), n))


def test_every_pass_has_each_sample_once_in_a_new_order():
    config = replace(CONFIG, batch=3, accumulate=1)
    indices = [index for batch in take(26, config) for index, _ in batch]
    passes = [indices[start : start + 13] for start in range(0, 78, 13)]
    assert all(sorted(p) == list(range(13)) for p in passes)
    assert len({tuple(p) for p in passes}) == 6


def test_a_batch_may_be_larger_than_the_data():
    (batch,) = take(1, replace(CONFIG, batch=30), size=7)
    counts = np.bincount([index for index, _ in batch])
    assert counts.min() >= 4 and counts.max() <= 5


@pytest.mark.parametrize("first", [1, 3, 7, 20])
def test_a_stream_that_begins_later_is_the_rest_of_the_stream(first):
    assert take(6, first=first) == take(2 * first + 6)[2 * first :]


@pytest.mark.parametrize("world", [2, 4])
def test_processes_share_out_the_micro_batches(world):
    config = replace(CONFIG, accumulate=4)
    whole = take(12, config)
    shares = [take(12 // world, config, rank=rank, world=world) for rank in range(world)]
    share = 4 // world  # micro-batches of a step that each takes
    assert [shares[j % world][step * share + j // world] for step in range(3) for j in range(4)] == whole


def test_accumulation_sees_the_samples_of_one_large_batch():
    large = take(3, replace(CONFIG, batch=8, accumulate=1))
    small = take(6)
    assert [a + b for a, b in zip(small[::2], small[1::2], strict=True)] == large


def test_seeds_differ_between_samples_passes_and_trainings():
    keys = [key for batch in take(20) for key in batch]
    assert len({seed for _, seed in keys}) == len(keys)
    other = [key for batch in take(20, replace(CONFIG, seed=12)) for key in batch]
    assert [i for i, _ in keys] != [i for i, _ in other]
    assert not {s for _, s in keys} & {s for _, s in other}


def test_derived_seeds_keep_their_parts_apart():
    assert len({derive(1, 23), derive(12, 3), derive(123), derive(1, 2, 3), derive("1", 2, 4)}) == 5
    assert all(0 <= derive(0, n) < 2**63 for n in range(1000))
    assert derive(1, 2) == derive(1, 2)


def test_order_does_not_depend_on_what_was_asked_before():
    forwards, backwards = Order(7, 3), Order(7, 3)
    assert [forwards(p) for p in range(30)] == [backwards(p) for p in reversed(range(30))][::-1]


def test_a_sample_depends_on_its_key_alone():
    """Whatever the loader process has drawn before, with Python's, numpy's or torch's generator."""
    noisy = Seeded(Noisy())
    x, cond = noisy[3, 77]
    torch.rand(5), random.random(), np.random.rand()
    assert torch.equal(noisy[3, 77][0], x) and cond["label"] == 3
    assert not torch.equal(noisy[3, 78][0], x)


def test_data_in_memory_comes_as_it_would_through_a_loader():
    class Streamed(Dataset):
        """The same data, not known to lie in memory."""

        __len__ = lambda self: 13  # noqa: E731
        __getitem__ = lambda self, i: tiny.data()[i]  # noqa: E731

    for (x, cond), (y, other) in itertools.islice(
        zip(batches(tiny.data(), CONFIG, 2, CPU), batches(Streamed(), CONFIG, 2, CPU), strict=False), 5
    ):
        assert torch.equal(x, y) and x.dtype == y.dtype == torch.float32
        assert torch.equal(cond["label"], other["label"])


def test_a_subclass_of_data_in_memory_is_asked_for_its_samples():
    """It may turn or colour them: reading its tensor would pass that over without a word."""

    class Flipped(InMemory):
        def __getitem__(self, i):
            x, cond = super().__getitem__(i)
            return -x, cond

    plain = tiny.data()
    flipped = Flipped(plain.images, plain.labels, plain.classes)
    (x, _), (y, _) = (next(batches(d, CONFIG, 0, CPU)) for d in (plain, flipped))
    assert torch.equal(x, -y)


def test_own_data_may_have_a_field_named_images():
    noisy = Noisy()
    noisy.images = ["a.png", "b.png"]
    x, _ = next(batches(noisy, CONFIG, 0, CPU))
    assert x.shape == (4, 1, 4, 4)


class Fixed(Dataset):
    """Given samples."""

    def __init__(self, *samples):
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, i: int):
        return self.samples[i]


class Endless(IterableDataset):
    """A stream, which has no sample at a position."""

    def __iter__(self):
        return iter(())


GOOD = torch.linspace(-1, 1, 16).view(1, 4, 4)
WRONG = {
    "0 to 1": (Fixed((GOOD.abs(), {})), r"from 0\.0667 to 1: images must use the range \[-1, 1\]"),
    "0 to 255": (Fixed((GOOD * 127 + 128, {})), "from 1 to 255"),
    "bytes": (Fixed(((GOOD * 127 + 128).to(torch.uint8), {})), "torch.uint8"),
    "nan": (Fixed((GOOD, {}), (GOOD * float("nan"), {}), (GOOD, {})), "nan"),
    "flat": (Fixed((GOOD[0], {})), r"\(4, 4\)"),
    "sizes": (Fixed((GOOD, {}), (GOOD[:, :2], {})), r"mixes sizes: \(1, 4, 4\) and \(1, 2, 4\)"),
    "no pair": (Fixed(GOOD), "gives Tensor: pairs"),
    "label as number": (Fixed((GOOD, 3)), "pairs"),
    "array": (Fixed((GOOD.numpy(), {})), "pairs"),
    "empty": (Fixed(), "empty"),
    "no length": (Endless(), "no length"),
}


@pytest.mark.parametrize("name", WRONG)
def test_data_that_cannot_be_trained_on_is_refused_in_one_line(name):
    dataset, message = WRONG[name]
    with pytest.raises(UserError, match=message) as error:
        check_data(dataset)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError):
        next(batches(dataset, CONFIG, 0, CPU))


@pytest.mark.parametrize("x", [GOOD, GOOD * 0, -GOOD.abs(), GOOD * 0.1])
def test_data_within_the_range_is_taken(x):
    check_data(Fixed((x, {})))


@pytest.mark.slow
def test_worker_processes_change_nothing():
    """Spawned workers, each with generators of its own, against loading in this process."""
    alone = itertools.islice(batches(Noisy(), CONFIG, 1, CPU), 6)
    shared = itertools.islice(batches(Noisy(), replace(CONFIG, workers=2), 1, CPU), 6)
    for (x, cond), (y, other) in zip(alone, shared, strict=True):
        assert torch.equal(x, y) and torch.equal(cond["label"], other["label"])


def test_workers_are_out_of_reach_of_ctrl_c(monkeypatch):
    moved = []
    monkeypatch.setattr("os.setpgrp", lambda: moved.append(True))
    apart(0)
    assert moved
