"""Introduced in task 1; used by task 1.

The Inception network of the published FID, KID and Inception Score, as torch-fidelity has it: TensorFlow's network of
2015-12-05, with its own way of enlarging images to 299×299, so that figures stand beside those of papers.

Its weights (95 MB) are not part of this repository. They are read from a file that is given, else out of torch's cache,
else downloaded; as tensors only, so that a file from anywhere can do no more than hold wrong numbers.
"""

import contextlib
import hashlib
import http.client
import io
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load
from torch import Tensor, nn
from tqdm import tqdm

from shared import _torchvision
from shared.datasets.ranges import to_uint8
from shared.errors import UserError

PUBLISHED = "6726825d"  # the SHA-256 of the published weights begins so
# torch-fidelity's name for them, and pytorch-fid's
NAMES = (f"weights-inception-2015-12-05-{PUBLISHED}.pth", f"pt_inception-2015-12-05-{PUBLISHED}.pth")
LARGEST = 2**30  # bytes: a file that is larger holds something else
PATIENCE = 10  # seconds without an answer after which a download is given up


class WeightsMissing(UserError):
    """Nobody gave weights, and they are neither in torch's cache nor to be had: other figures can still be shown."""


class Features(NamedTuple):
    """What the network says of N images, float32 on the CPU."""

    pooled: Tensor  # (N, 2048): for FID, KID, precision and recall
    logits: Tensor  # (N, 1008): for the Inception Score; without the bias, as the published score has them
    weights: str  # SHA-256 of the file of weights: figures of other weights are other figures


class Inception(nn.Module):
    """The network, frozen, in evaluation for good."""

    def __init__(self, state: dict[str, Tensor], weights: str):
        """With these weights, by the published names; `weights` is the SHA-256 of their file.

        Raises:
            RuntimeError: names are missing or unknown, or shapes are others.
        """
        super().__init__()
        _torchvision.prepare()
        from torch_fidelity import feature_extractor_inceptionv3 as package

        with torch.random.fork_rng(devices=[]), handed(package, state):  # first weights are drawn before these are put
            self.network = package.FeatureExtractorInceptionV3("inception-v3-compat", ["2048", "logits_unbiased"])
        self.weights = weights
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "Inception":
        """Stay in evaluation: batch norm is to use the statistics that it was trained with."""
        return super().train(False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 images (B, 1 or 3, H, W) -> pooled features (B, 2048), logits without the bias (B, 1008)."""
        return self.network(images.expand(-1, 3, -1, -1))  # grey is three equal channels


@contextlib.contextmanager
def handed(package: object, state: dict[str, Tensor]) -> Iterator[None]:
    """Let torch-fidelity's network take these weights where it would fetch a file and unpickle whatever is in it."""
    theirs = package.load_state_dict_from_url
    package.load_state_dict_from_url = lambda *_, **__: state
    try:
        yield
    finally:
        package.load_state_dict_from_url = theirs


def load_inception(path: str | Path | None = None) -> Inception:
    """The network, on the CPU, with the weights in a file (`.pth` or `.safetensors`), or with the published ones.

    Raises:
        WeightsMissing: no path is given, and the published weights are neither in torch's cache nor to be had.
        UserError: the file that is given is not there, damaged, or holds other weights.
    """
    if path is not None:
        return read_inception(Path(path))
    try:
        return read_inception(published())
    except WeightsMissing:
        raise
    except UserError as error:  # in the cache, where nobody asked for it: remove it, and go on without
        raise WeightsMissing(str(error)) from None


def published() -> Path:
    """Where the published weights lie in torch's cache, into which they are downloaded if need be.

    Raises:
        WeightsMissing: they cannot be had.
    """
    _torchvision.prepare()
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3 as url

    folder = Path(torch.hub.get_dir()) / "checkpoints"
    file, before = folder / NAMES[0], socket.getdefaulttimeout()
    try:
        for name in NAMES:
            if (folder / name).exists():
                return folder / name
        socket.setdefaulttimeout(PATIENCE)
        folder.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(file), hash_prefix=PUBLISHED, progress=False)
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        reason = str(error).partition("\n")[0]
        raise WeightsMissing(
            f"FID and its like need Inception's weights, which could not be had ({reason}): put {url} at {file}, "
            "or name a file that holds them (--inception)"
        ) from None
    finally:
        socket.setdefaulttimeout(before)
    return file


def read_inception(file: Path) -> Inception:
    """The network with the weights in a file. Raises UserError if there are none."""
    try:
        if not file.is_file() or file.stat().st_size > LARGEST:  # reading a pipe would wait for ever
            raise UserError(f"{file} is no file of Inception's weights (95 MB): name one that is")
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read Inception's weights in {file}: {error.strerror}") from None
    digest = hashlib.sha256(content).hexdigest()
    named = re.search(r"-([0-9a-f]{8,64})\.\w+$", file.name)  # torch.hub's names end with the beginning of the digest
    if named and not digest.startswith(named[1]):
        raise UserError(f"{file} is damaged: its SHA-256 does not begin with {named[1]}; remove it, and fetch it again")
    try:
        network = Inception(tensors(file, content), digest)
    except RuntimeError:
        raise UserError(
            f"{file} holds no weights of the Inception network of FID: names or shapes are others"
        ) from None
    if not all(value.isfinite().all() for value in network.state_dict().values()):
        raise UserError(f"{file} is damaged: it holds weights that are not finite; fetch it again")
    return network


def tensors(file: Path, content: bytes) -> dict[str, Tensor]:
    """The named tensors in the content of a file. Raises UserError if it holds none, or anything else."""
    try:
        if file.suffix == ".safetensors":
            return load(content)
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception:  # damaged bytes make these readers raise almost anything
        state = None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{file} holds no weights, or more than weights: it is not read") from None
    return state


def to_pixels(images: Tensor) -> Tensor:
    """uint8 images (N, 1 or 3, H, W), as they are or as floats in [-1, 1] would be saved.

    Raises:
        UserError: another shape, or values that are not finite, outside [-1, 1], or all ≥ 0.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3) or images.numel() == 0:
        raise UserError(f"Inception takes images (N, 1 or 3, H, W), not {tuple(images.shape)}")
    if images.dtype == torch.uint8:
        return images
    if not images.is_floating_point():
        raise UserError(f"Inception takes uint8 images, or floats in [-1, 1], not {images.dtype}")
    low, high = images.min().item(), images.max().item()
    if not (low >= -1.001 and high <= 1.001):  # in this form for NaN, too
        raise UserError(f"Inception takes images in [-1, 1], not in [{low:.4g}, {high:.4g}]")
    if low >= 0:
        raise UserError(f"images must be in [-1, 1]; these lie in [{low:.4g}, {high:.4g}]: map [0, 1] by 2 x - 1 first")
    return to_uint8(images.detach())


@torch.no_grad()
def features_of(network: Inception, images: Tensor, batch: int = 50, device: torch.device | str = "cpu") -> Features:
    """What the network, which is moved to `device`, says of images (N, 1 or 3, H, W): uint8, or floats in [-1, 1].

    In float32 throughout, on every device: neither autocast nor TF32. Some 4 images a second on one core of a CPU.

    Raises:
        UserError: as for `to_pixels`; or the weights make numbers that are not finite.
    """
    parts = to_pixels(images).split(batch)
    device, cudnn = torch.device(device), torch.backends.cudnn
    network.to(device)
    found = []
    exact = cudnn.flags(
        enabled=cudnn.enabled,
        benchmark=cudnn.benchmark,
        benchmark_limit=cudnn.benchmark_limit,
        deterministic=cudnn.deterministic,
        allow_tf32=False,
    )
    with exact, torch.autocast(device.type, enabled=False):
        for part in tqdm(parts, desc="Inception", unit="batch", leave=False, disable=None):  # not into a log
            found.append([value.cpu() for value in network(part.to(device))])
    pooled, logits = (torch.cat(values) for values in zip(*found, strict=True))
    if not (pooled.isfinite().all() and logits.isfinite().all()):
        raise UserError("Inception's weights make features that are not finite: they are damaged, or others")
    return Features(pooled, logits, network.weights)
