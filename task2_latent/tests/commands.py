"""The commands of stage 2, called as a person would, but in this process: torch is imported once."""

from shared.tests.commands import Ended, call, losses, same, whole
from task2_latent import encode, evaluate, sample, train, train_autoencoder

__all__ = [
    "AUTOENCODER",
    "DIFFUSION",
    "do_autoencoder",
    "do_encode",
    "do_evaluate",
    "do_sample",
    "do_train",
    "losses",
    "same",
    "whole",
]

COMMON = "--train.batch 4 --train.device cpu --train.precision fp32 --train.sample-every 0".split()
AUTOENCODER = [
    *"--autoencoder.width 8 --autoencoder.patch 2 --autoencoder.multipliers [1,1]".split(),
    *"--autoencoder.attention [none,none] --autoencoder.middle-attention none --autoencoder.latent-channels 2".split(),
    *"--optimizer.schedule constant --optimizer.warmup 0".split(),
    *COMMON,
]  # the smallest autoencoder: 28×28 to 7×7×2
DIFFUSION = [
    *"--network.width 8 --network.multipliers [1] --network.attention [none] --network.middle-attention none".split(),
    *"--optimizer.schedule constant --optimizer.warmup 0 --sampling.steps 2 --sampling.precision fp32".split(),
    *COMMON,
]


def do_autoencoder(*arguments: object) -> Ended:
    """task2-train-autoencoder, tiny."""
    return call(train_autoencoder.main, "task2-train-autoencoder", *arguments)


def do_encode(*arguments: object) -> Ended:
    """task2-encode, on the CPU."""
    return call(encode.main, "task2-encode", "--device", "cpu", *arguments)


def do_train(*arguments: object) -> Ended:
    """task2-train."""
    return call(train.main, "task2-train", *arguments)


def do_sample(*arguments: object) -> Ended:
    """task2-sample, on the CPU."""
    return call(sample.main, "task2-sample", "--device", "cpu", *arguments)


def do_evaluate(*arguments: object) -> Ended:
    """task2-evaluate, on the CPU."""
    return call(evaluate.main, "task2-evaluate", "--device", "cpu", *arguments)
