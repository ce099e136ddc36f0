"""Introduced in task 1; used by task 1.

Inception's features of real images, kept: those of 50,000 take hours on a CPU and are the same at every evaluation.
"""

import hashlib
import warnings
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from shared.files import write_whole
from shared.metrics.inception import Features, Inception, features_of, to_pixels


def cached_features(
    network: Inception, images: Tensor, folder: Path, batch: int = 50, device: torch.device | str = "cpu"
) -> Features:
    """As `features_of`, out of a file below `folder`, which is made where there is none.

    A file belongs to the pixels and to the weights themselves (their SHA-256), not to a name of the data set: other
    images never get its features. One that is damaged is made again. One that cannot be written is warned of.

    Raises:
        UserError: as for `features_of`.
    """
    pixels = to_pixels(images)
    key = digest(pixels, about=f"{tuple(pixels.shape)} {network.weights}")
    path = folder / f"inception-{key[:16]}.safetensors"
    stored = read_features(path, key, network.weights)
    if stored is not None:
        return stored
    found = features_of(network, pixels, batch, device)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_features(path, key, found)
    except (OSError, SafetensorError) as error:  # hours of work are not lost with it
        warnings.warn(f"the features are used, but not kept: cannot write {path} ({error})", stacklevel=2)
    return found


def digest(*values: Tensor, about: str) -> str:
    """SHA-256 of tensors, and of a text."""
    found = hashlib.sha256(about.encode())
    for value in values:
        for part in value.split(1000):  # images may be a view: a copy of a part is small
            found.update(part.cpu().contiguous().numpy())
    return found.hexdigest()


def write_features(path: Path, key: str, features: Features) -> None:
    """Write a file of features, with what they are of, and their own digest."""
    values = {"pooled": features.pooled.contiguous(), "logits": features.logits.contiguous()}
    about = {"key": key, "content": digest(*values.values(), about=key)}
    write_whole(path, lambda temporary: save_file(values, temporary, about))


def read_features(path: Path, key: str, weights: str) -> Features | None:
    """Features out of a file; None if there is none, or it is damaged, or of something else."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            pooled, logits = file.get_tensor("pooled"), file.get_tensor("logits")
    except (OSError, SafetensorError):
        return None
    if about.get("key") != key or about.get("content") != digest(pooled, logits, about=key):
        return None
    return Features(pooled, logits, weights)
