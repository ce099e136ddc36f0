"""Perceptual distances: what they say of known distortions, what they leave alone, and what they do without weights."""

import sys
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torch import nn

from shared import _torchvision
from shared.datasets import DataConfig, load
from shared.datasets.ranges import to_unit
from shared.errors import UserError
from shared.metrics import perceptual as module
from shared.metrics.perceptual import Perceptual, build_perceptual, mean_distance


def blur(images: torch.Tensor, deviation: float) -> torch.Tensor:
    """A Gaussian blur by so many pixels."""
    _torchvision.prepare()
    from torchvision.transforms.functional import gaussian_blur

    return gaussian_blur(images, 9, [deviation, deviation])


@pytest.fixture(scope="module")
def digits() -> torch.Tensor:
    return to_unit(load(DataConfig(name="digits", split="test")).images[::60])  # (9, 1, 28, 28)


@pytest.fixture(scope="module")
def st_lpips() -> Perceptual:
    return build_perceptual("st_lpips")


def test_none_is_none():
    assert build_perceptual("none") is None


def test_equal_images_are_at_zero(st_lpips, digits):
    distance = st_lpips(digits, digits)
    assert distance.shape == (9,) and torch.equal(distance, torch.zeros(9))


def test_grows_with_blur_and_with_noise(st_lpips, digits):
    noise = torch.randn(digits.shape, generator=torch.Generator().manual_seed(0))
    blurs = [st_lpips(blur(digits, s), digits) for s in (0.4, 0.7, 1.0, 1.5)]
    noises = [st_lpips((digits + s * noise).clamp(-1, 1), digits) for s in (0.1, 0.3, 0.6, 1.0)]
    for rising in (torch.stack(blurs), torch.stack(noises)):  # (4, 9)
        assert (rising.diff(dim=0) > 0).all() and (rising > 0).all()


def test_minds_a_shift_by_a_pixel_less_than_pixels_do(st_lpips, digits):
    shifted, blurred = digits.roll(1, dims=3), blur(digits, 1.0)
    assert (shifted - digits).square().mean() > (blurred - digits).square().mean()
    assert st_lpips(shifted, digits).mean() < 0.2 * st_lpips(blurred, digits).mean()


def test_the_gradient_goes_to_the_image_alone(st_lpips, digits):
    image = blur(digits, 0.8).requires_grad_()
    st_lpips(image, digits).sum().backward()
    assert image.grad.isfinite().all() and (image.grad.flatten(1).norm(dim=1) > 0).all()
    assert all(p.grad is None and not p.requires_grad for p in st_lpips.parameters())


def test_the_gradient_is_finite_where_images_are_equal_or_empty(st_lpips):
    for value in (-1.0, 0.0, 1.0):
        image = torch.full((1, 1, 28, 28), value, requires_grad=True)
        st_lpips(image, torch.full((1, 1, 28, 28), value)).sum().backward()
        assert image.grad.isfinite().all()


def test_stays_in_evaluation(st_lpips, digits):
    st_lpips.train()
    assert not any(part.training for part in st_lpips.modules())


def test_grey_is_three_equal_channels_and_small_images_are_enlarged(st_lpips, digits):
    noisy = (digits + 0.3).clamp(-1, 1)
    colour = st_lpips(noisy.expand(-1, 3, -1, -1), digits.expand(-1, 3, -1, -1))
    torch.testing.assert_close(st_lpips(noisy, digits), colour)
    large = [nn.functional.interpolate(x, size=(64, 64), mode="bilinear") for x in (noisy, digits)]
    torch.testing.assert_close(st_lpips(noisy, digits), st_lpips(*large))
    assert st_lpips.fitted(torch.zeros(1, 1, 32, 48)).shape == (1, 3, 64, 96)
    assert st_lpips.fitted(torch.zeros(1, 3, 80, 96)).shape == (1, 3, 80, 96)


def test_other_shapes_are_refused(st_lpips):
    for a, b in (((1, 1, 28, 28), (2, 1, 28, 28)), ((1, 2, 28, 28), (1, 2, 28, 28)), ((28, 28), (28, 28))):
        with pytest.raises(ValueError, match="two batches"):
            st_lpips(torch.zeros(a), torch.zeros(b))


def test_mean_distance_is_the_mean_over_batches(st_lpips, digits):
    noisy = (digits + 0.3).clamp(-1, 1)
    expected = st_lpips(noisy, digits).mean().item()
    assert mean_distance(st_lpips, noisy, digits, batch=4) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("trunk", ["alex", "vgg"])
def test_all_weights_come_from_the_package(trunk):
    network = build_perceptual("st_lpips", trunk).network
    import stlpips_pytorch

    folder = Path(stlpips_pytorch.__file__).parent / "weights" / "vST0.0"
    saved = torch.load(folder / f"{trunk}_shift_tolerant.pth", map_location="cpu", weights_only=True)
    state = {name: value for name, value in network.state_dict().items() if not name.startswith("lins.")}
    assert state.keys() == saved.keys()  # lins names the lin0 … a second time
    assert all(torch.equal(state[name], saved[name]) for name in saved)


def test_leaves_nothing_behind(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] in ("stlpips_pytorch", "torchsummary")]:
        monkeypatch.delitem(sys.modules, name)
    state, had = torch.get_rng_state(), sys.modules.get("IPython")
    build_perceptual("st_lpips")
    assert torch.equal(torch.get_rng_state(), state)
    assert sys.modules.get("IPython") is had and "torchsummary" not in sys.modules


@pytest.fixture
def cache(monkeypatch, tmp_path) -> Path:
    """An empty cache of torch's, and no network."""

    def unreachable(*_, **__):
        raise URLError("no network in tests")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def test_lpips_without_weights_says_what_to_do_in_one_line(cache):
    with pytest.raises(UserError, match="no network in tests.*st_lpips, which needs no download") as error:
        build_perceptual("lpips")
    assert str(cache / "alexnet-owt-7be5be79.pth") in str(error.value) and "\n" not in str(error.value)


class Planted:
    """What a file in the cache must not be able to make."""

    def __reduce__(self):
        return (print, ("unpickled",))


def test_lpips_unpickles_nothing_but_tensors(cache, capsys):
    torch.save({"features.0.weight": Planted()}, cache / "alexnet-owt-7be5be79.pth")
    with pytest.raises(UserError, match="alexnet-owt-7be5be79.pth"):
        build_perceptual("lpips")
    (cache / "alexnet-owt-7be5be79.pth").write_bytes(b"not a checkpoint")
    with pytest.raises(UserError, match="alexnet-owt-7be5be79.pth"):
        build_perceptual("lpips")
    assert "unpickled" not in capsys.readouterr().out


class Small(nn.Module):
    """In place of torchvision's AlexNet, whose last layers take half a second to be drawn and are not used."""

    def __init__(self, pretrained: bool = False):
        super().__init__()
        widths = {0: (3, 64, 11, 4, 2), 3: (64, 192, 5, 1, 2), 6: (192, 384, 3, 1, 1)}
        widths |= {8: (384, 256, 3, 1, 1), 10: (256, 256, 3, 1, 1)}
        others = {2: nn.MaxPool2d(3, 2), 5: nn.MaxPool2d(3, 2), 12: nn.MaxPool2d(3, 2)}
        layers = [nn.Conv2d(*widths[i]) if i in widths else others.get(i, nn.ReLU(inplace=True)) for i in range(13)]
        self.features = nn.Sequential(*layers)


def test_lpips_takes_its_trunk_from_the_cache(cache, digits, monkeypatch):
    from lpips import LPIPS
    from torchvision import models

    monkeypatch.setattr(models, "alexnet", Small)
    torch.manual_seed(0)
    expected = LPIPS(net="alex", pnet_rand=True, verbose=False)
    trunk = {f"features.{name.split('.', 1)[1]}": value for name, value in expected.net.state_dict().items()}
    torch.save(trunk, cache / "alexnet-owt-7be5be79.pth")
    ours = build_perceptual("lpips")
    a, b = (
        module.F.interpolate(x.expand(-1, 3, -1, -1), size=64, mode="bilinear") for x in (digits, digits.roll(1, 0))
    )
    assert not torch.equal(a, b)
    torch.testing.assert_close(ours(digits, digits.roll(1, 0)), expected(a, b).flatten())
