"""How fast the transformer trains, on a machine that does nothing else: `python benchmarks/task4.py --compile`.

Model FLOP use, and images a second beside diffusers' transformer of the same size, in the same loop, in turns: B/2 at
batch 256 on latents of 32×32×4, a class of 1,000; bfloat16 where the processor has it, fused AdamW, averages and
clipping included.

The stated formula, in multiplications for one image forward, with N tokens of D features in L blocks, patches of side p
and C channels in, C' out:

    L (N (12 D² + 2 N D) + 6 D²)    attention's four maps and the feed-forward's two, scores and mixing, modulation
    + N D p² (C + C')               patches in and out
    + 2 D²                          the final layer's modulation
    + D (256 + D)                   the time's embedding

A multiplication and its addition are two FLOP; backward costs twice what forward costs. The use is that, times images a
second, over the median rate of an 8192³ bfloat16 product in the same run. Recomputation is not counted.
"""

import argparse
import os
import statistics
import time

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from shared import _torchvision
from shared.blocks.dit import DiT, sized
from shared.blocks.dit_config import DiTConfig
from shared.conditions.said import LabelTokens
from shared.schedulers.config import DiffusionConfig, NoiseConfig
from shared.schedulers.diffusion import Diffusion
from shared.training.config import TrainConfig
from shared.training.loop import accelerator_for
from shared.training.part import Part, Trained

CLASSES, SIDE, CHANNELS = 1000, 32, 4


def multiplications(network: DiT) -> int:
    """Of one image forward; the formula above."""
    config, tokens, d = network.config, network.rows * network.columns, network.config.width
    block = tokens * (12 * d**2 + 2 * tokens * d) + 6 * d**2
    patches = tokens * d * config.patch**2 * (network.shape[0] + network.out_channels)
    return config.depth * block + patches + 2 * d**2 + d * (256 + d)


def counted(network: DiT, device: torch.device) -> float:
    """The same, counted by torch as it computes; on a CPU without the scores and mixing of attention."""
    x, t = torch.randn(1, *network.shape, device=device), torch.ones(1, device=device)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(x, t, {"label": torch.zeros(1, dtype=torch.long, device=device)})
    return counter.get_total_flops() / 2


class Theirs(nn.Module):
    """diffusers' transformer as a network of this project."""

    def __init__(self, config: DiTConfig):
        """Of the same size."""
        _torchvision.prepare()  # it imports torchvision where that is installed
        from diffusers import DiTTransformer2DModel

        super().__init__()
        self.model = DiTTransformer2DModel(
            num_attention_heads=config.heads,
            attention_head_dim=config.width // config.heads,
            in_channels=CHANNELS,
            out_channels=CHANNELS,
            num_layers=config.depth,
            sample_size=SIDE,
            patch_size=config.patch,
            num_embeds_ada_norm=CLASSES,
        )

    def forward(self, x: Tensor, t: Tensor, cond: dict[str, Tensor]) -> Tensor:
        return self.model(x, t, cond["label"]).sample


def trained(network: nn.Module, config: TrainConfig) -> Trained:
    """The network in the loop's hands."""
    diffusion = Diffusion.from_config(NoiseConfig(name="flow"), DiffusionConfig(predict="velocity", times="uniform"))
    accelerator = accelerator_for(config)
    diffusion.schedule.to(accelerator.device)
    part = Trained(Part(network, lambda model, x, cond: diffusion.loss(model, x, cond).mean()), accelerator)
    part.wrap(config.compile)
    return part


def wait(device: torch.device) -> None:
    """Until the device has done all that it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def rate(part: Trained, batch: tuple[Tensor, dict[str, Tensor]], steps: int, config: TrainConfig) -> float:
    """Images a second over so many steps."""
    wait(batch[0].device)
    begun = time.perf_counter()
    for n in range(steps):
        part.step([batch], n, config)
    wait(batch[0].device)
    return steps * len(batch[0]) / (time.perf_counter() - begun)


def product_rate(device: torch.device, side: int, repeats: int = 20) -> float:
    """Median FLOP/s of a square bfloat16 product."""
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    a @ b
    seconds = []
    for _ in range(repeats):
        wait(device)
        begun = time.perf_counter()
        a @ b
        wait(device)
        seconds.append(time.perf_counter() - begun)
    return 2 * side**3 / statistics.median(seconds)


def main() -> None:
    """Measure and print, one line a figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="B", choices=["S", "B", "L", "XL"])
    parser.add_argument("--patch", type=int, default=2)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--steps", type=int, default=20, help="in each of the rounds")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--side", type=int, default=8192, help="of the product")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--alone", action="store_true", help="without diffusers' model")
    asked = parser.parse_args()
    config = TrainConfig(batch=asked.batch, precision="auto", compile=asked.compile, steps=10**6)
    device = accelerator_for(config).device
    torch.set_float32_matmul_precision("high")
    size = sized(DiTConfig(size=asked.size, patch=asked.patch))
    network = DiT((CHANNELS, SIDE, SIDE), size, [LabelTokens(CLASSES, size.width, 1)])
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{os.cpu_count()} cores"
    print(f"device                    {name}")
    formula, count = multiplications(network), counted(network.to(device), device)
    print(f"multiplications, forward  {formula / 1e9:.2f} G an image ({count / 1e9:.2f} G counted by torch)")
    parts = {"this network": trained(network, config)}
    if not asked.alone:
        parts["diffusers' network"] = trained(Theirs(size), config)
    x = torch.randn(asked.batch, CHANNELS, SIDE, SIDE, device=device)
    batch = (x, {"label": torch.randint(CLASSES, (asked.batch,), device=device)})
    for part in parts.values():
        rate(part, batch, 3, config)  # compiles, and fills caches
    rates = {name: [] for name in parts}
    for _ in range(asked.rounds):
        for name, part in parts.items():
            rates[name].append(rate(part, batch, asked.steps, config))
    for name, measured in rates.items():
        low, high = min(measured), max(measured)
        print(f"{name:25} {statistics.median(measured):.0f} images/s ({low:.0f} to {high:.0f})")
    product = product_rate(device, asked.side)
    own = statistics.median(rates["this network"])
    print(f"{asked.side}³ bfloat16 product    {product / 1e12:.2f} TFLOP/s")
    print(f"model FLOP use            {6 * formula * own / product:.1%}")


if __name__ == "__main__":
    main()
