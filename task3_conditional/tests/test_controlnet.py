"""ControlNet: a fresh one changes nothing, gradients arrive when they must, the base is never touched; the command."""

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from shared.blocks.config import UNetConfig
from shared.conditions.config import ConditionConfig
from shared.conditions.network import ConditionalUNet
from shared.datasets.held_out import pictures_given
from shared.datasets.ranges import to_uint8
from shared.errors import UserError
from shared.experiments import reproduce
from shared.precision import computing_in
from shared.schedulers.config import GuidanceConfig
from shared.tests.commands import Ended, call, losses, same, whole
from shared.training.checkpoint import read_facts, read_tensors, write_checkpoint
from shared.training.state import prefixed
from shared.training.weights import newest
from task3_conditional import export, train_controlnet
from task3_conditional.control_config import ControlTraining, control_config
from task3_conditional.control_model import controlled, digest_of, hinted, keys_for, load_control
from task3_conditional.controlnet import Controlled, ControlNet
from task3_conditional.hints import HINTS
from task3_conditional.model import RESULTS, load
from task3_conditional.tests.commands import do_sample

KNOWN = {"classes": list("abc"), "attributes": ["x", "y"], "image": 2}
KNOWN["text"] = {"width": None, "tokens": 9, "reader": {}, "length": 4, "pooled": False}
BASES = {
    "plain": ({}, {"label": "vanilla"}),
    "patches": ({"patch": 2, "blocks": 2, "down": "stride"}, {"label": "adaptive", "attributes": "vanilla"}),
    "text": ({"attention": ("none", "full")}, {"text": "cross_attention"}),
    "image": ({"multipliers": (2,), "attention": ("none",)}, {"label": "vanilla", "image": "concatenation"}),
}


def make_base(kind: str = "plain") -> ConditionalUNet:
    """A base in which no parameter is zero: every end of a branch is at first, and would hide what comes before."""
    torch.manual_seed(0)
    network, condition = BASES[kind]
    options = {"width": 4, "multipliers": (1, 2), "attention": ("none", "none"), "middle_attention": "none", "heads": 2}
    base = ConditionalUNet(1, UNetConfig(**{**options, **network}), ConditionConfig(dim=4, **condition), KNOWN, 1)
    for parameter in base.parameters():
        nn.init.normal_(parameter, std=0.2)
    return base


def stir(control: ControlNet, seed: int = 1) -> ControlNet:
    """A control whose weights are all random: a trained one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in control.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return control


def batch(base: ConditionalUNet, n: int = 3):
    """x, t and everything that can be said."""
    torch.manual_seed(5)
    cond = {"label": torch.arange(n) % 3, "attributes": torch.ones(n, 2, dtype=torch.long)}
    cond |= {"text": torch.randint(1, 9, (n, 4)), "text_mask": torch.ones(n, 4, dtype=torch.bool)}
    cond["image"] = torch.rand(n, 2, 8, 8)
    cond = {name: cond[name] for name in base.keys}
    return torch.randn(n, 1, 8, 8), torch.tensor([1.0, 300.0, 999.0])[:n], cond, torch.randn(n, 1, 8, 8).sign()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", BASES)
@torch.no_grad()
def test_a_fresh_one_changes_nothing_and_one_that_has_learned_does(kind, precision):
    base = make_base(kind)
    x, t, cond, hint = batch(base)
    with computing_in(precision, torch.device("cpu")):
        alone = base.eval()(x, t, cond)
        model = Controlled(base, [ControlNet(base, 1)])
        assert torch.equal(model(x, t, cond | {"hint": hint}), alone)
        assert torch.equal(model(x, t, model.null(cond | {"hint": hint})), base(x, t, base.null(cond)))
    stir(model.controls[0])
    with computing_in(precision, torch.device("cpu")):  # another one: it keeps the weights that it has converted
        steered = model(x, t, cond | {"hint": hint})
        other = model(x, t, cond | {"hint": -hint})
        for i in range(3):
            assert min((steered - alone)[i].abs().max(), (steered - other)[i].abs().max()) > 1e-3
    assert steered.dtype == alone.dtype


def test_it_is_the_way_down_of_the_base_with_zero_convolutions():
    """By hand: the copy's own stem sees the hint, and each skip gets its own residual, once."""
    base, (x, t, cond, hint) = make_base("patches"), batch(make_base("patches"))
    control = ControlNet(base, 1)
    there = base.state_dict()
    for name, value in control.state_dict().items():
        if name.replace("stem.stem", "stem") in there:
            assert torch.equal(value, there[name.replace("stem.stem", "stem")])
    above = ("unet.up", "unet.enlarge", "unet.head", "unet.norm")
    assert not any(name.startswith(above) for name in control.state_dict())
    base.eval()
    seen = {}
    decode = base.unet.decode
    base.unet.decode = lambda h, skips, c: seen.update(h=h, skips=skips) or decode(h, skips, c)
    with torch.no_grad():
        base(x, t, cond)
        alone = dict(seen)
        stir(control)
        bottom, residuals = control(x, t, cond, hint)
        Controlled(base, [control], weights=[0.7])(x, t, cond | {"hint": hint})
    torch.testing.assert_close(seen["h"], alone["h"] + 0.7 * bottom)
    assert len(residuals) == len(alone["skips"]) == 4
    for now, before, residual in zip(seen["skips"], alone["skips"], residuals, strict=True):
        torch.testing.assert_close(now, before + 0.7 * residual)
        assert residual.abs().max() > 0.01
    # only the first block's input differs by the hint: the same copy, by the base's own encode
    plain = copy.deepcopy(base)
    plain.unet.load_state_dict(
        {n.replace("stem.stem", "stem"): v for n, v in control.unet.state_dict().items() if "encoder" not in n}, False
    )
    plain.conditions.load_state_dict(control.conditions.state_dict())
    for parameter in control.unet.stem.encoder[-1].parameters():
        nn.init.zeros_(parameter)
    plain.unet.decode = lambda h, skips, c: seen.update(h=h, skips=skips) or decode(h, skips, c)
    with torch.no_grad():
        bottom, residuals = control(x, t, cond, hint)
        plain.eval()(x, t, cond)
        torch.testing.assert_close(control.bottom(seen["h"]), bottom)
        for zero, skip, residual in zip(control.skips, seen["skips"], residuals, strict=True):
            torch.testing.assert_close(zero(skip), residual)


@pytest.mark.parametrize("kind", BASES)
def test_gradients_reach_the_zero_convolutions_first_and_then_the_copy(kind):
    base = make_base(kind)
    before = copy.deepcopy(base.state_dict())
    model = Controlled(base, [ControlNet(base, 1)]).train()
    control = model.controls[0]
    x, t, cond, hint = batch(base)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    zeros = {*(f"skips.{i}.{end}" for i in range(len(control.skips)) for end in ("weight", "bias"))}
    zeros |= {"bottom.weight", "bottom.bias"}
    hints = {name for name, _ in control.named_parameters() if "encoder" in name}
    last = {name for name in hints if ".4." in name}
    reached = []
    for _ in range(3):
        optimizer.zero_grad()
        model(x, t, cond | {"hint": hint}).square().mean().backward()
        gradients = {name: p.grad for name, p in control.named_parameters() if p.grad is not None}
        reached.append({name for name, gradient in gradients.items() if gradient.abs().max() > 0})
        optimizer.step()
    everything = {name for name, _ in control.named_parameters()}
    unused = {name for name in everything if "embed" in name}  # rows of words that nobody says
    assert reached[0] == zeros
    assert reached[1] - unused == everything - (hints - last) - unused and reached[2] - unused == everything - unused
    assert not base.training and not any(p.requires_grad or p.grad is not None for p in base.parameters())
    assert all(torch.equal(value, before[name]) for name, value in base.state_dict().items())


@torch.no_grad()
def test_several_add_up_with_their_weights_and_one_of_zero_is_not_asked():
    base = make_base()
    x, t, cond, hint = batch(base)
    first, second = stir(ControlNet(base, 1), 1), stir(ControlNet(base, 3), 2)
    told = cond | {"hint.edges": hint, "hint.low": torch.randn(3, 3, 8, 8)}
    keys = ["hint.edges", "hint.low"]
    asked = []
    for name, control in (("edges", first), ("low", second)):
        control.register_forward_hook(lambda *_, name=name: asked.append(name))

    def out(*weights: float):
        return Controlled(base, [first, second], keys, weights)(x, t, told)

    alone = Controlled(base, [first], ["hint.edges"])(x, t, told)
    asked.clear()
    assert torch.equal(out(1, 0), alone) and asked == ["edges"]
    assert torch.equal(out(0, 0), base(x, t, cond)) and asked == ["edges"]
    unasked = Controlled(base, [second], ["hint.low"], [0.0])(x, t, cond)  # nor is its hint looked for
    assert torch.equal(unasked, base(x, t, cond))
    swapped = Controlled(base, [second, first], keys[::-1], [0.3, 2.0])(x, t, told)
    torch.testing.assert_close(out(2.0, 0.3), swapped)
    assert (out(2.0, 0.3) - out(0.3, 2.0)).abs().max() > 1e-3
    shown = {}
    decode, base.unet.decode = base.unet.decode, lambda h, skips, c: shown.update(h=h) or h
    parts = [(out(*weights), shown["h"])[1] for weights in ((0, 0), (1, 0), (0, 1), (2.0, -0.5))]
    torch.testing.assert_close(parts[3], parts[0] + 2 * (parts[1] - parts[0]) - 0.5 * (parts[2] - parts[0]))
    base.unet.decode = decode


@torch.no_grad()
def test_a_sample_without_a_hint_is_drawn_by_the_base_and_the_others_are_not_changed():
    base = make_base()
    x, t, cond, hint = batch(base)
    model = Controlled(base, [stir(ControlNet(base, 1))])
    some = hint.clone()
    some[1] = torch.nan
    all_of, found = model(x, t, cond | {"hint": hint}), model(x, t, cond | {"hint": some})
    assert torch.equal(found[[0, 2]], all_of[[0, 2]]) and torch.equal(found[1], base(x, t, cond)[1])


def test_what_is_not_said_leaves_the_hint():
    base = make_base("patches")
    _, _, cond, hint = batch(base)
    model = Controlled(base, [ControlNet(base, 1)])
    told = cond | {"hint": hint}
    null, dropped = model.null(told), model.drop(told, 1.0)
    assert torch.equal(null["hint"], hint) and torch.equal(dropped["hint"], hint)
    assert null.keys() == told.keys() and (null["label"] == 3).all() and (dropped["label"] == 3).all()
    assert (null["attributes"] == 2).all() and "hint" not in model.null(cond)
    assert set(model.keys) == {"label", "attributes", "hint"}


@pytest.mark.parametrize(
    ("keys", "weights", "message"),
    [
        (("hint", "hint"), (1.0,), "1 controls need as many hints and weights: 2, 1"),
        (("hint",), (), "1 controls need as many"),
        (("hint",), (float("nan"),), "the weight of a control is nan: it must be a finite number"),
    ],
)
def test_what_does_not_go_together_is_refused(keys, weights, message):
    base = make_base()
    with pytest.raises(ValueError, match=f"^{message}"):
        Controlled(base, [ControlNet(base, 1)], keys, weights)


def test_a_missing_hint_or_one_of_another_size_is_refused():
    base = make_base()
    x, t, cond, hint = batch(base)
    model = Controlled(base, [ControlNet(base, 1)])
    with pytest.raises(ValueError, match="^cond has no hint: "):
        model(x, t, cond)
    for wrong in (hint[:, :, :4], hint[:1], hint.expand(-1, 3, -1, -1)):
        with pytest.raises(ValueError, match="^the hint is .* 3×1×8×8 is needed"):
            model(x, t, cond | {"hint": wrong})


# --- the command --------------------------------------------------------------------------------------------

TINY = [
    *"--train.batch 4 --train.device cpu --train.precision fp32 --train.sample-every 0 --optimizer.warmup 0".split(),
    *"--optimizer.schedule constant --sampling.steps 2 --sampling.precision fp32".split(),
]


def do_train(*arguments: object) -> Ended:
    """task3-train-controlnet."""
    return call(train_controlnet.main, "task3-train-controlnet", *arguments)


@pytest.fixture(scope="module")
def trained(by_class, tmp_path_factory) -> Path:
    """A run of 4 steps on the tiny model by class; never changed by a test."""
    folder = tmp_path_factory.mktemp("controlled")
    options = "--train.steps 4 --train.log-every 1 --train.sample-every 4 --train.save-every 2 --train.keep 9".split()
    options += ["--optimizer.lr", 0.01, "--averages.ema", 0.9, "--run.folder", folder, "--run.name", "four"]
    do_train(*TINY, *options, "--base", by_class).well()
    return folder / "task3-controlnet" / "four"


@pytest.fixture(scope="module")
def of_text(by_caption, tmp_path_factory) -> Path:
    """A run by low resolution on the tiny model by caption."""
    folder = tmp_path_factory.mktemp("text")
    options = ["--hint", "low", "--data.name", "captioned_digits", "--data.objects", 1, "--train.workers", 0]
    options += ["--train.steps", 2, "--run.folder", folder, "--run.name", "two", "--data.languages", "[en,zh]"]
    do_train(*TINY, *options, "--base", by_caption).well()
    return folder / "task3-controlnet" / "two"


def test_a_run_holds_the_control_alone_and_one_copy_of_its_base(trained, by_class):
    base, control = load(by_class), load_control(trained)
    names = {name.split(".", 1)[1] for name in whole(trained) if not name.startswith("optimizer")}
    assert names == set(control.network.state_dict()) and not any("base" in name for name in names)
    reached = {name for name in whole(trained) if name.startswith("optimizer.")}
    assert reached and all(name.split(".", 2)[2].rpartition(".")[0] in names for name in reached)
    there = read_tensors(trained / "base.safetensors", "ema")
    assert all(torch.equal(value, there[name]) for name, value in base.network.state_dict().items())
    assert control.base.source == trained / "base.safetensors" and control.config.hint == "edges"
    assert digest_of(base.network) == read_facts(control.source)["config"]["digest"]
    assert control.network.bottom.weight.abs().max() > 0 and not control.network.training
    picture = Image.open(trained / "samples" / "step-00000004.png")
    assert picture.size == (10 * 30 + 2, 6 * 30 + 2)
    colours = picture.crop((2, 2, 30, 30)).getcolors()
    assert {colour for _, colour in colours} == {0, 255}  # a hint, above its sample


def test_the_loss_is_the_bases_own_at_the_first_step(trained, by_class):
    """As a fresh control changes nothing: with the same noise, of the base told the same."""
    base, config = load(by_class), ControlTraining()
    x, label = torch.randn(8, 1, 28, 28).clamp(-1, 1), {"label": torch.arange(8)}
    config.dropout = 0.0
    torch.manual_seed(3)
    base.network.drop(label, 0.0)
    expected = base.diffusion.loss(base.network, x, label).mean()
    fresh = ControlNet(base.network, 1)
    torch.manual_seed(3)
    found = train_controlnet.loss_for(base, config)(fresh, x, label)
    assert torch.equal(found, expected) and found.requires_grad
    seen = []
    network = ControlNet(base.network, 1)
    network.register_forward_hook(lambda _, given, __: seen.append(given))
    config.dropout, config.hint = 1.0, "mask"
    train_controlnet.loss_for(base, config)(network, x, label)
    assert torch.equal(seen[0][3], HINTS["mask"](x)) and (seen[0][2]["label"] == 10).all()


def test_resumed_it_is_the_same_bit_for_bit_without_the_base_where_it_was(trained, by_class, tmp_path):
    base = tmp_path / "base-of-mine.safetensors"
    call(export.run, "export", by_class, base)
    options = [*TINY, "--base", base, "--train.save-every", 2, "--run.folder", tmp_path, "--train.log-every", 1]
    options += ["--train.keep", 9]
    do_train(*options, "--train.steps", 4, "--run.name", "whole").well()
    do_train(*options, "--train.steps", 2, "--run.name", "half").well()
    base.unlink()
    half = tmp_path / "task3-controlnet" / "half"
    do_train("--resume", half, "--train.steps", 4).well()
    assert same(half, half.parent / "whole") and losses(half) == losses(half.parent / "whole")
    do_train("--init-from", half, "--train.steps", 1, "--run.folder", tmp_path, "--run.name", "third").well()
    begun = load_control(half.parent / "third", weights="model").network.state_dict()
    raw = load_control(half, weights="model").network.state_dict()
    assert sum(not torch.equal(raw[name], begun[name]) for name in raw) > 0
    assert max((raw[name] - begun[name]).abs().max() for name in raw) < 0.05  # a step from there, and not from zero
    assert do_train("--resume", half, "--train.steps", 5, "--hint", "mask").says(1, "hint edges, not mask")
    (half / "base.safetensors").write_bytes((half.parent / "third" / "config.yaml").read_bytes())
    assert do_train("--resume", half, "--train.steps", 5).says(1, "base.safetensors is not a checkpoint")


def test_going_on_from_a_control_of_another_base_is_said(trained, tmp_path):
    """By weights that differ in one number; of the same ones, wherever they lie, nothing is said."""
    options = [*TINY, "--train.steps", 1, "--run.folder", tmp_path, "--init-from", trained]
    same_base, other = tmp_path / "same.safetensors", tmp_path / "other.safetensors"
    shutil.copy(trained / "base.safetensors", same_base)
    state = prefixed("ema", read_tensors(same_base, "ema"))
    name = next(name for name in state if name.endswith("stem.weight"))
    state[name].view(-1)[0] += 0.5
    facts = {name: value for name, value in read_facts(same_base).items() if name in ("step", "config")}
    write_checkpoint(other, state, facts)
    digests = []
    for base in (same_base, other):
        ended = do_train(*options, "--base", base, "--run.name", base.stem).well()
        assert ("warning" in ended.err) == (base == other)
        digests.append(read_facts(newest(tmp_path / "task3-controlnet" / base.stem))["config"]["digest"][:12])
    assert f"was trained on another base (digest {digests[0]}, here {digests[1]})" in ended.err


def test_an_export_samples_as_its_run_does_and_fresh_as_the_base(trained, tmp_path):
    small = tmp_path / "small.safetensors"
    call(export.run, "export", trained, small).well()
    base = load(trained / "base.safetensors")
    run, file = load_control(trained), load_control(small, base)
    assert small.stat().st_size < 0.4 * run.source.stat().st_size
    hints = {"edges": HINTS["edges"](torch.randn(1, 28, 28)[None])[0]}
    images = []
    for control in (run, file):
        model = controlled([control])
        cond = hinted([control], hints, model.told(2, label=4))
        assert cond["hint"].shape == (2, 1, 28, 28)
        images.append(model.sample(cond, guidance=GuidanceConfig(scale=2.0)))
    assert (images[0] - images[1]).abs().max() < 0.05
    model, plain = controlled([run], [0.0]), replace(base, config=controlled([run]).config)
    cond = hinted([run], hints, plain.told(2, label=4))
    assert torch.equal(model.sample(cond), plain.sample(plain.told(2, label=4)))
    run.network.load_state_dict(ControlNet(base.network, 1).state_dict())
    for scale in (1.0, 3.0):
        options = {"guidance": GuidanceConfig(scale=scale)}
        fresh = controlled([run]).sample(cond, **options)
        assert torch.equal(fresh, plain.sample(plain.told(2, label=4), **options))
    assert not torch.equal(fresh, images[0])


def test_a_model_by_caption_is_controlled_with_its_own_words(of_text):
    control = load_control(of_text)
    assert control.network.channels == 3 and control.network.conditions[0].keys == ("text", "text_mask")
    model = controlled([control])
    cond = hinted([control], {"low": torch.zeros(3, 32, 32)}, model.told(2, text="a red three"))
    assert model.sample(cond, steps=1).shape == (2, 3, 32, 32)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    """Pictures of any kind."""
    folder = tmp_path_factory.mktemp("drawn")
    lines = Image.new("L", (28, 28), 0)
    lines.paste(255, (8, 8, 20, 9))
    lines.save(folder / "grey.png")
    lines.convert("RGB").save(folder / "colour.png")
    lines.convert("1").save(folder / "bits.png")
    clear = lines.convert("RGBA")
    clear.save(folder / "opaque.png")
    clear.putalpha(lines)
    clear.save(folder / "clear.png")
    lines.resize((32, 28)).save(folder / "wide.png")
    (folder / "none.png").write_text("no picture")
    return folder


def test_pictures_of_any_mode_are_hints(trained, drawn, here):
    made = []
    for name in ("grey", "colour", "bits", "opaque"):
        options = ["--hint", drawn / f"{name}.png", "--n", 2, "--gif", "false", "--out", name]
        do_sample("--control", trained, *options).well()
        made.append(Path(name, "grid.png").read_bytes())
    assert len(set(made)) == 1
    do_sample("--control", trained, "--hint-from", drawn / "grey.png", "--n", 2, "--gif", "false").well()
    assert Path("samples/grid.png").read_bytes() != made[0]


@pytest.mark.parametrize("size", [(84, 84), (140, 84)], ids=str)
def test_a_picture_of_any_size_has_its_hint_made_of_it_as_an_edited_one_is_brought_to_size(size, trained, drawn, here):
    """Of one that is no square the middle. What a person has drawn must have the size."""
    picture = Image.open(drawn / "grey.png").resize((84, 84))
    whole = Image.new("L", size, 255)
    whole.paste(picture, ((size[0] - 84) // 2, 0))
    whole.save("photo.png")
    pixels = to_uint8(HINTS["edges"](pictures_given(load(trained / "base.safetensors"), ("photo.png",)))[0, 0])
    Image.fromarray(pixels.numpy()).save("edges.png")
    made = []
    for way, name in (("--hint-from", "photo.png"), ("--hint", "edges.png")):
        do_sample("--control", trained, way, name, "--n", 2, "--gif", "false").well()
        made.append(Path("samples/grid.png").read_bytes())
    assert made[0] == made[1]
    wide = f"photo.png is {size[0]}×84 pixels, and the model's images are 28×28"
    assert do_sample("--control", trained, "--hint", "photo.png").says(1, wide)


WRONG = [
    (["--hint", "{drawn}/clear.png"], "clear.png is no hint: it shows no edges: white on black is needed"),
    (["--hint", "{drawn}/wide.png"], "wide.png is 32×28 pixels, and the model's images are 28×28"),
    (["--hint", "{drawn}/none.png"], "none.png cannot be read as an image"),
    (["--hint", "{drawn}/absent.png"], "absent.png: No such file"),
    ([], "--control needs either --hint"),
    (["--hint", "[a.png, b.png]"], "1 controls need as many hints, one for each, and there are 2"),
    (["--hint", "{drawn}/grey.png", "--control-weight", "[1, 2]"], "1 controls need as many hints and weights: 1, 2"),
    (["--hint", "{drawn}/grey.png", "--control-weight", ".inf"], "the weight of a control is inf"),
    (["--hint", "{drawn}/grey.png", "--run", "{text}"], "of images 1×28×28, and {text}"),
    (["--hint", "{drawn}/grey.png", "--run", "{other}"], "controls another model than {other}"),
]


@pytest.mark.parametrize(("options", "message"), WRONG, ids=str)
def test_a_sampling_that_is_wrong_is_one_line(options, message, trained, drawn, by_caption, by_class, here):
    other = by_class / "checkpoints" / "step-00000004.safetensors"
    names = {"drawn": drawn, "text": by_caption, "other": other}
    options = [option.format(**names) for option in options]
    assert do_sample("--control", trained, *options).says(1, message.format(**names))


def test_a_hint_of_another_kind_is_refused(trained, here):
    control = load_control(trained)
    cond = {"label": torch.zeros(2, dtype=torch.long)}
    for hints, message in [
        ({"mask": torch.ones(1, 28, 28)}, "was trained on edges, not on mask"),
        ({}, "is told edges, and no such hint is given"),
        ({"edges": torch.ones(1, 14, 14)}, "the hint of edges is 1×14×14, and .* is told hints 1×28×28"),
    ]:
        with pytest.raises(UserError, match=message):
            hinted([control], hints, cond)
    with pytest.raises(UserError, match="two controls of one kind"):
        controlled([control, control])
    assert keys_for(["edges", "low"]) == ["hint.edges", "hint.low"]
    assert do_sample("--hint", "a.png").says(1, "a hint is for a ControlNet, and none is named")


def test_what_is_wrong_with_a_training_is_said_before_it_begins(trained, by_class, here):
    options = [*TINY, "--run.folder", here, "--train.steps", 1]
    for more, status, message in [
        (["--hint", "depth"], 2, "depth"),
        (["--base", here / "none"], 1, "none"),
        (["--base", by_class, "--data.name", "captioned_digits", "--train.workers", 0], 1, "no label"),
        (["--base", by_class, "--data.size", 32], 1, "is a model of images 1×28×28, and the data's are 1×32×32"),
        (["--base", trained], 1, "lacks what the conditions can say"),
        (["--base", RESULTS / "inpaint.safetensors"], 1, "is told a picture made of each sample (given.kind mask)"),
        (["--base", RESULTS / "sr.safetensors", "--dropout", 0], 1, "(given.kind low), which the training"),
        (["--init-from", by_class], 1, "does not say which base it controls"),
    ]:
        assert do_train(*(options if "--init-from" not in more else []), *more).says(status, message)
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": None}, "does not say which base it controls"),
        ({"digest": 5}, "its digest of the base is none"),
        ({"hint": "depth"}, "this is not a config of stage 3's ControlNet"),
        ({"digest": "0"}, "controls another model than"),
        ({"shape": [1, 32, 32]}, "controls a model of images 1×32×32"),
        ({"hint": "low"}, None),
    ],
    ids=str,
)
def test_files_from_strangers(change, message, trained, tmp_path):
    control, path = load_control(trained), tmp_path / "strange.safetensors"
    config = read_facts(control.source)["config"]
    write_checkpoint(path, prefixed("ema", control.network.state_dict()), {"step": 4, "config": config | change})
    if message is None:
        assert load_control(path, control.base).config.hint == "low"
        return
    with pytest.raises(UserError, match=message):
        load_control(path, control.base)


def test_a_control_whose_base_is_gone_and_one_of_other_sizes(trained, tmp_path):
    control, path = load_control(trained), tmp_path / "alone.safetensors"
    config = read_facts(control.source)["config"] | {"base": "runs/gone"}
    state = control.network.state_dict()
    write_checkpoint(path, prefixed("ema", state), {"config": config})
    with pytest.raises(UserError, match="controls runs/gone, which is not here"):
        load_control(path)
    wrong = state | {"bottom.bias": torch.zeros(3)}
    write_checkpoint(path, prefixed("ema", wrong), {"config": config})
    with pytest.raises(UserError, match="is of another network: bottom.bias is"):
        load_control(path, control.base)
    assert control_config(json.loads(json.dumps(config)))[1] == (1, 28, 28)


def test_reproduce_hands_on_the_base(trained, tmp_path, capsys):
    run = shutil.copytree(trained, tmp_path / "runs" / "task3-controlnet" / "four")
    record = json.loads((run / "record.json").read_text()) | {"command": "task3-train-controlnet --hint edges"}
    (run / "record.json").write_text(json.dumps(record))  # the tests keep the provenance of the first command
    reproduce.reproduce(str(run), str(tmp_path / "again"))
    printed = capsys.readouterr().out
    assert "task3_conditional.train_controlnet" in printed and "--base base.safetensors" in printed
    assert (tmp_path / "again" / "base.safetensors").read_bytes() == (trained / "base.safetensors").read_bytes()
