"""What can be measured of a conditional model: whether its samples are what was asked for, and how good they are.

Each function returns figures by name and what there is to say about their protocol.
"""

import contextlib
from typing import Any

import torch
from torch import Tensor

from shared.datasets.captioned_digits import CaptionedDigits, Scene
from shared.datasets.ranges import to_unit
from shared.errors import UserError
from shared.metrics.report import judge_labelled
from shared.metrics.scenes import Followed, judge_scenes
from task3_conditional.model import Model

KINDS = {"one": (1,), "two": (1, 1), "two_alike": (2,)}  # the counts of a scene's groups


def by_class(model: Model, n: int, seed: int, options: dict[str, Any]) -> dict[str, Any]:
    """Samples of all digits alike, judged: agreement is the share in which the judge reads the digit asked for.

    Args:
        model: of digits by class.
        n: samples; every digit is asked for equally often, up to one.
        seed: of the noise.
        options: for `Model.sample`.

    Returns:
        "judged", the judge's report; "figures"; and "agreement_by_class".
    """
    labels = torch.arange(n) % len(model.known["classes"])
    samples = model.sample(model.told(n, label=labels.tolist()), seed, **options).cpu()
    return judge_labelled(samples, labels)


def of_kind(data: CaptionedDigits, language: str, counts: tuple[int, ...]) -> list[int]:
    """The captions of a data set, by number, whose scene has such groups; each language has its own alphabet."""
    return [
        i
        for i, (caption, scene) in enumerate(zip(data.captions, data.scenes, strict=True))
        if tuple(group.count for group in scene) == counts and caption.isascii() == (language == "en")
    ]


def drawn(numbers: list[int], n: int, seed: int) -> list[int]:
    """n of these, without repeating any before all have been drawn."""
    generator = torch.Generator().manual_seed(seed)
    rounds = [torch.randperm(len(numbers), generator=generator) for _ in range(-(-n // len(numbers)))]
    return [numbers[i] for i in torch.cat(rounds)[:n].tolist()]


def by_caption(
    model: Model, data: CaptionedDigits, language: str, kind: str, n: int, seed: int, options: dict[str, Any]
) -> Followed:
    """Samples of the captions of one kind of scene, and whether they show it."""
    numbers = drawn(of_kind(data, language, KINDS[kind]), n, seed)
    cond = model.told(n, text=[data.captions[i] for i in numbers])
    samples = model.sample(cond, seed, **options)
    return judge_scenes(samples.cpu(), [data.scenes[i] for i in numbers])


def real(data: CaptionedDigits, kind: str, n: int, seed: int) -> Followed:
    """The same of real scenes, composed as the data is: what a perfect model would reach."""
    chosen: list[Scene] = [data.scenes[i] for i in drawn(of_kind(data, data.languages[0], KINDS[kind]), n, seed)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pictures = torch.stack([to_unit(data.compose(scene)) for scene in chosen])
    return judge_scenes(pictures, chosen)


def readable(model: Model, captions: list[str]) -> list[int]:
    """The numbers of the captions that a model can read. Raises UserError if there is none."""
    reader, found = model.reader, []
    for i, caption in enumerate(captions):
        with contextlib.suppress(UserError):
            reader.read([caption])
            found.append(i)
    if not found:
        raise UserError(f"{model.source} can read none of the captions: all have words that its training had not")
    return found


def retrieved(samples: Tensor, pictures: Tensor, distance: torch.nn.Module) -> tuple[float, float]:
    """How often the picture nearest to sample i, among all of them, is picture i; and how often it is among five.

    Args:
        samples: (N, C, H, W) in [-1, 1], drawn from the captions of the pictures.
        pictures: (N, C, H, W), the real ones, all different.
        distance: (B, C, H, W) twice to (B,).

    Raises:
        UserError: there are fewer than two.
    """
    if len(samples) != len(pictures) or len(samples) < 2:
        raise UserError(f"retrieval needs at least two samples and as many pictures, not {len(samples)}")
    with torch.no_grad():
        table = torch.stack([distance(sample.expand_as(pictures), pictures) for sample in samples])  # (N, N)
    own = table.diagonal()[:, None]
    rank = (~(table > own)).sum(dim=1) - 1  # the others that are not farther: of a sample that says nothing, all
    return (rank == 0).double().mean().item(), (rank < 5).double().mean().item()
