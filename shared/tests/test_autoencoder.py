"""The autoencoder as a whole: shapes, gradients, what it sees, and the mark that transposed convolutions leave."""

import itertools
import subprocess
import sys
from dataclasses import fields, replace

import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from shared.blocks.autoencoder import Decoder, Encoder, build
from shared.blocks.autoencoder_config import AutoencoderConfig, VQConfig

BASE = AutoencoderConfig(
    width=4, multipliers=(1, 2), attention=("none", "linear"), heads=2, patch=1, latent_channels=3, vq=VQConfig(codes=8)
)
OPTIONS = [
    {},
    {"width": 6},
    {"multipliers": (2, 3)},
    {"multipliers": (1, 2, 2), "attention": ("none", "linear", "full")},
    {"multipliers": (1,), "attention": ("full",)},
    {"blocks": 2},
    {"attention": ("full", "none")},
    {"middle_attention": "none"},
    {"middle_attention": "linear"},
    {"heads": 4},
    {"patch": 2},
    {"down": "max"},
    {"down": "stride"},
    {"up": "bilinear"},
    {"up": "transposed"},
    {"tanh": True},
    {"dropout": 0.3},
    {"latent_channels": 2},
    {"bottleneck": "vq"},
    {"bottleneck": "vq", "vq": VQConfig(codes=3)},
]
EVERY = pytest.mark.parametrize("options", OPTIONS, ids=str)
BOTH = pytest.mark.parametrize("bottleneck", ["kl", "vq"])


def perturbed(config, channels=3):
    """An autoencoder in float64 with no parameter zero, as the ends of the branches are at first."""
    torch.manual_seed(0)
    model = build(config, channels).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


def images(batch=2, channels=3, height=16, width=8):
    random = torch.Generator().manual_seed(1)
    return 2 * torch.rand(batch, channels, height, width, generator=random, dtype=torch.float64) - 1


# --- shapes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels, levels, patch", list(itertools.product((1, 3), (1, 2, 3), (1, 2, 4))))
def test_shapes_over_all_options(channels, levels, patch):
    """Ways down × ways up × kinds of attention, with one bottleneck and the other, on images that are not square."""
    ways = [("average", "max", "stride"), ("nearest", "bilinear", "transposed")]
    if levels == 1:  # where no way is gone
        ways = [way[:1] for way in ways]
    grid = itertools.product(*ways, ("none", "linear", "full"))
    for (down, up, kind), bottleneck in zip(grid, itertools.cycle(("kl", "vq")), strict=False):
        config = AutoencoderConfig(
            width=2, multipliers=(1, 2, 1)[:levels], attention=(kind,) * levels, middle_attention=kind, heads=1,
            patch=patch, down=down, up=up, latent_channels=3, bottleneck=bottleneck, vq=VQConfig(codes=4),
        )  # fmt: skip
        factor = patch * 2 ** (levels - 1)
        model, x = build(config, channels).eval(), torch.zeros(1, channels, 2 * factor, 4 * factor)
        with torch.no_grad():
            moments = model.encode(x)
            reconstruction, bottled = model(x)
        assert config.compression == factor
        assert moments.shape == (1, 6 if bottleneck == "kl" else 3, 2, 4)
        assert bottled.z.shape[1:] == model.latent_shape(tuple(x.shape[1:])) == (3, 2, 4)
        assert reconstruction.shape == model.decode(bottled.z).shape == x.shape


@pytest.mark.parametrize("size, compression", [(28, 2), (28, 4), (32, 4), (64, 8), (128, 8), (256, 16), (512, 16)])
def test_sizes_and_compressions(size, compression):
    levels = compression.bit_length() - 1  # the first factor of 2 is the stem's
    config = replace(BASE, width=2, heads=1, patch=2, multipliers=(1,) * levels, attention=("none",) * levels)
    model = build(config, 1)
    with torch.no_grad():
        reconstruction, bottled = model(torch.zeros(1, 1, size, size))
    assert bottled.z.shape[2:] == (size // compression, size // compression)
    assert reconstruction.shape == (1, 1, size, size)


def test_a_digit_becomes_seven_by_seven():
    for options in ({"patch": 2}, {"patch": 1, "multipliers": (1, 2, 2), "attention": ("none",) * 3}):
        model = build(replace(BASE, latent_channels=2, **options), 1)
        assert model.config.compression == 4 and model.latent_shape((1, 28, 28)) == (2, 7, 7)


@pytest.mark.parametrize("levels, patch, size, factor", [(2, 1, (28, 27), 2), (3, 1, (30, 28), 4), (3, 2, (28, 28), 8)])
def test_a_size_that_cannot_be_compressed_is_refused(levels, patch, size, factor):
    model = build(replace(BASE, multipliers=(1,) * levels, attention=("none",) * levels, patch=patch), 3)
    words = f"^images of {size[0]}×{size[1]} cannot be compressed {factor}-fold: .* multiples of {factor};.*$"
    for call in (
        lambda: model(torch.zeros(1, 3, *size)),
        lambda: model.check_size(*size),
        lambda: model.latent_shape((3, *size)),
    ):
        with pytest.raises(ValueError, match=words):
            call()


@pytest.mark.parametrize(
    "options, words",
    [
        ({"attention": ("none",)}, "attention names 1 levels and autoencoder.multipliers 2"),
        ({"multipliers": (), "attention": ()}, "multipliers is empty"),
        ({"heads": 3}, "3 attention heads"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        build(replace(BASE, **options), 1)


def test_images_of_other_channels_are_refused():
    with pytest.raises(ValueError, match="for images of 3 channels, not 1"):
        build(BASE, 3).latent_shape((1, 28, 28))


# --- options ------------------------------------------------------------------------------------------------


def test_the_list_of_options_names_every_field():
    """A new option must be added here, and so is tested by what follows."""
    assert {name for options in OPTIONS for name in options} == {field.name for field in fields(AutoencoderConfig)}


@EVERY
def test_every_option_has_an_effect(options):
    """Other tensors, or another output of the same ones: dropout in training."""
    base, other, x = perturbed(BASE), perturbed(replace(BASE, **options)), images()
    shapes = [{name: value.shape for name, value in model.state_dict().items()} for model in (base, other)]
    if shapes[0] != shapes[1]:
        return
    other.load_state_dict(base.state_dict())

    def reconstruction(model, training):
        torch.manual_seed(0)
        return model.train(training)(x)[0]

    same_in_use = torch.equal(reconstruction(base, False), reconstruction(other, False))
    same_in_training = torch.equal(reconstruction(base, True), reconstruction(other, True))
    assert (same_in_use, same_in_training) == (not options or "dropout" in options, not options)


@EVERY
def test_gradient_reaches_every_parameter(options):
    model = perturbed(replace(BASE, **options))
    reconstruction, bottled = model(images())
    weights = torch.sin(torch.arange(reconstruction.numel()).double()).view_as(reconstruction)
    ((reconstruction * weights).sum() + bottled.loss).backward()
    sizes = {name: 0.0 if p.grad is None else p.grad.abs().max().item() for name, p in model.named_parameters()}
    assert not [name for name, size in sizes.items() if size < 1e-9 * max(sizes.values())]
    assert any("encoder.middle" in name for name in sizes) and any("decoder.middle" in name for name in sizes)


@BOTH
def test_training_learns(bottleneck):
    """Two images by heart: the error falls far below that of grey."""
    torch.manual_seed(0)
    config = replace(BASE, width=8, attention=("none", "none"), bottleneck=bottleneck, vq=VQConfig(codes=32))
    model, x = build(config, 1), images(2, 1, 8, 8).float()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(80):
        reconstruction, bottled = model(x)
        loss = (reconstruction - x).square().mean()
        optimizer.zero_grad()
        (loss + 1e-4 * bottled.loss).backward()
        optimizer.step()
    assert loss < 0.3 * x.var()


def test_tanh_bounds_the_output_and_nothing_else_does():
    z = 100 * torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    free, bent = perturbed(BASE), perturbed(replace(BASE, tanh=True))
    for model in (free, bent):
        model.decoder.head.weight.data.mul_(20)
    assert free.decode(z).abs().max() > 1 > bent.decode(z).abs().max()
    torch.testing.assert_close(bent.decode(z), free.decode(z).tanh())


# --- what it computes ---------------------------------------------------------------------------------------


@BOTH
def test_forward_is_encode_bottleneck_decode(bottleneck):
    model, x = perturbed(replace(BASE, bottleneck=bottleneck)).eval(), images()
    torch.manual_seed(0)
    reconstruction, bottled = model(x)
    torch.manual_seed(0)
    z = model.bottleneck.draw(model.encode(x))
    assert torch.equal(model.decode(z), reconstruction)
    assert torch.equal(model.bottleneck.finish(z), bottled.z)


@BOTH
def test_samples_of_a_batch_do_not_see_each_other(bottleneck):
    model, x = perturbed(replace(BASE, bottleneck=bottleneck)).eval(), images(3)
    mean = model.bottleneck.mean(model.encode(x))
    for i in range(3):
        alone = model.bottleneck.mean(model.encode(x[i : i + 1]))
        torch.testing.assert_close(mean[i : i + 1], alone, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(model.decode(mean)[i : i + 1], model.decode(alone), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("down", ["average", "max", "stride"])
@pytest.mark.parametrize("patch", [1, 2])
def test_an_image_moved_by_the_compression_has_its_latent_moved_by_one(patch, down):
    """Away from the borders, which are so far that the object's latents do not feel them."""
    config = replace(BASE, patch=patch, down=down, attention=("none", "none"), middle_attention="none")
    encoder, factor = perturbed(config, 1).encoder, config.compression
    side, middle = 40 * factor, 20 * factor
    x = torch.zeros(1, 1, side, side, dtype=torch.float64)
    x[..., middle : middle + 5, middle : middle + 6] = images(1, 1, 5, 6)
    z, moved = encoder(x), encoder(x.roll((factor, -factor), (2, 3)))
    inner = (..., slice(11, -11), slice(11, -11))
    assert z[inner].std((2, 3)).min() > 1e-3
    torch.testing.assert_close(moved[inner], z.roll((1, -1), (2, 3))[inner], rtol=1e-9, atol=1e-9)
    assert (encoder(x.roll(1, 2)) - z)[inner].abs().max() > 1e-3


def test_by_the_attention_in_the_middle_a_latent_sees_the_whole_image_and_the_decoder_the_whole_latent():
    model = perturbed(replace(BASE, attention=("none", "none"), middle_attention="full"))
    x = images(1, 3, 64, 64).requires_grad_()
    model.encode(x)[0, :, 0, 0].sum().backward()
    assert (x.grad[0].abs().amax(0) > 0).all()
    z = torch.zeros(1, 3, 32, 32, dtype=torch.float64, requires_grad=True)
    model.decode(z)[0, :, 0, 0].sum().backward()
    assert (z.grad[0].abs().amax(0) > 0).all()


def nyquist(y):
    """Share of an image's energy, its mean left out of neither side, that changes sign from each pixel to the next."""
    energy = torch.fft.fft2(y).abs().square().sum((0, 1))  # (H, W), frequency 0 first
    h, w = y.shape[2] // 2, y.shape[3] // 2
    return ((energy[h, 0] + energy[0, w] + energy[h, w]) / energy.sum()).item()


@pytest.mark.parametrize("up", ["nearest", "bilinear", "transposed"])
@pytest.mark.parametrize("seed", range(3))
def test_transposed_convolutions_leave_a_checkerboard(up, seed):
    """The failure worth seeing. A fresh decoder of the same latent everywhere should paint one colour everywhere."""
    torch.manual_seed(seed)
    config = replace(BASE, width=16, up=up, attention=("none", "none"), middle_attention="none", tanh=True)
    decoder = Decoder(3, 1, config).double()
    y = decoder(torch.ones(1, 3, 24, 24, dtype=torch.float64))[..., 14:-14, 14:-14]  # without the borders' effect
    if up == "transposed":
        assert nyquist(y) > 1e-3
    else:
        assert nyquist(y) < 1e-20


# --- formats, devices, compilers ----------------------------------------------------------------------------


@BOTH
def test_autocast_is_finite_and_close_to_float32(bottleneck):
    model = perturbed(replace(BASE, bottleneck=bottleneck)).float()
    x = images().float()
    with torch.autocast("cpu", torch.bfloat16):
        low, moments = model(x), model.encode(x)
    full = model.encode(x)
    assert low[0].dtype == moments.dtype == torch.bfloat16 and low[1].z.dtype == low[1].loss.dtype == torch.float32
    assert low[0].isfinite().all() and low[1].loss.isfinite()
    assert (moments - full).abs().max() < 0.1 * full.abs().max()
    (low[0].float().square().mean() + low[1].loss).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@BOTH
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types_run_and_learn(bottleneck, dtype):
    model = perturbed(replace(BASE, bottleneck=bottleneck)).to(dtype)
    reconstruction, bottled = model(images().to(dtype))
    (reconstruction.float().square().mean() + bottled.loss.float()).backward()
    assert reconstruction.dtype == dtype and reconstruction.isfinite().all()
    assert all(p.grad.dtype == dtype and p.grad.isfinite().all() for p in model.parameters())


@EVERY
def test_a_training_step_never_waits_for_the_device(options):
    """On the meta device, where no number can be read: what would wait for a GPU raises."""
    model = build(replace(BASE, **options), 3).to("meta")
    reconstruction, bottled = model(images().float().to("meta"))
    (reconstruction.mean() + bottled.loss).backward()
    assert reconstruction.shape == (2, 3, 16, 8)


@BOTH
def test_a_compiled_autoencoder_is_one_graph_and_says_the_same(bottleneck):
    config = replace(BASE, bottleneck=bottleneck, multipliers=(1,), attention=("none",))
    plain, other = perturbed(config).float(), perturbed(config).float()
    other.compile(backend="eager", fullgraph=True)
    assert plain.state_dict().keys() == other.state_dict().keys()
    for seed in range(2):
        torch.manual_seed(seed)
        expected = plain(images().float())
        torch.manual_seed(seed)
        got = other(images().float())
        torch.testing.assert_close(got[0], expected[0])
        torch.testing.assert_close(got[1].loss, expected[1].loss)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value)


# --- saving, sizes ------------------------------------------------------------------------------------------


@BOTH
def test_a_saved_autoencoder_comes_back_bit_for_bit(bottleneck):
    config, x = replace(BASE, bottleneck=bottleneck), images().float()
    model, other = build(config, 3), build(config, 3)
    model(x)  # the codebook has moved
    other.load_state_dict(load(save(model.state_dict())))
    z = model.eval().bottleneck.mean(model.encode(x))
    assert torch.equal(other.eval().bottleneck.mean(other.encode(x)), z)
    assert torch.equal(other.decode(z), model.decode(z))


def test_encoder_and_decoder_are_of_a_size():
    """The demo's widths: the same levels, so parameters that differ by the first and last convolution alone."""
    config = AutoencoderConfig(middle_attention="none", latent_channels=2)
    encoder, decoder = Encoder(1, 4, config), Decoder(2, 1, config)
    counts = [sum(p.numel() for p in half.parameters()) for half in (encoder, decoder)]
    # the sum of both is what a digit's autoencoder weighs: under 1 MB in bfloat16
    assert sum(counts) == sum(p.numel() for p in build(config, 1).parameters()) < 500_000


def test_the_config_is_free_of_torch():
    """`--help` must not wait for it."""
    code = "import shared.blocks.autoencoder_config, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
