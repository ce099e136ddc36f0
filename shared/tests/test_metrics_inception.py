"""Inception: its weights, from wherever they come, what it makes of images, and the features that are kept."""

import hashlib
import io
import os
from email.message import Message
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from shared import _torchvision
from shared.datasets.ranges import to_unit
from shared.errors import UserError
from shared.metrics import inception as module
from shared.metrics import inception_cache
from shared.metrics.image_figures import image_report
from shared.metrics.inception import Features, Inception, WeightsMissing, features_of, load_inception, to_pixels
from shared.metrics.inception_cache import cached_features


def made_up() -> dict[str, Tensor]:
    """Weights by the published names that keep the size of what passes through them."""
    _torchvision.prepare()
    from torch_fidelity import feature_extractor_inceptionv3 as package

    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng(devices=[]):
        patch.setattr(package, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(package.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        torch.manual_seed(0)
        network = package.FeatureExtractorInceptionV3("any", ["2048"])
        for part in network.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.normal_(part.weight, std=(2 / part.weight[0].numel()) ** 0.5)
    return network.state_dict()


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return made_up()


@pytest.fixture(scope="module")
def file(state, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "weights.pth"
    torch.save(dict(state), path)
    return path


@pytest.fixture(scope="module")
def network(file) -> Inception:
    return load_inception(file)


@pytest.fixture(scope="module")
def images() -> Tensor:
    """uint8 (10, 3, 8, 8): five dark ones, five light ones."""
    generator = torch.Generator().manual_seed(1)
    noise = torch.randint(0, 128, (10, 3, 8, 8), generator=generator)
    noise[5:] += 128
    return noise.to(torch.uint8)


@pytest.fixture(scope="module")
def features(network, images) -> Features:
    return features_of(network, images, batch=4)


def test_the_features_are_those_of_a_network_written_with_torchvisions_layers(network, features, images):
    """The stem, by hand, up to the first pooling; TensorFlow 1 enlarges without half-pixel centres: its first pixel
    and its steps are those of plain linear interpolation from the corner."""
    own = network.network
    seen = {}
    handle = own.MaxPool_1.register_forward_hook(lambda _, inputs, __: seen.update(stem=inputs[0].clone()))
    pooled, _ = network(images[:1])
    handle.remove()
    place = torch.arange(299) * (8 / 299)
    low = place.long()
    high, part = (low + 1).clamp(max=7), place - low
    x = images[:1].float()
    x = x[..., low, :] * (1 - part)[:, None] + x[..., high, :] * part[:, None]
    x = x[..., low] * (1 - part) + x[..., high] * part
    h = (x - 128) / 128
    for layer, stride, padding in ((own.Conv2d_1a_3x3, 2, 0), (own.Conv2d_2a_3x3, 1, 0), (own.Conv2d_2b_3x3, 1, 1)):
        h = nn.functional.conv2d(h, layer.conv.weight, stride=stride, padding=padding)
        h = (h / (1 + 1e-3) ** 0.5).relu()  # batch norm as it was made: mean 0, variance 1
    torch.testing.assert_close(seen["stem"], h, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(pooled, features.pooled[:1], rtol=1e-3, atol=1e-4)


def test_features_have_the_published_shapes_and_the_logits_no_bias(network, features, state):
    assert features.pooled.shape == (10, 2048) and features.logits.shape == (10, 1008)
    assert features.pooled.dtype == features.logits.dtype == torch.float32
    assert features.pooled.std(dim=0).mean() > 1e-3, "images that differ must have features that differ"
    torch.testing.assert_close(features.logits, features.pooled @ state["fc.weight"].T, rtol=1e-3, atol=1e-4)


def test_floats_are_seen_as_the_uint8_images_that_they_would_be_saved_as(network, features, images):
    floats = to_unit(images)
    assert torch.equal(to_pixels(floats), images)
    assert torch.equal(to_pixels((floats + 0.4 / 127.5).clamp(max=1)), images)  # nearest, not next below
    assert torch.equal(to_pixels((floats - 0.4 / 127.5).clamp(min=-1)), images)
    again = features_of(network, floats[:4], batch=4)
    assert torch.equal(again.pooled, features.pooled[:4])


def test_grey_images_are_three_equal_channels(network, images):
    grey = images[:2, :1]
    torch.testing.assert_close(network(grey), network(grey.repeat(1, 3, 1, 1)))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (torch.zeros(2, 2, 8, 8), "1 or 3"),
        (torch.zeros(3, 8, 8), "1 or 3"),
        (torch.zeros(0, 3, 8, 8), "1 or 3"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.long), "int64"),
        (torch.full((2, 3, 8, 8), torch.nan), r"not in \[nan"),
        (torch.linspace(-1, 255, 192).view(1, 3, 8, 8), r"not in \[-1, 255\]"),
        (torch.linspace(0, 1, 192).view(1, 3, 8, 8), r"2 x - 1"),
    ],
)
def test_other_images_are_refused(wrong, says):
    with pytest.raises(UserError, match=says):
        to_pixels(wrong)


def test_is_frozen_in_float32_and_leaves_torch_as_it_was(file, images, network, features):
    state, tf32 = torch.get_rng_state(), torch.backends.cudnn.allow_tf32
    with torch.autocast("cpu", torch.bfloat16):
        inside = features_of(network.train(), images[:4], batch=4)
    assert torch.equal(inside.pooled, features.pooled[:4])
    assert not any(part.training for part in network.modules())
    assert not any(parameter.requires_grad for parameter in network.parameters())
    load_inception(file)
    assert torch.equal(torch.get_rng_state(), state) and torch.backends.cudnn.allow_tf32 == tf32


def test_the_weights_are_those_of_the_file_in_either_form(state, file, network, tmp_path):
    save_file({name: value.contiguous() for name, value in state.items()}, tmp_path / "weights.safetensors")
    other = load_inception(str(tmp_path / "weights.safetensors"))
    for loaded in (network, other):
        assert all(torch.equal(value, state[name]) for name, value in loaded.network.state_dict().items())
    assert network.weights == hashlib.sha256(file.read_bytes()).hexdigest() != other.weights


class Planted:
    """What a file must not be able to make."""

    def __reduce__(self):
        return (print, ("unpickled",))


def test_files_that_hold_anything_else_are_refused(state, tmp_path, capsys):
    path, buffer = tmp_path / "weights.pth", io.BytesIO()
    torch.save(dict(state) | {"extra": Planted()}, buffer)
    contents = {"more than weights": buffer.getvalue(), "holds no weights": b"not a checkpoint"}
    for says, content in contents.items():
        path.write_bytes(content)
        with pytest.raises(UserError, match=says):
            load_inception(path)
    for wrong in ([torch.zeros(1)], {"fc.weight": torch.zeros(1008, 2048)}, {**state, "fc.bias": torch.zeros(1000)}):
        torch.save(wrong, path)
        with pytest.raises(UserError, match="holds no weights"):
            load_inception(path)
    torch.save({**state, "fc.bias": torch.full((1008,), torch.nan)}, path)
    with pytest.raises(UserError, match="not finite"):
        load_inception(path)
    (tmp_path / "weights.safetensors").write_bytes(b"{}")
    os.mkfifo(tmp_path / "pipe.pth")
    for name in ("weights.safetensors", "pipe.pth", "absent.pth"):
        with pytest.raises(UserError, match=name) as error:
            load_inception(tmp_path / name)
        assert not isinstance(error.value, WeightsMissing)  # somebody asked for it: nothing is to be left out quietly
    assert "unpickled" not in capsys.readouterr().out


def test_a_name_that_ends_with_a_digest_is_held_to_it(file, tmp_path):
    content = file.read_bytes()
    right = tmp_path / f"made-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    right.write_bytes(content)
    load_inception(right)
    wrong = tmp_path / module.NAMES[0]
    wrong.write_bytes(content)
    with pytest.raises(UserError, match="damaged.*6726825d"):
        load_inception(wrong)


@pytest.fixture
def cache(monkeypatch, tmp_path) -> Path:
    """An empty cache of torch's, and no network."""

    def unreachable(*_, **__):
        raise URLError("no network in tests")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setattr(torch.hub, "urlopen", unreachable)
    return tmp_path / "hub" / "checkpoints"


def test_without_weights_it_says_what_to_do_in_one_line(cache):
    with pytest.raises(WeightsMissing, match="no network in tests.*https://github.com/toshas") as error:
        load_inception()
    assert str(cache / module.NAMES[0]) in str(error.value) and "\n" not in str(error.value)
    assert list(cache.iterdir()) == [], "nothing half-written"


@pytest.mark.parametrize("name", [0, 1])
def test_the_published_weights_are_looked_for_in_torchs_cache(cache, file, monkeypatch, name):
    cache.mkdir(parents=True)
    path = cache / module.NAMES[name]
    path.write_bytes(file.read_bytes())
    with pytest.raises(WeightsMissing, match="damaged"):  # nobody named this file: the other figures go on
        load_inception()
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:8]
    renamed = tuple(name.replace(module.PUBLISHED, digest) for name in module.NAMES)
    path.rename(cache / renamed[name])
    monkeypatch.setattr(module, "NAMES", renamed)
    assert load_inception().weights.startswith(digest)


def test_a_download_has_a_limit_and_the_published_digest(cache, file, monkeypatch):
    """torch.hub holds what it downloads to the digest before it puts it into the cache."""

    class Answer(io.BytesIO):
        def info(self):
            return Message()

    limits = []
    monkeypatch.setattr(
        torch.hub, "urlopen", lambda _: (limits.append(module.socket.getdefaulttimeout()), Answer(b"else"))[1]
    )
    with pytest.raises(WeightsMissing, match="invalid hash value"):
        load_inception()
    assert limits == [module.PATIENCE] and module.socket.getdefaulttimeout() is None
    assert list(cache.iterdir()) == []


def test_kept_features_are_used_again_and_belong_to_pixels_and_weights(
    network, images, features, tmp_path, monkeypatch
):
    first = cached_features(network, to_unit(images), tmp_path / "kept", batch=4)
    assert torch.equal(first.pooled, features.pooled)
    calls = []

    def counted(*args):
        calls.append(args)
        return features

    monkeypatch.setattr(inception_cache, "features_of", counted)
    again = cached_features(network, images, tmp_path / "kept")
    assert not calls and torch.equal(again.pooled, features.pooled) and torch.equal(again.logits, features.logits)
    assert again.weights == network.weights
    changed = images.clone()
    changed[-1, -1, -1, -1] += 1
    cached_features(network, changed, tmp_path / "kept")
    cached_features(network, images.view(10, 3, 4, 16), tmp_path / "kept")  # the same bytes
    cached_features(network, images.flip(0), tmp_path / "kept")
    monkeypatch.setattr(network, "weights", "other")
    cached_features(network, images, tmp_path / "kept")
    assert len(calls) == 4


def test_all_images_count_for_what_is_kept():
    many = torch.zeros(2001, 1, dtype=torch.uint8)
    changed = many.clone()
    changed[-1] = 1
    assert inception_cache.digest(many, about="") != inception_cache.digest(changed, about="")


def test_damaged_features_are_made_again(network, images, features, tmp_path, monkeypatch):
    monkeypatch.setattr(inception_cache, "features_of", lambda *_: features)
    cached_features(network, images, tmp_path)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[-1000] ^= 1
    for damaged in (whole[:-1], b"", bytes(flipped)):
        path.write_bytes(damaged)
        assert cached_features(network, images, tmp_path) is features  # not out of the file
        again = cached_features(network, images, tmp_path)
        assert again is not features and torch.equal(again.logits, features.logits)


def test_features_that_cannot_be_kept_are_not_lost(network, images, features, tmp_path, monkeypatch):
    monkeypatch.setattr(inception_cache, "features_of", lambda *_: features)
    (tmp_path / "file").write_text("in the way")
    with pytest.warns(UserWarning, match="not kept"):
        assert cached_features(network, images, tmp_path / "file") is features


def test_the_whole_path_ends_in_a_report(features):
    narrow = features.pooled[:, ::32]  # eigenvalues of 2048 by 2048 take three seconds
    dark, light = (Features(narrow[i], features.logits[i], features.weights) for i in (slice(5), slice(5, 10)))
    report = image_report(dark, light)
    assert report.figures["fid"] > 0 and report.figures["precision"] == report.figures["recall"] == 0
    assert report.floor is None and "not the published ones" in report.notes[0]
