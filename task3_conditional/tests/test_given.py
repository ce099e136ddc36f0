"""Pictures given beside samples: what they show and hide, by Pillow and the definitions; a training takes them."""

import numpy as np
import pytest
import torch
from PIL import Image

from shared.conditions.known import known_of, needed
from shared.datasets.images import InMemory
from shared.errors import UserError
from shared.text.config import TextConfig
from task3_conditional.config import Config, GivenConfig, model_config
from task3_conditional.given import averaged, check_given, draw_masks, enlarged, given, grey, lowered, masked, shown
from task3_conditional.tests.commands import BY_CLASS, do_train
from task3_conditional.tests.echoes import pictures

KINDS = ("mask", "grey", "low")
IMAGE = {"image": "concatenation"}


def masks(n=400, height=28, width=20, seed=0):
    torch.manual_seed(seed)
    return draw_masks(n, height, width)


def kind_of(hidden):
    """What a drawn mask hides, (H, W), told by its shape alone."""
    rows, columns = hidden.any(1).nonzero()[:, 0], hidden.any(0).nonzero()[:, 0]
    box = hidden[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    if box.all():
        height, width = hidden.shape
        whole = (len(box) == height) + (box.shape[1] == width)
        return "half" if whole == 1 and 2 * box.sum() == hidden.sum() * 2 == height * width else "rectangle"
    rows, columns = (~hidden).any(1).nonzero()[:, 0], (~hidden).any(0).nonzero()[:, 0]
    return "border" if not hidden[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].any() else "lines"


def test_masks_are_of_four_kinds_and_hide_neither_nothing_nor_everything():
    drawn = masks()
    assert drawn.shape == (400, 1, 28, 20) and drawn.dtype == torch.bool
    assert not drawn.flatten(1).all(1).any() and drawn.flatten(1).any(1).all()
    kinds = [kind_of(~mask[0]) for mask in drawn]
    assert all(60 < kinds.count(kind) < 140 for kind in ("half", "rectangle", "border", "lines"))
    hidden = ~drawn[[kind == "half" for kind in kinds], 0]
    sides = {tuple(half.float().mean(axis).gt(0.9).nonzero()[:, 0].tolist()) for half in hidden for axis in (0, 1)}
    assert {tuple(range(14)), tuple(range(14, 28)), tuple(range(10)), tuple(range(10, 20))} <= sides


def test_masks_are_drawn_from_torchs_generator_and_one_for_each_sample():
    assert torch.equal(masks(seed=3), masks(seed=3)) and not torch.equal(masks(seed=3), masks(seed=4))
    assert len(masks(50).flatten(1).unique(dim=0)) > 35  # of halves there are but four


def test_a_masked_picture_says_what_is_known_and_nothing_of_what_is_hidden():
    x, mask = pictures(3, 2, 6, 5), pictures(3, 1, 6, 5, seed=1) > 0
    image = masked(x, mask)
    assert image.shape == (3, 3, 6, 5)
    assert torch.equal(image[:, :2][mask.expand(-1, 2, -1, -1)], x[mask.expand(-1, 2, -1, -1)])
    assert torch.equal(image[:, 2:] == 1, mask) and torch.equal(image[:, 2:] == -1, ~mask)
    other = torch.where(mask, x, pictures(3, 2, 6, 5, seed=2))
    assert torch.equal(masked(other, mask), image)
    assert torch.equal(masked(x, mask[:1]), masked(x, mask[:1].expand(3, -1, -1, -1)))


def test_grey_is_what_pillow_makes_of_a_colour_picture():
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    theirs = torch.from_numpy(np.array(Image.fromarray(pixels).convert("L"))).double()
    ours = grey(torch.from_numpy(pixels).permute(2, 0, 1)[None].double() / 127.5 - 1)
    assert ((ours[0, 0] + 1) * 127.5 - theirs).abs().max() <= 1


def test_low_resolution_is_the_mean_of_squares_and_enlarging_keeps_its_place():
    pixels = np.random.default_rng(0).random((12, 8), dtype=np.float32) * 2 - 1
    x = torch.from_numpy(pixels)[None, None]
    low = averaged(x, 4)
    theirs = np.array(Image.fromarray(pixels).resize((2, 3), Image.Resampling.BOX))
    torch.testing.assert_close(low[0, 0], torch.from_numpy(theirs), rtol=0, atol=1e-6)
    assert torch.equal(enlarged(low, 4, "nearest")[0, 0, 5, 3], low[0, 0, 1, 0])
    theirs = np.array(Image.fromarray(pixels).resize((32, 48), Image.Resampling.BICUBIC))
    torch.testing.assert_close(enlarged(x, 4)[0, 0], torch.from_numpy(theirs), rtol=0, atol=1e-5)


@pytest.mark.parametrize("how", ["nearest", "bicubic"])
def test_noise_augmentation_is_of_the_level_that_is_told(how):
    config = GivenConfig(kind="low", factor=2, enlarge=how, noise=0.8)
    low, eps = pictures(3, 1, 40, 40), torch.randn(3, 1, 40, 40, generator=torch.Generator().manual_seed(5))
    image = lowered(low, torch.tensor([0.0, 0.6, 1.0]), eps, config)
    torch.testing.assert_close(image[:, 1:].amin((1, 2, 3)), torch.tensor([-1.0, 0.2, 1.0]))
    torch.testing.assert_close(image[:, 1:].amax((1, 2, 3)), torch.tensor([-1.0, 0.2, 1.0]))
    noisy = torch.stack([low[0], 0.8 * low[1] + 0.6 * eps[1], eps[2]])  # 0.6² + 0.8² = 1
    torch.testing.assert_close(image[:, :1], enlarged(noisy, 2, how))


def test_in_training_the_level_lies_between_none_and_the_largest():
    torch.manual_seed(0)
    x = torch.zeros(500, 1, 4, 4)
    image = given(x, GivenConfig(kind="low", factor=2, enlarge="nearest", noise=0.5))["image"]
    level = (image[:, 1, 0, 0] + 1) / 2
    assert 0 <= level.min() < 0.01 and 0.49 < level.max() <= 0.5 and abs(level.mean() - 0.25) < 0.02
    shown = image[:, 0, ::2, ::2].flatten(1)  # of black the noise alone
    assert abs(shown[level > 0.4].std() - level[level > 0.4].square().mean().sqrt()) < 0.03
    assert shown[level < 0.02].abs().max() < 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_a_data_set_shows_beside_each_sample_what_is_given_and_what_it_says_itself(kind):
    images = torch.randint(0, 256, (20, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    data, config = InMemory(images, torch.arange(20) % 2, ["a", "b"]), GivenConfig(kind=kind, noise=1.0)
    told = {"label": "vanilla", **IMAGE}
    with_it = shown(data, config)
    needed(told, with_it)
    known = known_of(told, with_it, None, TextConfig())
    assert known["image"] == config.channels(3) == with_it[3][1]["image"].shape[0] and known["classes"] == ["a", "b"]
    assert torch.equal(with_it[3][0], data[3][0]) and with_it[3][1]["label"] == data[3][1]["label"]
    assert "image" not in data[3][1] and len(with_it) == 20
    assert shown(data, GivenConfig()) is data and given(images, GivenConfig()) == {}
    assert GivenConfig().channels(3) is None


@pytest.mark.parametrize(
    ("config", "told", "message"),
    [
        (GivenConfig(kind="mask"), {"label": "vanilla"}, "given.kind is mask, but the network is told no image"),
        (GivenConfig(kind="grey"), IMAGE, "given.kind is grey, but the pictures have 1 channels"),
        (GivenConfig(kind="low", factor=3), IMAGE, "given.factor is 3, which does not divide pictures of 28×28"),
        (GivenConfig(kind="low", factor=56), IMAGE, "given.factor is 56, which does not"),
    ],
)
def test_what_cannot_be_given_is_refused(config, told, message):
    with pytest.raises(UserError, match=f"^{message}"):
        check_given(config, told, (1, 28, 28))
    check_given(GivenConfig(), {"label": "vanilla"}, (1, 28, 28))


def test_a_config_from_before_is_one_that_gives_nothing():
    saved = {"shape": [1, 28, 28], "known": {}, "condition": {"label": "vanilla"}}
    assert model_config(saved)[0].given == GivenConfig() == Config().given


def test_a_training_is_told_them_and_resumes_bit_for_bit(tmp_path):
    """What is drawn for step n comes from (seed, n, j): the interrupted run ends where the other one does."""
    from task3_conditional.model import load

    options = [*BY_CLASS, "--condition.image", "concatenation", "--given.kind", "low", "--given.noise", 0.5]
    options += ["--train.batch", 2, "--optimizer.lr", 0.01, "--run.folder", tmp_path, "--train.log-every", 1]
    do_train(*options, "--run.name", "whole", "--train.steps", 3).well()
    do_train(*options, "--run.name", "cut", "--train.steps", 2).well()
    cut = tmp_path / "task3" / "cut"
    do_train("--resume", cut, "--train.steps", 3).well()
    whole, resumed = (load(tmp_path / "task3" / name, weights="model") for name in ("whole", "cut"))
    assert whole.known["image"] == 2 and whole.config.given.kind == "low"
    ones, others = whole.network.state_dict(), resumed.network.state_dict()
    assert all(torch.equal(ones[name], others[name]) for name in ones)
    stem = next(value for name, value in ones.items() if "stem" in name and value.ndim == 4)
    assert stem.shape[1] in (4, 16)  # the sample, the low resolution, its level, and whether it is there
