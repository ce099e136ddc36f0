"""The commands of stage 2, called as a person would, but in this process: torch is imported once."""

import contextlib
import io
import json
import sys
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import torch

from shared.training.checkpoint import Checkpoints, read_facts, read_tensors
from task2_latent import encode, evaluate, sample, train, train_autoencoder

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


class Ended(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str

    def says(self, status: int, *parts: str) -> bool:
        """Whether it ended in one line of error that has these parts; the assertion shows what it is instead."""
        assert (self.status, self.err.count("\n"), [p for p in parts if p not in self.err]) == (status, 1, []), self.err
        return True

    def well(self) -> "Ended":
        """This, which must have gone well."""
        assert self.status == 0, self.err
        return self


def call(main, name: str, *arguments: object) -> Ended:
    """Run a command's `main` to its end; an exception other than the exit is a traceback, and fails the test."""
    out, err = io.StringIO(), io.StringIO()
    status, argv = 0, [name, *map(str, arguments)]
    with mock.patch.object(sys, "argv", argv), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            status = end.code
    return Ended(status, out.getvalue(), err.getvalue())


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


def losses(run: Path) -> list[tuple[float, float]]:
    """Step and loss of each line of a run's metrics.jsonl."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["loss"]) for line in lines]


def whole(run: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a run's newest checkpoint."""
    path = Checkpoints(run / "checkpoints").latest()
    names = {name.partition(".")[0] for name in read_facts(path)["digests"]}
    return {f"{prefix}.{name}": t for prefix in names for name, t in read_tensors(path, prefix).items()}


def same(a: Path, b: Path) -> bool:
    """Whether two runs' newest checkpoints hold the same tensors, bit for bit."""
    one, other = whole(a), whole(b)
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])] == []
