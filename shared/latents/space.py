"""Introduced in task 2; used by tasks 2, 4, 5.

The latent space: images to latents of unit deviation, and back. Measured once, cached, or made as they are needed.

What an autoencoder's encoder gives are *moments*: a distribution of latents for each image, or, with a codebook, the
latents themselves. The moments are what is cached; a latent is drawn from them anew each time.
"""

import contextlib
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

from shared.blocks.autoencoder import Autoencoder
from shared.cli import Own
from shared.datasets.config import DataConfig
from shared.errors import UserError
from shared.files import is_number, read_json, write_text
from shared.latents.config import LatentsConfig
from shared.training.checkpoint import digest

BATCH = 256  # images encoded at a time
IN_MEMORY = 256 * 2**20  # bytes of moments up to which a cache is read once, and then costs nothing a step
MEASURED = 10_000  # images at most: two numbers a channel need no more, and a large set would take hours
STATISTICS = "latents.json"  # beside the autoencoder's checkpoints, and in a cache


def fingerprint(autoencoder: nn.Module) -> str:
    """A digest of all weights: latents belong to one autoencoder, and to no other."""
    return digest(" ".join(f"{name} {digest(value)}" for name, value in sorted(autoencoder.state_dict().items())))


@dataclass
class Statistics:
    """What was measured of the latents of a data set, over images and positions."""

    autoencoder: str
    """fingerprint of the autoencoder that made them"""
    data: str
    """the data set, as `described` says it"""
    n: int
    """images"""
    mean: list[float]
    """of each channel"""
    deviation: list[float]
    """of each channel"""
    overall: float
    """deviation of all channels together"""
    classes: list[str] = field(default_factory=list)
    """names of the labels, where a cache holds labels"""


class Space(nn.Module):
    """An autoencoder, frozen, with the scale of its latents."""

    def __init__(self, autoencoder: Autoencoder, shift: Tensor, deviation: Tensor):
        """`shift` and `deviation` are (Z,): latents are (z - shift) / deviation."""
        super().__init__()
        self.autoencoder = autoencoder.eval().requires_grad_(False)
        self.register_buffer("shift", shift[:, None, None])
        self.register_buffer("deviation", deviation[:, None, None])

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Moments (B, M, h, w) of images (B, C, H, W) in [-1, 1]."""
        return self.autoencoder.encode(x)

    @torch.no_grad()
    def draw(self, moments: Tensor) -> Tensor:
        """Latents (B, Z, h, w) of unit deviation, drawn with torch's generator."""
        return (self.autoencoder.bottleneck.draw(moments) - self.shift) / self.deviation

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """Images (B, C, H, W) of latents (B, Z, h, w), clamped to [-1, 1]."""
        return self.autoencoder.decode(z * self.deviation + self.shift).clamp(-1, 1)

    def facts(self) -> dict[str, Any]:
        """What a checkpoint must hold for `rebuilt`."""
        shift, deviation = self.shift.flatten().tolist(), self.deviation.flatten().tolist()
        return {"autoencoder": fingerprint(self.autoencoder), "shift": shift, "deviation": deviation}


def build_space(autoencoder: Autoencoder, statistics: Statistics, config: LatentsConfig) -> Space:
    """The latent space with the scale that a config asks for."""
    mean, deviation = torch.tensor(statistics.mean), torch.tensor(statistics.deviation)
    if config.scale == "channels":
        return Space(autoencoder, mean, deviation)
    same = statistics.overall if config.scale == "deviation" else 1 / config.scale
    return Space(autoencoder, torch.zeros_like(mean), torch.full_like(mean, same))


def rebuilt(autoencoder: Autoencoder, facts: dict[str, Any], path: Path) -> Space:
    """The latent space that the checkpoint at `path` was trained in.

    Raises:
        UserError: this is another autoencoder, or the facts are none.
    """
    if facts.get("autoencoder") != fingerprint(autoencoder):
        raise UserError(
            f"{path} was trained in the latent space of another autoencoder: give its own, by --autoencoder"
        )
    try:
        shift, deviation = torch.tensor(facts["shift"]), torch.tensor(facts["deviation"])
        if shift.ndim != 1 or shift.shape != deviation.shape or not (deviation > 0).all():
            raise ValueError
        return Space(autoencoder, shift.float(), deviation.float())
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path} holds no scale of its latents: give another checkpoint") from None


def batch_for(image: Tensor) -> int:
    """How many images (C, H, W) to encode or decode at a time: in the memory of 256 images of 64×64."""
    return max(1, min(BATCH, BATCH * 64**2 // math.prod(image.shape[1:])))


def encoded(autoencoder: Autoencoder, data: Dataset, workers: int = 0) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    """The moments of a data set, in its order, a batch at a time: (B, M, h, w) on the CPU, and the conditions."""
    device = next(autoencoder.parameters()).device
    context = "spawn" if workers else None  # forking a process that runs threads can hang it
    for x, cond in DataLoader(data, batch_for(data[0][0]), num_workers=workers, multiprocessing_context=context):
        with torch.no_grad():
            yield autoencoder.encode(x.to(device)).cpu(), cond


def described(data: DataConfig, own_data: Own | None) -> str:
    """A data set in words, as far as its config tells: statistics and caches hold for one data set."""
    if own_data:
        return json.dumps({"own": own_data}, sort_keys=True)
    fields = {name: value for name, value in asdict(data).items() if name not in ("download", "bad_share")}
    for name in ("flip", "crop"):  # what came later is said where it is in use: what was made before stays valid
        if fields[name] == getattr(DataConfig(), name):
            del fields[name]
    if data.name not in ("folder", "lmdb"):  # these are what lies there; the other sets are the same everywhere
        del fields["root"]
    elif fields["root"]:
        fields["root"] = str(Path(fields["root"]).expanduser().resolve())
    return json.dumps(fields, sort_keys=True)


class Gauge:
    """Measures latents as they come: mean and deviation of each channel, in float64."""

    def __init__(self, autoencoder: Autoencoder):
        """Of this autoencoder."""
        self.autoencoder, self.n, self.positions = autoencoder, 0, 0
        self.sums = self.squares = torch.zeros((), dtype=torch.float64)

    def add(self, moments: Tensor) -> None:
        """Take in the moments (B, M, h, w) of a batch."""
        device = next(self.autoencoder.parameters()).device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.n)  # the same latents each time: the measure is a function of the data
            z = self.autoencoder.bottleneck.draw(moments.to(device)).double().cpu()
        self.n, self.positions = self.n + len(z), self.positions + z[:, 0].numel()
        self.sums = self.sums + z.sum(dim=(0, 2, 3))
        self.squares = self.squares + z.square().sum(dim=(0, 2, 3))

    def read(self, data: str) -> Statistics:
        """What was measured."""
        mean, square = self.sums / self.positions, self.squares / self.positions
        deviation = (square - mean.square()).clamp(min=1e-12).sqrt()
        overall = math.sqrt(max((square.mean() - mean.mean().square()).item(), 1e-12))
        return Statistics(fingerprint(self.autoencoder), data, self.n, mean.tolist(), deviation.tolist(), overall)


def keep(statistics: Statistics, run: Path | None) -> None:
    """Put statistics beside the autoencoder that they are of, if it lies in a run's folder."""
    if run:
        with contextlib.suppress(OSError):  # somebody else's run, perhaps: then it is measured again the next time
            write_text(run / STATISTICS, json.dumps(asdict(statistics), indent=2) + "\n")


def measured(autoencoder: Autoencoder, run: Path | None, data: Dataset, about: str, workers: int = 0) -> Statistics:
    """The statistics of a data set's latents: read where they lie with the autoencoder, else measured and put there.

    Args:
        autoencoder: which.
        run: the folder of its run, if it has one.
        data: images.
        about: `described` of the data.
        workers: processes that load images.
    """
    path = run and run / STATISTICS
    if path and path.exists():
        known = read_statistics(path)
        if (known.autoencoder, known.data) == (fingerprint(autoencoder), about):
            return known
    gauge, every = Gauge(autoencoder), -(-len(data) // MEASURED)
    for moments, _ in encoded(autoencoder, Subset(data, range(0, len(data), every)), workers):
        gauge.add(moments)
    statistics = gauge.read(about)
    keep(statistics, run)
    return statistics


def read_statistics(path: Path) -> Statistics:
    """From a latents.json. Raises UserError if it is none."""
    facts = read_json(path)
    try:
        facts = {"classes": [], **facts}
        statistics = Statistics(**{name: facts[name] for name in Statistics.__dataclass_fields__})
        spread, numbers = [*statistics.deviation, statistics.overall], [*statistics.mean, statistics.n]
        whole = all(map(is_number, [*spread, *numbers])) and len(statistics.mean) == len(statistics.deviation)
        if not (whole and min(spread) > 0 and all(isinstance(name, str) for name in statistics.classes)):
            raise TypeError
        return statistics
    except (KeyError, TypeError):
        raise UserError(f"{path} is damaged: remove it, and it is measured or written again") from None
