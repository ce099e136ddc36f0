"""The presets of the U-Net by size: each can be built, takes images of its size, and may save memory."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from shared.blocks.unet import UNet
from task1_unconditional.model import build_diffusion, build_network
from task1_unconditional.train import OPTIONS

STAGE = Path(__file__).parents[1]
SIZES = (32, 64, 128, 256, 512)


def preset(size: int):
    """Its config."""
    return OPTIONS.parse(["--config", str(STAGE / "configs" / f"unet{size}.yaml")]).config


@pytest.mark.parametrize("size", SIZES)
def test_a_preset_takes_images_of_its_size(size):
    """Without memory: shapes alone. The diffusion fits, too."""
    config = preset(size)
    assert config.data.size == size
    build_diffusion(config)
    with torch.device("meta"):
        network = build_network(config, (3, size, size))
        out = network(torch.empty(2, 3, size, size), torch.empty(2), {})
    assert out.shape == (2, 3, size, size)


@pytest.mark.parametrize("size", SIZES)
def test_attention_is_where_the_papers_have_it(size):
    """At 16×16 and below, and for 128 pixels at 32×32 as well; never at more, where it would cost most."""
    config = preset(size).network
    sides = [size // config.patch // 2**level for level in range(len(config.multipliers))]
    attended = [side for side, kind in zip(sides, config.attention, strict=True) if kind == "full"]
    assert attended == {32: [16], 64: [16, 8], 128: [32, 16, 8], 256: [16], 512: [16]}[size]


@pytest.mark.parametrize("size", SIZES)
def test_checkpointing_gives_the_same_gradients(size):
    """Bit for bit, of a network of the preset's form with a sixteenth of its width, on its smallest images."""
    config = preset(size).network
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
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| unet")]
    return {row[0]: row for row in cells}


@pytest.mark.parametrize("size", SIZES)
def test_the_stated_memory_is_of_this_network(size):
    """What a config's comment says is what was measured, and was measured of as many parameters as it has now."""
    row = rows()[f"unet{size}"]
    with torch.device("meta"):
        network = build_network(preset(size), (3, size, size))
    parameters = sum(p.numel() for p in network.parameters())
    assert row[1:4] == [str(size), f"{parameters / 1e6:.1f} M", f"{20 * parameters / 2**30:.2f}"]
    text = (STAGE / "configs" / f"unet{size}.yaml").read_text()
    said = re.search(r"# memory at batch 1: (\S+) GiB, with checkpointing (\S+) GiB", text)
    assert list(said.groups()) == row[4:6]
