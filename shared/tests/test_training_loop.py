"""The one loop: accumulation, clipping, number formats, what is not finite, signals, and going on bit for bit."""

import os
import resource
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from shared.blocks.config import UNetConfig
from shared.blocks.unet import UNet
from shared.datasets.images import InMemory
from shared.errors import UserError
from shared.schedulers.config import DiffusionConfig, NoiseConfig
from shared.schedulers.diffusion import Diffusion
from shared.tests import tiny
from shared.tests.faults import failing
from shared.tests.tiny import CONFIG, Run, data, fit, part
from shared.training.checkpoint import Checkpoints, read_facts, read_tensors
from shared.training.config import AveragesConfig, OptimizerConfig
from shared.training.loop import Interrupted, TrainStep, check, check_same, flat, train
from shared.training.part import Part


def everything(run: Run) -> tuple[dict[str, torch.Tensor], dict]:
    """All tensors of a run's newest checkpoint, and its facts."""
    path = Checkpoints(run.folder / "checkpoints").latest()
    names = ("model", "ema", "swa", "optimizer")
    return {f"{n}.{k}": v for n in names for k, v in read_tensors(path, n).items()}, read_facts(path)


def assert_same_end(a: Run, b: Run) -> None:
    """Every tensor and every number of two runs' last checkpoints, bit for bit."""
    (tensors, facts), (others, other_facts) = everything(a), everything(b)
    assert tensors.keys() == others.keys() and len(tensors) > 8
    assert [name for name in tensors if not torch.equal(tensors[name], others[name])] == []
    assert facts == other_facts


# --- accumulation -------------------------------------------------------------------------------------------


def decided(diffusion: Diffusion):
    """A loss in float64 whose t and eps follow from each image alone, in whatever batch it comes."""

    def loss(model, x, cond):
        x = x.double()
        t = 1 + (x.flatten(1).abs().sum(1) * 997).long() % diffusion.schedule.T
        eps = torch.sin(37 * x + torch.arange(x[0].numel()).view(x[0].shape))
        return diffusion.loss(model, x, {}, t=t, eps=eps).mean()

    return loss


@pytest.mark.parametrize("accumulate", [2, 4])
def test_accumulated_gradients_are_those_of_one_large_batch(accumulate, tmp_path):
    diffusion = Diffusion.from_config(NoiseConfig(), DiffusionConfig())
    pixels = torch.randint(0, 256, (50, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images = InMemory(pixels, torch.zeros(50), ["one"])
    network = {"width": 8, "multipliers": (1,), "attention": ("none",), "middle_attention": "none"}
    runs, weights = [], []
    for batch, parts in ((32, 1), (32 // accumulate, accumulate)):
        torch.manual_seed(0)
        model = UNet(1, UNetConfig(**network)).double()
        before = [p.detach().clone() for p in model.parameters()]
        runs.append(Run(tmp_path))
        sgd = OptimizerConfig(name="sgd", momentum=0.0, lr=0.5)
        fit(
            runs[-1],
            Part(model, decided(diffusion), sgd),
            dataset=images,
            batch=batch,
            accumulate=parts,
            clip=0,
            steps=3,
        )
        weights.append([p - b for p, b in zip(model.parameters(), before, strict=True)])
    assert max(w.abs().max() for w in weights[0]) > 1e-3
    for large, small in zip(*weights, strict=True):
        assert torch.allclose(large, small, rtol=1e-9, atol=1e-12)
    for n in (1, 2, 3):
        assert runs[0].figures[n]["gradient_norm"] == pytest.approx(runs[1].figures[n]["gradient_norm"], rel=1e-9)
        assert runs[0].figures[n]["loss"] == pytest.approx(runs[1].figures[n]["loss"], rel=1e-6)


def test_each_micro_batch_draws_noise_of_its_own(tmp_path):
    """Seeding once a step would give every micro-batch of it the same t and eps."""
    drawn = []

    def loss(model, x, cond):
        drawn.append(torch.rand(()).item())
        return tiny.loss(model, x, cond)

    fit(Run(tmp_path), part(loss=loss), accumulate=3, steps=2)
    assert len(set(drawn)) == 6


def test_noise_does_not_depend_on_what_the_caller_draws(tmp_path):
    ends = []
    for name in ("quiet", "noisy"):
        run = Run(tmp_path / name)
        for _ in train(part(), data(), CONFIG, run):
            if name == "noisy":
                torch.rand(100)
        ends.append(run)
    assert_same_end(*ends)


# --- clipping, number formats -------------------------------------------------------------------------------


def slope_of(factor: float):
    """A loss with a gradient of `factor` for every weight of the first layer."""
    return lambda model, x, cond: factor * model.layers[0].weight.sum()


@pytest.mark.parametrize("factor", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("clip", [0.0, 0.5])
def test_clipping(factor, clip, tmp_path):
    """The gradient's norm is reported as it was, and the step is at most as long as the limit."""
    trained = part(loss=slope_of(factor), name="sgd", momentum=0.0, lr=1.0)
    before = trained.model.layers[0].weight.detach().clone()
    run = Run(tmp_path)
    fit(run, trained, clip=clip, steps=1)
    norm = factor * before.numel() ** 0.5
    assert run.figures[1]["gradient_norm"] == pytest.approx(norm, rel=1e-5)
    step = (before - trained.model.layers[0].weight).norm().item()
    assert step == pytest.approx(min(norm, clip) if clip else norm, rel=1e-4)


def test_clipping_is_over_the_whole_accumulated_gradient(tmp_path):
    trained = part(loss=slope_of(1.0), name="sgd", momentum=0.0, lr=1.0)
    before = trained.model.layers[0].weight.detach().clone()
    fit(Run(tmp_path), trained, clip=0.5, steps=1, accumulate=4)
    assert (before - trained.model.layers[0].weight).norm().item() == pytest.approx(0.5, rel=1e-4)


def test_bf16_computes_in_bf16_and_keeps_float32(tmp_path):
    formats = set()

    def loss(model, x, cond):
        hook = model.layers[0].register_forward_hook(lambda m, i, out: formats.add(out.dtype))
        try:
            return tiny.loss(model, x, cond)
        finally:
            hook.remove()

    trained = part(loss=loss)
    run = Run(tmp_path)
    averages = fit(run, trained, precision="bf16")
    assert formats == {torch.bfloat16}
    tensors, _ = everything(run)
    kept = [*trained.model.parameters(), *averages.network("ema").parameters(), *tensors.values()]
    assert {p.dtype for p in kept if p.is_floating_point()} == {torch.float32}
    exact = Run(tmp_path)
    fit(exact, part(), precision="fp32")
    for n, figures in run.figures.items():
        assert figures["loss"] == pytest.approx(exact.figures[n]["loss"], rel=0.05)


def test_two_trainings_in_one_process_may_differ_in_number_format(tmp_path):
    for precision in ("fp32", "bf16", "fp32"):
        fit(Run(tmp_path), part(), precision=precision, steps=1)


# --- not finite ---------------------------------------------------------------------------------------------


def broken_at(step: int, value: float = float("nan")):
    """A loss that is not finite in one step."""
    calls = []

    def loss(model, x, cond):
        calls.append(1)
        return tiny.loss(model, x, cond) * (value if len(calls) == step else 1.0)

    return loss


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(("log_every", "save_every"), [(1, 2), (4, 2), (0, 2), (4, 5)])
def test_a_loss_that_is_not_finite_stops_the_training(value, log_every, save_every, tmp_path):
    """The message names the step at which it happened, not the one at which somebody looked."""
    run = Run(tmp_path)
    with pytest.raises(
        UserError, match="not finite at step 3: training stopped, earlier checkpoints are kept"
    ) as error:
        fit(run, part(loss=broken_at(3, value)), steps=9, log_every=log_every, save_every=save_every)
    assert "\n" not in str(error.value)
    saved = Checkpoints(tmp_path / "checkpoints").all()
    assert [read_facts(path)["step"] for path in saved] == ([2] if save_every == 2 else [])
    for path in saved:
        assert all(v.isfinite().all() for v in read_tensors(path, "model").values())


def test_a_gradient_that_is_not_finite_stops_the_training(tmp_path):
    """sqrt(0) is 0, and its slope infinite."""

    def loss(model, x, cond):
        return tiny.loss(model, x, cond) + (model.layers[0].weight * 0).square().sum().sqrt()

    with pytest.raises(UserError, match="not finite at step 1"):
        fit(Run(tmp_path), part(loss=loss))


def test_a_learning_rate_that_is_too_high_stops_the_training(tmp_path):
    with pytest.raises(UserError, match="not finite at step 2"):
        fit(Run(tmp_path), part(lr=1e30), save_every=1)
    for path in Checkpoints(tmp_path / "checkpoints").all():
        assert all(v.isfinite().all() for v in read_tensors(path, "model").values())


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    """Loss and gradient are, but the step leads out of float32: the loss of the next step would show it too late."""
    with pytest.raises(UserError, match="a weight was not finite after step 1: training stopped"):
        fit(Run(tmp_path), part(loss=slope_of(1e10), name="sgd", lr=1e30), save_every=1, clip=0)
    assert Checkpoints(tmp_path / "checkpoints").all() == []


def test_broken_data_stops_the_training(tmp_path):
    """One bad image among many, which the look at a few beforehand may miss."""

    class Data(Dataset):
        __len__ = lambda self: 64  # noqa: E731

        def __getitem__(self, i):
            return torch.full((1, 4, 4), float("nan") if i == 3 else -0.5), {}

    with pytest.raises(UserError, match="not finite at step"):
        fit(Run(tmp_path), part(), dataset=Data(), steps=16, workers=0)


# --- a disk that is full ------------------------------------------------------------------------------------


def test_a_full_disk_ends_the_training_and_keeps_the_checkpoint(tmp_path):
    run = Run(tmp_path)
    steps = train(part(), data(), replace(CONFIG, save_every=2), run)
    next(steps), next(steps)
    with pytest.raises(OSError, match="No space left"), failing("amid write"):
        next(steps), next(steps)
    assert everything(run)[1]["step"] == 2
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-00000002.safetensors"]


def test_a_real_limit_on_the_file_size(tmp_path):
    run = Run(tmp_path)
    steps = train(part(), data(), replace(CONFIG, save_every=2), run)
    next(steps), next(steps)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(OSError, match="File too large"):
            next(steps)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
            next(steps)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert everything(run)[1]["step"] == 2
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-00000002.safetensors"]


# --- going on -----------------------------------------------------------------------------------------------

KINDS = {
    "plain": ({}, {}),
    "adam": ({"name": "adam"}, {}),
    "sgd": ({"name": "sgd", "momentum": 0.8}, {}),
    "sgd without momentum": ({"name": "sgd", "momentum": 0.0}, {}),
    "weight decay": ({"weight_decay": 0.1}, {}),
    "swa": ({"swa_start": 2, "swa_every": 3}, {}),
    "swa from later on": ({"swa_start": 8, "swa_every": 1}, {}),
    "ema": ({"ema": 0.3}, {}),
    "accumulation": ({}, {"accumulate": 3}),
    "dropout": ({"dropout": 0.5}, {}),
    "warm-up and cosine": ({"warmup": 3, "schedule": "cosine"}, {}),
    "onecycle": ({"schedule": "onecycle"}, {}),
    "milestones": ({"schedule": "multistep", "milestones": (3, 7)}, {}),
    "bf16": ({}, {"precision": "bf16"}),
    "no clipping": ({}, {"clip": 0.0}),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stop", [5, 7])
def test_a_resumed_training_is_the_uninterrupted_one(kind, stop, tmp_path):
    """Left at a step that was saved (5), or two steps later (7), whose work is then done again."""
    options, config = KINDS[kind]
    config = {"steps": 10, "save_every": 5, **config}
    whole, halves = Run(tmp_path / "whole"), Run(tmp_path / "halves")
    fit(whole, part(**options), **config)
    fit(halves, part(**options), stop=stop, **config)
    checkpoint = Checkpoints(halves.folder / "checkpoints").latest()
    assert read_facts(checkpoint)["step"] == 5
    halves.figures = {n: figures for n, figures in halves.figures.items() if n <= 5}  # as RunRecord.rewind does
    torch.manual_seed(99)  # another process: no generator is where it was
    fit(halves, part(**options), resume=checkpoint, **config)
    assert_same_end(whole, halves)
    timeless = [
        {n: {k: v for k, v in f.items() if k not in ("images_per_second", "waiting")} for n, f in run.figures.items()}
        for run in (whole, halves)
    ]
    assert timeless[0] == timeless[1] and list(timeless[0]) == list(range(1, 11))


def test_the_comparison_sees_a_difference(tmp_path):
    runs = [Run(tmp_path / name) for name in ("a", "b")]
    for run, seed in zip(runs, (0, 1), strict=True):
        fit(run, part(), seed=seed)
    with pytest.raises(AssertionError):
        assert_same_end(*runs)


def test_resuming_restores_the_counts_of_the_averages(tmp_path):
    """Without them EMA's warm-up would start again and forget what was averaged."""
    run = Run(tmp_path)
    fit(run, part(swa_start=1, swa_every=2), stop=5, save_every=5)
    assert everything(run)[1]["averages"] == {"ema": 5, "swa": 3}
    resumed = fit(run, part(swa_start=1, swa_every=2), resume=Checkpoints(tmp_path / "checkpoints").latest())
    assert resumed.counts() == {"ema": 6, "swa": 3}


def test_the_model_goes_on_from_its_own_weights_not_the_average(tmp_path):
    run = Run(tmp_path)
    trained = part(ema=0.9)
    fit(run, trained, stop=5, save_every=5)
    left = [p.detach().clone() for p in trained.model.parameters()]
    again = part(ema=0.9)
    steps = train(
        again,
        data(),
        replace(CONFIG, steps=5),
        Run(tmp_path),
        resume=Checkpoints(tmp_path / "checkpoints").latest(),
    )
    assert [step.n for step in steps] == [5]  # nothing is left to do, but what the caller does after the last step
    now = list(again.model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(left, now, strict=True))
    assert not torch.equal(now[0], everything(run)[0]["ema.layers.0.weight"])


def test_more_steps_may_be_asked_for(tmp_path):
    longer, direct = Run(tmp_path / "longer"), Run(tmp_path / "direct")
    fit(longer, part(), steps=4)
    fit(longer, part(), steps=7, resume=Checkpoints(longer.folder / "checkpoints").latest())
    fit(direct, part(), steps=7)
    assert_same_end(longer, direct)


def test_a_config_that_would_train_something_else_is_named():
    saved = {"train": {"steps": 5, "batch": 8}, "optimizer": {"lr": 1e-3}, "own": None, "run": {"name": "a"}}
    check_same(saved, {**saved, "train": {"steps": 9, "batch": 8}, "run": {"name": "b"}}, saved)
    for change, message in (
        ({"train": {"steps": 5, "batch": 16}}, "train.batch 8, not 16"),
        ({"optimizer": {"lr": 2e-3}}, "optimizer.lr 0.001, not 0.002"),
        ({"own": {"class_path": "a.B"}}, "own None, not|own.class_path None, not a.B"),
        ({"more": 1}, "more None, not 1"),
    ):
        with pytest.raises(UserError, match=f"the checkpoint was made with ({message}).*--init-from"):
            check_same(saved, {**saved, **change}, saved)


def test_a_field_that_a_saved_config_lacks_had_its_default():
    """A field of a section, a whole section, a tuple. What was saved counts, not what is the default by now."""
    defaults = {"data": {"flip": False, "crop": "centre"}, "bound": {"share": 0.1}, "averages": {"more": ()}}
    defaults["own"] = None
    saved = {"data": {"crop": "random"}, "averages": {}, "own": {"class_path": "a.B"}, "shape": [1, 8, 8]}
    now = {
        "data": {"flip": False, "crop": "random"},
        "bound": {"share": 0.1},
        "averages": {"more": []},
        "own": {"class_path": "a.B"},
        "shape": [1, 8, 8],
    }
    check_same(saved, now, defaults)
    assert saved["data"] == {"crop": "random"} and defaults["averages"] == {"more": ()}
    for change, message in (
        ({"data": {"flip": True, "crop": "random"}}, "data.flip False, not True"),
        ({"data": {"flip": False, "crop": "centre"}}, "data.crop random, not centre"),
        ({"bound": {"share": 0.2}}, "bound.share 0.1, not 0.2"),
        ({"averages": {"more": [0.9]}}, r"averages.more \[\], not \[0.9\]"),
        ({"own": None}, "own None, not|own.class_path a.B, not None"),
        ({"shape": [1, 9, 9]}, r"shape \[1, 8, 8\], not \[1, 9, 9\]"),
    ):
        with pytest.raises(UserError, match=f"the checkpoint was made with ({message})"):
            check_same(saved, {**now, **change}, defaults)


def test_flat_names():
    assert flat({"a": {"b": {"c": 1}, "d": ()}, "e": {}}) == {"a.b.c": 1, "a.d": (), "e": {}}


# --- signals ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_ends(number, tmp_path):
    """It comes amid step 4, which is finished."""
    calls, seen = [], []
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]

    def loss(model, x, cond):
        calls.append(1)
        if len(calls) == 4:
            os.kill(os.getpid(), number)
        return tiny.loss(model, x, cond)

    stopped, whole = Run(tmp_path / "stopped"), Run(tmp_path / "whole")
    with pytest.raises(Interrupted, match="stopped at step 4") as error:
        for step in train(part(loss=loss), data(), CONFIG, stopped):
            seen.append(step.n)
    assert error.value.number == number and seen == [1, 2, 3, 4]
    assert everything(stopped)[1]["step"] == 4
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
    fit(stopped, part(), resume=Checkpoints(stopped.folder / "checkpoints").latest())
    fit(whole, part())
    assert_same_end(stopped, whole)


def test_a_second_ctrl_c_stops_at_once(tmp_path):
    calls = []

    def loss(model, x, cond):
        calls.append(1)
        if len(calls) == 4:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        return tiny.loss(model, x, cond)

    with pytest.raises(KeyboardInterrupt):
        fit(Run(tmp_path), part(loss=loss))
    assert len(calls) == 4


def test_a_signal_in_the_last_step_ends_as_if_none_had_come(tmp_path):
    def loss(model, x, cond):
        os.kill(os.getpid(), signal.SIGTERM)
        return tiny.loss(model, x, cond)

    fit(Run(tmp_path), part(loss=loss), steps=1)


def test_leaving_the_loop_gives_the_signals_back(tmp_path):
    before = signal.getsignal(signal.SIGINT)
    fit(Run(tmp_path), part(), stop=2)
    assert signal.getsignal(signal.SIGINT) is before


# --- what the caller sees -----------------------------------------------------------------------------------


def test_steps_are_counted_from_one_and_the_last_is_known(tmp_path):
    steps = list(train(part(), data(), replace(CONFIG, steps=3), Run(tmp_path)))
    assert [(step.n, step.last) for step in steps] == [(1, False), (2, False), (3, True)]


def test_every():
    first, third, last = TrainStep(1, False, None), TrainStep(3, False, None), TrainStep(5, True, None)
    assert [step.every(3) for step in (first, third, last)] == [False, True, True]
    assert [step.every(0) for step in (first, third, last)] == [False, False, False]


def test_the_logged_loss_is_the_mean_since_the_last_report(tmp_path):
    each, third = Run(tmp_path), Run(tmp_path)
    fit(each, part(), log_every=1)
    fit(third, part(), log_every=3)
    for n in (3, 6):
        mean = np.mean([each.figures[m]["loss"] for m in (n - 2, n - 1, n)])
        assert third.figures[n]["loss"] == pytest.approx(mean, rel=1e-6)


def test_a_frozen_part_of_the_network_stays(tmp_path):
    trained = part()
    trained.model.layers[0].weight.requires_grad_(False)
    before = trained.model.layers[0].weight.clone()
    fit(Run(tmp_path), trained)
    assert torch.equal(trained.model.layers[0].weight, before)


def test_check_says_what_is_wrong_before_anything_is_begun(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    check(data(), CONFIG)
    with pytest.raises(UserError, match="train.compile needs a C\\+\\+ compiler, and there is no no-such-compiler"):
        check(data(), replace(CONFIG, compile=True))
    with pytest.raises(UserError, match="empty"):
        check(InMemory(torch.zeros(0, 1, 4, 4, dtype=torch.uint8), torch.zeros(0), []), CONFIG)


def test_defaults_of_a_part():
    assert Part(nn.Linear(1, 1), tiny.loss).averages == AveragesConfig()


def test_two_parts_are_trained_in_turn_on_the_same_batches(tmp_path):
    """The second from its start on; its gradients are its own, though the first part's loss comes through it."""
    seen: dict[str, list[Tensor]] = {"first": [], "second": []}
    second = part(lr=0.1)

    def first_loss(model, x, cond):
        seen["first"].append(x)
        return tiny.loss(model, x, cond) + 100 * second.model(x, torch.zeros(len(x)), {}).mean()

    def second_loss(model, x, cond):
        seen["second"].append(x)
        second.figures["seen"] = torch.tensor(float(len(seen["second"])))
        return tiny.loss(model, x, cond)

    second.loss, second.name, second.start = second_loss, "second", 2
    first = part(loss=first_loss)
    run = Run(tmp_path)
    list(train([first, second], data(), replace(CONFIG, steps=5), run))
    assert len(seen["first"]) == 5 and len(seen["second"]) == 3
    assert all(torch.equal(a, b) for a, b in zip(seen["first"][2:], seen["second"], strict=True))
    assert [run.figures[n].get("second_seen") for n in range(1, 6)] == [None, None, 1, 2, 3]
    assert all("second_loss" in run.figures[n] for n in (3, 4, 5)) and "images_per_second" in run.figures[1]

    alone = part(lr=0.1, loss=second_loss)  # the second part as if there were no first: 3 steps with its own seeds
    alone.name, alone.start = "second", 2
    seen["second"].clear()
    idle = part()
    idle.loss = lambda model, x, cond: 0 * sum(p.sum() for p in model.parameters())
    list(train([idle, alone], data(), replace(CONFIG, steps=5), Run(tmp_path / "alone")))
    pairs = zip(second.model.parameters(), alone.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_two_parts_are_resumed_bit_for_bit(tmp_path):
    """Stopped before the second began, and after."""

    def pair():
        other = part(lr=0.1)
        other.name, other.start = "second", 3
        return [part(), other]

    whole = pair()
    list(train(whole, data(), replace(CONFIG, steps=6), Run(tmp_path / "whole")))
    for stop in (2, 3, 4):
        run = Run(tmp_path / str(stop))
        list(train(pair(), data(), replace(CONFIG, steps=stop), run))
        again = pair()
        latest = Checkpoints(run.folder / "checkpoints").latest()
        list(train(again, data(), replace(CONFIG, steps=6), Run(run.folder), resume=latest))
        for one, other in zip(whole, again, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True))


class Slow(Dataset):
    """Samples that take a while to load."""

    def __init__(self, seconds: float):
        self.data, self.seconds = data(), seconds

    def __len__(self):
        return len(self.data)

    def __getitem__(self, i):
        time.sleep(self.seconds)
        return self.data[i]


def test_how_long_a_training_waits_for_data_is_recorded(tmp_path):
    """Of loads in the process itself, the seconds are known; of data in memory next to none are spent."""
    slow, quick = Run(tmp_path / "slow"), Run(tmp_path / "quick")
    fit(slow, part(), dataset=Slow(0.02), steps=3, workers=0)
    fit(quick, part(), steps=3)
    batch = CONFIG.batch * CONFIG.accumulate
    for figures in slow.figures.values():
        step = batch / figures["images_per_second"]
        assert 0.02 * batch <= figures["waiting"] * step < step
    assert all(0 <= figures["waiting"] < slow.figures[n]["waiting"] for n, figures in quick.figures.items())
