"""The presets: each can be built, takes images of its size, and may save memory; what is stated of it is so."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from shared.blocks.unet import UNet
from shared.datasets.published import SETS, data_root
from task1_unconditional.model import build_data, build_diffusion, build_loss, build_network
from task1_unconditional.train import OPTIONS

STAGE = Path(__file__).parents[1]
SIZES = (32, 64, 128, 256, 512)
SHAPES = {**{f"unet{size}": (3, size, size) for size in SIZES}, "mnist": (1, 32, 32), "cifar10": (3, 32, 32)}


def preset(name: str):
    """Its config."""
    return OPTIONS.parse(["--config", str(STAGE / "configs" / f"{name}.yaml")]).config


def planned(name: str) -> torch.nn.Module:
    """Its network, without memory: shapes alone."""
    with torch.device("meta"):
        return build_network(preset(name), SHAPES[name])


@pytest.mark.parametrize(("name", "shape"), SHAPES.items())
def test_a_preset_takes_images_of_its_size(name, shape):
    """The diffusion and its loss fit, too."""
    config = preset(name)
    assert (config.data.channels or 3, config.data.size) == shape[:2]
    build_loss(config, build_diffusion(config))
    with torch.device("meta"):
        out = planned(name)(torch.empty(2, *shape), torch.empty(2), {})
    assert out.shape == (2, *shape)


def test_the_data_that_a_preset_names_is_of_that_shape():
    """MNIST, which is padded; of CIFAR-10 what is published says it."""
    if not (data_root(None) / "MNIST").is_dir():
        pytest.skip("DIFFUSION_DATA holds no MNIST")
    image, _ = build_data(preset("mnist"))[0]
    assert image.shape == SHAPES["mnist"] and image[:, :2].max() == -1  # the margin is black
    assert (SETS["cifar10"].channels, SETS["cifar10"].side) == SHAPES["cifar10"][:2]


def test_a_model_of_mnist_can_be_committed():
    """Its weights in bfloat16 are at most 8 MB, and a file of the repository is at most 16 MiB."""
    assert 2 * sum(p.numel() for p in planned("mnist").parameters()) < 7.9e6  # names and digests come besides


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_a_preset_for_a_gpu_is_fast_there_and_says_what_is_estimated(name):
    """Digits are not turned. A rate that nobody has measured is called so."""
    config, text = preset(name), (STAGE / "configs" / f"{name}.yaml").read_text()
    assert config.train.precision == "bf16" and config.train.compile
    assert config.data.flip == (name == "cifar10")
    rate = int(re.search(r"([\d,]+) images/s, an estimate", text)[1].replace(",", ""))
    minutes = int(re.search(r"(\d+) minutes on an H200", text)[1])
    assert 0.75 * minutes < config.train.steps * config.train.batch / rate / 60 < minutes


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_the_log_of_a_short_run_is_of_the_preset(name):
    """Its steps, its rates; and the loss falls from that of a network which says nothing, where it was given time."""
    optimizer = preset(name).optimizer
    log = [json.loads(line) for line in (STAGE / "results" / f"{name}-short.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == list(range(1, len(log) + 1)) and log[0]["images"] == 8
    rates = [optimizer.lr * n / (optimizer.warmup + 1) for n in range(1, len(log) + 1)]  # it ends in the warm-up
    assert [line["lr"] for line in log] == pytest.approx(rates)
    assert name != "mnist" or log[-1]["loss"] < 0.5 * log[0]["loss"]


@pytest.mark.parametrize("size", SIZES)
def test_attention_is_where_the_papers_have_it(size):
    """At 16×16 and below, and for 128 pixels at 32×32 as well; never at more, where it would cost most."""
    config = preset(f"unet{size}").network
    sides = [size // config.patch // 2**level for level in range(len(config.multipliers))]
    attended = [side for side, kind in zip(sides, config.attention, strict=True) if kind == "full"]
    assert attended == {32: [16], 64: [16, 8], 128: [32, 16, 8], 256: [16], 512: [16]}[size]


@pytest.mark.parametrize("size", SIZES)
def test_checkpointing_gives_the_same_gradients(size):
    """Bit for bit, of a network of the preset's form with a sixteenth of its width, on its smallest images."""
    config = preset(f"unet{size}").network
    small = replace(config, width=8, heads=2 if config.heads > 1 else 1)
    side = 2 * config.patch * 2 ** (len(config.multipliers) - 1)
    torch.manual_seed(0)
    x, t, gradients = torch.randn(1, 3, side, side), torch.tensor([300.0]), []
    first = UNet(3, small)
    for p in first.parameters():
        torch.nn.init.normal_(p, std=0.1)
    for checkpointing in (False, True):
        network = UNet(3, replace(small, checkpointing=checkpointing))
        network.load_state_dict(first.state_dict())
        torch.manual_seed(1)  # dropout
        network(x, t, {}).square().mean().backward()
        gradients.append([p.grad for p in network.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    assert max(g.abs().max() for g in gradients[0]) > 0


def rows() -> dict[str, list[str]]:
    """The cells of the table of measured memory, by preset."""
    lines = (STAGE / "results" / "memory.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    return {row[0]: row for row in cells}


@pytest.mark.parametrize(("name", "shape"), SHAPES.items())
def test_the_stated_memory_is_of_this_network(name, shape):
    """What a config's comment says is what was measured, and was measured of as many parameters as it has now."""
    row = rows()[name]
    parameters = sum(p.numel() for p in planned(name).parameters())
    assert row[1:4] == [str(shape[1]), f"{parameters / 1e6:.1f} M", f"{20 * parameters / 2**30:.2f}"]
    text = (STAGE / "configs" / f"{name}.yaml").read_text()
    said = re.search(r"# memory at batch 1: (\S+) GiB, with checkpointing (\S+) GiB", text)
    assert list(said.groups()) == row[4:6]
