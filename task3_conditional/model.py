"""A conditional network with its diffusion: built from a config for training, loaded from a run or a file for sampling.

What is new against stage 1 is `Model.told`, which turns words into the dict that the network reads, and `Model.guide`,
which makes of the network the denoiser that a sampler is given.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from shared.cli import build_own
from shared.conditions.asked import blank, check_count, label_cond, text_cond
from shared.conditions.known import attribute_number, check_known, reader_of
from shared.conditions.network import ConditionalUNet
from shared.conditions.said import Cond
from shared.datasets import load as load_data
from shared.errors import UserError
from shared.generation import Guide, batch_seeds, computing, generate_steps, sampling_with
from shared.schedulers.config import GuidanceConfig, SamplingConfig
from shared.schedulers.diffusion import Denoiser, Diffusion, Network
from shared.schedulers.guidance import blend, check_scale, classifier_guided, guided, lerp, rescaled, within
from shared.schedulers.samplers import Step, sampler_steps
from shared.text.reader import Reader
from shared.training.checkpoint import load_into, read_facts
from shared.training.state import check_alike
from shared.training.weights import read_weights
from task3_conditional.classifier import NoisyClassifier
from task3_conditional.config import Config, model_config

RESULTS = Path(__file__).parent / "results"
COMMITTED = RESULTS / "digits.safetensors"
COMMITTED_TEXT = RESULTS / "captions.safetensors"
NEVER_TOLD_NOTHING = (
    "condition.dropout is 0: the unconditional model, which guidance needs, is never trained; make guidance.scale 1, "
    "or train with a dropout such as 0.1"
)


def build_data(config: Config) -> Dataset:
    """The data set that a config names; captions are still numbers, see `known.with_text`."""
    return build_own(config.own_data, Dataset) if config.own_data else load_data(config.data)


def build_network(config: Config, shape: tuple[int, int, int], known: dict[str, Any]) -> ConditionalUNet:
    """The network that a config names, for images of a shape (C, H, W) of which `known` can be said.

    Raises:
        UserError: the images cannot be halved as often as the U-Net wants, or its parts do not fit together.
    """
    try:
        network = ConditionalUNet(shape[0], config.network, config.condition, known, config.text.layers)
        network.unet.check_size(*shape[1:])
    except ValueError as error:
        raise UserError(str(error)) from None
    return network


def build_diffusion(config: Config) -> Diffusion:
    """The diffusion that a config names; raises UserError where its parts contradict each other."""
    try:
        diffusion = Diffusion.from_config(config.schedule, config.diffusion)
        sampler_steps(None, diffusion.schedule, None, config.sampling)  # only checks them: nothing runs until asked for
        check_scale(config.guidance.scale)
        if config.condition.dropout == 0 and config.guidance.scale != 1:
            raise ValueError(NEVER_TOLD_NOTHING)
        within(diffusion.schedule, config.guidance.interval, None, None)
    except ValueError as error:
        raise UserError(str(error)) from None
    return diffusion


@dataclass
class Model:
    """A trained network, what its output means, what it can be told, and how it was meant to be sampled."""

    network: ConditionalUNet
    diffusion: Diffusion
    config: Config
    shape: tuple[int, int, int]
    known: dict[str, Any]
    source: Path

    @functools.cached_property
    def reader(self) -> Reader:
        """What reads captions. Loaded when first asked for: a text encoder takes seconds."""
        return reader_of(self.config.text, self.known, self.source)

    # --- what it is told --------------------------------------------------------------------------------------

    def told(
        self,
        n: int,
        *,
        label: int | str | Sequence[int | str] | None = None,
        attributes: Mapping[str, bool] | None = None,
        text: str | Sequence[str] | None = None,
        image: Tensor | None = None,
    ) -> Cond:
        """The condition of n samples. What is not given is not said: the network then draws it as it likes.

        Args:
            n: number of samples.
            label: a class by number or name, or one for each sample.
            attributes: yes or no by name; the others are left open.
            text: a caption, or one for each sample.
            image: (C', H, W), or one for each sample.

        Raises:
            UserError: the model is not told such a thing, or knows no such class, attribute or word.
        """
        given = {"label": label, "attributes": attributes, "text": text, "image": image}
        for name, value in given.items():
            if value is not None:
                self.check_told(name)
        cond = self._nothing(n)
        if label is not None:
            cond |= label_cond(label, self.known, n)
        if attributes is not None:
            for name, value in attributes.items():
                cond["attributes"][:, attribute_number(self.known, name)] = int(value)
        if text is not None:
            cond |= text_cond(text, self.reader, n)
        if image is not None:
            cond["image"] = self._image(image, n)
        check_count(cond, n)
        return cond

    def check_told(self, name: str) -> None:
        """Raise UserError for what the model is never told, of label, attributes, text and image."""
        if name not in self.config.condition.told:
            raise UserError(f"{self.source} is a model that is told no {name}: leave it out, or take another model")

    def _nothing(self, n: int) -> Cond:
        """The condition of n samples about which nothing is said."""
        cond = blank(self.config.condition.told, self.known, n)
        if "image" in self.config.condition.told:
            cond["image"] = torch.zeros(n, self.known["image"], *self.shape[1:])
        return self.network.null(cond)

    def _image(self, image: Tensor, n: int) -> Tensor:
        shape = (self.known["image"], *self.shape[1:])
        if tuple(image.shape[-3:]) != shape or image.ndim not in (3, 4):
            there, here = ("×".join(map(str, sides)) for sides in (image.shape, shape))
            raise UserError(f"the image is {there}, and the model is told images {here}")
        return image.expand(n, *shape).clone() if image.ndim == 3 else image

    # --- sampling ---------------------------------------------------------------------------------------------

    def guide(
        self,
        network: Network,
        cond: Cond,
        guidance: GuidanceConfig,
        classifier: NoisyClassifier | None = None,
        weak: Network | None = None,
    ) -> Denoiser:
        """The denoiser that a sampler is given: one kind of guidance, within its interval.

        Classifier-free guidance by default; with a classifier, that guides the unconditional model; with a weak
        network, autoguidance.

        Raises:
            ValueError: a scale, share or interval that is none, or rescaling of what is not classifier-free.
        """
        diffusion, scale = self.diffusion, guidance.scale
        if self.config.condition.dropout == 0 and weak is None and (scale != 1 or classifier is not None):
            raise ValueError(NEVER_TOLD_NOTHING)
        if guidance.rescale and (classifier is not None or weak is not None):
            raise ValueError(
                f"guidance.rescale is {guidance.rescale:g}, but it is for classifier-free guidance: make it 0 where a "
                "classifier or a weaker model guides"
            )
        conditional = diffusion.denoiser(network, cond)
        if classifier is not None:
            open_label = {**cond, "label": self.network.null(cond)["label"]}  # what else is said still holds
            unconditional = diffusion.denoiser(network, open_label)
            chosen = classifier.log_probability(cond["label"])
            inside = classifier_guided(unconditional, diffusion.schedule, chosen, scale)
            return within(diffusion.schedule, guidance.interval, inside, unconditional)
        if weak is not None:
            inside = blend(conditional, diffusion.denoiser(weak, cond), scale)
        else:
            combine = rescaled(guidance.rescale) if guidance.rescale else lerp
            inside = guided(diffusion, network, cond, self.network.null(cond), scale, combine)
        return within(diffusion.schedule, guidance.interval, inside, conditional)

    def steps(
        self,
        cond: Cond,
        seed: int = 0,
        *,
        guidance: GuidanceConfig | None = None,
        classifier: NoisyClassifier | None = None,
        weak: Network | None = None,
        **options: object,
    ) -> Iterator[Step]:
        """Sample step by step: a generator of `Step`, whose `x` is (n, C, H, W).

        Args:
            cond: of n samples, from `told`.
            seed: of the noise; the same seed gives the same images.
            guidance: scale, rescale, interval; the run's where not given.
            classifier, weak: other guidance than the classifier-free one; see `guide`.
            options: fields of `SamplingConfig` that differ from the run's: sampler, steps, eta, spacing, clamp.

        Raises:
            UserError: more steps than the schedule has levels, a scale that is no number, or no such option.
        """
        config, guide = self.asking(cond, guidance=guidance, classifier=classifier, weak=weak, **options)
        size = (len(next(iter(cond.values()))), *self.shape)
        return generate_steps(self.network, self.diffusion, size, config, seed, guide)

    def asking(
        self,
        cond: Cond,
        *,
        guidance: GuidanceConfig | None = None,
        classifier: NoisyClassifier | None = None,
        weak: Network | None = None,
        **options: object,
    ) -> tuple[SamplingConfig, Guide]:
        """How to sample by the options of `steps`, and what makes a denoiser of the network: for `shared.generation`.

        Raises:
            UserError: there is no such option.
        """
        config = sampling_with(self.config.sampling, options)
        device = next(self.network.parameters()).device
        cond = {name: value.to(device) for name, value in cond.items()}
        if weak is not None:
            weak = computing(weak, config.precision, device)
        return config, lambda network: self.guide(network, cond, guidance or self.config.guidance, classifier, weak)

    def sample(self, cond: Cond, seed: int = 0, batch: int = 250, **options: Any) -> Tensor:
        """One image for each condition, (n, C, H, W) in [-1, 1], at most `batch` at a time. Options as for `steps`."""
        parts = []
        for _, own, own_seed in batches_of(cond, seed, batch):
            *_, last = self.steps(own, own_seed, **options)
            parts.append(last.x.clamp(-1, 1))
        return torch.cat(parts)


def batches_of(cond: Cond, seed: int, batch: int = 250) -> Iterator[tuple[slice, Cond, int]]:
    """Of n samples at most `batch` at a time: which these are, their condition, and the seed of their noise."""
    first = 0
    for count, own_seed in batch_seeds(len(next(iter(cond.values()))), batch, seed):
        part = slice(first, first + count)
        yield part, {name: value[part] for name, value in cond.items()}, own_seed
        first += count


def load(source: str | Path | None = None, *, weights: str = "ema", device: str = "cpu") -> Model:
    """Load a trained model.

    Args:
        source: a run's folder, a checkpoint file, or nothing for the one by class that comes with this package.
        weights: "ema", "swa", or "model" for the raw ones.
        device: where to put the network.

    Raises:
        UserError: there is no such file, it is not a checkpoint of this stage, or it lacks these weights.
    """
    state, path = read_weights(Path(source or COMMITTED), weights)
    config, shape, known = model_config(read_facts(path).get("config", {}))
    check_known(config.condition.told, shape, known, path)
    try:
        with torch.device("meta"):  # sizes that a stranger states take no memory before they are those of the tensors
            planned = build_network(config, shape, known)
    except (AttributeError, KeyError, OverflowError, RuntimeError, TypeError):
        raise UserError(f"{path} states sizes that no network has: give another checkpoint") from None
    check_alike(path, "network", state, planned.state_dict())
    network = build_network(config, shape, known)
    load_into(network, state, path)
    return Model(network.eval().to(device), build_diffusion(config), config, shape, known, path)


def weaker(model: Model, source: str | Path, weights: str = "ema") -> ConditionalUNet:
    """The network of another checkpoint of the same kind, for autoguidance: one trained for less long, say.

    Raises:
        UserError: it was trained on other data, or to predict something else.
    """
    other = load(source, weights=weights, device=str(next(model.network.parameters()).device))
    if other.source.resolve() == model.source.resolve():
        raise UserError(f"{other.source} is the model itself, which cannot guide it: name an earlier checkpoint")
    for name in ("condition", "schedule", "diffusion"):
        if getattr(other.config, name) != getattr(model.config, name):
            raise UserError(f"{other.source} differs from {model.source} in {name}: it cannot guide it")
    if (other.shape, other.known) != (model.shape, model.known):
        raise UserError(f"{other.source} was trained on other data than {model.source}: it cannot guide it")
    return other.network
