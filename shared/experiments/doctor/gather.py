"""Introduced in task 1; used by task 1.

What the doctor gathers for its checks: from a run's folder, a checkpoint, a metrics.jsonl, or a data set. What is
damaged or not there becomes a line that says so, and leaves the other checks.
"""

import contextlib
import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from shared.cli import build_own, flat, read_yaml, stored_config
from shared.datasets import load as load_data
from shared.datasets.config import DataConfig
from shared.datasets.video import load_video
from shared.datasets.video_config import VideoConfig
from shared.errors import UserError
from shared.experiments.doctor import curves as doctor_curves
from shared.experiments.doctor import data as doctor_data
from shared.experiments.doctor import denoise as doctor_denoise
from shared.experiments.doctor import model as doctor_model
from shared.experiments.doctor.examined import Asked, Examined, Stage, drawn
from shared.experiments.doctor.finding import Checked, unknown
from shared.experiments.doctor.progress import told
from shared.experiments.history import Run, open_run, read_metrics
from shared.experiments.tables import clean
from shared.files import is_run
from shared.training.checkpoint import read_facts, read_tensors
from shared.training.weights import newest


@dataclass
class OnlyImages:
    """The section of a config that names images."""

    data: DataConfig = field(default_factory=DataConfig)


@dataclass
class OnlyClips:
    """The section of a config that names clips."""

    data: VideoConfig = field(default_factory=VideoConfig)


GROUP = "noise_to_video.stages"
PUBLISHED = {"MNIST": "mnist", "FashionMNIST": "fashion_mnist"}  # what torchvision's folders hold
SIZE = 64  # of the images of a folder, which may be of any
OF_A_MODEL = ("range", "colour", "latents", "condition", "codebook", "schedule")


def stages() -> Iterator[Stage]:
    """The module `examined` of each stage that is installed."""
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        with contextlib.suppress(ModuleNotFoundError):
            yield importlib.import_module(f"{point.value}.examined")


def examine(source: Path, asked: Asked) -> Examined:
    """A model of whichever stage. Raises UserError where it is of none, or cannot be loaded."""
    saved = read_facts(newest(source)).get("config", {})
    for stage in stages():
        if stage.reads(saved):
            return stage.examine(source, asked)
    raise UserError(f"{source} is no model that is examined by what it makes: none of the stages says how")


# --- a model ------------------------------------------------------------------------------------------------------


def of_model(found: Examined, samples: int, seed: int) -> list[Checked]:
    """The checks that ask the network; `samples` are drawn of it, none for 0."""
    why = found.unknown
    no_data, no_network = why.get("data"), why.get("denoising", "this is no diffusion")

    def check(name: str, ready: bool, reason: str | None, ask: Callable[[], Checked]) -> Checked:
        if found.images is None:
            return unknown(name, no_data or "the data cannot be had")
        if not ready:
            return unknown(name, reason)
        with told(f"{name}: {len(found.images)} samples of the data"):
            return ask()

    def colour() -> Checked:
        count = min(max(2, samples // found.cost), len(found.images))
        cond = {key: value[:count] for key, value in found.cond.items()}
        return doctor_data.colour(found.sample(count, cond, seed), found.images)

    denoises = found.diffusion is not None and found.x0 is not None
    return [
        check("range", True, None, lambda: doctor_data.value_range(found.images)),
        check("colour", bool(found.sample and samples), "no samples are drawn of it", colour),
        check(
            "latents",
            found.scaled is not None and found.x0 is not None,
            "the network sees no latents",
            lambda: doctor_model.latents(found.x0, found.scaled),
        ),
        check(
            "condition",
            denoises and bool(found.cond),
            "the network is told nothing" if denoises else no_network,
            lambda: doctor_denoise.condition(found, seed),
        ),
        check("codebook", bool(found.codes), "the model has no codebook", lambda: doctor_model.codebook(*found.codes)),
        check("schedule", denoises, no_network, lambda: doctor_denoise.schedule(found, seed)),
    ]


def model_checks(source: Path, asked: Asked, samples: int) -> list[Checked]:
    """`of_model` of a run or checkpoint; where it cannot be loaded, why."""
    try:
        with told(f"loading {clean(str(source))} and its data"):
            found = examine(source, asked)
        return of_model(found, samples, asked.seed)
    except UserError as error:
        return [unknown(name, str(error)) for name in OF_A_MODEL]


def weights(run: Run | None, checkpoint: Path | None) -> Checked:
    """Which weights were sampled, of a run's evaluations and of an exported file."""
    used, distance = [], None
    for evaluation in run.evaluations if run else []:
        used.append((f"evaluation of step {evaluation.step}", str(evaluation.protocol.get("weights"))))
    with contextlib.suppress(UserError):  # said by the other checks
        facts = read_facts(checkpoint) if checkpoint else {}
        if isinstance(facts.get("weights"), str):
            used.append(("the exported file", facts["weights"]))
        if facts and (raw := read_tensors(checkpoint, "model")) and (averaged := read_tensors(checkpoint, "ema")):
            distance = doctor_model.apart(raw, averaged)
    return doctor_model.weights(used, distance)


def stated(run: Run, checkpoint: Path | None) -> list[Checked]:
    """A finding where a run's config.yaml names another schedule, or another target, than its checkpoint does."""
    if checkpoint is None:
        return []
    try:
        saved = read_facts(checkpoint).get("config", {})
    except UserError:
        return []
    here, there = flat(run.config), flat(saved) if isinstance(saved, dict) else {}
    parts = [name for name in here.keys() & there.keys() if name.startswith(("schedule.", "diffusion."))]
    unlike = sorted(name for name in parts if here[name] != there[name])
    if not unlike:
        return []
    name = unlike[0]
    return [
        Checked(
            "schedule, as written",
            "finding",
            f"config.yaml has {name} {here[name]}, the checkpoint {there[name]}: {len(unlike)} of {len(parts)} fields "
            "of schedule and diffusion differ (limit: none)",
            "samples are drawn by the checkpoint's, and figures are shown beside the file's: one of them is not true",
            "take config.yaml from a copy of the run, or write the checkpoint's fields into it",
        )
    ]


# --- what a person names --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gathered:
    """The checks of something, and what it is in words."""

    about: str
    checked: list[Checked]
    problems: list[str]
    """damaged files"""


def curves(lines: list[dict[str, float]], loss: str = "hinge") -> list[Checked]:
    """The checks that read metrics.jsonl."""
    return [doctor_curves.falling(lines), doctor_curves.discriminator(lines, loss), doctor_curves.loader(lines)]


def of_run(run: Run, asked: Asked, samples: int) -> Gathered:
    """All checks of a run's folder."""
    try:
        checkpoint = newest(run.folder)
    except UserError:
        checkpoint = None
    loss = flat(run.config).get("loss.adversarial_loss", "hinge")
    checked = curves(run.metrics, loss) + [weights(run, checkpoint)] + stated(run, checkpoint)
    if checkpoint is None:
        checked += [unknown(name, "the run has no checkpoint") for name in OF_A_MODEL]
    else:
        checked += model_checks(checkpoint, asked, samples)
    return Gathered(f"run {run.folder} ({run.task}, {run.state})", checked, list(dict.fromkeys(run.problems)))


def of_file(path: Path, asked: Asked, samples: int) -> Gathered:
    """All checks of a checkpoint or of a metrics.jsonl.

    Raises:
        UserError: it is neither, or is damaged.
    """
    if path.suffix == ".jsonl":
        lines, bad = read_metrics(path)
        problems = [f"{path} is damaged: {bad} of its lines cannot be read"] if bad else []
        if not lines:
            raise UserError(f"{path} holds no lines of figures: give the metrics.jsonl of a run")
        return Gathered(f"curves {path}", curves(lines), problems)
    with told(f"loading {clean(str(path))} and its data"):
        found = examine(path, asked)
    return Gathered(f"checkpoint {path}", [weights(None, path), *of_model(found, samples, asked.seed)], [])


def of_data(name: str, asked: Asked) -> Gathered:
    """The check of a data set: a config with a section `data` or `own_data`, a folder or zip, or a name.

    Raises:
        UserError: it is none, or cannot be read.
    """
    data = data_set(name, asked)
    if not len(data):
        raise UserError(f"{name} is empty: there is nothing to look at")
    try:
        images, cond = drawn(data, asked)
    except (RuntimeError, TypeError, ValueError, KeyError, IndexError, AttributeError) as error:  # a class of one's own
        raise UserError(f"{name} gives no pairs (image tensor, dict) of one size: {error}") from None
    said = f", each with its {', '.join(cond)}" if cond else ""
    about = f"data {name}: {len(data):,} samples of {tuple(images.shape[1:])}{said}"
    return Gathered(about, [doctor_data.value_range(images)], [])


def data_set(name: str, asked: Asked) -> Dataset:
    """The data set that a person names."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        config = read_yaml(path)
        if own := config.get("own_data"):
            if not isinstance(own, dict) or not asked.trust:
                raise UserError(f"{path} names a data set of its own: reading it runs that code; add --trust true")
            return build_own(own, Dataset)
        return of_section(config.get("data", {}), any(clips(stage, path, config) for stage in stages()))
    if path.exists():
        return folder(path)
    return load_data(DataConfig(name=name))


def clips(stage: Stage, path: Path, config: dict[str, Any]) -> bool:
    """Whether a config file is for a stage that learns from clips; the others do not say."""
    return hasattr(stage, "clips") and stage.clips(path, config)


def of_section(section: Any, clips: bool) -> Dataset:
    """What the section `data` of a config names: clips where its config is for these, or where only they have it."""
    if not clips:
        try:
            return load_data(stored_config(OnlyImages, {"data": section}, "images").data)
        except UserError as of_images:
            with contextlib.suppress(UserError):
                return of_section(section, True)
            raise of_images from None
    return load_video(stored_config(OnlyClips, {"data": section}, "clips").data)


def folder(path: Path) -> Dataset:
    """The images of a folder or zip, or its films where it holds no images."""
    if name := PUBLISHED.get(path.resolve().name):
        raise UserError(f"{path} is the published set {name}: DIFFUSION_DATA={path.resolve().parent} doctor {name}")
    try:
        return load_data(DataConfig(name="folder", root=str(path), size=SIZE))
    except UserError as of_images:
        with contextlib.suppress(UserError):
            return load_video(VideoConfig(name="videos", root=str(path), size=SIZE))
        raise of_images from None


def gather(target: str, asked: Asked, samples: int, root: Path = Path("runs")) -> Gathered:
    """All that can be checked of what a person names.

    Raises:
        UserError: it cannot be examined at all.
    """
    path = Path(target)
    if is_run(path):
        return of_run(Run(path), asked, samples)
    if path.suffix in (".safetensors", ".jsonl"):
        return of_file(path, asked, samples)
    if path.exists() or target in DataConfig.__annotations__["name"].__args__:
        return of_data(target, asked)
    try:
        return of_run(open_run(target, root), asked, samples)
    except UserError:
        raise UserError(
            f"{target} is no run, checkpoint, metrics.jsonl, config, folder or data set: see doctor --help"
        ) from None
