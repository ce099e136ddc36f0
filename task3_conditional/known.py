"""What can be said about the samples of a data set: found before training, kept with the model, checked in a file."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from shared.errors import UserError
from shared.training.checkpoint import read_facts
from shared.training.data import check_range
from shared.training.loop import device_for
from task3_conditional.config import Config, model_config
from task3_conditional.text import Reader, build_reader, described, rebuilt_reader

LOOKED_AT = 16  # samples of a data set


def needed(config: Config, data: Dataset) -> None:
    """Raise UserError unless the data set says what the network is to be told."""
    told = {name: getattr(config.condition, name) for name in ("label", "attributes", "text", "image")}
    told = {("caption" if name == "text" else name): way for name, way in told.items() if way != "none"}
    if not told:
        raise UserError("the network is told nothing: set one of condition.label, .attributes, .text, .image")
    has = data[0][1]
    for name in told:
        if name not in has:
            what = "text" if name == "caption" else name
            known = ", ".join(has) or "nothing"
            raise UserError(f"condition.{what} is {told[name]}, but the data set gives no {name}, only: {known}")


def with_text(config: Config, data: Dataset, source: Path | None = None) -> tuple[Dataset, Reader | None]:
    """The data set with its captions read, and what reads them; as it is where the network is told no text.

    Args:
        config: which reader.
        data: a data set.
        source: a checkpoint whose weights are gone on with: its reader is taken, so that a word keeps its number.

    Raises:
        UserError: the captions cannot be read, or not by this reader.
    """
    if config.condition.text == "none":
        return data, None
    if source is None:
        reader = build_reader(config.text, getattr(data, "captions", None) or [])
    else:
        reader = reader_of(config, model_config(read_facts(source).get("config", {}))[2], source)
    return described(data, reader.to(device_for(config.train)), config.text), reader


def text_facts(config: Config, reader: Reader) -> dict[str, Any]:
    """What `build_conditions` and `reader_of` need to know of a reader."""
    about = {"width": reader.width, "tokens": reader.tokens, "reader": reader.facts()}
    return about | {"length": config.text.length, "pooled": config.text.pooled}


def reader_of(config: Config, known: dict[str, Any], source: Path) -> Reader:
    """What reads captions for the network in `source`, of which `known` can be said.

    Raises:
        UserError: it is not to be had, or the file contradicts itself.
    """
    there = known.get("text") if isinstance(known.get("text"), dict) else {}
    reader = rebuilt_reader(config.text, there.get("reader"), source)
    here = text_facts(config, reader)
    if any(there.get(name) != here[name] for name in ("width", "tokens", "length", "pooled")):
        raise UserError(f"{source} has a network for another text encoder than it names: give another checkpoint")
    return reader


def known_of(config: Config, data: Dataset, reader: Reader | None) -> dict[str, Any]:
    """What can be said about the samples of a data set, as it is kept with a model.

    Raises:
        UserError: the data set does not name what its samples say, or they say something else.
    """
    names = {name: list(map(str, getattr(data, name, None) or [])) for name in ("classes", "attributes")}
    if config.condition.label != "none" and not names["classes"]:
        raise UserError("condition.label: the data set has labels, but does not name its `classes`")
    if config.condition.attributes != "none" and not names["attributes"]:
        raise UserError("condition.attributes: the data set has attributes, but does not name its `attributes`")
    samples = [data[i] for i in range(0, len(data), max(1, len(data) // LOOKED_AT))]
    for x, cond in samples:
        if config.condition.label != "none":
            check_numbers("a label", cond.get("label"), (), len(names["classes"]))
        if config.condition.attributes != "none":
            check_numbers("attributes", cond.get("attributes"), (len(names["attributes"]),), 2)
        if config.condition.image != "none":
            check_image(cond.get("image"), x, samples[0][1]["image"])
    image = None
    if config.condition.image != "none":
        check_range([cond["image"] for _, cond in samples])  # one in [0, 1] would train, and sample from another range
        image = samples[0][1]["image"].shape[0]
    return {**names, "text": text_facts(config, reader) if reader else None, "image": image}


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


def check_known(config: Config, shape: tuple[int, int, int], known: dict[str, Any], source: Path) -> None:
    """Raise UserError unless a file, which may come from anywhere, names what its network is told, and an image's size.

    Whether the sizes are those of its tensors is not looked at here.
    """
    if not all(0 < side < 2**16 for side in shape):
        sides = "×".join(map(str, shape))
        raise UserError(f"{source} is of images {sides}, which no image is: give another checkpoint")
    image = known.get("image")
    if config.condition.image != "none" and (type(image) is not int or image < 1):
        raise UserError(f"{source} is told images, and does not say of how many channels: give another checkpoint")
    for told, name in (("label", "classes"), ("attributes", "attributes")):
        names = known.get(name)
        if not isinstance(names, list) or not all(isinstance(one, str) for one in names):
            raise UserError(f"{source} does not say what its conditions can say ({name}): give another checkpoint")
        if getattr(config.condition, told) != "none" and not names:
            raise UserError(f"{source} is told {told}, and names none: give another checkpoint")
