"""How much memory a training step takes at batch 1, with and without checkpointing: `python benchmarks/memory.py`.

For each config (by default the five U-Net presets of stage 1) a Markdown row. The step is the loop's: loss, gradient,
clipping, AdamW, one average, in float32. Each way is measured in a process of its own, over two steps, as the
optimizer's state comes with the first. On a GPU it is what torch allocated at most. On a CPU it is the most that the
process had in memory (Linux's VmHWM) less what it had before the network was built; that counts the library's scratch
space, too.

The state alone is a formula: weights, gradient, two moments and an average are 20 bytes a parameter.
"""

import argparse
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import torch

from shared.training.config import TrainConfig
from shared.training.loop import accelerator_for
from shared.training.part import Part, Trained
from task1_unconditional.model import build_diffusion, build_loss, build_network
from task1_unconditional.train import OPTIONS

ROOT = Path(__file__).parents[1]
PRESETS = [ROOT / f"task1_unconditional/configs/unet{size}.yaml" for size in (32, 64, 128, 256, 512)]
GIB = 2**30


def resident(line: str) -> int:
    """Bytes that this process has in memory (VmRSS), or had at most (VmHWM)."""
    for entry in Path("/proc/self/status").read_text().splitlines():
        if entry.startswith(f"{line}:"):
            return 1024 * int(entry.split()[1])
    raise RuntimeError(f"this system does not say {line}")


def measure(path: Path, checkpointing: bool, device: str) -> dict[str, float]:
    """Pixels of a side, parameters, and the peak in bytes."""
    config = OPTIONS.parse(["--config", str(path)]).config
    config.network = replace(config.network, checkpointing=checkpointing)
    shape = (config.data.channels or 3, config.data.size, config.data.size)
    train = TrainConfig(batch=1, device=device)
    accelerator = accelerator_for(train)
    before = resident("VmRSS")
    network, diffusion = build_network(config, shape), build_diffusion(config)
    diffusion.schedule.to(accelerator.device)
    loss = build_loss(config, diffusion)
    part = Part(network, lambda model, x, cond: loss(model, x, {}).mean(), config.optimizer, config.averages)
    trained = Trained(part, accelerator)
    trained.wrap(compiled=False)
    batch = torch.rand(1, *shape, device=accelerator.device) * 2 - 1, {}
    for n in range(2):
        trained.step([batch], n, train)
        trained.check(n)  # waits for the device
    on_gpu = accelerator.device.type == "cuda"
    peak = torch.cuda.max_memory_allocated() if on_gpu else resident("VmHWM") - before
    parameters = sum(p.numel() for p in network.parameters())
    return {"size": shape[1], "parameters": parameters, "peak": peak}


def apart(path: Path, checkpointing: bool, device: str) -> dict[str, float]:
    """The same, in a process of its own."""
    command = [sys.executable, __file__, str(path), "--device", device, "--one", str(int(checkpointing))]
    return json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout)


def main() -> None:
    """Measure and print, one row a config."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", nargs="*", type=Path, default=PRESETS)
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--one", type=int, choices=[0, 1], help=argparse.SUPPRESS)  # what a process of its own is asked
    asked = parser.parse_args()
    if asked.one is not None:
        print(json.dumps(measure(asked.config[0], bool(asked.one), asked.device)))
        return
    heads = ["config", "pixels", "parameters", "state, GiB", "step, GiB", "with checkpointing, GiB"]
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for path in asked.config:
        plain, saving = (apart(path, way, asked.device) for way in (False, True))
        cells = [
            path.stem,
            plain["size"],
            f"{plain['parameters'] / 1e6:.1f} M",
            f"{20 * plain['parameters'] / GIB:.2f}",
            f"{plain['peak'] / GIB:.2f}",
            f"{saving['peak'] / GIB:.2f}",
        ]
        print(f"| {' | '.join(map(str, cells))} |", flush=True)


if __name__ == "__main__":
    main()
