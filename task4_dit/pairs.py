"""The data of reflow: drawn by the teacher once, kept in the run's folder with a digest, checked when it is read."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.data import Dataset

from shared.datasets.images import Tensors
from shared.errors import UserError
from shared.training.checkpoint import read_tensors, write_checkpoint
from shared.training.data import Seeded, derive
from task4_dit.config import Distillation
from task4_dit.few_steps import draw_pairs, paired
from task4_dit.model import Model

if TYPE_CHECKING:
    from shared.experiments.run import RunRecord

PAIRS = "pairs.safetensors"


def pairs(teacher: Model, data: Dataset, config: Distillation, record: "RunRecord") -> Tensors:
    """Pairs of noise and what the teacher makes of it, told what samples of its own data are; drawn, or read again.

    Several processes each draw all of them.

    Raises:
        UserError: what lies in the folder is damaged, or of another teacher.
    """
    if (path := record.folder / PAIRS).exists():
        return kept_pairs(path, teacher, config.distill.pairs)
    wanted, cond = config.distill, conditions(data, teacher.network.keys, config.distill.pairs, config.train.seed)
    noise, ends = draw_pairs(teacher, wanted.pairs, cond, wanted.steps, wanted.scale, config.train.seed)
    tensors = {"pairs.eps": noise, "pairs.ends": ends, **{f"pairs.told.{name}": told for name, told in cond.items()}}
    record.keep(lambda folder: write_checkpoint(folder / PAIRS, tensors, {}))
    return paired(noise, ends, cond)


def conditions(data: Dataset, keys: list[str], n: int, seed: int) -> dict[str, Tensor]:
    """What n samples of a data set are told, spread evenly over it: they may lie in the order of their classes."""
    if not keys:
        return {}
    seeded = Seeded(data)  # what a data set draws at random, such as a caption, is a function of the seed
    with torch.random.fork_rng(devices=[]):
        told = [seeded[i * len(data) // n, derive(seed, "pair", i)][1] for i in range(n)]
    return {name: torch.stack([one[name] for one in told]).contiguous() for name in keys}


def kept_pairs(path: Path, teacher: Model, n: int) -> Tensors:
    """Pairs from a file. Raises UserError unless it holds n of the teacher's, as they were written."""
    try:
        tensors = read_tensors(path, "pairs")
    except UserError:
        raise UserError(f"{path} is damaged: remove it, and the pairs are drawn again") from None
    told = {name.removeprefix("told."): value for name, value in tensors.items() if name.startswith("told.")}
    shape = (n, *teacher.network.shape)
    fits = all(name in tensors and tuple(tensors[name].shape) == shape for name in ("eps", "ends"))
    if not fits or told.keys() != set(teacher.network.keys) or any(len(value) != n for value in told.values()):
        raise UserError(f"{path} holds other pairs than this run's: remove it, and they are drawn again")
    return paired(tensors["eps"], tensors["ends"], told)
