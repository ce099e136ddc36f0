"""The data of a cascade's first stage: the means of squares of pixels of another set's pictures, and else that set."""

import numpy as np
import pytest
import torch

from shared.cli import read_yaml
from shared.datasets import DataConfig, load
from shared.errors import UserError
from task3_conditional.config import Config
from task3_conditional.model import RESULTS, build_data
from task3_conditional.small import Averaged


@pytest.mark.parametrize("factor", [2, 4, 7])
def test_each_pixel_is_the_mean_of_a_square(factor):
    """Computed by numpy of the stored bytes, and not rounded to them."""
    data, whole = Averaged(factor=factor), load(DataConfig(name="digits"))
    side = 28 // factor
    stored = whole.images.numpy().astype(np.float64).reshape(-1, side, factor, side, factor)
    expected = stored.mean(axis=(2, 4)) / 127.5 - 1
    assert data.shape == (1, side, side) and len(data) == len(whole) == 4500
    assert np.abs(data.x[:, 0].numpy() - expected).max() < 1e-6
    assert (data.x * 127.5 + 127.5 - (data.x * 127.5 + 127.5).round()).abs().max() > 0.4


def test_what_is_said_of_a_picture_stays():
    """Of the held-out part too, which is another."""
    small, whole = Averaged(DataConfig(name="digits", split="test"), 4), load(DataConfig(name="digits", split="test"))
    assert small.classes == whole.classes and len(small) == 500
    for i in (0, 123, 499):
        assert small[i][1]["label"] == whole[i][1]["label"]
        torch.testing.assert_close(small[i][0][0, 0, 0], whole[i][0][0, :4, :4].mean())


def test_the_config_of_the_first_stage_names_it():
    config = Config(own_data=read_yaml(RESULTS.parent / "configs" / "small7.yaml")["own_data"])
    data = build_data(config)
    assert type(data) is Averaged and data.shape == (1, 7, 7) and torch.equal(data.x, Averaged(factor=4).x)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"factor": 3}, "given.factor is 3, which does not divide pictures of 28×28 pixels"),
        ({"factor": 0}, "factor"),
        ({"factor": -4}, "factor"),
        ({"factor": "four"}, "factor"),
        ({"data": {"name": "captioned_digits"}}, "captioned_digits is not held in memory"),
        ({"data": {"name": "pigeons"}}, "name"),
        ({"data": {"name": "folder", "root": "nowhere"}}, "nowhere"),
    ],
)
def test_what_cannot_be_averaged_down_is_refused_in_one_line(arguments, message):
    own = {"class_path": "task3_conditional.small.Averaged", "init_args": arguments}
    with pytest.raises(UserError, match=message) as caught:
        build_data(Config(own_data=own))
    assert "\n" not in str(caught.value)
