"""Ways of a condition into the U-Net: what is said enters, and its null says nothing."""

import itertools

import pytest
import torch
from torch import nn

from shared.blocks.config import UNetConfig
from shared.blocks.resnet import Context
from shared.blocks.stage import Stage
from shared.blocks.unet import UNet
from shared.conditions.config import ConditionConfig
from shared.conditions.network import ConditionalUNet
from shared.conditions.said import AttributeTokens, LabelTokens, dropped
from shared.conditions.ways import Concatenation, Vanilla, build_conditions

WAYS = ("vanilla", "adaptive", "token", "cross_attention", "cross_attention_pooled")
NETWORK = UNetConfig(width=8, multipliers=(1, 2), attention=("none", "full"), middle_attention="full", heads=2)
KNOWN = {
    "classes": ["a", "b", "c"],
    "attributes": ["hat", "beard"],
    "text": {"width": 5, "tokens": 0, "length": 4, "pooled": False},
    "image": 2,
}
B = 4
SAID = {
    "label": torch.tensor([0, 1, 2, 0]),
    "attributes": torch.tensor([[0, 1], [1, 1], [0, 0], [1, 0]]),
    "text": torch.randn(B, 4, 5, generator=torch.Generator().manual_seed(3)),
    "text_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0]], dtype=torch.bool),
    "image": torch.rand(B, 2, 8, 8, generator=torch.Generator().manual_seed(4)) * 2 - 1,
}
KINDS = [(what, way) for what in ("label", "attributes", "text") for way in WAYS] + [("image", "concatenation")]


def network(known=KNOWN, seed: int = 0, **condition) -> ConditionalUNet:
    torch.manual_seed(seed)
    made = ConditionalUNet(1, NETWORK, ConditionConfig(dim=6, **condition), known)
    for parameter in made.parameters():  # as after some training: nothing is zero any more
        nn.init.normal_(parameter, std=0.2)
    return made.eval()


def ask(model, cond, seed: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    x, t = torch.randn(B, 1, 8, 8, generator=generator), torch.linspace(1, 900, B)
    with torch.no_grad():
        return model(x, t, cond)


def keys(what: str) -> list[str]:
    return ["text", "text_mask"] if what == "text" else [what]


def differs(a: torch.Tensor, b: torch.Tensor) -> list[bool]:
    return [(one - other).abs().max().item() > 1e-4 for one, other in zip(a, b, strict=True)]


@pytest.mark.parametrize("what, way", KINDS)
def test_what_is_said_changes_the_answer_of_that_sample_alone(what, way):
    model = network(**{what: way})
    changed = {name: value.clone() for name, value in SAID.items()}
    for name in keys(what):
        changed[name][1] = SAID[name][3]
    assert differs(ask(model, SAID), ask(model, changed)) == [False, True, False, False]


@pytest.mark.parametrize("what, way", KINDS)
def test_the_null_says_the_same_whatever_was_said(what, way):
    model = network(**{what: way})
    other = {name: value.flip(0) for name, value in SAID.items()}
    one, same = ask(model, {**SAID, **model.null(SAID)}), ask(model, {**SAID, **model.null(other)})
    assert torch.equal(one, same)
    assert all(differs(one, ask(model, SAID)))
    assert set(model.null(SAID)) == set(keys(what)) == set(model.keys)


@pytest.mark.parametrize("what, way", KINDS)
def test_every_part_of_a_condition_gets_a_gradient(what, way):
    model = network(**{what: way}).train()
    cond = model.drop(SAID, 0.5)  # with both what is said and the null in the batch
    model(torch.randn(B, 1, 8, 8), torch.linspace(1, 900, B), cond).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_a_network_that_is_told_nothing_is_the_u_net():
    made = network()
    plain = UNet(1, NETWORK)
    plain.load_state_dict(made.unet.state_dict())
    assert torch.equal(ask(made, {}), ask(plain.eval(), {}))


@pytest.mark.parametrize("way", ["adaptive", "cross_attention"])
def test_a_fresh_network_is_the_unconditional_one_bit_for_bit(way):
    """Before it has learned to listen; but for the head, which is zero then too and would hide everything."""
    torch.manual_seed(0)
    made = ConditionalUNet(1, NETWORK, ConditionConfig(dim=6, label=way, tokens=2), KNOWN).eval()
    nn.init.normal_(made.unet.head.weight)
    assert ask(made, SAID).abs().max() > 0.1
    assert torch.equal(ask(made, SAID), ask(made, {**SAID, **made.null(SAID)}))


class Further(nn.Module):
    """Shifts what it is given by the time's embedding; by nothing at the start. It remembers the contexts."""

    def __init__(self, width: int):
        super().__init__()
        self.shift, self.given = nn.Parameter(torch.zeros(width, 1, 1)), []

    def forward(self, x: torch.Tensor, c: Context) -> torch.Tensor:
        self.given.append(c)
        return x + self.shift * c.vector.mean()


def test_further_blocks_end_each_stage_and_are_given_what_the_others_are():
    plain = network(label="adaptive")
    condition = ConditionConfig(dim=6, label="adaptive")
    made = ConditionalUNet(1, NETWORK, condition, KNOWN, then=lambda width, kind: [Further(width)]).eval()
    loaded = made.load_state_dict(plain.state_dict(), strict=False)  # what there was before keeps its name
    assert not loaded.unexpected_keys and all(name.endswith(".shift") for name in loaded.missing_keys)
    assert torch.equal(ask(made, SAID), ask(plain, SAID))
    stages = [part for part in made.unet.modules() if isinstance(part, Stage)]
    assert len(loaded.missing_keys) == len(stages) == 5  # two levels down, the middle, two levels up
    for further in [stage[-1] for stage in stages]:
        assert further.given[0].vector is not None and further.given[0].told.shape == (B, 6)
        nn.init.normal_(further.shift)
        assert all(differs(ask(made, SAID), ask(plain, SAID)))
        nn.init.zeros_(further.shift)


@pytest.mark.parametrize("pair", list(itertools.combinations(["label", "attributes", "text", "image"], 2)))
def test_several_at_once_are_all_heard(pair):
    ways = {name: "concatenation" if name == "image" else way for name, way in zip(pair, WAYS, strict=False)}
    model = network(**ways)
    assert set(model.keys) == {key for name in pair for key in keys(name)}
    for name in pair:
        null = {key: model.null(SAID)[key] for key in keys(name)}
        assert all(differs(ask(model, SAID), ask(model, {**SAID, **null}))), name


def test_two_sequences_line_up_and_two_adaptive_ones_add_up():
    """Both are heard where both look for the same place in the context."""
    for way in WAYS:
        model = network(label=way, text=way)
        for name in ("label", "text"):
            null = {key: model.null(SAID)[key] for key in keys(name)}
            assert all(differs(ask(model, SAID), ask(model, {**SAID, **null}))), (way, name)


def test_one_answer_alone_counts_as_much_as_many():
    """What is asked with a single answer is not drowned by 39 questions that are left open."""
    told = Vanilla(AttributeTokens(40, 6), 6, 32)
    answers = torch.full((1, 40), AttributeTokens.OPEN)
    answers[:, 7] = 1
    token = told.said({"attributes": answers})[0][0, 7]
    torch.testing.assert_close(told.vector({"attributes": answers})[0], (told.begin + token) / 2)


def test_dropping_leaves_attributes_open_too():
    torch.manual_seed(0)
    made = build_conditions(ConditionConfig(dim=6, attributes="vanilla"), KNOWN, 32)
    cond = {"attributes": torch.ones(4000, 2, dtype=torch.long)}
    kept = dropped(made, cond, 0.1, open_share=0.5)["attributes"]
    none, one = ((kept == 2).sum(dim=1) == count for count in (2, 1))
    # a tenth dropped whole; of the rest half with a share u left open, evenly drawn: E[u²] = 1/3, E[2u(1-u)] = 1/3
    assert abs(none.double().mean() - (0.1 + 0.9 * 0.5 / 3)) < 0.03
    assert abs(one.double().mean() - 0.9 * 0.5 / 3) < 0.03


def test_a_grey_image_is_not_the_null_and_a_masked_one_leaves_no_trace():
    model = network(image="concatenation")
    grey = {**SAID, "image": torch.zeros_like(SAID["image"])}
    assert all(differs(ask(model, grey), ask(model, model.null(SAID))))
    assert ask(model, model.null(SAID)).isfinite().all()


def test_a_caption_of_one_token_or_none_is_finite():
    model = network(text="token")
    one = {"text": SAID["text"][:, :1], "text_mask": SAID["text_mask"][:, :1]}
    assert ask(model, one).isfinite().all() and ask(model, model.null(one)).isfinite().all()


def test_padding_of_a_caption_changes_nothing():
    for way in WAYS:
        model = network(text=way)
        padded = torch.cat([SAID["text"], torch.full((B, 3, 5), 9.0)], dim=1)
        mask = torch.cat([SAID["text_mask"], torch.zeros(B, 3, dtype=torch.bool)], dim=1)
        torch.testing.assert_close(
            ask(model, {"text": padded, "text_mask": mask}), ask(model, SAID), rtol=1e-4, atol=1e-5
        )


def test_what_does_not_fit_together_is_refused():
    with pytest.raises(ValueError, match="choose one of them"):
        network(label="token", text="cross_attention")
    linear = UNetConfig(width=8, multipliers=(1,), attention=("linear",), heads=2)
    with pytest.raises(ValueError, match="needs full attention"):
        ConditionalUNet(1, linear, ConditionConfig(label="token"), KNOWN)
    blind = UNetConfig(width=8, multipliers=(1,), attention=("none",), middle_attention="none", heads=2)
    for way in ("token", "cross_attention", "cross_attention_pooled"):
        with pytest.raises(ValueError, match="has none"):
            ConditionalUNet(1, blind, ConditionConfig(label=way), KNOWN)
    ConditionalUNet(1, blind, ConditionConfig(label="vanilla"), KNOWN)


def test_the_vector_of_a_label_is_the_same_wherever_it_stands():
    vector = Vanilla(LabelTokens(3, 6, 4), 6, 32).vector({"label": torch.tensor([0, 1, 0])})
    assert torch.equal(vector[0], vector[2]) and not torch.equal(vector[0], vector[1])


def test_concatenation_says_whether_there_is_an_image():
    beside = Concatenation()
    image = torch.stack([torch.zeros(2, 4, 4), torch.full((2, 4, 4), torch.nan)])
    x, _ = beside(torch.ones(2, 1, 4, 4), None, {"image": image})
    assert x.shape == (2, 4, 4, 4) and x.isfinite().all()
    assert x[0, 3].eq(1).all() and x[1, 1:].eq(0).all()
