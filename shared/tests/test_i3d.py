"""I3D: its form against the published one, its weights' file, and the distance in its features."""

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from shared.errors import UserError
from shared.metrics import i3d
from shared.metrics.i3d import I3D, Pool, Unit, fvd, i3d_features, load_i3d, same


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of random weights, with norms as a trained network has them."""
    torch.manual_seed(0)
    network = I3D()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    path = tmp_path_factory.mktemp("i3d") / "i3d.safetensors"
    save_file(network.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def clips() -> torch.Tensor:
    return torch.rand(2, 1, 9, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_it_has_the_published_form():
    """Numbers and shapes of the port whose weights it takes (on random weights, its outputs were equal bit for bit)."""
    state = I3D().state_dict()
    assert len(state) == 344 and sum(p.numel() for p in I3D().parameters()) == 12_697_264
    shapes = {
        "Conv3d_1a_7x7.conv3d.weight": (64, 3, 7, 7, 7),
        "Conv3d_2c_3x3.bn.running_var": (192,),
        "Mixed_3b.b1b.conv3d.weight": (128, 96, 3, 3, 3),
        "Mixed_4e.b2b.conv3d.weight": (64, 32, 3, 3, 3),
        "Mixed_5c.b3b.conv3d.weight": (128, 832, 1, 1, 1),
        "logits.conv3d.bias": (400,),
    }
    assert {name: tuple(state[name].shape) for name in shapes} == shapes
    assert I3D().Mixed_4b.b0.bn.eps == 1e-3


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "before", "after"),
    [(16, 7, 2, 2, 3), (9, 7, 2, 3, 3), (5, 3, 1, 1, 1), (112, 3, 2, 0, 1), (7, 2, 2, 0, 1)],
)
def test_margins_are_those_of_tensorflow(size, kernel, stride, before, after):
    """Output ⌈size / stride⌉; of the zeros that takes, the odd one comes after."""
    x = torch.ones(1, 1, size, 8, 8)
    padded = same(x, (kernel, 1, 1), (stride, 1, 1))
    assert padded[0, 0, :, 0, 0].tolist() == [0] * before + [1] * size + [0] * after
    assert Pool((kernel, 1, 1), (stride, 1, 1))(x).shape[2] == -(-size // stride)


def test_a_unit_is_convolution_norm_and_rectifier():
    torch.manual_seed(0)
    unit, x = Unit(3, 4, 3).eval(), torch.randn(2, 3, 5, 6, 7)
    expected = F.conv3d(x, unit.conv3d.weight, padding=1) / (1 + 1e-3) ** 0.5
    torch.testing.assert_close(unit(x), expected.clamp(min=0))
    last = Unit(3, 4, last=True)
    torch.testing.assert_close(last(x), F.conv3d(x, last.conv3d.weight, last.conv3d.bias))


def test_weights_of_a_file_give_finite_features(weights, clips):
    network = load_i3d(weights)
    assert not network.training and not any(p.requires_grad for p in network.parameters())
    found = i3d_features(network, clips[:1])
    assert found.shape == (1, 400) and found.isfinite().all() and found.std() > 0


class Seen(torch.nn.Module):
    """In place of I3D: gives back some of what it is shown."""

    def __init__(self):
        super().__init__()
        self.logits = Unit(1, 1, last=True)

    def forward(self, x):
        assert x.shape[1:] == (3, 9, 224, 224)
        return x[:, :, :, 100, 60:64].flatten(1)


def test_frames_are_resized_each_by_itself_and_grey_becomes_three_channels(clips):
    large = F.interpolate(clips[:, 0], size=(224, 224), mode="bilinear")[:, :, 100, 60:64]  # frames as channels
    expected = large[:, None].expand(-1, 3, -1, -1).flatten(1)
    torch.testing.assert_close(i3d_features(Seen(), clips, batch=1), expected)
    torch.testing.assert_close(i3d_features(Seen(), clips.expand(-1, 3, -1, -1, -1)), expected)


def test_the_distance_of_features_that_are_moved_is_the_square_of_the_way(weights, monkeypatch):
    monkeypatch.setattr(i3d, "i3d_features", lambda network, clips: clips.flatten(1))
    clips = torch.randn(50, 1, 9, 1, 1, generator=torch.Generator().manual_seed(0))
    assert fvd(clips, clips, None) is None
    assert fvd(clips, clips, weights) == pytest.approx(0, abs=1e-6)
    assert fvd(clips + 0.5, clips, weights) == pytest.approx(9 * 0.25, rel=1e-5)


def test_files_that_run_code_or_are_something_else_are_refused(tmp_path, weights):
    state = load_file(weights)
    torch.save(state, tmp_path / "i3d.pt")
    torch.save(state, tmp_path / "pickle.safetensors")
    save_file({k: v for k, v in state.items() if k != "logits.conv3d.bias"}, tmp_path / "part.safetensors")
    save_file(state | {"logits.conv3d.bias": torch.zeros(7)}, tmp_path / "other.safetensors")
    wrong = {
        "i3d.pt": "alone",
        "pickle.safetensors": "cannot read",
        "missing.safetensors": "cannot read",
        "part.safetensors": "logits.conv3d.bias is missing",
        "other.safetensors": "another shape",
    }
    for name, message in wrong.items():
        with pytest.raises(UserError, match=message) as caught:
            load_i3d(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_the_count_of_batches_may_be_missing(tmp_path, weights):
    state = {k: v for k, v in load_file(weights).items() if not k.endswith("num_batches_tracked")}
    save_file(state, tmp_path / "i3d.safetensors")
    assert torch.equal(load_i3d(tmp_path / "i3d.safetensors").logits.conv3d.bias, state["logits.conv3d.bias"])


def test_what_it_refuses(weights, clips):
    with pytest.raises(UserError, match="F ≥ 9"):
        i3d_features(load_i3d(weights), clips[:, :, :8])
    with pytest.raises(UserError, match="1 or 3"):
        i3d_features(load_i3d(weights), clips.expand(-1, 2, -1, -1, -1))
    with pytest.raises(UserError, match="at least 2 clips"):
        fvd(clips[:1], clips, weights)
