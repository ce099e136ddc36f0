"""The whole idea on 2-D points, in one file: `python -m task1_unconditional.toy` (half a minute; writes toy.png).

Eight small Gaussians on a circle are drowned in noise; a network learns to tell the noise from the points; and from
noise alone, a few steps along what it says lead back onto the circle. For these points the best possible denoiser is
known in closed form, so that the learned one can be held against it.

Nothing here is used by the rest of the package but `Mixture`, against which the samplers are tested.
"""

import math
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from shared.cli import Parser, command


class Mixture:
    """Equally likely Gaussians of one deviation, at given centres (K, D)."""

    def __init__(self, centres: Tensor, deviation: float):
        """K centres in D dimensions, and how far points scatter around each."""
        self.centres, self.deviation = centres, deviation

    @classmethod
    def ring(cls, k: int = 8, radius: float = 2.0, deviation: float = 0.2) -> "Mixture":
        """k centres around a circle."""
        angle = 2 * math.pi * torch.arange(k, dtype=torch.float64) / k
        return cls(radius * torch.stack([angle.cos(), angle.sin()], dim=1), deviation)

    def sample(self, n: int) -> Tensor:
        """(n, D) points."""
        at = self.centres[torch.randint(len(self.centres), (n,))]
        return at + self.deviation * torch.randn(n, self.centres.shape[1], dtype=at.dtype)

    def denoise(self, xt: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The best guess at x0 given xt = alpha x0 + sigma eps: the mean of p(x0 | xt), exactly. xt is (B, D).

        Given the centre, x0 and xt are jointly Gaussian and Bayes' rule gives a straight line in xt; the centres are
        then weighted by how likely each is to have made xt.
        """
        centres = self.centres.to(xt)  # (K, D)
        variance = alpha**2 * self.deviation**2 + sigma**2  # of xt around alpha · centre
        away = xt[:, None] - alpha * centres  # (B, K, D)
        likely = (-(away**2).sum(-1) / (2 * variance)).softmax(dim=1)  # (B, K)
        guess = centres + alpha * self.deviation**2 / variance * away  # (B, K, D): x0 if it came from that centre
        return (likely[..., None] * guess).sum(1)  # (B, D)


def level(t: Tensor) -> tuple[Tensor, Tensor]:
    """Signal and noise at t in [0, 1]: a quarter of a circle, so that alpha² + sigma² = 1."""
    return torch.cos(t * math.pi / 2), torch.sin(t * math.pi / 2)


class Network(nn.Module):
    """Tells the noise in a point from the point and its time."""

    def __init__(self, width: int = 128):
        """Three hidden layers of a width."""
        super().__init__()
        layers = [nn.Linear(2 + 8, width), nn.SiLU()]
        for _ in range(2):
            layers += [nn.Linear(width, width), nn.SiLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(width, 2))

    def forward(self, xt: Tensor, t: Tensor) -> Tensor:
        """(B, 2) points and (B, 1) times to (B, 2) noise."""
        waves = t * math.pi * torch.tensor([0.5, 1.0, 2.0, 4.0])  # (B, 4)
        return self.layers(torch.cat([xt, waves.cos(), waves.sin()], dim=1))


def train(data: Mixture, steps: int = 4000, batch: int = 512) -> Network:
    """Add noise, guess the noise, reduce the error: DDPM's algorithm 1."""
    network = Network()
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        x0 = data.sample(batch).float()
        t, eps = torch.rand(batch, 1), torch.randn(batch, 2)
        alpha, sigma = level(t)
        xt = alpha * x0 + sigma * eps  # the forward process, DDPM's eq. (4)
        loss = (network(xt, t) - eps).square().mean()  # L_simple, eq. (14)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network


@torch.no_grad()
def sample(noise_in: Callable[[Tensor, Tensor], Tensor], n: int, steps: int = 50) -> Tensor:
    """From noise to points: DDIM's eq. (12) with no fresh noise. Returns every step, (steps + 1, n, 2)."""
    x = torch.randn(n, 2)
    path = [x]
    times = torch.linspace(0.99, 0, steps + 1)  # at t = 1 nothing of x0 is left to solve for
    for t, s in zip(times[:-1], times[1:], strict=True):
        (alpha_t, sigma_t), (alpha_s, sigma_s) = level(t), level(s)
        eps = noise_in(x, t.expand(n, 1))
        x0 = (x - sigma_t * eps) / alpha_t  # what the point would be without that noise
        x = alpha_s * x0 + sigma_s * eps  # and with a little less of it
        path.append(x)
    return torch.stack(path)


def plot(data: Mixture, paths: dict[str, Tensor], file: Path) -> None:
    """Above: data drowning in noise. Below: noise finding its way back, by each denoiser."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1 + len(paths), 5, figsize=(12, 2.5 * (1 + len(paths))), sharex=True, sharey=True)
    x0, eps = data.sample(1000).float(), torch.randn(1000, 2)
    for axis, t in zip(axes[0], torch.linspace(0, 0.99, 5), strict=True):
        alpha, sigma = level(t)
        axis.scatter(*(alpha * x0 + sigma * eps).T, s=2)
        axis.set_title(f"forward, t = {t:.2f}")
    for row, (name, path) in zip(axes[1:], paths.items(), strict=True):
        for axis, i in zip(row, torch.linspace(0, len(path) - 1, 5).long(), strict=True):
            axis.plot(*path[: i + 1, :40].permute(2, 0, 1), color="0.85", linewidth=0.5)
            axis.scatter(*path[i].T, s=2, color="C1")
            axis.set_title(f"{name}, step {i}")
    for axis in axes.flat:
        axis.set(xlim=(-3.2, 3.2), ylim=(-3.2, 3.2), aspect="equal", xticks=[], yticks=[])
    figure.tight_layout()
    figure.savefig(file, dpi=100)


def run() -> int:
    """Train, sample, compare, plot."""
    parser = Parser(prog="python -m task1_unconditional.toy", description="Diffusion on 2-D points.")
    parser.add_argument("--out", type=Path, default=Path("toy.png"), help="the picture to write")
    parser.add_argument("--steps", type=int, default=4000, help="training steps")
    out, steps = (parser.parse_args()[name] for name in ("out", "steps"))

    torch.manual_seed(0)
    data = Mixture.ring()
    network = train(data, steps)

    def best(xt: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = level(t[:1])
        return (xt - alpha * data.denoise(xt, alpha, sigma)) / sigma

    paths = {"learned": sample(network, 1000), "exact": sample(best, 1000)}
    for name, path in paths.items():
        nearest = torch.cdist(path[-1].double(), data.centres).min(dim=1)
        shares = torch.bincount(nearest.indices, minlength=8) / len(path[-1])
        print(f"{name:8s} median distance to a centre {nearest.values.median():.3f}, smallest share {shares.min():.1%}")
    plot(data, paths, out)
    print(f"picture: {out}")
    return 0


if __name__ == "__main__":
    sys.exit(command(run))
