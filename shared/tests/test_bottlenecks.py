"""What stands between encoder and decoder, against the papers' equations written out, and against brute force."""

import math
import os

import numpy as np
import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load, save
from torch import nn
from torch.distributions import Normal, kl_divergence
from torch.utils._python_dispatch import TorchDispatchMode

from shared.blocks import bottlenecks
from shared.blocks.autoencoder_config import VQConfig
from shared.blocks.bottlenecks import KL, VQ, straight_through
from shared.training.averages import EMA


def normal(*shape, seed=1, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def settled(codes=8, channels=3, **options):
    """A codebook in float64 as after some training: codes at random places, all alike in use."""
    vq = VQ(channels, VQConfig(codes=codes, **options)).double()
    vq.codebook.copy_(normal(codes, channels, seed=7))
    vq.counts.fill_(5.0)
    vq.sums.copy_(5.0 * vq.codebook)
    return vq


def as_rows(z):
    """(B, Z, h, w) to (B h w, Z), position by position."""
    return torch.stack([z[b, :, i, j] for b in range(len(z)) for i in range(z.shape[2]) for j in range(z.shape[3])])


def as_latents(rows, batch, h, w):
    """The inverse."""
    return rows.view(batch, h, w, -1).permute(0, 3, 1, 2).contiguous()


# --- KL -----------------------------------------------------------------------------------------------------


def test_kl_is_torchs_summed_over_an_images_latent_and_the_mean_over_the_batch():
    moments = normal(5, 4, 3, 2)
    mean, log_variance = moments[:, :2], moments[:, 2:]
    theirs = kl_divergence(Normal(mean, (0.5 * log_variance).exp()), Normal(0.0, 1.0))
    expected = theirs.flatten(1).sum(1).mean()
    bottled = KL(2)(moments)
    torch.testing.assert_close(bottled.loss, expected, rtol=1e-12, atol=1e-12)
    assert torch.equal(bottled.figures["kl"], bottled.loss)
    assert torch.equal(bottled.figures["deviation"], bottled.z.std())


def test_kl_by_monte_carlo():
    """The mean of log q(z) - log p(z) over draws from q, within four of its standard errors."""
    moments = 0.7 * normal(1, 4, 1, 1).expand(200_000, 4, 1, 1)
    torch.manual_seed(0)
    z = KL(2).draw(moments)
    q = Normal(moments[:, :2], (0.5 * moments[:, 2:]).exp())
    ratio = (q.log_prob(z) - Normal(0.0, 1.0).log_prob(z)).flatten(1).sum(1)
    error = ratio.std() / math.sqrt(len(ratio))
    assert abs(ratio.mean() - KL(2)(moments).loss) < 4 * error


def test_draws_have_the_mean_and_the_variance_that_the_moments_say():
    moments = normal(1, 6, 2, 2)
    torch.manual_seed(0)
    z = KL(3).draw(moments.expand(100_000, 6, 2, 2))
    deviation = (0.5 * moments[0, 3:]).exp()
    assert ((z.mean(0) - moments[0, :3]).abs() < 5 * deviation / math.sqrt(1e5)).all()
    assert ((z.std(0) / deviation - 1).abs() < 5 / math.sqrt(2e5)).all()
    assert torch.equal(KL(3).mean(moments), moments[:, :3]) and torch.equal(KL(3).finish(z), z)


def test_a_draw_is_torchs_generator_and_its_gradient_is_the_reparameterisation():
    moments = normal(2, 2, 3, 3).requires_grad_()
    torch.manual_seed(3)
    z = KL(1).draw(moments)
    torch.manual_seed(3)
    eps = torch.randn(2, 1, 3, 3, dtype=torch.float64)
    deviation = (0.5 * moments[:, 1:]).exp()
    torch.testing.assert_close(z, moments[:, :1] + deviation * eps)
    z.sum().backward()
    expected = torch.cat([torch.ones_like(eps), 0.5 * deviation * eps], dim=1)
    torch.testing.assert_close(moments.grad, expected.detach())


def test_log_variances_are_bounded():
    for value, bound in ((1000.0, 20.0), (-1000.0, -30.0)):
        moments = torch.cat([torch.zeros(1, 1, 4, 4), torch.full((1, 1, 4, 4), value)], dim=1)
        bottled = KL(1)(moments)
        assert bottled.z.isfinite().all()
        torch.testing.assert_close(bottled.loss.item(), 16 * 0.5 * (math.exp(bound) - 1 - bound), rtol=1e-5, atol=0)


@pytest.mark.parametrize("build", [lambda: KL(2), lambda: VQ(4, VQConfig(codes=8))], ids=["kl", "vq"])
def test_low_precision_moments_are_worked_on_in_float32(build):
    bottleneck = build()
    moments = normal(2, 4, 4, 4).bfloat16()
    for training in (True, False):
        bottled = bottleneck.train(training)(moments)
        assert bottled.z.dtype == bottled.loss.dtype == torch.float32
        assert bottled.z.isfinite().all() and bottled.loss.isfinite()
        assert bottleneck.draw(moments).dtype == bottleneck.mean(moments).dtype == torch.float32
        assert all(value.ndim == 0 and not value.requires_grad for value in bottled.figures.values())


# --- the nearest code ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("codes, channels", [(1, 2), (7, 1), (16, 3), (512, 4)])
def test_the_nearest_code_by_brute_force(codes, channels):
    vq, z = settled(codes, channels), normal(2, channels, 4, 3)
    flat = as_rows(z)
    expected = torch.tensor([(vq.codebook - row).square().sum(1).argmin() for row in flat])
    assert torch.equal(vq.indices(z), expected.view(2, 4, 3))
    assert torch.equal(vq.finish(z), as_latents(vq.codebook[expected], 2, 4, 3))
    assert torch.equal(vq.draw(z), z) and torch.equal(vq.mean(z), z)  # what is diffused is continuous


def test_in_float32_no_chosen_code_is_farther_than_the_nearest():
    vq, z = settled(4096, 4).float(), normal(4, 4, 8, 8).float()
    distances = torch.cdist(as_rows(z).double(), vq.codebook.double())
    chosen = distances.gather(1, vq.indices(z).view(-1, 1))[:, 0]
    assert (chosen - distances.amin(1)).max() < 1e-5


def test_codes_are_told_apart_under_autocast():
    """In bf16 several of these codes, 0.003 from each other, would be one."""
    vq = VQ(1, VQConfig(codes=100)).eval()
    vq.codebook.copy_(1 + 0.003 * torch.arange(100)[:, None])
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(vq.indices(vq.codebook.view(1, 1, 10, 10)).flatten(), torch.arange(100))


class Largest(TorchDispatchMode):
    """Notes the most numbers that any tensor made meanwhile holds."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            self.numel = max(self.numel, out.numel())
        return out


def test_distances_are_held_piece_by_piece(monkeypatch):
    vq, z = settled(1000, 2), normal(4, 2, 30, 30)
    whole = vq.indices(z)
    with Largest() as seen:
        vq.indices(z)
    assert seen.numel == 3600 * 1000
    monkeypatch.setattr(bottlenecks, "DISTANCES", 2**18)
    with Largest() as seen:
        pieces = vq.indices(z)
    assert torch.equal(whole, pieces) and 2**17 < seen.numel <= 2**18


# --- loss and gradient --------------------------------------------------------------------------------------


def test_codes_come_out_exactly_and_the_gradient_goes_straight_through():
    """Bit for bit: nothing but the codes reaches the decoder, and its gradient reaches the encoder unchanged."""
    z, codes = normal(2, 3, 4, 4, dtype=torch.float32).requires_grad_(), normal(2, 3, 4, 4, seed=2).float() * 1e3
    assert torch.equal(straight_through(z, codes), codes)
    for training in (True, False):
        vq = settled(channels=3, commitment=0.0).float().train(training)
        before, moments = vq.codebook.clone(), z.detach().clone().requires_grad_()
        numbers = vq.indices(moments)
        bottled = vq(moments)
        bottled.z.retain_grad()
        assert torch.equal(as_rows(bottled.z), before[numbers.flatten()])
        (bottled.z.sin() * codes).sum().backward()
        assert torch.equal(moments.grad, bottled.z.grad)


def test_commitment_pulls_the_outputs_to_their_codes():
    """beta |z - e|², summed over a latent, the mean over the batch; its gradient is 2 beta (z - e) / B."""
    vq, z = settled(commitment=0.7).eval(), normal(4, 3, 2, 2).requires_grad_()
    bottled = vq(z)
    gap = as_rows(z) - vq.codebook[vq.indices(z).flatten()]
    torch.testing.assert_close(bottled.loss, 0.7 * gap.square().sum() / 4)
    bottled.loss.backward()
    torch.testing.assert_close(as_rows(z.grad), 2 * 0.7 * gap.detach() / 4)


def test_finish_gives_guidance_a_gradient():
    vq, z = settled(), normal(1, 3, 2, 2).requires_grad_()
    vq.finish(z).sum().backward()
    assert torch.equal(z.grad, torch.ones_like(z))


# --- the codebook's learning --------------------------------------------------------------------------------


def test_the_codebook_follows_appendix_a1():
    """N ← γ N + (1 - γ) n, m ← γ m + (1 - γ) Σ z, e ← m / N with N smoothed: loops over numbers."""
    codes, channels, decay = 6, 3, 0.8
    vq = settled(codes, channels, decay=decay, revive_below=0.0)
    e, m, n = vq.codebook.numpy().copy(), vq.sums.numpy().copy(), vq.counts.numpy().copy()
    for step in range(5):
        z = normal(3, channels, 4, 2, seed=step)
        flat = as_rows(z).numpy()
        nearest = [min(range(codes), key=lambda k: ((row - e[k]) ** 2).sum()) for row in flat]  # noqa: B023
        for k in range(codes):
            mine = [row for row, chosen in zip(flat, nearest, strict=True) if chosen == k]
            n[k] = decay * n[k] + (1 - decay) * len(mine)
            m[k] = decay * m[k] + (1 - decay) * (sum(mine) if mine else 0)
        for k in range(codes):
            e[k] = m[k] / ((n[k] + 1e-5) / (n.sum() + codes * 1e-5) * n.sum())
        vq(z)
        for ours, theirs in ((vq.codebook, e), (vq.counts, n), (vq.sums, m)):
            np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-12, atol=1e-12)


def test_a_codebook_settles_on_the_means_of_clusters():
    centres = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0], [4.0, 4.0]])
    vq = VQ(2, VQConfig(codes=4, decay=0.9))
    vq.counts.fill_(1.0)
    vq.codebook.copy_(centres + 0.5)
    vq.sums.copy_(vq.codebook)
    for step in range(200):
        vq(as_latents(centres.repeat(16, 1) + 0.1 * normal(64, 2, seed=step).float(), 1, 8, 8))
    torch.testing.assert_close(vq.codebook, centres, rtol=0, atol=0.03)


def test_evaluation_reads_the_codebook_and_changes_nothing():
    for vq in (settled().eval(), VQ(3, VQConfig(codes=8)).double().eval()):  # trained, and not yet
        before = {name: value.clone() for name, value in vq.state_dict().items()}
        bottled = vq(normal(2, 3, 4, 4))
        vq.finish(normal(2, 3, 4, 4))
        assert bottled.z.isfinite().all()
        assert all(torch.equal(before[name], value) for name, value in vq.state_dict().items())


def test_nothing_of_the_codebook_is_a_parameter():
    vq = VQ(2, VQConfig(codes=8))
    assert not list(vq.parameters())
    assert {name: tuple(value.shape) for name, value in vq.state_dict().items()} == {
        "codebook": (8, 2),
        "counts": (8,),
        "sums": (8, 2),
    }


# --- codes that are not used --------------------------------------------------------------------------------


def test_the_first_batch_becomes_the_codebook():
    """Each code another of its vectors, so that the first batch already uses them all."""
    torch.manual_seed(0)
    vq, z = VQ(3, VQConfig(codes=20)).double(), 100 + normal(2, 3, 4, 4)
    vq.revive(as_rows(z))
    rows = {tuple(row) for row in as_rows(z).tolist()}
    codes = [tuple(row) for row in vq.codebook.tolist()]
    assert set(codes) <= rows and len(set(codes)) == 20
    assert vq.counts.eq(32 / 20).all()
    assert VQ(3, VQConfig(codes=20)).double()(z).figures["usage"] == 1


def test_more_codes_than_vectors():
    """A first batch of 8 vectors for 30 codes: all are taken, some several times, and training goes on."""
    vq, z = VQ(3, VQConfig(codes=30)).double(), normal(1, 3, 2, 4)
    vq.revive(as_rows(z))
    assert {tuple(row) for row in vq.codebook.tolist()} == {tuple(row) for row in as_rows(z).tolist()}
    assert vq(z).z.isfinite().all()


@pytest.mark.parametrize("revive_below, used", [(0.1, 1.0), (0.0, 1 / 16)])
def test_codes_far_from_all_data_are_brought_back(revive_below, used):
    """All but one lie where nothing is. With revival all 16 end up in use, and without it none of them ever is."""
    torch.manual_seed(0)
    vq = settled(16, 2, decay=0.9, revive_below=revive_below)
    vq.codebook[1:] += 1e3
    vq.sums.copy_(5.0 * vq.codebook)
    centres = 3 * normal(16, 2, seed=11)
    for step in range(60):
        bottled = vq(as_latents(centres.repeat(16, 1) + 0.1 * normal(256, 2, seed=step), 4, 8, 8))
    assert bottled.figures["usage"] == used
    error = bottled.loss / 0.25 / 64
    assert error < 0.5 if revive_below else error > 5


def test_a_code_in_use_is_not_replaced():
    vq = settled(4, 2, revive_below=0.5)
    vq.counts.copy_(torch.tensor([10.0, 6.0, 2.0, 2.01]))  # the mean is 5.0025, half of it 2.50
    before = vq.codebook.clone()
    vq.revive(normal(50, 2))
    assert [torch.equal(a, b) for a, b in zip(before, vq.codebook, strict=True)] == [True, True, False, False]
    assert vq.counts.tolist() == [10.0, 6.0, 12.5, 12.5]
    torch.testing.assert_close(vq.sums[2:], 12.5 * vq.codebook[2:])


def test_the_choice_is_torchs_generators():
    def after(seed):
        torch.manual_seed(seed)
        vq = VQ(2, VQConfig(codes=8))
        vq.revive(normal(50, 2).float())
        return vq.codebook

    assert torch.equal(after(1), after(1)) and not torch.equal(after(1), after(2))


# --- figures ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shares", [[1, 0, 0, 0], [1, 1, 1, 1], [3, 1, 0, 0], [5, 2, 1, 0]])
def test_usage_and_perplexity(shares):
    """The exponential of the entropy: K for K codes used alike, 1 for a single one."""
    vq = settled(4, 2).eval()
    numbers = torch.tensor([k for k, times in enumerate(shares) for _ in range(times)])
    figures = vq(as_latents(vq.codebook[numbers], 1, len(numbers), 1)).figures
    p = [times / sum(shares) for times in shares if times]
    torch.testing.assert_close(figures["perplexity"].item(), math.prod(q**-q for q in p))
    assert figures["usage"] == len(p) / 4 and figures["alive"] == 1


def test_alive_counts_the_codes_that_stay():
    vq = settled(4, 2, revive_below=0.5).eval()
    vq.counts.copy_(torch.tensor([10.0, 6.0, 2.0, 2.01]))
    assert vq(normal(1, 2, 4, 4)).figures["alive"] == 0.5


# --- saving, averaging --------------------------------------------------------------------------------------


def test_a_restored_codebook_goes_on_bit_for_bit():
    def steps(vq, first, last):
        for step in range(first, last):
            torch.manual_seed(step)
            vq(normal(4, 3, 4, 4, seed=step).float() * (1 + step))
        return vq

    def fresh():
        return VQ(3, VQConfig(codes=32, decay=0.7, revive_below=0.5))

    whole = steps(fresh(), 0, 12)
    half = fresh()
    half.load_state_dict(load(save(steps(fresh(), 0, 6).state_dict())))
    steps(half, 6, 12)
    assert all(torch.equal(value, half.state_dict()[name]) for name, value in whole.state_dict().items())


def test_an_average_of_the_weights_takes_the_codebook_as_it_is():
    """And not its mean with the codebook before, in which other codes may have been in the same places."""
    model = nn.Sequential(nn.Conv2d(1, 2, 1), VQ(2, VQConfig(codes=8)))
    average = EMA(model, 0.9)
    average.eval()
    for step in range(3):
        model(normal(2, 1, 4, 4, seed=step).float())[0].sum().backward()
        torch.optim.SGD(model.parameters(), 1.0).step()
        average.update_parameters(model)
        assert all(torch.equal(a, b) for a, b in zip(average.module.buffers(), model.buffers(), strict=True))
    assert not torch.equal(average.module[0].weight, model[0].weight)


# --- processes ----------------------------------------------------------------------------------------------

STEPS, HALF = 25, 4  # steps, and images of each of two processes


def training(rank, world):
    """A codebook's training on this process's share of joint batches, whose places drift, so that codes die."""
    vq = VQ(2, VQConfig(codes=24, decay=0.8, revive_below=0.3))
    for step in range(STEPS):
        joint = (normal(2 * HALF, 2, 4, 4, seed=step) + step / 3).float()
        torch.manual_seed(1000 * rank + step)  # as in the training loop, each process draws its own numbers
        figures = vq(joint.chunk(world)[rank]).figures
    return {**vq.state_dict(), **figures}


def process(rank, folder):
    """One of two, in a process of its own."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    try:
        torch.save(training(rank, 2), f"{folder}/{rank}.pt")
    finally:
        dist.destroy_process_group()


def test_two_processes_learn_what_one_learns_from_the_joint_batch(tmp_path, monkeypatch):
    monkeypatch.setitem(os.environ, "OMP_NUM_THREADS", "1")
    torch.multiprocessing.spawn(process, args=(str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    alone = training(0, 1)
    for name, value in alone.items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], value, rtol=1e-4, atol=1e-4)


def test_the_two_processes_have_codes_to_replace(monkeypatch):
    """Of which the test above says something, then: beyond the first step, codes are replaced."""
    replaced, revive = [], VQ.revive
    monkeypatch.setattr(VQ, "revive", lambda vq, flat: (replaced.append(int(vq.dead().sum())), revive(vq, flat)))
    training(0, 1)
    assert replaced[0] == 24 and sum(n > 0 for n in replaced[1:]) > 3
