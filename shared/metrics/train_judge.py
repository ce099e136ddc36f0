"""Introduced in task 1; used by tasks 1, 3.

Train the judge and write `judge.safetensors`: `python -m shared.metrics.train_judge`, 6 minutes on 2 cores.

It needs the full MNIST, from the folder in DIFFUSION_DATA or else `data/`. The 5,000 training images that
every clone carries (the `digits` data set) are left out of the training: they give the real-against-real
floor, and on images learnt by heart that floor would show the judge's memory beside the sampling error.

On the CPU the same seed, torch and processor kind give the same file, bit for bit.
"""

import json
import math
import sys

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor
from torch.optim.lr_scheduler import OneCycleLR

from shared.datasets import DataConfig, load
from shared.datasets.ranges import to_unit
from shared.errors import UserError
from shared.metrics.frechet import statistics
from shared.metrics.judge import WEIGHTS, Judge, inspect

COMMAND = "python -m shared.metrics.train_judge"
SEED, EPOCHS, BATCH, LEARNING_RATE, WEIGHT_DECAY = 0, 10, 250, 4e-3, 1e-2


def unseen() -> tuple[Tensor, Tensor]:
    """Images and labels of the 55,000 MNIST training images that are not among the 5,000 embedded digits."""
    data = load(DataConfig(name="mnist", split="train"))
    parts = [load(DataConfig(name="digits", split=split)).images for split in ("train", "test")]
    embedded = {digit.tobytes() for digit in torch.cat(parts).numpy()}
    keep = torch.tensor([digit.tobytes() not in embedded for digit in data.images.numpy()])
    return to_unit(data.images[keep]), data.labels[keep]


def augment(x: Tensor) -> Tensor:
    """Turn (±10°), scale (±10 %), and shift (±2 pixels) each of the images (B, 1, 28, 28) on its own."""
    turn, scale, right, down = torch.rand(4, len(x)).mul(2).sub(1)  # (B,) each, in [-1, 1]
    angle, scale = turn * math.radians(10), 1 + 0.1 * scale
    cos, sin = angle.cos() * scale, angle.sin() * scale
    shift = 2 / 14  # affine_grid's unit is half the image: 14 pixels
    rows = [torch.stack([cos, -sin, right * shift], dim=1), torch.stack([sin, cos, down * shift], dim=1)]
    grid = F.affine_grid(torch.stack(rows, dim=1), list(x.shape), align_corners=False)
    return F.grid_sample(x + 1, grid, align_corners=False) - 1  # + 1: the zeros from outside are background


def fit(images: Tensor, labels: Tensor) -> Judge:
    """A judge trained on images (N, 1, 28, 28) and labels (N,), printing a line per epoch."""
    judge = Judge().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(judge.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    steps = len(images) // BATCH
    schedule = OneCycleLR(optimizer, LEARNING_RATE, total_steps=EPOCHS * steps, pct_start=0.2)
    for epoch in range(EPOCHS):
        total = 0.0
        for part in torch.randperm(len(images))[: steps * BATCH].split(BATCH):
            x = augment(images[part]).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16):  # twice as fast, and no less accurate
                logits = judge(x)
            loss = F.cross_entropy(logits.float(), labels[part])  # unsmoothed: confidence is to mean something
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch + 1}/{EPOCHS}  loss {total / steps:.4f}", flush=True)
    return judge.to(memory_format=torch.contiguous_format).eval()


def rounded(judge: Judge) -> dict[str, Tensor]:
    """The judge's state with kernels and matrices in float16, which halves the file; norms stay float32."""
    return {k: (v.half() if v.ndim > 1 else v).contiguous() for k, v in judge.state_dict().items()}


def main() -> None:
    """Train, round, measure after the rounding, save."""
    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(2)  # the number of threads decides the order of sums
    judge = fit(*unseen())
    state = rounded(judge)
    judge.load_state_dict(state)

    data = load(DataConfig(name="mnist", split="test"))
    features, probabilities = inspect(judge, to_unit(data.images))
    state["mean"], state["covariance"] = statistics(features)
    facts = {
        "test_accuracy": (probabilities.argmax(dim=1) == data.labels).double().mean().item(),
        "test_confident": (probabilities.amax(dim=1) >= 0.9).double().mean().item(),
        "reference": "features of the 10,000 MNIST test images",
        "trained_on": "the MNIST training images without the 5,000 embedded digits (55,000)",
        "command": COMMAND,
        "seed": SEED,
        "epochs": EPOCHS,
        "torch": torch.__version__,
    }
    partial = WEIGHTS.with_suffix(".partial")
    save_file(state, partial, metadata={"judge": json.dumps(facts)})
    partial.chmod(0o644)  # save_file leaves it to its owner alone
    partial.replace(WEIGHTS)
    print(json.dumps(facts, indent=2))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
