"""The autoencoder's losses: values by hand, gradients that go where they should, and two players that both learn."""

import math

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from shared.blocks.autoencoder import Autoencoder
from shared.blocks.autoencoder_config import AutoencoderConfig, VQConfig
from shared.blocks.bottlenecks import Bottled
from shared.tests.tiny import Run, data
from shared.training.config import AveragesConfig, OptimizerConfig, TrainConfig
from shared.training.loop import train
from shared.training.part import Part
from task2_latent import losses
from task2_latent.discriminator import Discriminator
from task2_latent.loss_config import DiscriminatorConfig, LossConfig
from task2_latent.losses import AutoencoderLoss, adaptive_weight, build_discriminator, focal_frequency, kl_weight

GAN = LossConfig(adversarial=0.5, adversarial_start=0)
SMALL = DiscriminatorConfig(width=8, layers=1)


class Shifted(nn.Module):
    """Reconstructs x as x + 0.5 and reports what a bottleneck might; its last layer is where a real one has it."""

    def __init__(self, loss: float, name: str = "kl"):
        super().__init__()
        self.decoder = nn.Module()
        self.decoder.head = nn.Conv2d(1, 1, 1)
        nn.init.ones_(self.decoder.head.weight)
        nn.init.constant_(self.decoder.head.bias, 0.5)
        self.loss, self.name = torch.tensor(loss), name

    def forward(self, x):
        return self.decoder.head(x), Bottled(x, self.loss, {self.name: self.loss})


def images(batch: int = 4, size: int = 8) -> torch.Tensor:
    return torch.rand(batch, 1, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1


def autoencoder(**changes) -> Autoencoder:
    small = {"width": 8, "multipliers": (1,), "attention": ("none",), "middle_attention": "none", "vq": VQConfig(8)}
    torch.manual_seed(0)
    return Autoencoder(1, AutoencoderConfig(**small | changes))


def players(config: LossConfig = GAN, **changes) -> tuple[Autoencoder, Discriminator, AutoencoderLoss]:
    network = autoencoder(**changes)
    opponent = Discriminator(1, SMALL)
    return network, opponent, AutoencoderLoss(config, network, opponent)


def test_the_weight_of_the_divergence_rises_from_zero():
    config = LossConfig(kl=0.5, kl_warmup=100)
    assert [kl_weight(config, n) for n in (0, 1, 50, 100, 5000)] == [0, 0.005, 0.25, 0.5, 0.5]
    assert kl_weight(LossConfig(kl=0.5), 0) == 0.5


@pytest.mark.parametrize(("kind", "error"), [("l1", 0.5), ("l2", 0.25)])
def test_the_loss_is_pixels_and_bottleneck_per_pixel(kind, error):
    x = images()
    kl = AutoencoderLoss(LossConfig(reconstruction=kind, kl=0.1), Shifted(7.0))
    assert kl.autoencoder(kl.network, x, {}).item() == pytest.approx(error + 0.1 * 7 / 64)
    vq = AutoencoderLoss(LossConfig(reconstruction=kind, codebook=2.0), Shifted(7.0, "commitment"))
    assert vq.autoencoder(vq.network, x, {}).item() == pytest.approx(error + 2 * 7 / 64)


def test_warm_up_enters_by_the_number_of_steps_done():
    loss = AutoencoderLoss(LossConfig(kl=0.1, kl_warmup=10), Shifted(7.0))
    assert loss.autoencoder(loss.network, images(), {}).item() == pytest.approx(0.5)
    loss.n = 5
    assert loss.autoencoder(loss.network, images(), {}).item() == pytest.approx(0.5 + 0.05 * 7 / 64)


def test_an_image_tiled_four_times_keeps_its_loss():
    x, config = images(), LossConfig(kl=0.1)
    once, tiled = AutoencoderLoss(config, Shifted(7.0)), AutoencoderLoss(config, Shifted(4 * 7.0))
    expected = once.autoencoder(once.network, x, {}).item()
    assert tiled.autoencoder(tiled.network, x.tile(1, 1, 2, 2), {}).item() == pytest.approx(expected)


def test_focal_frequency_agrees_with_numpy():
    a, b = torch.randn(2, 3, 3, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    total = 0.0
    for one, other in zip(a.flatten(0, 1).numpy(), b.flatten(0, 1).numpy(), strict=True):
        distance = np.abs(np.fft.fft2(one) - np.fft.fft2(other)) / math.sqrt(6 * 5)
        total += (distance / distance.max() * distance**2).mean()
    assert focal_frequency(a, b).item() == pytest.approx(total / 9, rel=1e-12)


def test_focal_frequency_is_zero_for_equal_images_with_a_finite_gradient():
    x = images().requires_grad_()
    loss = focal_frequency(x, images())
    loss.backward()
    assert loss == 0 and torch.equal(x.grad, torch.zeros_like(x))


def test_hinge_and_non_saturating_by_hand():
    real, made = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-2.0, 0.0, 0.5])
    assert losses.hinge_discriminator(real, made).item() == pytest.approx((0.5 + 2) / 6 + (1 + 1.5) / 6)
    assert losses.hinge_generator(made).item() == pytest.approx(0.5)
    entropy = -sum(math.log(1 / (1 + math.exp(-v))) for v in (2.0, 0.5, -1.0)) / 3
    entropy -= sum(math.log(1 - 1 / (1 + math.exp(-v))) for v in (-2.0, 0.0, 0.5)) / 3
    assert losses.non_saturating_discriminator(real, made).item() == pytest.approx(entropy / 2)
    expected = -sum(math.log(1 / (1 + math.exp(-v))) for v in (-2.0, 0.0, 0.5)) / 3
    assert losses.non_saturating_generator(made).item() == pytest.approx(expected)


@pytest.mark.parametrize("name", losses.GENERATOR)
def test_the_players_pull_in_opposite_directions(name):
    real, made = torch.zeros(3, requires_grad=True), torch.zeros(3, requires_grad=True)
    losses.DISCRIMINATOR[name](real, made).backward()
    assert (real.grad < 0).all() and (made.grad > 0).all()  # descent raises real ones' logits and lowers the others'
    made.grad = None
    losses.GENERATOR[name](made).backward()
    assert (made.grad < 0).all()


def test_the_adaptive_weight_makes_the_two_gradients_equal():
    layer = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    faithful, adversarial = (x @ layer.T - 1).square().mean(), 100 * (x @ layer.T).sigmoid().mean()
    weight = adaptive_weight(faithful, adversarial, layer)
    assert not weight.requires_grad
    ours, theirs = (torch.autograd.grad(f, layer)[0].norm().item() for f in (faithful, weight * adversarial))
    assert theirs == pytest.approx(ours, rel=1e-4)


def test_the_adaptive_weight_is_bounded():
    layer = torch.ones(2, requires_grad=True)
    assert adaptive_weight(1e6 * layer.sum(), 0 * layer.sum(), layer) == losses.LARGEST
    assert adaptive_weight(0 * layer.sum(), layer.sum(), layer) == 0


@pytest.mark.parametrize("kind", losses.GENERATOR)
def test_at_the_last_layer_the_opponent_weighs_as_much_as_the_image(kind):
    network, opponent, loss = players(LossConfig(adversarial=1.0, adversarial_start=0, adversarial_loss=kind, kl=0.0))
    last, x = network.decoder.head.weight, images()
    torch.manual_seed(3)
    total = loss.autoencoder(network, x, {})
    both = torch.autograd.grad(total, last)[0]
    torch.manual_seed(3)  # the same latents
    faithful = torch.autograd.grad(losses.PIXELS["l1"](network(x)[0], x), last)[0]
    raw = loss.figures["adversarial"]
    assert (both - faithful).norm().item() == pytest.approx(faithful.norm().item(), rel=1e-2)
    assert total.item() == pytest.approx(
        (loss.figures["reconstruction"] + loss.figures["adaptive_weight"] * raw).item()
    )


@pytest.mark.parametrize("bottleneck", ["kl", "vq"])
def test_no_player_leaves_a_gradient_with_the_other(bottleneck):
    network, opponent, loss = players(bottleneck=bottleneck)
    loss.autoencoder(network, images(), {}).backward()
    assert all(parameter.grad is None and parameter.requires_grad for parameter in opponent.parameters())
    assert all(p.grad.abs().sum() > 0 for p in network.decoder.head.parameters())
    network.zero_grad()
    loss.discriminator(opponent, images(), {}).backward()
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(parameter.grad is not None for parameter in opponent.parameters())


def test_a_codebook_learns_once_a_step():
    network, opponent, loss = players(bottleneck="vq")
    loss.autoencoder(network, images(), {})
    book, counts = network.bottleneck.codebook.clone(), network.bottleneck.counts.clone()
    loss.discriminator(opponent, images(), {})
    assert torch.equal(network.bottleneck.codebook, book) and torch.equal(network.bottleneck.counts, counts)
    assert network.training and network.bottleneck.training
    loss.autoencoder(network, images(), {})
    assert not torch.equal(network.bottleneck.counts, counts)


def test_before_its_start_the_opponent_says_nothing():
    config = LossConfig(adversarial=0.5, adversarial_start=3)
    network, opponent, loss = players(config)
    alone, values = AutoencoderLoss(LossConfig(), network), []
    for loss.n in (2, 3):
        torch.manual_seed(0)
        values.append(loss.autoencoder(network, images(), {}).item())
        assert ("adversarial" in loss.figures) == (loss.n == 3)
    torch.manual_seed(0)
    expected = alone.autoencoder(network, images(), {}).item()
    assert values[0] == expected != values[1]


def test_figures_stay_the_same_dicts_and_hold_no_graph():
    network, opponent, loss = players(LossConfig(adversarial=0.5, adversarial_start=1, focal_frequency=1.0))
    figures, others = loss.figures, loss.discriminator_figures
    loss.n = 1
    loss.autoencoder(network, images(), {})
    loss.discriminator(opponent, images(), {})
    assert {"reconstruction", "focal_frequency", "kl", "adversarial", "adaptive_weight"} <= loss.figures.keys()
    assert others.keys() == {"real", "made"}
    assert all(value.ndim == 0 and not value.requires_grad for value in (figures | others).values())
    loss.n = 0
    loss.autoencoder(network, images(), {})
    assert "adversarial" not in figures and loss.figures is figures


def test_a_perceptual_distance_is_added_with_its_weight():
    distance = nn.Flatten()
    distance.forward = lambda a, b: (a - b).abs().flatten(1).sum(dim=1)  # (B,)
    config = LossConfig(perceptual="st_lpips", perceptual_weight=0.25, kl=0.0)
    loss = AutoencoderLoss(config, Shifted(0.0), perceptual=distance)
    assert loss.autoencoder(loss.network, images(), {}).item() == pytest.approx(0.5 + 0.25 * 0.5 * 64)


def test_what_the_config_asks_for_must_be_there():
    with pytest.raises(ValueError, match="no discriminator"):
        AutoencoderLoss(GAN, autoencoder())
    with pytest.raises(ValueError, match="no perceptual distance"):
        AutoencoderLoss(LossConfig(perceptual="lpips"), autoencoder())
    assert build_discriminator(LossConfig(), SMALL, (1, 2, 2)) is None
    with pytest.raises(ValueError, match="at least 6×6, not 2×2"):
        build_discriminator(GAN, SMALL, (1, 2, 2))


def test_the_opponent_may_start_after_the_network_was_compiled(monkeypatch):
    """A backward pass compiled without `retain_graph` refuses it later, unless torch is told beforehand."""
    monkeypatch.setattr(losses.compiler, "donated_buffer", True)
    network, opponent, loss = players(LossConfig(adversarial=0.5, adversarial_start=1))
    network.compile(backend="aot_eager")
    for loss.n in range(2):
        loss.autoencoder(network, images(), {}).backward()
    assert loss.figures["adaptive_weight"] > 0


@pytest.fixture
def group():
    """A group of one process."""
    if dist.is_initialized():  # by a training in shares before, in this process
        dist.destroy_process_group()
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_wrapped_models_give_the_same_gradients(group):
    gradients = []
    for wrap in (nn.Identity, DistributedDataParallel):
        network, opponent, loss = players()
        ours, theirs = (wrap(model) if wrap is DistributedDataParallel else model for model in (network, opponent))
        for _ in range(2):  # the second time a reducer that waited for a gradient in vain would complain
            network.zero_grad()
            opponent.zero_grad()
            torch.manual_seed(7)
            loss.autoencoder(ours, images(), {}).backward()
            loss.discriminator(theirs, images(), {}).backward()
        gradients.append([p.grad for model in (network, opponent) for p in model.parameters()])
    for plain, wrapped in zip(*gradients, strict=True):
        torch.testing.assert_close(wrapped, plain, rtol=1e-5, atol=1e-7)


def test_both_parts_step_in_one_training(tmp_path):
    network = autoencoder()
    opponent = Discriminator(1, DiscriminatorConfig(width=8, layers=1))
    config = LossConfig(adversarial=0.5, adversarial_start=3, adversarial_loss="non_saturating")
    loss = AutoencoderLoss(config, network, opponent)
    optimizer = OptimizerConfig(lr=1e-2, betas=(0.5, 0.9))
    parts = [
        Part(network, loss.autoencoder, optimizer),
        Part(opponent, loss.discriminator, optimizer, AveragesConfig(ema=0.0), "discriminator", 3),
    ]
    config = TrainConfig(steps=5, batch=4, device="cpu", log_every=0, sample_every=0, save_every=0)
    before = [parameter.clone() for model in (network, opponent) for parameter in model.parameters()]
    large = data()
    large.images = large.images.tile(1, 1, 2, 2)  # 8×8: for one halving layer 6×6 is the least
    moved = []
    for step in train(parts, large, config, Run(tmp_path)):
        loss.n = step.n
        now = [parameter for model in (network, opponent) for parameter in model.parameters()]
        moved.append([not torch.equal(a, b) for a, b in zip(before, now, strict=True)])
    count = len(list(network.parameters()))
    assert any(moved[0][:count]) and not any(moved[2][count:]) and all(moved[3][count:])
    assert all(moved[-1])
