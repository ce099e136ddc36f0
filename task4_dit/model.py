"""A transformer with its diffusion: built from a config for training, loaded from a run or a file for sampling."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from shared.blocks.dit import DiT, sized
from shared.conditions.asked import blank, check_count, label_cond, text_cond
from shared.conditions.known import check_known, reader_of
from shared.conditions.said import Cond, LabelTokens, dropped, text_tokens
from shared.errors import UserError
from shared.generation import batch_seeds, generate_steps, sampling_with
from shared.latents.spaces import AnySpace, check_clamp, decoded, shape_in, stored_space
from shared.precision import computing_in, resolve
from shared.schedulers.config import GuidanceConfig
from shared.schedulers.diffusion import Denoiser, Diffusion, Network
from shared.schedulers.guidance import check_scale, guided, lerp, rescaled, within
from shared.schedulers.samplers import Step, sampler_steps
from shared.text.reader import Reader
from shared.training.checkpoint import load_into, read_facts
from shared.training.state import check_alike
from shared.training.weights import read_weights
from task4_dit.config import Config, stored

RESULTS = Path(__file__).parent / "results"
COMMITTED = RESULTS / "digits.safetensors"
NEVER_TOLD_NOTHING = (
    "condition.dropout is 0: the unconditional model, which guidance needs, was never trained; leave the scale out or "
    "make it 1 (a distilled model has its teacher's guidance built in), or train with a dropout such as 0.1"
)


def build_network(config: Config, shape: tuple[int, int, int], known: dict[str, Any]) -> DiT:
    """The network that a config names, for data of a shape (C, H, W), of whose images `known` can be said.

    Raises:
        UserError: the patches do not divide the data, or the heads the width.
    """
    network, condition, said = sized(config.network), config.condition, []
    try:
        if condition.label:
            said.append(LabelTokens(len(known["classes"]), network.width, 1))
            nn.init.normal_(said[-1].embed.weight, std=0.02)  # the paper's
        if condition.text:
            said.append(text_tokens(known["text"], network.width, condition.tokens, config.text.layers))
        return DiT(shape, network, said)
    except ValueError as error:
        raise UserError(str(error)) from None


def build_diffusion(config: Config) -> Diffusion:
    """The diffusion that a config names; raises UserError where its parts contradict each other."""
    try:
        diffusion = Diffusion.from_config(config.schedule, config.diffusion)
        sampler_steps(None, diffusion.schedule, None, config.sampling)  # only checks them: nothing runs until asked for
        check_scale(config.guidance.scale)
        if config.condition.told and config.condition.dropout == 0 and config.guidance.scale != 1:
            raise ValueError(NEVER_TOLD_NOTHING)
        within(diffusion.schedule, config.guidance.interval, None, None)
    except ValueError as error:
        raise UserError(str(error)) from None
    return diffusion


def drop(network: DiT, cond: Cond, share: float) -> Cond:
    """What the network reads of a batch's condition, a share of the samples told nothing."""
    return dropped(network.said, {name: cond[name] for name in network.keys}, share)


@dataclass
class Model:
    """A trained network, what its output means, what it can be told, and how it was meant to be sampled."""

    network: DiT
    diffusion: Diffusion
    space: AnySpace
    config: Config
    shape: tuple[int, int, int]  # of the images
    known: dict[str, Any]
    source: Path

    @functools.cached_property
    def reader(self) -> Reader:
        """What reads captions. Loaded when first asked for: a text encoder takes seconds."""
        return reader_of(self.config.text, self.known, self.source)

    # --- what it is told --------------------------------------------------------------------------------------

    def told(
        self, n: int, *, label: int | str | Sequence[int | str] | None = None, text: str | Sequence[str] | None = None
    ) -> Cond:
        """The condition of n samples. What is not given is not said: the network then draws it as it likes.

        Args:
            n: number of samples.
            label: a class by number or name, or one for each sample.
            text: a caption, or one for each sample.

        Raises:
            UserError: the model is not told such a thing, or knows no such class or word.
        """
        for name, value in (("label", label), ("text", text)):
            if value is not None and not getattr(self.config.condition, name):
                raise UserError(f"{self.source} is a model that is told no {name}: leave it out, or take another model")
        cond = self.null(blank(self.config.condition.told, self.known, n))
        if label is not None:
            cond |= label_cond(label, self.known, n)
        if text is not None:
            cond |= text_cond(text, self.reader, n)
        check_count(cond, n)
        return cond

    def null(self, cond: Cond) -> Cond:
        """The condition that says nothing, for as many samples."""
        return {name: value for said in self.network.said for name, value in said.null(cond).items()}

    # --- sampling ---------------------------------------------------------------------------------------------

    def guide(self, network: Network, cond: Cond, guidance: GuidanceConfig) -> Denoiser:
        """The denoiser that a sampler is given: the network, by classifier-free guidance if it is told anything.

        Raises:
            ValueError: a scale, share or interval that is none; or guidance by what was never trained.
        """
        conditional = self.diffusion.denoiser(network, cond)
        if not cond:
            return conditional
        if self.config.condition.dropout == 0 and guidance.scale != 1:
            raise ValueError(NEVER_TOLD_NOTHING)
        combine = rescaled(guidance.rescale) if guidance.rescale else lerp
        inside = guided(self.diffusion, network, cond, self.null(cond), guidance.scale, combine)
        return within(self.diffusion.schedule, guidance.interval, inside, conditional)

    def steps(
        self, n: int, cond: Cond | None = None, seed: int = 0, *, guidance: GuidanceConfig | None = None, **options: Any
    ) -> Iterator[Step]:
        """Sample step by step: a generator of `Step`, whose `x` is what the network sees of n images. See `decode`.

        Args:
            n: number of samples.
            cond: of them, from `told`; nothing is said where it is not given.
            seed: of the noise; the same seed gives the same images.
            guidance: scale, rescale, interval; the run's where not given.
            options: fields of `SamplingConfig` that differ from the run's: sampler, steps, eta, spacing, clamp.

        Raises:
            UserError: more steps than the schedule has levels, a scale that is no number, or no such option.
        """
        config = sampling_with(self.config.sampling, options)
        device = next(self.network.parameters()).device
        cond = {name: value.to(device) for name, value in (self.told(n) if cond is None else cond).items()}

        def guide(network: Network) -> Denoiser:
            return self.guide(network, cond, guidance or self.config.guidance)

        return generate_steps(self.network, self.diffusion, (n, *self.network.shape), config, seed, guide)

    def decode(self, x: Tensor) -> Tensor:
        """Images (n, C, H, W) in [-1, 1] of what the network made."""
        with computing_in(resolve(self.config.sampling.precision, x.device), x.device):
            return decoded(self.space, x, self.shape)

    def sample(self, n: int, cond: Cond | None = None, seed: int = 0, batch: int = 250, **options: Any) -> Tensor:
        """n images (n, C, H, W) in [-1, 1], at most `batch` at a time. Options as for `steps`."""
        parts, first = [], 0
        for count, own_seed in batch_seeds(n, batch, seed):
            own = None if cond is None else {name: value[first : first + count] for name, value in cond.items()}
            *_, last = self.steps(count, own, own_seed, **options)
            parts.append(self.decode(last.x))
            first += count
        return torch.cat(parts)


def load(source: str | Path | None = None, *, weights: str = "ema", device: str = "cpu") -> Model:
    """Load a trained model.

    Args:
        source: a run's folder, a checkpoint file, or nothing for the one that comes with this package.
        weights: "ema", "swa", or "model" for the raw ones.
        device: where to put the network.

    Raises:
        UserError: there is no such file, it is not a checkpoint of this stage, it lacks these weights, or it is one of
            latents whose autoencoder does not lie with it.
    """
    state, path = read_weights(Path(source or COMMITTED), weights)
    found = stored(read_facts(path).get("config", {}))
    config, shape, known = found.config, found.shape, found.known
    check_known(config.condition.told, shape, known, path)
    space = stored_space(found.space, path)
    check_clamp(config.sampling, space)
    seen = shape_in(space, shape)
    try:
        with torch.device("meta"):  # sizes that a stranger states take no memory before they are those of the tensors
            planned = build_network(config, seen, known)
    except (AttributeError, KeyError, OverflowError, RuntimeError, TypeError):
        raise UserError(f"{path} states sizes that no network has: give another checkpoint") from None
    check_alike(path, "network", state, planned.state_dict())
    network = build_network(config, seen, known)
    load_into(network, state, path)
    space, diffusion = space.to(device), build_diffusion(config)
    return Model(network.eval().to(device), diffusion, space, config, shape, known, path)
