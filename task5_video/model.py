"""A network for clips with its diffusion: built from a config for training, loaded from a run or a file for sampling.

Against stage 4 there is one thing more that a sampler's denoiser may be made to respect: frames that are known. See
`Given`.
"""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from einops import rearrange
from torch import Tensor

from shared.blocks.dit import sized
from shared.conditions.asked import blank, check_count, label_cond, text_cond
from shared.conditions.known import check_known, reader_of
from shared.conditions.said import Cond, LabelTokens, text_tokens
from shared.errors import UserError
from shared.generation import batch_seeds, generate_steps, sampling_with
from shared.latents.spaces import AnySpace, check_clamp, decoded, shape_in, stored_space
from shared.precision import computing_in, resolve
from shared.schedulers.config import GuidanceConfig
from shared.schedulers.diffusion import Denoiser, Diffusion, Network
from shared.schedulers.guidance import check_scale, guided, lerp, rescaled, within
from shared.schedulers.known import kept, reconstruction_guided, replaced
from shared.schedulers.samplers import Step, sampler_steps
from shared.text.reader import Reader
from shared.training.checkpoint import load_into, read_facts
from shared.training.data import derive
from shared.training.state import check_alike
from shared.training.weights import read_weights
from task5_video.config import Config, stored
from task5_video.loops import rolling
from task5_video.network import VideoUNet
from task5_video.video_dit import VideoDiT

RESULTS = Path(__file__).parent / "results"
COMMITTED = RESULTS / "digits.safetensors"
Shape = tuple[int, int, int, int]  # (C, F, H, W) of clips
Method = Literal["conditional", "replacement", "reconstruction"]
NEVER_TOLD_NOTHING = (
    "condition.dropout is 0: the unconditional model, which guidance needs, is never trained; make guidance.scale 1, "
    "or train with a dropout such as 0.1"
)


@dataclass(frozen=True)
class Given:
    """Frames that are known, of the clips to be sampled, and how the others hear of them."""

    clips: Tensor
    """(n, C, F, H, W) in [-1, 1]; whatever it holds where nothing is known does not count"""
    mask: Tensor
    """(F,) bool: which frames are known"""
    method: Method = "conditional"
    """conditional: the network is told them, and must have been trained so; the others have any model go on"""
    weight: float = 10.0
    """of reconstruction guidance"""


def build_network(config: Config, shape: Shape, known: dict[str, Any]) -> VideoUNet | VideoDiT:
    """The network that a config names, for clips (C, F, H, W) of pixels or latents, of which `known` can be said.

    Raises:
        UserError: the frames cannot be halved, or cut into patches, as the network wants; or its parts do not fit.
    """
    condition, (channels, _, height, width) = config.condition, shape
    if condition.image != "none":
        raise UserError(f"condition.image is {condition.image}: clips are told no image; make it none")
    try:
        if config.network == "unet":
            network = VideoUNet(channels, config.unet, config.temporal, condition, known, config.text.layers)
            network.image.unet.check_size(height, width)
            return network
        dit, said = sized(config.dit), []
        if condition.attributes != "none":
            raise ValueError("condition.attributes is for the U-Net: make it none, or network unet")
        if condition.label != "none":
            said.append(LabelTokens(len(known["classes"]), dit.width, 1))
            torch.nn.init.normal_(said[-1].embed.weight, std=0.02)
        if condition.text != "none":
            said.append(text_tokens(known["text"], dit.width, condition.tokens, config.text.layers))
        return VideoDiT((channels, height, width), dit, config.temporal, said)
    except ValueError as error:
        raise UserError(str(error)) from None


def planned_network(config: Config, shape: Shape, known: dict[str, Any], source: Path) -> VideoUNet | VideoDiT:
    """The network of a file, as sizes alone: what a stranger states takes no memory before it is that of the tensors.

    Raises:
        UserError: no network has such sizes, or as for `build_network`.
    """
    try:
        with torch.device("meta"):
            return build_network(config, shape, known)
    except (AttributeError, KeyError, OverflowError, RuntimeError, TypeError):
        raise UserError(f"{source} states sizes that no network has: give another checkpoint") from None


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


def shape_of(space: AnySpace, shape: Shape) -> Shape:
    """The shape of what the network sees of clips (C, F, H, W). Raises UserError as `shape_in`."""
    channels, height, width = shape_in(space, (shape[0], *shape[2:]))
    return channels, shape[1], height, width


def by_frames(work: Any, clips: Tensor) -> Tensor:
    """What a function of images makes of each frame of clips (n, C, F, H, W)."""
    return rearrange(work(rearrange(clips, "n c f h w -> (n f) c h w")), "(n f) c h w -> n c f h w", n=len(clips))


@dataclass
class Model:
    """A trained network, what its output means, what it can be told, and how it was meant to be sampled."""

    network: VideoUNet | VideoDiT
    diffusion: Diffusion
    space: AnySpace
    config: Config
    shape: Shape  # of the clips, as pixels
    known: dict[str, Any]
    source: Path

    @functools.cached_property
    def reader(self) -> Reader:
        """What reads captions. Loaded when first asked for: a text encoder takes seconds."""
        return reader_of(self.config.text, self.known, self.source)

    @property
    def device(self) -> torch.device:
        """Where the network lies."""
        return next(self.network.parameters()).device

    # --- what it is told --------------------------------------------------------------------------------------

    def told(
        self, n: int, *, label: int | str | Sequence[int | str] | None = None, text: str | Sequence[str] | None = None
    ) -> Cond:
        """The condition of n clips. What is not given is not said: the network then draws it as it likes.

        Args:
            n: number of clips.
            label: a class by number or name, or one for each clip.
            text: a caption, or one for each clip.

        Raises:
            UserError: the model is not told such a thing, or knows no such class or word.
        """
        for name, value in (("label", label), ("text", text)):
            if value is not None and name not in self.config.condition.told:
                raise UserError(f"{self.source} is a model that is told no {name}: leave it out, or take another model")
        cond = self.null(blank(self.config.condition.told, self.known, n))
        if label is not None:
            cond |= label_cond(label, self.known, n)
        if text is not None:
            cond |= text_cond(text, self.reader, n)
        check_count(cond, n)
        return cond

    def null(self, cond: Cond) -> Cond:
        """The same with nothing said of the clips; frames that are given still are."""
        return cond | {name: value for said in self.network.said for name, value in said.null(cond).items()}

    # --- sampling ---------------------------------------------------------------------------------------------

    def guide(self, network: Network, cond: Cond, guidance: GuidanceConfig) -> Denoiser:
        """The denoiser that a sampler is given: the network, by classifier-free guidance if it is told anything.

        Raises:
            ValueError: a scale, share or interval that is none; or guidance by what was never trained.
        """
        conditional = self.diffusion.denoiser(network, cond)
        if not self.config.condition.told:
            return conditional
        if self.config.condition.dropout == 0 and guidance.scale != 1:
            raise ValueError(NEVER_TOLD_NOTHING)
        combine = rescaled(guidance.rescale) if guidance.rescale else lerp
        inside = guided(self.diffusion, network, cond, self.null(cond), guidance.scale, combine)
        return within(self.diffusion.schedule, guidance.interval, inside, conditional)

    def steps(
        self,
        n: int,
        cond: Cond | None = None,
        seed: int = 0,
        *,
        frames: int | None = None,
        given: Given | None = None,
        loop: bool = False,
        guidance: GuidanceConfig | None = None,
        **options: Any,
    ) -> Iterator[Step]:
        """Sample step by step: a generator of `Step`, whose `x` is what the network sees of n clips. See `decode`.

        Args:
            n: number of clips.
            cond: of them, from `told`; nothing is said where it is not given.
            seed: of the noise; the same seed gives the same clips.
            frames: of a clip; as in training where not said.
            given: frames that are known.
            loop: have the last frame be followed by the first.
            guidance: scale, rescale, interval; the run's where not given.
            options: fields of `SamplingConfig` that differ from the run's: sampler, steps, eta, spacing, clamp.

        Raises:
            UserError: more steps than the schedule has levels, a scale that is no number, given frames of another size,
                or for a model that was not trained to be told them, or told to a loop; or no such option.
        """
        config = sampling_with(self.config.sampling, options)
        cond = {name: value.to(self.device) for name, value in (self.told(n) if cond is None else cond).items()}
        frames = frames or (given.clips.shape[2] if given else self.shape[1])
        size = (n, *shape_of(self.space, (self.shape[0], frames, *self.shape[2:])))
        schedule, generator = self.diffusion.schedule, torch.Generator().manual_seed(derive(seed, "known"))
        seen, mask = self.seen(given, n, frames) if given else (None, None)
        if given and given.method == "conditional":
            if loop:  # the network would be told them at places that are turned away
                raise UserError("a loop cannot be told frames: give them by replacement or reconstruction")
            cond |= {"given": seen, "given_mask": mask.flatten().expand(n, -1)}

        def noise(x: Tensor) -> Tensor:
            return torch.randn(x.shape, generator=generator).to(x)

        def guide(network: Network) -> Denoiser:
            denoise = self.guide(network, cond, guidance or self.config.guidance)
            denoise = rolling(denoise) if loop else denoise
            if given is None:
                return denoise
            if given.method == "conditional":
                return kept(denoise, schedule, seen, mask)
            if given.method == "replacement":
                return replaced(denoise, schedule, seen, mask, noise)
            return reconstruction_guided(denoise, schedule, seen, mask, noise, given.weight)

        return generate_steps(self.network, self.diffusion, size, config, seed, guide)

    def check_method(self, method: Method, known: Sequence[int]) -> None:
        """Raise UserError where the frames at these places, of a clip's, are to be told to a network not trained so."""
        trained, wanted = self.config.given, list(known)
        if method != "conditional":
            return
        if trained.share == 0:
            what = "to be given frames"
        elif wanted == list(range(len(wanted))):
            what = "to be given first frames" if trained.between == 1 else ""
            if len(wanted) > trained.first and not what:
                what = f"to be given more than {trained.first} first frames"
        else:
            what = "to be given the last frame" if trained.between == 0 else ""
        if what:
            raise UserError(
                f"{self.source} was not trained {what}: take --method replacement or reconstruction, or train with "
                "other given.share, given.first, given.between"
            )

    def seen(self, given: Given, n: int, frames: int) -> tuple[Tensor, Tensor]:
        """Known frames as the network sees them, (n, c, F, h, w), and which they are, (1, 1, F, 1, 1).

        Raises:
            UserError: they are of another number or size, or not what this model was trained to be told.
        """
        wanted = (n, self.shape[0], frames, *self.shape[2:])
        if tuple(given.clips.shape) != wanted or tuple(given.mask.shape) != (frames,):
            there, here = ("×".join(map(str, sides)) for sides in (given.clips.shape, wanted))
            raise UserError(
                f"the given clips are {there}, and clips of {here} are to be sampled: bring them to one size"
            )
        self.check_method(given.method, given.mask.nonzero().flatten().tolist())
        mask = given.mask.to(given.clips.device)  # films are read on the CPU, clips may be drawn on a GPU
        blank = torch.where(mask[None, None, :, None, None], given.clips, 0.0).to(self.device)
        with torch.random.fork_rng(devices=[]):  # an autoencoder's latents are drawn
            torch.manual_seed(0)
            seen = by_frames(lambda x: self.space.draw(self.space.encode(x)), blank)
        return seen, given.mask.to(self.device)[None, None, :, None, None]

    def decode(self, x: Tensor) -> Tensor:
        """Clips (n, C, F, H, W) in [-1, 1] of what the network made."""
        shape = (self.shape[0], *self.shape[2:])
        with computing_in(resolve(self.config.sampling.precision, x.device), x.device):
            return by_frames(lambda frames: decoded(self.space, frames, shape), x)

    def sample(
        self,
        n: int,
        cond: Cond | None = None,
        seed: int = 0,
        *,
        batch: int = 50,
        given: Given | None = None,
        **options: Any,
    ) -> Tensor:
        """n clips (n, C, F, H, W) in [-1, 1], at most `batch` at a time. Options as for `steps`."""
        parts, first = [], 0
        for count, own_seed in batch_seeds(n, batch, seed):
            rows = slice(first, first + count)
            own = None if cond is None else {name: value[rows] for name, value in cond.items()}
            known = given and Given(given.clips[rows], given.mask, given.method, given.weight)
            *_, last = self.steps(count, own, own_seed, given=known, **options)
            clips = self.decode(last.x)
            if known:  # what an autoencoder made of them is not what was given
                clips = torch.where(known.mask.to(clips.device)[:, None, None], known.clips.to(clips), clips)
            parts.append(clips)
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
    seen = shape_of(space, shape)
    check_alike(path, "network", state, planned_network(config, seen, known, path).state_dict())
    network = build_network(config, seen, known)
    load_into(network, state, path)
    space, diffusion = space.to(device), build_diffusion(config)
    return Model(network.eval().to(device), diffusion, space, config, shape, known, path)
