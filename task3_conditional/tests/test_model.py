"""A trained model in Python: what it is told, and that each kind of guidance is what its formula says."""

import itertools
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from shared.errors import UserError
from shared.schedulers.config import GuidanceConfig
from shared.schedulers.diffusion import Denoised
from shared.schedulers.samplers import sampler_steps
from task3_conditional.model import Model, load, weaker

LABELS = [3, 1, 4, 1, 5]


def by_hand(model: Model, denoise, n: int = 5, seed: int = 7, **options: object) -> Tensor:
    """What a sampler makes of a denoiser, from the noise of a seed, without `Model`'s own sampling."""
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(n, *model.shape, generator=generator)
    config = replace(model.config.sampling, **options)

    def noise(x: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=generator)

    *_, last = sampler_steps(denoise, model.diffusion.schedule, start, config, noise)
    return last.x.clamp(-1, 1)


def conditional(model: Model, cond: dict[str, Tensor]):
    """The denoiser of the network that is told a condition."""
    return model.diffusion.denoiser(model.network, cond)


@pytest.fixture(scope="module")
def squares(told_one) -> Model:
    """A model that has learned its classes."""
    return load(told_one["label"])


# --- what it is told ----------------------------------------------------------------------------------------


def test_a_class_is_told_by_number_or_name_for_one_or_for_each(squares):
    each = squares.told(3, label=["light", 0, "2"])["label"]
    assert each.dtype == torch.long and each.tolist() == [1, 0, 2]
    assert squares.told(2, label="rather light, or so")["label"].tolist() == [2, 2]
    assert squares.told(2, label=1)["label"].tolist() == [1, 1]


def test_a_name_goes_before_a_number(digits):
    """Classes that are called by numbers, in another order."""
    turned = replace(digits, known={**digits.known, "classes": digits.known["classes"][::-1]})
    assert turned.told(1, label=3)["label"].tolist() == [6] == turned.told(1, label="3")["label"].tolist()


def test_what_is_not_said_is_the_null(told_all):
    model = load(told_all)
    silent = model.told(2)
    assert set(silent) == {"label", "attributes", "text", "text_mask", "image"} == set(model.network.keys)
    for name, null in model.network.null(silent).items():
        torch.testing.assert_close(silent[name], null, rtol=0, atol=0, equal_nan=True)
    said = model.told(2, label=0, attributes={"striped": True}, text="a light square", image=torch.ones(2, 4, 4))
    assert said["attributes"].tolist() == [[2, 1], [2, 1]]  # the other is left open
    assert said["text_mask"].all() and said["text"].shape == (2, 3) and said["image"].eq(1).all()
    assert said["image"].shape == (2, 2, 4, 4)
    assert model.told(1, attributes={"striped": False, "light": True})["attributes"].tolist() == [[1, 0]]


def test_a_caption_for_all_is_that_caption_for_each(told_all):
    model = load(told_all)
    one, each = model.told(3, text="a dark square"), model.told(3, text=["a dark square"] * 3)
    assert one.keys() == each.keys()
    assert all(torch.allclose(one[name], each[name], equal_nan=True) for name in one)
    two = model.told(2, text=["a dark square", "a square that is light"])
    assert two["text_mask"].sum(dim=1).tolist() == [3, 5]
    words = model.known["text"]["reader"]["vocabulary"]
    assert [words[i - 1] for i in two["text"][1].tolist()] == "a square that is light".split()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"label": [1, 2]}, "3 samples need as many of each condition, and label has 2"),
        ({"text": ["a dark square"] * 4}, "3 samples need as many of each condition, and text has 4"),
        (
            {"label": 3},
            "there is no class 3: this model knows dark, light, rather light, or so, or their numbers 0",
        ),
        ({"label": -1}, "there is no class -1"),
        ({"label": "²"}, "there is no class ²"),  # a digit to Python, and no number
        ({"label": "9" * 5000}, "there is no class 99"),
        ({"label": "Light"}, "there is no class Light"),
        ({"attributes": {"dark": True}}, "there is no attribute dark: this model knows light, striped"),
        ({"image": torch.zeros(2, 8, 8)}, "the image is 2×8×8, and the model is told images 2×4×4"),
        ({"image": torch.zeros(4, 4)}, "the image is 4×4, and"),
        ({"image": torch.zeros(2, 2, 4, 4)}, "3 samples need as many of each condition, and image has 2"),
    ],
    ids=str,
)
def test_what_it_cannot_be_told(given, message, told_all):
    with pytest.raises(UserError) as error:
        load(told_all).told(3, **given)
    assert message in str(error.value)


# --- samples ------------------------------------------------------------------------------------------------


def test_samples_depend_on_the_seed_alone(digits):
    cond, state = digits.told(5, label=LABELS), torch.get_rng_state()
    first = digits.sample(cond, seed=7, sampler="ddpm")
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(99)
    assert torch.equal(first, digits.sample(cond, seed=7, sampler="ddpm"))
    assert not torch.equal(first, digits.sample(cond, seed=8, sampler="ddpm"))
    assert first.shape == (5, 1, 28, 28) and first.min() >= -1 and first.max() <= 1


def test_each_batch_is_told_its_own_part(digits):
    cond = digits.told(5, label=LABELS)
    images = digits.sample(cond, seed=7, batch=2)
    assert images.shape == (5, 1, 28, 28) and not torch.equal(images[1], images[3])  # of one class, from other noise
    assert torch.equal(images[:2], digits.sample({"label": cond["label"][:2]}, seed=7))
    same = digits.sample(digits.told(5, label=[1, 1, 1, 2, 1]), seed=7, batch=2)
    other = digits.sample(digits.told(5, label=[1, 1, 1, 3, 1]), seed=7, batch=2)
    assert [torch.equal(a, b) for a, b in zip(same, other, strict=True)] == [True, True, True, False, True]


def test_another_class_is_another_image_of_the_same_noise(digits):
    images = [digits.sample(digits.told(1, label=label), seed=7) for label in range(10)]
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(images, 2))


SAID = {
    "label": [{"label": 0}, {"label": "light"}],
    "attributes": [{"attributes": {"light": False}}, {"attributes": {"light": True}}],
    "text": [{"text": "a dark square"}, {"text": "a light square"}],
    "image": [{"image": torch.full((2, 4, 4), -0.9)}, {"image": torch.full((2, 4, 4), 0.9)}],
}


@pytest.mark.parametrize("kind", SAID)
def test_what_is_said_is_drawn(kind, told_one):
    """Each network was trained where one thing that is said decides the shade."""
    model = load(told_one[kind])
    dark, light = (model.sample(model.told(24, **said), steps=10).mean().item() for said in SAID[kind])
    assert dark < -0.3 and light > 0.3


def test_the_weights_that_are_asked_for_are_taken(by_class, digits):
    cond = digits.told(2, label=3)
    images = [load(by_class, weights=weights).sample(cond) for weights in ("ema", "model", "swa")]
    assert torch.equal(images[0], digits.sample(cond))
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(images, 2))


# --- guidance -----------------------------------------------------------------------------------------------

SETTINGS = [GuidanceConfig(), GuidanceConfig(rescale=0.7), GuidanceConfig(interval=(0.3, 0.6), rescale=0.2)]


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "heun"])
@pytest.mark.parametrize("guidance", SETTINGS, ids=str)
def test_scale_1_is_the_conditional_model_bit_for_bit(guidance, sampler, digits):
    cond = digits.told(5, label=LABELS)
    options = {"sampler": sampler, "steps": 4}
    expected = by_hand(digits, conditional(digits, cond), **options)
    assert torch.equal(digits.sample(cond, 7, guidance=replace(guidance, scale=1.0), **options), expected)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "heun"])
@pytest.mark.parametrize("rescale", [0.0, 0.7])
def test_scale_0_is_the_unconditional_model_bit_for_bit(rescale, sampler, digits):
    cond = digits.told(5, label=LABELS)
    options = {"sampler": sampler, "steps": 4}
    null = {"label": torch.full((5,), 10)}  # one more class, which no digit has
    expected = by_hand(digits, conditional(digits, null), **options)
    for said in (cond, digits.told(5)):
        assert torch.equal(digits.sample(said, 7, guidance=GuidanceConfig(0.0, rescale), **options), expected)
    assert torch.equal(digits.sample(digits.told(5), 7, guidance=GuidanceConfig(1.0), **options), expected)


def test_scale_0_of_everything_at_once(told_all):
    """The unconditional model, whatever was said."""
    model = load(told_all)
    said = model.told(2, label=0, attributes={"striped": True}, text="a light square", image=torch.ones(2, 4, 4))
    images = model.sample(said, guidance=GuidanceConfig(0.0))
    assert torch.equal(images, model.sample(model.network.null(said), guidance=GuidanceConfig(1.0)))
    torch.testing.assert_close(images, model.sample(model.told(2), guidance=GuidanceConfig(3.0)))
    assert not torch.allclose(images, model.sample(said, guidance=GuidanceConfig(1.0)))


@pytest.mark.parametrize("scale", [-1.0, 0.4, 3.0])
def test_other_scales_are_on_the_line_through_both(scale, squares):
    """Asked one after the other, where the model asks both at once; what it predicts, not what that means, is mixed."""
    cond, null = squares.told(5, label=[0, 1, 2, 1, 0]), squares.told(5)

    def mixed(xt: Tensor, t: Tensor) -> Denoised:
        t = t.expand(len(xt))
        yes, no = squares.network(xt, t, cond), squares.network(xt, t, null)
        return squares.diffusion.interpret(no + scale * (yes - no), xt, t)

    images = squares.sample(cond, 7, guidance=GuidanceConfig(scale), steps=4)
    torch.testing.assert_close(images, by_hand(squares, mixed, steps=4), rtol=1e-4, atol=1e-4)
    assert (images - squares.sample(cond, 7, guidance=GuidanceConfig(1.0), steps=4)).abs().max() > 1e-2


def test_the_runs_guidance_holds_where_none_is_given(squares):
    cond = squares.told(4, label=0)
    own = replace(squares, config=replace(squares.config, guidance=GuidanceConfig(5.0, 0.5, (0.2, 0.9))))
    asked = squares.sample(cond, guidance=GuidanceConfig(5.0, 0.5, (0.2, 0.9)), steps=6)
    assert torch.equal(own.sample(cond, steps=6), asked)
    for other in (GuidanceConfig(5.0, 0.5), GuidanceConfig(5.0, 0.0, (0.2, 0.9)), GuidanceConfig(4.0, 0.5, (0.2, 0.9))):
        assert not torch.allclose(asked, squares.sample(cond, guidance=other, steps=6), atol=1e-5)


def test_within_no_interval_it_is_the_conditional_model(digits):
    cond = digits.told(5, label=LABELS)
    expected = digits.sample(cond, 7, guidance=GuidanceConfig(1.0), steps=4)
    for interval in ((0.0, 0.0), (0.4, 0.4), (1.0, 1.0)):
        assert torch.equal(digits.sample(cond, 7, guidance=GuidanceConfig(3.0, 0.5, interval), steps=4), expected)


def test_the_interval_is_of_the_schedules_times(squares):
    """Guided at the times between, by hand."""
    cond, null = squares.told(5, label=0), squares.told(5)
    asked, T = [], squares.diffusion.schedule.T

    def denoise(xt: Tensor, t: Tensor) -> Denoised:
        inside = 0.25 * T < t <= 0.75 * T
        asked.append(bool(inside))
        t = t.expand(len(xt))
        yes, no = squares.network(xt, t, cond), squares.network(xt, t, null)
        return squares.diffusion.interpret(no + 3 * (yes - no) if inside else yes, xt, t)

    expected = by_hand(squares, denoise, steps=8)
    assert asked == [False] * 2 + [True] * 4 + [False] * 2
    images = squares.sample(cond, 7, guidance=GuidanceConfig(3.0, 0.0, (0.25, 0.75)), steps=8)
    torch.testing.assert_close(images, expected, rtol=1e-4, atol=1e-4)


# --- another network guides ---------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("scale", [-0.5, 0.0, 0.3, 1.0, 2.0, 4.0])
def test_a_model_that_guides_itself_is_itself(scale, precision, digits):
    """In bfloat16, too, in which both must compute."""
    cond = digits.told(5, label=LABELS)
    expected = digits.sample(cond, 7, guidance=GuidanceConfig(1.0), steps=4, precision=precision)
    images = digits.sample(cond, 7, guidance=GuidanceConfig(scale), weak=digits.network, steps=4, precision=precision)
    assert torch.equal(images, expected)
    if precision == "bf16":
        assert not torch.equal(images, digits.sample(cond, 7, guidance=GuidanceConfig(1.0), steps=4))


def test_a_weaker_model_is_gone_away_from(by_class, digits):
    """At 0 it is the weak one, beyond 1 on the other side; both are told the class."""
    weak = weaker(digits, by_class / "checkpoints" / "step-00000004.safetensors")
    cond = digits.told(5, label=LABELS)

    def mixed(xt: Tensor, t: Tensor) -> Denoised:
        t = t.expand(len(xt))
        strong, other = digits.network(xt, t, cond), weak(xt, t, cond)
        return digits.diffusion.interpret(other + 2.5 * (strong - other), xt, t)

    images = digits.sample(cond, 7, guidance=GuidanceConfig(2.5), weak=weak, steps=4)
    torch.testing.assert_close(images, by_hand(digits, mixed, steps=4), rtol=1e-4, atol=1e-4)
    at_zero = digits.sample(cond, 7, guidance=GuidanceConfig(0.0), weak=weak, steps=4)
    assert torch.equal(at_zero, by_hand(digits, digits.diffusion.denoiser(weak, cond), steps=4))
    assert not torch.equal(at_zero, images)
    outside = digits.sample(cond, 7, guidance=GuidanceConfig(2.5, 0.0, (0.0, 0.0)), weak=weak, steps=4)
    assert torch.equal(outside, digits.sample(cond, 7, guidance=GuidanceConfig(1.0), steps=4))


class Brightness(nn.Module):
    """A classifier by formula: class 1 is bright and class 0 is dark, more so the more it is either."""

    def log_probability(self, label: Tensor):
        """log p(y | xt) of the sum of the pixels."""
        sign = 2.0 * label - 1
        return lambda xt, t: nn.functional.logsigmoid(sign * xt.flatten(1).sum(dim=1) / 100)


def test_a_classifier_at_scale_0_leaves_the_unconditional_model(digits):
    cond = digits.told(5, label=[0, 1, 0, 1, 0])
    expected = digits.sample(cond, 7, guidance=GuidanceConfig(0.0), steps=4)
    images = digits.sample(cond, 7, guidance=GuidanceConfig(0.0), classifier=Brightness(), steps=4)
    assert torch.equal(images, expected)
    outside = GuidanceConfig(9.0, 0.0, (0.0, 0.0))
    assert torch.equal(digits.sample(cond, 7, guidance=outside, classifier=Brightness(), steps=4), expected)


def test_a_classifier_guides_to_its_class(digits):
    """The diffusion itself is told nothing: the class decides by the classifier alone."""
    dark, bright = (
        digits.sample(digits.told(8, label=label), 7, guidance=GuidanceConfig(20.0), classifier=Brightness(), steps=10)
        for label in (0, 1)
    )
    plain = digits.sample(digits.told(8), 7, guidance=GuidanceConfig(1.0), steps=10)
    means = [images.mean(dim=(1, 2, 3)) for images in (dark, plain, bright)]
    assert (means[0] < means[1] - 0.01).all() and (means[1] + 0.01 < means[2]).all()


# --- what is refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("guidance", "message"),
    [
        (GuidanceConfig(float("nan")), "the guidance scale is nan"),
        (GuidanceConfig(float("inf")), "the guidance scale is inf"),
        (GuidanceConfig(interval=(0.7, 0.3)), "the guidance interval is from 0.7 to 0.3"),
        (GuidanceConfig(interval=(-0.1, 0.3)), "the guidance interval is from -0.1 to 0.3"),
        (GuidanceConfig(rescale=1.5), "the share of rescaling is 1.5"),
    ],
)
def test_guidance_that_is_none(guidance, message, digits):
    with pytest.raises(UserError, match=message):
        digits.sample(digits.told(2, label=1), guidance=guidance)


@pytest.mark.parametrize("other", ["weak", "classifier"])
def test_only_what_is_classifier_free_is_rescaled(other, digits):
    """It would not be, and nobody would notice."""
    network = digits.network if other == "weak" else Brightness()
    with pytest.raises(UserError, match="guidance.rescale is 0.5, but it is for classifier-free guidance"):
        digits.sample(digits.told(2, label=1), guidance=GuidanceConfig(rescale=0.5), **{other: network})


def test_a_classifier_is_not_asked_for_a_class_that_it_does_not_know(digits, classifier):
    from task3_conditional.classifier import load_classifier

    network = load_classifier(classifier).network
    with pytest.raises(UserError, match="there is no class 10: the classifier knows the classes 0 to 9"):
        digits.sample(digits.told(2), classifier=network)


def test_an_option_that_is_none(digits):
    with pytest.raises(UserError, match="stepz"):
        digits.sample(digits.told(2, label=1), stepz=3)
