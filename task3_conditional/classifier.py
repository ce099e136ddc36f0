"""A classifier of noisy images, for classifier guidance: at every noise level it says what it can still tell.

Dhariwal and Nichol 2021, section 4. A classifier of clean images is of no use: a sampler shows it none until the end.
"""

from dataclasses import dataclass, fields
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from shared.blocks.resnet import Context, group_norm
from shared.blocks.unet import UNet
from shared.errors import UserError
from shared.schedulers.config import DiffusionConfig, NoiseConfig
from shared.schedulers.diffusion import Diffusion
from shared.schedulers.guidance import LogProbability
from shared.training.checkpoint import load_into, read_facts
from shared.training.weights import read_weights
from task3_conditional.classifier_config import ClassifierTraining, Shape, classifier_config

WAY_UP = ("up", "enlarge", "norm", "head")  # of the U-Net: what `encode` does without


class NoisyClassifier(nn.Module):
    """The way down of a U-Net, told the time, the mean over all positions, and one linear layer."""

    def __init__(self, trunk: UNet, classes: int):
        """`trunk` is taken over, and loses its way up."""
        super().__init__()
        self.trunk, self.classes = trunk, classes
        for part in WAY_UP:  # weights that no gradient reaches have no place in a checkpoint
            delattr(trunk, part)
        bottom = trunk.config.width * trunk.config.multipliers[-1]
        self.norm = group_norm(bottom)
        self.head = nn.Linear(bottom, classes)

    def forward(self, xt: Tensor, t: Tensor) -> Tensor:
        """Noisy images (B, C, H, W) at times (B,) to logits (B, classes)."""
        h, _ = self.trunk.encode(xt, Context(self.trunk.time(t)))  # (B, bottom width, h, w)
        h = F.silu(self.norm(h)).mean(dim=(2, 3))  # (B, bottom width)
        return self.head(h)

    def log_probability(self, label: Tensor) -> LogProbability:
        """log p(label | xt) as a function of (xt, t): what `classifier_guided` asks for.

        Args:
            label: (B,) long, a class for each sample of the batch.

        Raises:
            ValueError: there is no such class.
        """
        low, high = (int(end) for end in label.aminmax())
        if low < 0 or high >= self.classes:
            wrong = low if low < 0 else high
            raise ValueError(f"there is no class {wrong}: the classifier knows the classes 0 to {self.classes - 1}")

        def log_p(xt: Tensor, t: Tensor) -> Tensor:
            return self(xt, t).log_softmax(dim=1).gather(1, label[:, None])[:, 0]  # (B,)

        return log_p


class NoisyCrossEntropy:
    """The loss: -log p(label | xt) at times drawn evenly from 1 … T, as the diffusion draws them."""

    def __init__(self, diffusion: Diffusion):
        """With the noise of this diffusion; `figures` holds the accuracy on the batch of the last call."""
        self.diffusion, self.figures = diffusion, {}

    def __call__(self, model: nn.Module, x: Tensor, cond: dict[str, Tensor]) -> Tensor:
        """The mean over clean images (B, C, H, W) with `cond["label"]` (B,)."""
        label = cond["label"]
        t = torch.randint(1, self.diffusion.schedule.T + 1, x.shape[:1], device=x.device)
        logits = model(self.diffusion.add_noise(x, torch.randn_like(x), t), t)  # (B, classes)
        self.figures["accuracy"] = (logits.detach().argmax(dim=1) == label).float().mean()
        return F.cross_entropy(logits, label)


@torch.no_grad()
def accuracies(
    network: nn.Module, diffusion: Diffusion, images: Tensor, labels: Tensor, shares: tuple[float, ...]
) -> list[float]:
    """The share of images whose class is found, at each of the times `shares` · T, under the same noise at all.

    Args:
        network: a `NoisyClassifier`, in eval mode.
        diffusion: its noise.
        images: clean, (N, C, H, W).
        labels: (N,).
        shares: of T, from 0 (the clean images) to 1.
    """
    device, found = next(network.parameters()).device, []
    images, labels = images.to(device), labels.to(device)
    eps = torch.randn(images.shape, generator=torch.Generator().manual_seed(0)).to(device)
    for share in shares:
        t = torch.full((len(images),), share * diffusion.schedule.T, device=device)
        xt = diffusion.add_noise(images, eps, t)
        guesses = [network(*part).argmax(dim=1) for part in zip(xt.split(250), t.split(250), strict=True)]
        found.append((torch.cat(guesses) == labels).double().mean().item())
    return found


def classes_of(data: Dataset) -> list[str]:
    """The names of a data set's classes.

    Raises:
        UserError: it has no labels, does not name its classes, names fewer than two, or has labels beyond them.
    """
    classes = list(getattr(data, "classes", None) or [])
    samples = [data[i][1].get("label") for i in range(0, len(data), max(1, len(data) // 16))]
    if not classes or any(label is None for label in samples):
        raise UserError("the data has no classes: a classifier needs a data set with labels and the names of `classes`")
    if len(classes) < 2:
        raise UserError(f"the data has one class alone, {classes[0]}: a classifier needs two to tell apart")
    known = getattr(data, "labels", None)  # of a set in memory, all; else of some samples
    for label in known.aminmax() if isinstance(known, Tensor) else samples:
        if not isinstance(label, Tensor) or label.dtype != torch.long or label.ndim or not 0 <= label < len(classes):
            raise UserError(f"the data has a label {label}: with {len(classes)} classes, longs below that are needed")
    return classes


def build_classifier(config: ClassifierTraining, shape: Shape, classes: int) -> NoisyClassifier:
    """The classifier that a config names, for images of a shape (C, H, W).

    Raises:
        UserError: the images cannot be halved as often as it wants, or its parts do not fit together.
    """
    try:
        trunk = UNet(shape[0], config.network)
        trunk.check_size(*shape[1:])
    except ValueError as error:
        raise UserError(str(error)) from None
    return NoisyClassifier(trunk, classes)


def build_noise(config: NoiseConfig) -> Diffusion:
    """A diffusion with the noise that a config names; what it would predict is of no matter here.

    Raises:
        UserError: it is no schedule.
    """
    try:
        return Diffusion.from_config(config, DiffusionConfig())
    except ValueError as error:
        raise UserError(str(error)) from None


@dataclass
class LoadedClassifier:
    """A trained classifier, and what it is for."""

    network: NoisyClassifier
    diffusion: Diffusion  # the noise that it knows
    config: ClassifierTraining
    shape: Shape
    classes: list[str]
    source: Path

    def check_fits(self, schedule: NoiseConfig, shape: Shape, classes: list[str]) -> None:
        """Raise UserError unless it can guide a diffusion with this noise, of such images (C, H, W), of these classes.

        Schedules are compared by what they give: a beta that a cosine never looks at is no difference.
        """
        advice = "train one that fits, by task3-train-classifier"
        if tuple(shape) != self.shape:
            there, here = ("×".join(map(str, sides)) for sides in (self.shape, shape))
            raise UserError(f"{self.source} is a classifier of images {there}, not {here}: {advice}")
        if list(classes) != self.classes:
            there, here = (f"{len(names)} ({shortened(names)})" for names in (self.classes, classes))
            raise UserError(f"{self.source} is a classifier of other classes: {there}, not {here}: {advice}")
        own = self.config.schedule
        if not torch.equal(self.diffusion.schedule.alpha.cpu(), build_noise(schedule).schedule.alpha):
            names = [f.name for f in fields(own) if getattr(own, f.name) != getattr(schedule, f.name)]
            wrong = ", ".join(f"schedule.{name} {getattr(own, name)}, not {getattr(schedule, name)}" for name in names)
            raise UserError(f"{self.source} is a classifier trained on other noise: {wrong}: {advice}")


def shortened(names: list[str], most: int = 5, longest: int = 20) -> str:
    """The first of some names, for a message."""
    shown = [name if len(name) <= longest else f"{name[:longest]}…" for name in names[:most]]
    return ", ".join([*shown, "…"] if len(names) > most else shown)


def load_classifier(source: str | Path, *, weights: str = "ema", device: str = "cpu") -> LoadedClassifier:
    """Load a trained classifier.

    Args:
        source: a run's folder, or a checkpoint file.
        weights: "ema", "swa", or "model" for the raw ones.
        device: where to put the network.

    Raises:
        UserError: there is no such file, or it is not the checkpoint of a classifier.
    """
    state, path = read_weights(Path(source), weights)
    config, shape, classes = classifier_config(read_facts(path).get("config", {}))
    diffusion = build_noise(config.schedule)
    network = build_classifier(config, shape, len(classes))
    load_into(network, state, path)
    network.eval().requires_grad_(False)  # guidance asks for the gradient by xt alone
    return LoadedClassifier(network.to(device), diffusion, config, shape, classes, path)
