"""Flat latents through young decoders, two that enlarge by nearest neighbours and two by transposed convolutions.

`python task2_latent/results/checkerboard.py OUT` after the trainings that README.md lists; writes OUT and prints how
much of the output alternates from pixel to pixel.
"""

import sys
from pathlib import Path

import torch
from torch import Tensor

from shared import pictures
from task2_latent.model import load_autoencoder

RUNS = ("nearest-20", "transposed-20", "nearest-150", "transposed-150")


def alternating(x: Tensor) -> float:
    """Mean amplitude, in (N, C, H, W), of what changes its sign from row to row or from column to column."""
    inner = x[:, :, 8:20, 8:20]  # away from the borders, where padding leaves its own marks
    signs = torch.tensor([1.0, -1.0]).repeat(6)
    rows, columns = (inner * signs[:, None]).mean(dim=(2, 3)), (inner * signs).mean(dim=(2, 3))
    return (rows.abs() + columns.abs()).mean().item() / 2


def main() -> None:
    """Decode the same 16 flat latents with each; show 8."""
    torch.manual_seed(0)
    flat = torch.randn(16, 2, 1, 1).expand(-1, -1, 7, 7)
    shown = []
    for name in RUNS:
        network = load_autoencoder(f"runs/task2-autoencoder/{name}", weights="model").network
        with torch.no_grad():
            x = network.decode(flat)
        print(f"{name:<16} {alternating(x):.4f}")
        shown.append(x[:8].clamp(-1, 1))
    pictures.save(pictures.grid(torch.cat(shown), 8, 3), Path(sys.argv[1]))


if __name__ == "__main__":
    main()
