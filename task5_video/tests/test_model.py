"""A video model in Python: what it samples, how frames that are known are respected, and how it is stored."""

from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from shared.conditions.config import ConditionConfig
from shared.errors import UserError
from shared.latents.spaces import Pixels
from shared.schedulers.config import DiffusionConfig, GuidanceConfig, NoiseConfig, SamplingConfig
from shared.schedulers.diffusion import Denoised
from shared.schedulers.known import reconstruction_guided, replaced
from shared.schedulers.samplers import sampler_steps
from shared.training.checkpoint import write_checkpoint
from shared.training.data import derive
from shared.training.state import prefixed
from task5_video.config import Config, GivenConfig, TemporalConfig
from task5_video.model import Given, Model, build_diffusion, build_network, by_frames, load, shape_of
from task5_video.tests.small import BY_LABEL, DIT, KNOWN, UNET, normal, wake

SHAPE = (1, 4, 8, 8)
SAMPLING = SamplingConfig(steps=4, precision="fp32")
CONFIG = Config(
    unet=UNET,
    dit=DIT,
    temporal=TemporalConfig(heads=2),
    condition=BY_LABEL,
    given=GivenConfig(share=0.5, between=0.5),
    schedule=NoiseConfig(T=100),
    diffusion=DiffusionConfig(predict="v"),
    sampling=SAMPLING,
    guidance=GuidanceConfig(scale=1.5),
)
LABELS = [3, 1, 4]
METHODS = ["conditional", "replacement", "reconstruction"]


def made(**changed) -> Model:
    config = replace(CONFIG, **changed)
    torch.manual_seed(0)
    network = wake(build_network(config, SHAPE, KNOWN)).eval()
    return Model(network, build_diffusion(config), Pixels(), config, SHAPE, KNOWN, Path("here"))


MODEL = made()
FILM = normal(3, *SHAPE, seed=5).float().clamp(-1, 1)
FIRST_TWO = torch.tensor([True, True, False, False])


def given(method="conditional", mask=FIRST_TWO, weight=3.0) -> Given:
    return Given(FILM, mask, method, weight)


def asked(model=MODEL):
    return model.told(3, label=LABELS)


# --- what it samples --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", ["unet", "dit"])
def test_samples_are_the_samplers_of_the_guided_network(network):
    """By hand: noise of the seed, the network asked with and without the class, the sampler of the config."""
    model, cond = made(network=network), asked()
    start = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(7))

    def denoise(xt, t):
        told, untold = (
            model.network(xt, t.expand(3), {"label": torch.tensor(label)}) for label in (LABELS, [10, 10, 10])
        )
        return model.diffusion.interpret(untold + 1.5 * (told - untold), xt, t)

    *_, last = sampler_steps(denoise, model.diffusion.schedule, start, SAMPLING)
    found = model.sample(3, cond, 7)
    torch.testing.assert_close(found, last.x, rtol=1e-4, atol=1e-4)
    assert found.shape == (3, *SHAPE) and found.abs().max() <= 1 and found.std() > 0.1


def test_samples_depend_on_the_seed_alone_and_batches_have_their_own():
    state = torch.get_rng_state()
    first = MODEL.sample(3, asked(), 7, sampler="ddpm")
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(first, MODEL.sample(3, asked(), 7, sampler="ddpm"))
    assert not torch.equal(first, MODEL.sample(3, asked(), 8, sampler="ddpm"))
    parts = MODEL.sample(3, asked(), 7, batch=2, sampler="ddpm", given=given("replacement"))
    assert parts.shape == first.shape and torch.equal(parts[:, :, :2], FILM[:, :, :2])  # each has its own film
    assert (parts[0] - parts[2]).abs()[:, 2:].max() > 1e-2


def test_clips_may_be_longer_or_shorter_than_in_training():
    for frames in (1, 3, 9):
        assert MODEL.sample(2, None, 1, frames=frames).shape == (2, 1, frames, 8, 8)


def test_what_is_told():
    assert MODEL.told(2)["label"].tolist() == [10, 10] and MODEL.told(2, label="7")["label"].tolist() == [7, 7]
    with_given = MODEL.null({"label": torch.tensor([1]), "given": FILM, "given_mask": FIRST_TWO})
    assert with_given["label"].tolist() == [10] and with_given["given"] is FILM
    for wrong, message in (
        ({"text": "a three"}, "is a model that is told no text"),
        ({"label": "eleven"}, "there is no class eleven"),
        ({"label": [1, 2]}, "3 samples need as many"),
    ):
        with pytest.raises(UserError, match=message):
            MODEL.told(3, **wrong)


# --- frames that are known --------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", ["ddpm", "heun"])
@pytest.mark.parametrize("mask", [FIRST_TWO, torch.tensor([True, False, False, True])], ids=["first", "ends"])
@pytest.mark.parametrize("method", METHODS)
def test_known_frames_are_what_they_are_and_the_others_follow_them(method, mask, sampler):
    clips = MODEL.sample(3, asked(), 7, given=given(method, mask), sampler=sampler)
    assert torch.equal(clips[:, :, mask], FILM[:, :, mask])
    other = MODEL.sample(3, asked(), 7, given=Given(-FILM, mask, method, 3.0), sampler=sampler)
    assert (clips - other)[:, :, ~mask].abs().max() > 1e-3
    unseen = FILM + 9 * ~mask[:, None, None]  # what is not known does not count
    assert torch.equal(clips, MODEL.sample(3, asked(), 7, given=Given(unseen, mask, method, 3.0), sampler=sampler))


@pytest.mark.parametrize("method", METHODS)
def test_each_method_is_what_it_is_called(method):
    """The denoiser made by hand; guided by the class all the same, the unconditional model given the same frames."""
    schedule, start = MODEL.diffusion.schedule, torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(7))
    generator, mask = torch.Generator().manual_seed(derive(7, "known")), FIRST_TWO[:, None, None]
    told = {"given": FILM, "given_mask": FIRST_TWO.expand(3, -1)} if method == "conditional" else {}

    def plain(xt, t):
        both = [
            MODEL.network(xt, t.expand(3), {"label": torch.tensor(label), **told}) for label in (LABELS, [10, 10, 10])
        ]
        return MODEL.diffusion.interpret(torch.lerp(both[1], both[0], 1.5), xt, t)

    def noise(x):
        return torch.randn(x.shape, generator=generator)

    def clean(xt, t):
        denoised = plain(xt, t)
        x0 = torch.where(mask, FILM, denoised.x0)
        alpha, sigma = schedule.level(t)
        return Denoised(x0, ((xt - alpha * x0) / sigma).float())

    denoise = {
        "conditional": clean,
        "replacement": replaced(plain, schedule, FILM, mask, noise),
        "reconstruction": reconstruction_guided(plain, schedule, FILM, mask, noise, 3.0),
    }[method]
    *_, last = sampler_steps(denoise, schedule, start, SAMPLING)
    torch.testing.assert_close(MODEL.sample(3, asked(), 7, given=given(method)), last.x, rtol=1e-3, atol=1e-3)


def test_a_model_told_nothing_goes_on_too():
    model = made(condition=ConditionConfig())
    for method in METHODS:
        clips = model.sample(3, None, 7, given=given(method))
        assert torch.equal(clips[:, :, :2], FILM[:, :, :2]) and clips.std() > 0.1


def test_weight_0_is_replacement():
    one, two = (MODEL.sample(3, asked(), 7, given=given(method, weight=0.0)) for method in METHODS[1:])
    assert torch.equal(one, two)


def test_given_frames_that_do_not_fit_are_refused():
    untrained = made(given=GivenConfig())
    with pytest.raises(UserError, match="was not trained to be given frames: take --method replacement or"):
        untrained.sample(3, None, 1, given=given())
    assert untrained.sample(3, None, 1, given=given("replacement")).shape == (3, *SHAPE)
    ends, three = torch.tensor([True, False, False, True]), torch.tensor([True, True, True, False])
    for config, mask, what in (
        (GivenConfig(share=0.5, first=2), ends, "the last frame"),
        (GivenConfig(share=0.5, first=2, between=0.5), three, "more than 2 first frames"),
        (GivenConfig(share=0.5, between=1.0), FIRST_TWO, "first frames"),
    ):
        with pytest.raises(UserError, match=f"was not trained to be given {what}: take --method"):
            made(given=config).sample(3, None, 1, given=Given(FILM, mask))
    for odd in (Given(FILM[:, :, :3], FIRST_TWO[:3]), Given(FILM, FIRST_TWO[:3]), Given(FILM[..., :4], FIRST_TWO)):
        with pytest.raises(UserError, match="bring them to one size$"):
            MODEL.sample(3, None, 1, given=odd, frames=4)
    with pytest.raises(UserError, match="^the weight of reconstruction guidance is -1"):
        MODEL.sample(3, None, 1, given=given("reconstruction", weight=-1))


def test_loops_are_other_clips_and_without_layers_along_time_the_same():
    assert not torch.allclose(MODEL.sample(3, asked(), 7), MODEL.sample(3, asked(), 7, loop=True), atol=1e-3)
    still = made(temporal=TemporalConfig(attention="none", convolution=False))
    torch.testing.assert_close(
        still.sample(3, asked(), 7), still.sample(3, asked(), 7, loop=True), rtol=1e-4, atol=1e-4
    )


def test_a_loop_goes_through_given_frames_but_cannot_be_told_them():
    for method in METHODS[1:]:
        clips = MODEL.sample(3, asked(), 7, given=given(method), loop=True)
        assert torch.equal(clips[:, :, :2], FILM[:, :, :2])
    with pytest.raises(UserError, match="^a loop cannot be told frames"):
        MODEL.sample(3, asked(), 7, given=given(), loop=True)


# --- the rest ---------------------------------------------------------------------------------------------------


def test_images_functions_see_each_frame():
    seen = []
    clips = normal(2, 3, 5, 4, 6)
    out = by_frames(lambda x: seen.append(x) or x[:, :1, ::2] * 2, clips)
    assert seen[0].shape == (10, 3, 4, 6) and torch.equal(seen[0][6], clips[1, :, 1])
    assert torch.equal(out, clips[:, :1, :, ::2] * 2) and shape_of(Pixels(), SHAPE) == SHAPE


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"condition": ConditionConfig(label="vanilla", image="concatenation")}, "condition.image is concatenation"),
        ({"network": "dit", "condition": ConditionConfig(attributes="vanilla")}, "condition.attributes is for the U"),
        ({"network": "dit", "dit": replace(DIT, patch=3)}, "patches of 3×3 do not divide 8×8"),
        ({"unet": replace(UNET, patch=8)}, "images of 8×8 cannot go through 2 levels"),
        ({"temporal": TemporalConfig(heads=3)}, "choose other temporal.heads"),
        ({"condition": replace(BY_LABEL, dropout=0.0)}, "condition.dropout is 0"),
        ({"guidance": GuidanceConfig(interval=(0.7, 0.2))}, "the guidance interval is from"),
        ({"sampling": SamplingConfig(steps=101)}, "101 sampling steps"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_parts_that_contradict_each_other_are_refused(changed, message):
    with pytest.raises(UserError, match=message):
        made(**changed)


def stored(folder: Path, **changed) -> Path:
    facts = {"shape": SHAPE, "known": KNOWN, "space": None, **asdict(CONFIG), **changed}
    write_checkpoint(
        folder / "m.safetensors", prefixed("ema", MODEL.network.state_dict()), {"step": 3, "config": facts}
    )
    return folder / "m.safetensors"


def test_a_stored_model_draws_the_same(tmp_path):
    model = load(stored(tmp_path))
    assert model.shape == SHAPE and model.config == CONFIG and not model.network.training
    assert torch.equal(model.sample(3, asked(), 7, given=given()), MODEL.sample(3, asked(), 7, given=given()))


@pytest.mark.parametrize(
    "changed",
    [
        {"shape": [1, 8, 8]},
        {"shape": "148"},
        {"known": None},
        {"known": {}},
        {"space": [1]},
        {"network": "lstm"},
        {"temporal": {"heads": 10**9}},
        {"unet": {**asdict(UNET), "width": 10**8}},
        {"unet": {**asdict(UNET), "width": 32}},
        {"temporal": {"attention": "none"}},
        {"schedule": {"T": 10**12}},
        {"shape": [1, 4, 8, 10**12]},
    ],
    ids=str,
)
def test_a_file_that_is_none_is_refused_in_one_line(changed, tmp_path):
    file = stored(tmp_path, **changed)
    with pytest.raises(UserError) as error:
        load(file)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400
