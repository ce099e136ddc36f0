"""Files damaged at random: what is read is what was written, or one line says which file is damaged."""

import collections
import io
import random
import zipfile
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from shared.datasets import DataConfig, folder, load
from shared.errors import UserError
from shared.tests.faults import State, damaged, restored
from shared.tests.limited import limited
from shared.training import checkpoint
from shared.training.checkpoint import Checkpoints, read_facts, read_tensors, write_checkpoint

CASES = 400  # damaged checkpoints
IMAGES = 150  # damaged files of each kind


def test_damage_is_damage():
    """It changes what it should, in every way, and the same for the same seed."""
    content = bytes(range(256)) * 40
    found = [damaged(content, random.Random(seed)) for seed in range(300)]
    assert found == [damaged(content, random.Random(seed)) for seed in range(300)]
    assert sum(one == content for one in found) <= 3  # a piece moved to where it was
    lengths = collections.Counter(np.sign(len(one) - len(content)) for one in found)
    assert min(lengths[-1], lengths[0], lengths[1]) >= 20
    assert damaged(b"", random.Random(0)) == b""


# --- checkpoints --------------------------------------------------------------------------------------------


def case(content: bytes, seed: int) -> bytes:
    """The content damaged anywhere; every other time within the header, which is the smaller part of real files."""
    rng, header = random.Random(seed), 8 + int.from_bytes(content[:8], "little")
    return damaged(content, rng) if seed % 2 else damaged(content[:header], rng) + content[header:]


def outcome(path: Path, state: State) -> str:
    """What comes of a checkpoint that may be damaged: "read" is what `state` was, bit for bit."""
    try:
        found = restored(path)
        return "read" if found.equals(state) and found.n == state.n else "other values"
    except UserError as error:
        assert str(path) in str(error) and "\n" not in str(error)
        return "one line"


def test_a_damaged_checkpoint_is_never_read_as_something_else(tmp_path):
    state, path = State(3), tmp_path / "step-00000004.safetensors"
    content = state.save(Checkpoints(tmp_path / "whole")).read_bytes()
    found = collections.Counter()
    for seed in range(CASES):
        path.write_bytes(case(content, seed))
        found[outcome(path, state)] += 1
    assert found.keys() <= {"read", "one line"} and found["one line"] > 0.95 * CASES


def test_without_digests_it_would_be(tmp_path):
    """What the test above finds to be none is there to be found: safetensors alone reads other values."""
    state, path = State(3), tmp_path / "step-00000004.safetensors"
    with mock.patch.object(checkpoint, "digest", lambda content: "0"):
        content = state.save(Checkpoints(tmp_path / "whole")).read_bytes()
        found = collections.Counter()
        for seed in range(1, CASES, 2):
            path.write_bytes(case(content, seed))
            found[outcome(path, state)] += 1
    assert found["other values"] > 0.1 * CASES / 2


@pytest.mark.parametrize("change", ["type", "shape", "exchanged", "one bit", "missing", "added"])
def test_the_tensor_that_is_not_what_was_saved_is_named(change, tmp_path):
    """Changes that leave a valid file of the same bytes, or nearly."""
    path, name, other = State(3).save(Checkpoints(tmp_path)), "ema.layers.0.weight", "swa.layers.0.weight"
    with safe_open(path, framework="pt") as file:
        tensors, header = {key: file.get_tensor(key).clone() for key in file.keys()}, file.metadata()
    if change == "type":
        tensors[name] = tensors[name].view(torch.int32)
    elif change == "shape":
        tensors[name] = tensors[name].view(17, 8)
    elif change == "exchanged":
        tensors[name], tensors[other] = tensors[other], tensors[name]
    elif change == "one bit":
        tensors[name].view(torch.uint8)[3, 5] ^= 16
    elif change == "missing":
        del tensors[name]
    else:
        name = "ema.more"
        tensors[name] = torch.zeros(1)
    save_file(tensors, path, metadata=header)
    with pytest.raises(UserError, match=f"is damaged: {name} is not what was saved; there is no earlier one"):
        read_tensors(path, "ema")
    assert len(read_tensors(path, "model")) == 5 and read_facts(path)["step"] == 3  # nothing more is refused


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.bool, torch.uint8])
def test_every_kind_of_tensor_comes_back_and_a_bit_of_it_is_seen(dtype, tmp_path):
    path = tmp_path / "x.safetensors"
    tensors = {
        "a.some": torch.tensor([[0.0, -1.5], [float("inf"), 3.0]]).nan_to_num(posinf=7).to(dtype),
        "a.one": torch.ones((), dtype=dtype),
        "a.none": torch.ones(0, 3, dtype=dtype),
        "a.turned": torch.arange(6).view(2, 3).to(dtype).T.contiguous(),
    }
    write_checkpoint(path, tensors, {})
    found = read_tensors(path, "a")
    assert all(torch.equal(found[k[2:]], v) and found[k[2:]].dtype == dtype for k, v in tensors.items())
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="is damaged: a.* is not what was saved; give another"):
        read_tensors(path, "a")


# --- images -------------------------------------------------------------------------------------------------

FORMATS = {
    "png": {},
    "jpg": {},
    "webp": {"lossless": True},
    "gif": {},
    "bmp": {},
    "tif": {},
    "tiff": {"compression": "tiff_lzw"},
    "jp2": {},
    "ppm": {},
}


def originals() -> dict[str, bytes]:
    """A small file of each format, and a zip of two."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "words"
    found = {}
    for kind, options in FORMATS.items():
        file = io.BytesIO()
        file.name = f"a.{kind}"
        Image.fromarray(pixels).save(file, exif=exif, **options)
        found[kind] = file.getvalue()
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", found["png"])
        archive.writestr("sub/b.bmp", found["bmp"])
    return found | {"zip": file.getvalue()}


def image_outcome(root: Path, options: dict[str, object]) -> str:
    """What comes of a folder or zip whose image may be damaged."""
    try:
        data = load(DataConfig(name="folder", root=str(root), **options))
        for x, _ in (data[i] for i in range(len(data))):
            assert x.dtype == torch.float32 and x.shape == data.shape and x.abs().max() <= 1
        return "pixels"
    except UserError as error:
        assert "\n" not in str(error)
        return "named" if str(root) in str(error) else str(error)
    except Exception as error:
        return repr(error)


def damaged_images(at: str) -> dict[str, dict[str, int]]:
    """How often each kind of file came to what; run by `limited`."""
    torch.set_num_threads(1)
    found = {}
    for kind, content in originals().items():
        counts = found[kind] = collections.Counter()
        for seed in range(IMAGES):
            rng, front = random.Random(f"{kind}{seed}"), min(len(content), 200)
            bad = damaged(content, rng) if seed % 2 else damaged(content[:front], rng) + content[front:]
            root = Path(at) / f"{kind}-{seed}"
            root.mkdir()
            (root / f"x.{kind}").write_bytes(bad)
            folder.IN_MEMORY = rng.choice((0, 2**28))
            options = {"size": rng.choice((None, 8)), "channels": rng.choice((1, 3))}
            counts[image_outcome(root / "x.zip" if kind == "zip" else root, options)] += 1
    return found


def test_a_damaged_image_is_pixels_or_is_named(tmp_path, capfd):
    """And Python adds no warning of its own, which would be two lines more."""
    found = limited(f"{__name__}:damaged_images", str(tmp_path), gib=2, seconds=60)
    assert found.keys() == {*FORMATS, "zip"}
    for kind, counts in found.items():
        assert counts.keys() <= {"pixels", "named"}, kind
        assert sum(counts.values()) == IMAGES and counts["named"] > IMAGES / 10, kind
    assert "UserWarning" not in capfd.readouterr().err
