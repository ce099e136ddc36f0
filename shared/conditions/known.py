"""Introduced in task 3; used by tasks 3, 4, 5.

What can be said about the samples of a data set: found before training, kept with the model, checked in a file.

Throughout, `told` says which of "label", "attributes", "text" and "image" a network is told.
"""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from shared.errors import UserError
from shared.text.config import TextConfig
from shared.text.reader import Reader, build_reader, described, rebuilt_reader
from shared.training.checkpoint import read_facts
from shared.training.data import check_range

LOOKED_AT = 16  # samples of a data set


def needed(told: Mapping[str, str], data: Dataset) -> None:
    """Raise UserError unless the data set says what the network is to be told.

    Args:
        told: and in which way, by name; what it is not told is not there.
        data: a data set.
    """
    if not told:
        raise UserError("the network is told nothing: set one of condition.label, .attributes, .text, .image")
    has = data[0][1]
    for name, way in told.items():
        key = "caption" if name == "text" else name
        if key not in has:
            known = ", ".join(has) or "nothing"
            raise UserError(f"condition.{name} is {way}, but the data set gives no {key}, only: {known}")


def with_text(
    text: TextConfig, data: Dataset, device: torch.device | str, source: Path | None = None
) -> tuple[Dataset, Reader]:
    """The data set with its captions read, and what reads them.

    Args:
        text: which reader.
        data: a data set with captions.
        device: where a frozen encoder computes.
        source: a checkpoint whose weights are gone on with: its reader is taken, so that a word keeps its number.

    Raises:
        UserError: the captions cannot be read, or not by this reader.
    """
    if getattr(data, "cached", False):
        raise UserError("a cache of latents holds no captions: leave latents.cache out")
    if source is None:
        reader = build_reader(text, getattr(data, "captions", None) or [])
    else:
        reader = reader_of(text, stored_known(source), source)
    return described(data, reader.to(device), text), reader


def stored_known(source: Path) -> dict[str, Any]:
    """What a checkpoint says that its conditions can say. Raises UserError if it says nothing of it."""
    config = read_facts(source).get("config")
    known = config.get("known") if isinstance(config, dict) else None
    if not isinstance(known, dict):
        raise UserError(f"{source} does not say what its conditions can say: give another checkpoint")
    return known


def text_facts(text: TextConfig, reader: Reader) -> dict[str, Any]:
    """What `said.text_tokens` and `reader_of` need to know of a reader."""
    about = {"width": reader.width, "tokens": reader.tokens, "reader": reader.facts()}
    return about | {"length": text.length, "pooled": text.pooled}


def reader_of(text: TextConfig, known: dict[str, Any], source: Path) -> Reader:
    """What reads captions for the network in `source`, of which `known` can be said.

    Raises:
        UserError: it is not to be had, or the file contradicts itself.
    """
    there = known.get("text") if isinstance(known.get("text"), dict) else {}
    reader = rebuilt_reader(text, there.get("reader"), source)
    here = text_facts(text, reader)
    if any(there.get(name) != here[name] for name in ("width", "tokens", "length", "pooled")):
        raise UserError(f"{source} has a network for another text encoder than it names: give another checkpoint")
    return reader


def known_of(told: Collection[str], data: Dataset, reader: Reader | None, text: TextConfig) -> dict[str, Any]:
    """What can be said about the samples of a data set, as it is kept with a model.

    Args:
        told: as above.
        data: a data set that gives these, see `needed`; if its `image_ranged` is False, its images may leave [-1, 1].
        reader: of its captions; None where the network is told no text.
        text: the config of the reader.

    Returns:
        "classes" and "attributes" (lists of names), "text" (see `text_facts`; None), "image" (its channels; None).

    Raises:
        UserError: the data set does not name what its samples say, or they say something else.
    """
    names = {}
    for name in ("classes", "attributes"):
        found = getattr(data, name, None) or []
        if isinstance(found, str) or not isinstance(found, Iterable):
            raise UserError(f"the data set's `{name}` is {found!r}: make it a list of names")
        names[name] = list(map(str, found))
    if "label" in told and not names["classes"]:
        raise UserError("condition.label: the data set has labels, but does not name its `classes`")
    if "attributes" in told and not names["attributes"]:
        raise UserError("condition.attributes: the data set has attributes, but does not name its `attributes`")
    samples = [data[i] for i in range(0, len(data), max(1, len(data) // LOOKED_AT))]
    for x, cond in samples:
        if "label" in told:
            check_numbers("a label", cond.get("label"), (), len(names["classes"]))
        if "attributes" in told:
            check_numbers("attributes", cond.get("attributes"), (len(names["attributes"]),), 2)
        if "image" in told:
            check_image(cond.get("image"), x, samples[0][1]["image"])
    image = None
    if "image" in told:
        # one in [0, 1] would train, and sample from another range
        check_range([cond["image"] for _, cond in samples], getattr(data, "image_ranged", True))
        image = samples[0][1]["image"].shape[0]
    return {**names, "text": text_facts(text, reader) if reader else None, "image": image}


def check_numbers(what: str, value: Any, shape: tuple[int, ...], count: int) -> None:
    """Raise UserError unless a sample says so many whole numbers from 0 to count - 1."""
    whole = isinstance(value, Tensor) and value.dtype == torch.long and tuple(value.shape) == shape
    if not whole or not ((value >= 0) & (value < count)).all():
        shown = f"{value.dtype} {value.tolist()}" if isinstance(value, Tensor) and value.numel() <= 1 else "others"
        kind = f"{shape[0]} longs" if shape else "a long"
        raise UserError(f"the data set gives {what} ({shown}): {kind} from 0 to {count - 1} by its names are needed")


def check_image(image: Any, x: Tensor, first: Any) -> None:
    """Raise UserError unless a sample's image is finite and as large as the sample x, and all are alike."""
    alike = isinstance(image, Tensor) and image.ndim == 3 and image.shape == first.shape
    if not alike or image.shape[1:] != x.shape[1:] or not image.isfinite().all():
        there = tuple(image.shape) if isinstance(image, Tensor) else type(image).__name__
        raise UserError(
            f"the data set gives an image ({there}) beside samples of {tuple(x.shape)}: finite ones, as high and wide "
            "as these and all alike, are needed"
        )


def check_known(told: Collection[str], shape: tuple[int, int, int], known: dict[str, Any], source: Path) -> None:
    """Raise UserError unless a file, which may come from anywhere, names what its network is told, and an image's size.

    Whether the sizes are those of its tensors is not looked at here.

    Args:
        told: as above.
        shape: (C, H, W) of its images.
        known: what it says can be said.
        source: the file.
    """
    if not all(0 < side < 2**16 for side in shape):
        sides = "×".join(map(str, shape))
        raise UserError(f"{source} is of images {sides}, which no image is: give another checkpoint")
    image = known.get("image")
    if "image" in told and (type(image) is not int or image < 1):
        raise UserError(f"{source} is told images, and does not say of how many channels: give another checkpoint")
    for what, name in (("label", "classes"), ("attributes", "attributes")):
        names = known.get(name)
        if not isinstance(names, list) or not all(isinstance(one, str) for one in names):
            raise UserError(f"{source} does not say what its conditions can say ({name}): give another checkpoint")
        if what in told and not names:
            raise UserError(f"{source} is told {what}, and names none: give another checkpoint")


def class_number(known: dict[str, Any], name: int | str) -> int:
    """The number of a class, given by number or name. Raises UserError if there is no such class."""
    classes = known["classes"]
    if str(name) in classes:
        return classes.index(str(name))
    if str(name) in map(str, range(len(classes))):
        return int(name)
    shown = ", ".join(classes[:20]) + (", …" if len(classes) > 20 else "")
    raise UserError(f"there is no class {name}: this model knows {shown}, or their numbers 0 to {len(classes) - 1}")


def attribute_number(known: dict[str, Any], name: str) -> int:
    """The number of an attribute. Raises UserError if there is none of this name."""
    attributes = known["attributes"]
    if name not in attributes:
        raise UserError(f"there is no attribute {name}: this model knows {', '.join(attributes)}")
    return attributes.index(name)
