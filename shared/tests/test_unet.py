"""The U-Net as a whole: shapes, gradients, and that every option does something."""

from dataclasses import fields, replace

import pytest
import torch
from torch import nn

from shared.blocks.config import UNetConfig
from shared.blocks.resnet import Context
from shared.blocks.unet import UNet

BASE = UNetConfig(width=8, multipliers=(1, 2), attention=("none", "linear"), middle_attention="full", heads=2)
OPTIONS = [
    {},
    {"width": 12},
    {"multipliers": (2, 3)},
    {"multipliers": (1, 2, 2), "attention": ("none", "linear", "full")},
    {"multipliers": (1,), "attention": ("full",)},
    {"blocks": 2},
    {"blocks": 3},
    {"attention": ("full", "none")},
    {"middle_attention": "none"},
    {"middle_attention": "linear"},
    {"heads": 4},
    {"patch": 2},
    {"patch": 4, "multipliers": (4,), "attention": ("none",)},
    {"down": "max"},
    {"down": "stride"},
    {"up": "bilinear"},
    {"dropout": 0.3},
    {"time_dropout": 0.3},
    {"checkpointing": True},
]
EVERY = pytest.mark.parametrize("options", OPTIONS, ids=str)


def perturbed(config, channels=3, out_channels=None):
    """A U-Net in float64 with no parameter zero, as the head and the ends of the branches are at first."""
    torch.manual_seed(0)
    model = UNet(channels, config, out_channels).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.15)
    return model


def inputs(batch=2, channels=3, height=16, width=8):
    random = torch.Generator().manual_seed(1)
    x = torch.randn(batch, channels, height, width, generator=random, dtype=torch.float64)
    return x, torch.linspace(1, 900, batch), {}


# --- shapes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [8, 12, 28, 32, 64, 96, 128, 256, 512])
@pytest.mark.parametrize("channels, out_channels", [(1, None), (3, None), (4, 8)])
def test_sizes_and_channels(size, channels, out_channels):
    config = replace(BASE, width=4, heads=1, attention=("none", "linear"), middle_attention="linear")
    model = UNet(channels, config, out_channels)
    with torch.no_grad():
        out = model(torch.zeros(1, channels, size, size), torch.ones(1), {})
    assert out.shape == (1, out_channels or channels, size, size)


@pytest.mark.parametrize("height, width", [(8, 8), (8, 24), (40, 16)])
@EVERY
def test_shape_for_every_option(options, height, width):
    x, t, cond = inputs(height=height, width=width)
    assert perturbed(replace(BASE, **options))(x, t, cond).shape == x.shape


@pytest.mark.parametrize(
    "levels, patch, size, multiple",
    [(2, 1, (28, 27), 2), (3, 1, (30, 28), 4), (3, 2, (28, 28), 8), (1, 4, (8, 6), 4)],
)
def test_a_size_that_cannot_be_halved_is_refused(levels, patch, size, multiple):
    config = UNetConfig(width=4, multipliers=(1,) * levels, attention=("none",) * levels, patch=patch)
    with pytest.raises(ValueError, match=f"{size[0]}×{size[1]}.*multiples of {multiple};"):
        UNet(1, config)(torch.zeros(1, 1, *size), torch.ones(1), {})


def test_a_single_pixel_at_the_bottom():
    """Four levels of 8 × 8 end in one pixel, which normalising each feature by itself would wipe out."""
    model = perturbed(replace(BASE, multipliers=(1, 1, 1, 1), attention=("none",) * 4))
    x, t, cond = inputs(1, height=8, width=8)
    features, _ = model.encode(x, Context(model.time(t)))
    assert features.shape[2:] == (1, 1) and features.std() > 0.01
    assert model(x, t, cond).isfinite().all()


@pytest.mark.parametrize(
    "options, words",
    [
        ({"attention": ("none",)}, "attention names 1 levels and network.multipliers 2"),
        ({"heads": 3}, "3 attention heads"),
        ({"width": 7, "heads": 1}, "7 features"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        UNet(1, replace(BASE, **options))


# --- gradients ----------------------------------------------------------------------------------------------


@EVERY
def test_gradient_reaches_every_parameter(options):
    model = perturbed(replace(BASE, **options))
    x, t, cond = inputs()
    out = model(x, t, cond)
    (out * torch.sin(torch.arange(out.numel()).double()).view_as(out)).sum().backward()
    sizes = {name: 0.0 if p.grad is None else p.grad.abs().max().item() for name, p in model.named_parameters()}
    assert not [name for name, size in sizes.items() if size < 1e-9 * max(sizes.values())]


def test_training_wakes_every_parameter_of_a_fresh_network():
    """At first only the head gets a gradient, as what follows the rest is zero; three steps later all do."""
    torch.manual_seed(0)
    model = UNet(3, BASE).double()
    x, t, cond = inputs()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    awake = []
    for _ in range(4):
        optimizer.zero_grad()
        (model(x, t, cond) - x).square().mean().backward()
        awake.append({name for name, p in model.named_parameters() if p.grad.abs().max() > 0})
        optimizer.step()
    assert awake[0] == {"head.weight", "head.bias"}
    assert awake[-1] == {name for name, _ in model.named_parameters()}


# --- options ------------------------------------------------------------------------------------------------


def test_the_list_of_options_names_every_field():
    """A new option must be added here, and so is tested by what follows."""
    assert {name for options in OPTIONS for name in options} == {field.name for field in fields(UNetConfig)}


@EVERY
def test_every_option_has_an_effect(options):
    """Other parameters, or another output of the same ones: dropout in training, checkpointing never."""
    base, other = perturbed(BASE), perturbed(replace(BASE, **options))
    x, t, cond = inputs()

    def shapes(model):
        return {name: p.shape for name, p in model.named_parameters()}

    if shapes(base) != shapes(other):
        assert not {"heads", "dropout", "time_dropout", "checkpointing", "up"} & options.keys()
        return
    other.load_state_dict(base.state_dict())
    same_in_use = torch.equal(base.eval()(x, t, cond), other.eval()(x, t, cond))
    same_in_training = torch.equal(base.train()(x, t, cond), other.train()(x, t, cond))
    if options.keys() <= {"checkpointing"}:
        assert same_in_use and same_in_training
    elif options.keys() <= {"dropout", "time_dropout"}:
        assert same_in_use and not same_in_training
    else:
        assert not same_in_use


def test_every_level_down_and_up_has_what_its_entry_says():
    config = replace(BASE, multipliers=(1, 2, 3), attention=("linear", "none", "full"), blocks=2)
    model = UNet(1, config)

    def kinds(levels):
        return [[[type(part).__name__ for part in stage[1:]] for stage in stages] for stages in levels]

    expected = [[["LinearAttention"]] * 2, [[]] * 2, [["Attention"]] * 2]
    assert kinds(model.down) == expected and kinds(model.up) == expected[::-1]
    assert [stages[-1][0].conv2.out_channels for stages in model.down] == [8, 16, 24]
    assert len(model.shrink) == len(model.enlarge) == 2


def saved_bytes(model, x, t, cond):
    """What a forward pass keeps for the gradient, each piece of memory once."""
    storages = {}

    def pack(tensor):
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = model(x, t, cond)
    return out, sum(storages.values())


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_checkpointing_saves_memory_and_changes_not_a_bit(dropout):
    """Nor with dropout, which must drop the same in the second computation."""
    config = replace(BASE, blocks=2, dropout=dropout, time_dropout=dropout)
    results = {}
    for checkpointing in (False, True):
        model = perturbed(replace(config, checkpointing=checkpointing))
        torch.manual_seed(3)
        out, size = saved_bytes(model, *inputs())
        out.square().sum().backward()
        results[checkpointing] = out, [p.grad for p in model.parameters()], size
    (plain, plain_grads, plain_size), (lean, lean_grads, lean_size) = results[False], results[True]
    assert torch.equal(plain, lean)
    assert all(torch.equal(a, b) for a, b in zip(plain_grads, lean_grads, strict=True))
    assert lean_size < plain_size / 2


# --- what it computes ---------------------------------------------------------------------------------------


@EVERY
def test_a_fresh_network_says_zero(options):
    model = UNet(3, replace(BASE, **options))
    x, t, cond = inputs()
    assert torch.equal(model(x.float(), t, cond), torch.zeros_like(x, dtype=torch.float32))


@EVERY
def test_encode_then_decode_is_forward(options):
    model = perturbed(replace(BASE, **options)).eval()
    x, t, cond = inputs()
    c = Context(model.time(t))
    h, skips = model.encode(x, c)
    count = len(skips)
    assert count == len(model.config.multipliers) * model.config.blocks
    assert torch.equal(model.decode(h, skips, c), model(x, t, cond))
    assert len(skips) == count  # decode leaves the caller's list alone


def test_every_skip_is_used():
    model = perturbed(replace(BASE, multipliers=(1, 2, 2), attention=("none",) * 3, blocks=2))
    x, t, _ = inputs()
    c = Context(model.time(t))
    h, skips = model.encode(x, c)
    skips = [skip.detach().requires_grad_() for skip in skips]
    model.decode(h, skips, c).square().sum().backward()
    assert all(skip.grad.abs().max() > 0 for skip in skips)


def test_each_sample_has_its_own_time_and_sees_no_other():
    model = perturbed(BASE)
    x, t, cond = inputs(3)
    together = model(x, t, cond)
    for i in range(3):
        alone = model(x[i : i + 1], t[i : i + 1], cond)
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-9, atol=1e-9)
    assert (model(x, t + 100, cond) - together).abs().amax((1, 2, 3)).min() > 1e-6


def test_the_bottom_sees_the_whole_image():
    """By the attention in the middle, one pixel's output hears of every pixel of the input."""
    model = perturbed(BASE)
    x, t, cond = inputs(1, height=32, width=32)
    x.requires_grad_()
    model(x, t, cond)[0, :, 0, 0].sum().backward()
    assert (x.grad[0].abs().amax(0) > 0).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("up", ["nearest", "bilinear"])
def test_other_types_run_and_learn(dtype, up):
    model = perturbed(replace(BASE, up=up)).to(dtype)
    x, t, cond = inputs()
    out = model(x.to(dtype), t, cond)
    out.float().square().mean().backward()
    assert out.dtype == dtype and out.isfinite().all()
    assert all(p.grad.dtype == dtype and p.grad.isfinite().all() for p in model.parameters())


def test_autocast_is_close_to_float32():
    model = perturbed(BASE).float()
    x, t, cond = inputs()
    x = x.float()
    with torch.autocast("cpu", torch.bfloat16):
        low = model(x, t, cond)
    full = model(x, t, cond)
    assert low.dtype == torch.bfloat16 and (low - full).abs().max() < 0.1 * full.abs().max()


@EVERY
def test_the_network_never_waits_for_the_device(options):
    """On the meta device, where no number can be read: what would wait for a GPU raises.

    Checkpointing is left out: it keeps the state of a device's random numbers, which meta has not.
    """
    if "checkpointing" in options:
        options = {}
    model = UNet(3, replace(BASE, **options)).to("meta")
    x, t, cond = inputs()
    out = model(x.float().to("meta"), t.to("meta"), cond)
    out.mean().backward()
    assert out.shape == x.shape
