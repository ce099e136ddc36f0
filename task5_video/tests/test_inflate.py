"""Image models of stages 1 to 4 become video models: read, taken over, frozen, or refused in one line."""

from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

import task1_unconditional.model
import task2_latent.model
import task3_conditional.model
import task4_dit.model
from shared.blocks.config import UNetConfig
from shared.blocks.dit_config import DiTConfig
from shared.conditions.config import ConditionConfig
from shared.errors import UserError
from shared.latents.spaces import shape_in
from shared.latents.stored import autoencoder_of
from shared.schedulers.config import DiffusionConfig, NoiseConfig
from shared.tests.tiny import CONFIG, Run
from shared.training.checkpoint import write_checkpoint
from shared.training.config import AveragesConfig, OptimizerConfig
from shared.training.loop import train
from shared.training.part import Part
from shared.training.state import prefixed
from task5_video.config import Config, TemporalConfig
from task5_video.inflate import as_image, check_fits, freeze, inflate, read_image
from task5_video.model import build_network
from task5_video.tests.small import BY_LABEL, DIT, KNOWN, UNET, by_frame, image_dit, image_unet, normal, wake

COMMITTED = {
    1: task1_unconditional.model.COMMITTED,
    2: task2_latent.model.COMMITTED,
    3: task3_conditional.model.COMMITTED,
    4: task4_dit.model.COMMITTED,
}
LOAD = {
    1: task1_unconditional.model.load,
    2: task2_latent.model.load,
    3: task3_conditional.model.load,
    4: task4_dit.model.load,
}
NOTHING = {"classes": [], "attributes": [], "text": None, "image": None}


# --- the committed models -------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[1, 2, 3, 4])
def stage(request):
    """A stage, its image model as this stage reads it, and as its own code loads it."""
    return request.param, read_image(COMMITTED[request.param]), LOAD[request.param]()


def test_an_image_model_says_what_it_is(stage):
    number, image, theirs = stage
    assert isinstance(image.network, DiTConfig if number == 4 else UNetConfig)
    assert image.predict == theirs.diffusion.config.predict and image.shape == (1, 28, 28)
    assert (image.condition is None) == (number < 3) and (image.space is None) == (number != 2)
    schedule = theirs.diffusion.schedule
    mine = task1_unconditional.model.Diffusion.from_config(image.schedule, DiffusionConfig(predict=image.predict))
    assert torch.equal(mine.schedule.alpha, schedule.alpha) and torch.equal(mine.schedule.sigma, schedule.sigma)
    if number > 2:
        assert image.condition.told.keys() == {"label"} and image.known["classes"] == theirs.known["classes"]
    assert bool(autoencoder_of(image.path)) == (number == 2)


def test_a_config_becomes_that_of_the_image_model_and_keeps_what_is_the_videos(stage):
    number, image, _ = stage
    mine = ConditionConfig(label="vanilla", dropout=0.37, together=False)
    config = as_image(Config(condition=mine, diffusion=DiffusionConfig(loss="l1")), image)
    assert config.network == ("dit" if number == 4 else "unet")
    assert getattr(config, config.network) == image.network and config.schedule == image.schedule
    assert (config.diffusion.predict, config.diffusion.loss) == (image.predict, "l1")
    assert (config.condition.dropout, config.condition.together) == (0.37, False)
    if number > 2:
        assert config.condition == replace(image.condition, dropout=0.37, together=False)
        assert config.text == image.text
    else:
        assert config.condition == mine


def test_what_an_image_model_is_cannot_be_asked_for_otherwise(tmp_path):
    image = read_image(written(tmp_path))
    other = "eps" if image.predict != "eps" else "x0"
    with pytest.raises(UserError, match=f"has diffusion.predict {image.predict}, and so has what is made from it"):
        as_image(Config(diffusion=DiffusionConfig(predict=other)), image)
    with pytest.raises(UserError, match="has network unet, and so has"):
        as_image(Config(network="dit"), image)


@pytest.mark.parametrize("attention", ["temporal", "full"])
def test_an_inflated_network_is_the_image_network_frame_by_frame(stage, attention):
    """As the image's own stage loads it. A joint transformer adds nothing, and is so on one frame."""
    number, image, theirs = stage
    frames = 1 if (number, attention) == (4, "full") else 3
    config = as_image(Config(temporal=TemporalConfig(attention=attention)), image)
    channels, height, width = shape_in(theirs.space, image.shape) if number == 2 else image.shape
    known = image.known if number > 2 else NOTHING
    network = build_network(config, (channels, frames, height, width), known).eval()
    inflate(network, image)
    x, t = normal(2, channels, frames, height, width).float(), torch.tensor([300.0, 900.0])
    cond = {"label": torch.tensor([4, 7])} if number > 2 else {}
    with torch.no_grad():
        found, expected = network(x, t, cond), by_frame(theirs.network, x, t, cond)
    assert expected.abs().mean() > 0.01
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


# --- small ones -----------------------------------------------------------------------------------------------


def written(folder: Path, stage: int = 3, **changed) -> Path:
    """The checkpoint of an image model as stage 1, 3 or 4 writes it, but for what is changed."""
    network = {1: lambda: image_unet(ConditionConfig()).unet, 3: image_unet, 4: image_dit}[stage]()
    condition = {1: None, 3: asdict(BY_LABEL), 4: {"label": True, "text": False, "dropout": 0.1}}[stage]
    config = {
        "shape": [1, 8, 8],
        "network": asdict(DIT if stage == 4 else UNET),
        "schedule": asdict(NoiseConfig(name="flow")),
        "diffusion": asdict(DiffusionConfig(predict="velocity")),
        **({} if condition is None else {"condition": condition, "known": KNOWN}),
        **changed,
    }
    config = {name: value for name, value in config.items() if value != "gone"}
    file = folder / f"stage{stage}.safetensors"
    write_checkpoint(file, prefixed("ema", network.float().state_dict()), {"step": 7, "config": config})
    return file


def video_of(image, **temporal):
    config = as_image(Config(temporal=TemporalConfig(heads=2, **temporal)), image)
    torch.manual_seed(2)
    return build_network(config, (1, 4, 8, 8), KNOWN if image.condition else NOTHING)


@pytest.mark.parametrize("stage", [1, 3, 4])
def test_frozen_only_what_was_added_learns(stage, tmp_path):
    """One step of the training loop, with weight decay, which would move what merely has no gradient of its own."""
    image = read_image(written(tmp_path, stage))
    network = video_of(image)
    inflate(network, image)
    freeze(network, image)
    frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    assert frozen == {f"image.{name}" for name in image.state}
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    data = [(normal(1, 4, 8, 8, seed=i).float().clamp(-1, 1), {"label": torch.tensor(i)}) for i in range(8)]

    def loss(model, x, cond):
        return (model(x, torch.full((len(x),), 300.0), cond if stage > 1 else {}) - 1).square().mean()

    part = Part(network, loss, OptimizerConfig(lr=0.01, weight_decay=0.1), AveragesConfig())
    for _ in train(part, data, replace(CONFIG, steps=2, workers=0), Run(tmp_path / "run")):
        pass
    moved = {name for name, parameter in network.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved and moved == before.keys() - frozen


@pytest.mark.parametrize(
    ("stage", "temporal"), [(3, {"attention": "none", "convolution": False}), (4, {"attention": "full"})], ids=str
)
def test_where_nothing_is_added_nothing_can_be_frozen(stage, temporal, tmp_path):
    image = read_image(written(tmp_path, stage))
    with pytest.raises(UserError, match="^inflate.freeze leaves nothing to train"):
        freeze(video_of(image, **temporal), image)


def test_what_an_image_model_was_not_told_a_video_model_may_be_and_at_first_it_changes_nothing(tmp_path):
    image = read_image(written(tmp_path, 1))
    config = as_image(Config(condition=BY_LABEL, temporal=TemporalConfig(heads=2)), image)
    network = build_network(config, (1, 4, 8, 8), KNOWN)
    own = {name for name in network.state_dict() if ".conditions." in name}
    inflate(network, image)
    freeze(network, image)
    assert own and all(parameter.requires_grad for name, parameter in network.named_parameters() if name in own)
    assert torch.equal(network.image.unet.stem.weight, image.state["unet.stem.weight"])
    x, t = torch.randn(2, 1, 4, 8, 8), torch.tensor([300.0, 900.0])
    one, other = (network(x, t, {"label": torch.tensor(labels)}) for labels in ([0, 1], [1, 0]))
    assert torch.equal(one, other) and one.abs().max() > 0
    (one - torch.ones_like(one)).square().mean().backward()  # and it is learned from the first step
    assert any(p.grad is not None and p.grad.abs().max() > 0 for n, p in network.named_parameters() if n in own)


@pytest.mark.parametrize(("more", "said"), [({"text": "adaptive"}, "only by the way vanilla"), ({}, None)])
def test_an_image_model_can_be_told_more_only_where_that_needs_no_new_part(more, said, tmp_path):
    image = read_image(written(tmp_path))
    if said is None:
        both = as_image(Config(condition=ConditionConfig(text="vanilla")), image)
        assert both.condition.told == {"label": image.condition.label, "text": "vanilla"}
        return
    with pytest.raises(UserError, match=said):
        as_image(Config(condition=ConditionConfig(**more)), image)


def test_what_is_added_stays_as_it_is(tmp_path):
    image = read_image(written(tmp_path))
    network = wake(video_of(image))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    inflate(network, image)
    after, taken = network.state_dict(), {f"image.{name}" for name in image.state}
    for name, value in before.items():
        assert torch.equal(after[name], image.state[name.removeprefix("image.")] if name in taken else value)
    assert before.keys() - taken


@pytest.mark.parametrize("stage", [3, 4])
def test_weights_of_another_network_are_refused(stage, tmp_path):
    image = read_image(written(tmp_path, stage))
    other = replace(image, network=replace(image.network, width=64))
    with pytest.raises(UserError, match=r"is of another network: .* is \(.*\) there and \(.*\) here$"):
        inflate(video_of(other), image)


@pytest.mark.parametrize(
    "changed",
    [
        {"network": "dit"},
        {"network": "gone"},
        {"shape": "gone"},
        {"shape": [1, 8]},
        {"shape": [1, 8, "many"]},
        {"shape": 3},
        {"shape": [1, 8, float("inf")]},
        {"schedule": "gone"},
        {"schedule": 3},
        {"schedule": {"T": -1}},
        {"diffusion": "gone"},
        {"diffusion": {"predict": "all"}},
        {"condition": {"label": "loudly"}},
        {"condition": {"unknown": 1}},
        {"network": {"width": "wide"}},
        {"text": 3},
        {"known": [1, 2]},
        {"known": "abc"},
        {"own_network": {"class_path": "x.Y"}},
        {"condition": {**asdict(BY_LABEL), "image": "concatenation"}},
    ],
    ids=str,
)
def test_a_file_that_is_none_is_refused_in_one_line(changed, tmp_path):
    with pytest.raises(UserError) as error:
        read_image(written(tmp_path, **changed))
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_models_of_other_kinds_are_refused(tmp_path):
    with pytest.raises(UserError, match="is no image model of stages 1 to 4"):
        read_image(task2_latent.model.COMMITTED_AUTOENCODER)
    (tmp_path / "text.safetensors").write_text("no checkpoint")
    for path in (tmp_path / "text.safetensors", tmp_path / "missing.safetensors", tmp_path):
        with pytest.raises(UserError):
            read_image(path)


def test_frames_and_classes_must_be_those_of_the_image_model(tmp_path):
    image = read_image(written(tmp_path))
    check_fits(image, (1, 4, 8, 8), KNOWN)
    with pytest.raises(UserError, match="is a model of images 1×8×8, and the frames are 3×8×8"):
        check_fits(image, (3, 4, 8, 8), KNOWN)
    with pytest.raises(UserError, match="knows other classes than the clips have"):
        check_fits(image, (1, 4, 8, 8), {**KNOWN, "classes": KNOWN["classes"][::-1]})
    untold = read_image(written(tmp_path, 1))
    check_fits(untold, (1, 4, 8, 8), {**KNOWN, "classes": ["a"]})  # it knows none


def test_a_run_keeps_a_copy_that_is_read_again(tmp_path):
    image = read_image(written(tmp_path))
    image.copy_to(tmp_path)
    again = read_image(tmp_path / "image.safetensors")
    assert again.state.keys() == image.state.keys()
    assert all(torch.equal(again.state[name], image.state[name]) for name in image.state)
    assert (again.network, again.condition, again.schedule, again.known) == (
        image.network,
        image.condition,
        image.schedule,
        image.known,
    )
