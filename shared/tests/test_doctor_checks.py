"""The doctor's checks of data, curves, latents, codebooks and weights: each planted fault in three sizes, and its twin.

The first size of each is barely visible. The twin is healthy, over so many seeds that a false alarm in a hundred would
show; nothing here is compared with the checks' own numbers.
"""

import math

import pytest
import torch

from shared.experiments.doctor.curves import discriminator, falling, loader
from shared.experiments.doctor.data import colour, value_range
from shared.experiments.doctor.finding import as_facts, as_text, findings
from shared.experiments.doctor.model import apart, codebook, deviation_of, latents, weights

SEEDS = range(100)


def found(checked):
    """Whether it is a finding; and then one that says all that a person needs."""
    if checked.state == "finding":
        assert any(letter.isdigit() for letter in checked.measured) and checked.why and checked.change
        assert "\n" not in checked.measured + checked.why + checked.change
    return checked.state == "finding"


def rng(seed):
    return torch.Generator().manual_seed(seed)


def pictures(seed, n=64, channels=3, spread=0.3):
    """Pictures of all brightnesses, whose channels go together, in [-1, 1]."""
    light = spread * torch.randn(n, 1, 1, 1, generator=rng(seed))
    return (light + 0.3 * torch.randn(n, channels, 8, 8, generator=rng(seed + 10**6))).clamp(-1, 1)


# --- data ---------------------------------------------------------------------------------------------------------


def with_pixel(value):
    data = pictures(0)
    data[17, 0, 3, 3] = value
    return data


@pytest.mark.parametrize(
    "data",
    [
        *map(with_pixel, (1.01, 1.2, -40.0, math.nan, math.inf)),  # of one pixel of one picture in 64
        (pictures(0) + 1) / 2,
        (pictures(0) + 1) * 127.5,
        torch.full((4, 1, 8, 8), 0.25),
        -(pictures(0) + 1.001) / 2,
        (pictures(0).clamp(-0.9, 0.9) - 0.45) / 0.22,  # by the mean and deviation of ImageNet
    ],
)
def test_data_outside_its_range_is_found(data):
    assert found(value_range(data))


@pytest.mark.parametrize("scale", [1.0, 0.5, 1.001])
def test_data_within_its_range_is_not(scale):
    assert value_range(scale * with_pixel(1.0)).state == "fine"


@pytest.mark.parametrize("drift", [0.12, 0.25, 1.0])
@pytest.mark.parametrize("sign", [-1, 1])
def test_a_drift_of_brightness_is_found(drift, sign):
    """0.12 are 15 levels of 255; the brightness of the pictures differs by 25 from one to the next."""
    data = pictures(1, 256, 1, 0.1)
    missed = [s for s in range(20) if not found(colour(pictures(s, 256, 1, 0.1) + sign * drift, data))]
    assert not missed


@pytest.mark.parametrize("channel", [0, 1, 2])
@pytest.mark.parametrize("tint", [0.12, 0.3, 0.8])
def test_a_tint_is_found_where_brightness_alone_would_hide_it(channel, tint):
    samples, data = pictures(2), pictures(1, 256)
    samples[:, channel] += tint
    assert found(colour(samples, data))
    assert colour(samples.mean(1, keepdim=True), data.mean(1, keepdim=True)).state == "fine" or tint > 0.5


def test_samples_of_the_data_have_no_drift():
    assert not [s for s in SEEDS if found(colour(pictures(s), pictures(s + 1000, 256)))]
    assert not [s for s in SEEDS if found(colour(pictures(s, 12), pictures(s + 1000, 2000)))]  # few may be far off
    clips = pictures(0)[:, :, None].expand(-1, -1, 4, -1, -1)
    assert colour(clips, clips).state == "fine"


def test_the_limit_of_a_drift_comes_nearer_with_more_samples():
    """What 32 pictures cannot tell, 4,000 can; and 3 levels of 255 are not seen however many there are."""
    few, many = (colour(pictures(3, n, 1) + 0.1, pictures(4, n, 1)).state for n in (32, 4000))
    assert (few, many) == ("fine", "finding")
    assert colour(pictures(3, 4000, 1) + 0.024, pictures(3, 4000, 1)).state == "fine"


# --- curves -------------------------------------------------------------------------------------------------------


def curve(seed, shape, n=100, noise=0.01):
    """Lines of a loss of a shape over (0, 1], with noise relative to it."""
    wiggle = torch.randn(n, generator=rng(seed)).tolist()
    values = [shape((i + 1) / n) * (1 + noise * w) for i, w in enumerate(wiggle)]
    return [{"step": i + 1, "loss": value, "lr": 1e-3} for i, value in enumerate(values)]


STALLS = {
    "creeps, by 0.3 % in half of the training": lambda u: 0.06 * u**-0.003,
    "since a quarter of it": lambda u: max(0.06 * (0.25 / u) ** 0.3, 0.06),
    "never fell": lambda u: 1.0,
    "rises": lambda u: 0.1 * (1 + u),
}


@pytest.mark.parametrize("stall", STALLS)
def test_a_loss_that_has_stopped_falling_is_found(stall):
    assert not [s for s in SEEDS if not found(falling(curve(s, STALLS[stall], 200, 0.005)))]


@pytest.mark.parametrize("by", [0.08, 0.3, 3.0])
def test_a_loss_that_rises_at_the_end_is_found(by):
    """Over the last fifth, after a fall that hides it from whole quarters; the same without a rise is none."""
    fall, rise = (lambda u: u**-0.05), (lambda u: u**-0.05 * (1 + by * max(0.0, u - 0.8) / 0.2))  # noqa: E731
    risen = [falling(curve(s, rise, 200, 0.005)) for s in SEEDS]
    assert all(map(found, risen)) and "rose" in risen[0].measured
    assert not [s for s in SEEDS if found(falling(curve(s, fall, 200, 0.005)))]
    opposed = [line | {"discriminator_loss": 1.0} for line in curve(0, rise, 200, 0.005)]
    if by == 0.08:  # the larger ones are no fall of whole quarters either, which is said of any training
        assert not found(falling(opposed))


def test_a_loss_that_falls_is_not_a_finding():
    """As slowly as the slowest of the committed trainings: 2.3 % in half of it."""
    slowly = lambda u: u**-0.025  # noqa: E731
    assert not [s for s in SEEDS if found(falling(curve(s, slowly)))]
    assert not [s for s in SEEDS if found(falling(curve(s, slowly, noise=0.1)))]  # too noisy to tell
    assert falling(curve(0, slowly, 450)).state == "fine"
    assert falling(curve(0, lambda u: 1.0, noise=0.1)).state == "unknown"
    assert falling(curve(0, lambda u: 1.0, 15)).state == "unknown"
    assert falling([]).state == "unknown"


def test_an_autoencoder_is_judged_by_its_reconstruction():
    """Its loss leaps when a discriminator joins in, which says nothing; and a fall of it may hide the others."""
    lines = curve(0, lambda u: u**-0.5)
    leaping = [line | {"reconstruction": line["loss"], "loss": float(line["step"])} for line in lines]
    assert falling(leaping).state == "fine"
    hiding = [line | {"reconstruction": 0.1} for line in lines]
    assert found(falling(hiding))


def test_what_to_change_depends_on_the_rate():
    high = falling(curve(0, lambda u: 1.0))
    low = falling([line | {"lr": 1e-3 * (1 - i / 100)} for i, line in enumerate(curve(0, lambda u: 1.0))])
    assert "lower" in high.change and "raise" in low.change


def opposed(seed, loss, n=20):
    """A discriminator's lines, with noise of a tenth."""
    noise = (0.1 * torch.randn(n, generator=rng(seed))).tolist()
    played = [
        {"discriminator_loss": loss * (1 + w), "discriminator_real": 1.0, "discriminator_made": 0.0} for w in noise
    ]
    return [{"loss": 1.0}] * 5 + played


@pytest.mark.parametrize("kind, unit", [("hinge", 1.0), ("non_saturating", math.log(2))])
def test_a_discriminator_that_has_won_is_found(kind, unit):
    for loss in (0.08, 0.02, 1e-5):
        assert not [s for s in SEEDS if not found(discriminator(opposed(s, unit * loss), kind))]
    for loss in (0.13, 0.5, 1.0):
        assert not [s for s in SEEDS if found(discriminator(opposed(s, unit * loss), kind))]
    assert discriminator([{"loss": 1.0}] * 9).state == "unknown"


def test_a_loss_of_the_discriminator_bounds_what_it_misjudges():
    """Of answers drawn anyhow, the share on the wrong side is never above what is said of it."""
    for seed in range(20):
        real, made = 2 + torch.randn(2, 500, generator=rng(seed)), -2 + torch.randn(500, generator=rng(seed + 50))
        wrong = ((real[0] < 0).float().mean() + (made > 0).float().mean()) / 2
        hinge = 0.5 * ((1 - real[0]).clamp(min=0).mean() + (1 + made).clamp(min=0).mean())
        entropy = 0.5 * (torch.nn.functional.softplus(-real[0]).mean() + torch.nn.functional.softplus(made).mean())
        assert wrong <= hinge and wrong <= entropy / math.log(2)


def waiting(seed, share, n=10):
    noise = torch.randn(n, generator=rng(seed)).tolist()
    return [{"waiting": 0.9}] + [{"waiting": share * (1 + 0.1 * w)} for w in noise]


def test_a_loader_that_starves_the_device_is_found():
    for share in (0.13, 0.4, 0.95):
        assert not [s for s in SEEDS if not found(loader(waiting(s, share)))]
    for share in (0.001, 0.03, 0.09):
        assert not [s for s in SEEDS if found(loader(waiting(s, share)))]
    assert loader([{"loss": 1.0}] * 20).state == loader(waiting(0, 0.5, 2)).state == "unknown"


# --- latents, codes, weights --------------------------------------------------------------------------------------


def drawn(seed, deviation=1.0, n=256):
    """Latents of pictures that differ in how much they hold, of a deviation."""
    content = (0.5 + torch.rand(n, 1, 1, 1, generator=rng(seed))) / (13 / 12) ** 0.5  # E content² = 13/12
    return deviation * content * torch.randn(n, 4, 7, 7, generator=rng(seed + 500))


@pytest.mark.parametrize("deviation", [1.2, 0.8, 2.0, 5.5, 0.18])
def test_latents_of_another_deviation_are_found(deviation):
    assert not [s for s in range(20) if not found(latents(drawn(s, deviation)))]


def test_latents_of_deviation_1_are_not():
    assert not [s for s in SEEDS if found(latents(drawn(s)))]
    assert latents(drawn(0)[:1]).state == "unknown"


def test_channels_are_looked_at_where_each_was_to_be_scaled():
    z = drawn(0) * torch.tensor([1.2, 1.0, 1.0, (4 - 1.44 - 2) ** 0.5])[:, None, None]  # 1 all together
    assert latents(z).state == "fine"
    assert found(latents(z, "channels"))
    assert latents(drawn(0), "channels").state == "fine"


def test_the_error_of_a_deviation_is_its_spread_over_draws():
    several = [deviation_of(drawn(s) + 3 * drawn(s)[:, :1, :1, :1] + 3) for s in SEEDS]
    spread = torch.tensor([deviation for deviation, _ in several]).std().item()
    assert sum(error for _, error in several) / len(several) == pytest.approx(spread, rel=0.2)
    shifted = drawn(0) + 3
    assert deviation_of(shifted)[0] == pytest.approx(shifted.std().item(), rel=1e-4)


def codes(seed, dead, many=64, n=4096):
    """Numbers of codes, the living ones used unevenly: as 1, 1/2, 1/3, …"""
    share = 1 / torch.arange(1.0, many + 1)
    share[torch.randperm(many, generator=rng(0))[:dead]] = 0
    return torch.multinomial(share, n, replacement=True, generator=rng(seed))


@pytest.mark.parametrize("dead", [5, 16, 63])
def test_dead_codes_are_found(dead):
    assert not [s for s in SEEDS if not found(codebook(codes(s, dead), 64))]


def test_codes_that_chance_left_out_are_not():
    assert not [s for s in SEEDS if found(codebook(codes(s, 0), 64))]
    assert not [s for s in SEEDS if found(codebook(codes(s, 0, n=1280), 64))]  # some are missing in most of these
    assert any(len(codes(s, 0, n=1280).unique()) < 64 for s in SEEDS)
    assert codebook(codes(0, 32, n=600), 64).state == "unknown"


def test_raw_weights_sampled_where_averaged_ones_are_is_found():
    used = [("evaluation of step 10", "model")]
    averaged = {"weight": torch.randn(1000, generator=rng(0)), "count": torch.tensor(3)}
    for distance in (0.003, 0.05, 1.0):
        noise = torch.randn(1000, generator=rng(1))
        noise = noise * distance * averaged["weight"].norm() / noise.norm()
        raw = {"weight": averaged["weight"] + noise, "count": torch.tensor(900)}
        assert apart(raw, averaged) == pytest.approx(distance, rel=1e-4)
        assert found(weights(used, apart(raw, averaged)))
    assert found(weights(used, None))


def test_raw_weights_for_comparison_or_without_a_difference_are_not():
    both = [("evaluation of step 10", "model"), ("evaluation of step 10", "ema")]
    averaged = {"weight": torch.randn(1000, generator=rng(0))}
    rounded = {"weight": averaged["weight"].bfloat16().float()}
    assert weights(both, 0.5).state == "fine"
    assert weights(both[1:], 0.5).state == weights(both[:1], apart(rounded, averaged)).state == "fine"
    assert found(weights([*both, ("evaluation of step 20", "model")], 0.5))
    assert weights([], 0.5).state == "unknown"


# --- a report -----------------------------------------------------------------------------------------------------


def test_a_report_says_what_was_found_and_what_was_not_looked_at():
    checked = [value_range(with_pixel(2.0)), loader([]), falling(curve(0, lambda u: 1 / u))]
    text = as_text("run a\x1b[2J\nb", checked)
    assert "FINDING  range" in text and "not examined  loader" in text and "fine  loss" in text
    assert "1 finding;" in text and "\x1b" not in text and "a?[2J?b" in text
    assert [one.name for one in findings(checked)] == ["range"]
    facts = as_facts("it", checked)
    assert facts["findings"] == 1 and [one["state"] for one in facts["checks"]] == ["finding", "unknown", "fine"]
