"""Post-hoc averages against quadrature, against the recursion, and against averages that were kept all along."""

import re

import numpy as np
import pytest
import torch
from safetensors import safe_open
from scipy.integrate import quad
from torch import nn

from shared.errors import UserError
from shared.tests import tiny
from shared.tests.tiny import Run, fit, part
from shared.training.averages import Averages
from shared.training.checkpoint import Checkpoints, read_tensors, write_checkpoint
from shared.training.config import AveragesConfig
from shared.training.posthoc import fitted, kept_by
from shared.training.profiles import Profile, combine, exponent, product, width_of
from shared.training.weights import available, how_good, read_weights, widths

WIDTHS = [0.005, 0.02, 0.05, 0.1, 0.2, 0.288]
PAIR = (0.05, 0.1)


def density(gamma: float, t: float):
    """The profile as a function of time, without this project's code; 0 after t."""
    return lambda tau: (gamma + 1) * (tau / t) ** gamma / t if tau <= t else 0.0


# --- profiles -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", WIDTHS)
def test_the_width_is_the_deviation_of_the_density(width):
    p = density(exponent(width), 1.0)
    total, mean, square = (quad(lambda tau, k=k: tau**k * p(tau), 0, 1, limit=200)[0] for k in (0, 1, 2))
    assert total == pytest.approx(1, rel=1e-9)
    assert (square - mean**2) ** 0.5 == pytest.approx(width, rel=1e-6)
    assert width_of(exponent(width)) == pytest.approx(width, rel=1e-9)


def test_the_papers_exponents():
    """Section 3.1 names γ of 16.97 and 6.94 for widths of 0.05 and 0.10."""
    assert [round(exponent(width), 2) for width in PAIR] == [16.97, 6.94]


@pytest.mark.parametrize("a", [(0.05, 3.0), (0.1, 7.0), (0.28, 5.0)])
@pytest.mark.parametrize("b", [(0.02, 7.0), (0.1, 5.0), (0.2, 4.0)])
def test_the_product_is_the_integral(a, b):
    (ga, ta), (gb, tb) = ((exponent(width), t) for width, t in (a, b))
    p, q = density(ga, ta), density(gb, tb)
    expected = quad(lambda tau: p(tau) * q(tau), 0, min(ta, tb), limit=200)[0]
    assert product(Profile(ga, ta), Profile(gb, tb)) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_factors_leave_the_error_that_they_say(width):
    """The distance by quadrature; and factors moved a little, their sum kept, do not come nearer."""
    times, gammas = np.repeat(np.arange(1, 7) / 6, 2), np.tile([exponent(w) for w in PAIR], 6)
    factors, error = combine(Profile(gammas, times), Profile(exponent(width), 1.0))
    wanted, parts = density(exponent(width), 1.0), [density(g, t) for g, t in zip(gammas, times, strict=True)]

    def distance(c: np.ndarray) -> float:
        def square(tau: float) -> float:
            return (sum(f * p(tau) for f, p in zip(c, parts, strict=True)) - wanted(tau)) ** 2

        pieces = [quad(square, low / 6, (low + 1) / 6, limit=200)[0] for low in range(6)]
        return (sum(pieces) / quad(lambda tau: wanted(tau) ** 2, 0, 1, limit=200)[0]) ** 0.5

    assert factors.sum() == pytest.approx(1)
    assert distance(factors) == pytest.approx(error, rel=1e-4, abs=1e-5)
    if error > 1e-6:
        moved = np.zeros(12)
        moved[[3, 8]] = 1e-3, -1e-3
        assert min(distance(factors + moved), distance(factors - moved)) > error


def test_what_was_kept_is_one_part_of_the_sum_and_no_other():
    """Of many: the rounding of a solution would add a little of each."""
    times, gammas = np.repeat(np.arange(1, 101), 2), np.tile([exponent(w) for w in PAIR], 100)
    factors, error = combine(Profile(gammas, times), Profile(exponent(0.1), 100.0))
    assert error == 0 and factors.tolist() == [0.0] * 199 + [1.0]


# --- kept averages ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [0.05, 0.1, 0.25])
def test_the_recursion_has_the_width(width):
    """Each step's weights are a unit vector: the average then shows how much each of them counts."""
    steps = 300
    model = nn.Linear(steps, 1, bias=False).double()
    averages = Averages(model, AveragesConfig(profiles=(width,)))
    for n in range(1, steps + 1):
        model.weight.data.zero_()[0, n - 1] = 1
        averages.update(model, n)
    counted = averages.network(f"profile-{width}").weight.detach().numpy()[0]
    times = (np.arange(steps) + 0.5) / steps
    mean = counted @ times
    assert counted.sum() == pytest.approx(1)
    assert (counted @ times**2 - mean**2) ** 0.5 == pytest.approx(width, rel=1e-2)
    inner = [quad(density(exponent(width), steps), i, i + 1)[0] for i in (0, 150, 298, 299)]
    assert counted[[0, 150, 298, 299]] == pytest.approx(inner, rel=1e-6, abs=1e-12)


# --- made of snapshots --------------------------------------------------------------------------------------


def walk(folder, every: int, also: tuple[float, ...] = (), steps: int = 480) -> Averages:
    """Weights on a random walk far from zero, with snapshots as a run leaves them; `also` are kept directly."""
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    model = nn.Linear(20, 20)
    model.register_buffer("table", torch.linspace(0, 1, 7))
    model.register_buffer("calls", torch.zeros((), dtype=torch.long))
    kept = Averages(model, AveragesConfig(profiles=PAIR, snapshot_every=every))
    direct = Averages(model, AveragesConfig(profiles=also or (0.2,)))
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    whole = tiny.Whole(model, kept, optimizer)
    for n in range(1, steps + 1):
        with torch.no_grad():
            for p in model.parameters():
                p.add_(torch.randn_like(p) * 0.1)
        model.calls += 1
        kept.update(model, n)
        direct.update(model, n)
        if kept.snapshot_due(n):
            Checkpoints(folder / "averages", keep=None).save_profiles(n, whole, {})
    Checkpoints(folder / "checkpoints").save(steps, [whole], {})
    return direct


def distance(a: dict, b: dict) -> float:
    """Over all parameters; both are state dicts."""
    return torch.cat([(a[name] - b[name]).flatten() for name in ("weight", "bias")]).norm().item()


def test_what_is_made_comes_to_what_was_kept_as_snapshots_get_denser(tmp_path):
    """Twice as many bring the profiles nearer by a factor of 3 to 4, and the weights, too."""
    targets, errors = (0.04, 0.07, 0.15, 0.2), []
    for every in (40, 20, 10):
        direct = walk(tmp_path / str(every), every, targets)
        kept = {width: direct.network(f"profile-{width}").state_dict() for width in targets}
        made = {width: read_weights(tmp_path / str(every), f"post-hoc-{width}")[0] for width in targets}
        errors.append([distance(made[width], kept[width]) for width in targets])
        for row in made.values():
            assert all(row[name].dtype == kept[0.2][name].dtype for name in row)
    apart = distance(kept[0.04], kept[0.07])
    assert max(errors[0]) < 0.2 * apart and max(errors[-1]) < 0.02 * apart
    for sparse, dense in zip(errors, errors[1:], strict=False):
        assert all(d < 0.6 * s for s, d in zip(sparse, dense, strict=True))


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    """A run with 16 snapshots that nobody changes."""
    folder = tmp_path_factory.mktemp("walked") / "run"
    walk(folder, 30)
    return folder


@pytest.mark.parametrize("width", PAIR)
def test_what_was_kept_is_given_back_as_it_is(width, walked):
    for path in [*Checkpoints(walked / "checkpoints").all(), walked / "averages" / "step-00000150.safetensors"]:
        state, there = read_weights(path, f"post-hoc-{width}")
        kept = read_tensors(path, f"profile-{width}")
        assert there == path and state.keys() == kept.keys()
        assert all(torch.equal(state[name], kept[name]) for name in kept)
        assert "relative error of the profile 0.00%" in how_good(path, f"post-hoc-{width}")


def test_what_no_training_changes_is_not_changed_and_counts_are_the_last(walked):
    state, _ = read_weights(walked, "post-hoc-0.137")
    assert torch.equal(state["table"], torch.linspace(0, 1, 7))
    assert state["calls"] == 480


def test_the_sum_is_rounded_once(walked):
    """Bit for bit: of factors above 10, float32 would lose a digit."""
    found = fitted(Checkpoints(walked / "checkpoints").latest(), 0.03)
    assert max(map(abs, found.factors)) > 2
    parts = [read_tensors(kept.path, kept.name)["weight"].numpy() for kept in found.kept]
    total = sum(factor * part.astype(np.float64) for factor, part in zip(found.factors, parts, strict=True))
    state, _ = read_weights(walked, "post-hoc-0.03")
    assert np.array_equal(state["weight"].numpy(), total.astype(np.float32))


def test_what_all_weights_have_in_common_stays(walked, tmp_path):
    """Factors that did not sum to 1 would scale it."""
    for path in [*(walked / "averages").iterdir(), *(walked / "checkpoints").iterdir()]:
        to = tmp_path / path.parent.name / path.name
        to.parent.mkdir(exist_ok=True)
        facts = {"step": 0, "averages": {f"profile-{w}": int(path.stem[5:]) for w in PAIR}}
        values = {f"profile-{w}": read_tensors(path, f"profile-{w}") for w in PAIR}
        moved = {f"{p}.{n}": v.float() + 100 for p, state in values.items() for n, v in state.items()}
        write_checkpoint(to, moved, facts)
    for width in (0.04, 0.16, 0.22):
        moved, plain = (read_weights(source, f"post-hoc-{width}")[0] for source in (tmp_path, walked))
        assert torch.allclose(moved["weight"], plain["weight"] + 100, atol=1e-3)


def test_at_an_earlier_step_only_what_was_there_by_then_counts(walked):
    at = walked / "averages" / "step-00000300.safetensors"
    assert {kept.count for kept in kept_by(at)} == set(range(30, 301, 30))
    early, late = (read_weights(source, "post-hoc-0.08")[0] for source in (at, walked))
    low, high = (read_weights(at, f"post-hoc-{width}")[0] for width in PAIR)
    assert distance(early, low) < distance(late, low) and distance(early, high) < distance(late, high)


def test_a_damaged_snapshot_is_named_and_can_be_removed(tmp_path):
    walk(tmp_path, 30)
    bad = tmp_path / "averages" / "step-00000240.safetensors"
    whole = bad.read_bytes()
    for content in (b"", whole[:100], whole[:-9], whole[:-1] + bytes([whole[-1] ^ 1])):
        bad.write_bytes(content)
        with pytest.raises(UserError, match="the snapshot .*step-00000240.safetensors is damaged: remove it") as error:
            read_weights(tmp_path, "post-hoc-0.12")
        assert "\n" not in str(error.value)
    bad.unlink()
    read_weights(tmp_path, "post-hoc-0.12")


def test_a_snapshot_of_another_network(tmp_path):
    walk(tmp_path, 30)
    at = tmp_path / "averages" / "step-00000240.safetensors"
    facts = {"averages": {f"profile-{w}": 240 for w in PAIR}}
    write_checkpoint(at, {f"profile-{w}.weight": torch.zeros(3) for w in PAIR}, facts)
    with pytest.raises(UserError, match="the snapshot .*step-00000240.safetensors is of another network"):
        read_weights(tmp_path, "post-hoc-0.12")


@pytest.mark.parametrize("name", ["profile-x", "profile-", "profile-0.10", "profile-9.0", "profile-0.0", "profile-nan"])
def test_a_name_that_no_training_gives_is_not_read_as_a_width(name, tmp_path):
    """A stranger's file, with digests that are right."""
    path = tmp_path / "mine.safetensors"
    write_checkpoint(path, {f"{name}.weight": torch.zeros(3)}, {"averages": {name: 3}})
    with pytest.raises(UserError, match="holds no profiles"):
        read_weights(path, "post-hoc-0.1")


def test_a_width_that_cannot_be_made(walked):
    """The range that the message states is the one in which it can."""
    with pytest.raises(UserError, match="post-hoc-0.28 cannot be made of the 32 averages .* widths from .* can$") as e:
        read_weights(walked, "post-hoc-0.28")
    low, high = map(float, re.search(r"from (\S+) to (\S+) can", str(e.value)).groups())
    assert widths(walked)[0] == low < 0.05 < 0.1 < high == widths(walked)[-1]
    for width in (low, high):
        read_weights(walked, f"post-hoc-{width}")
    for width in (low - 0.005, high + 0.005):
        with pytest.raises(UserError, match="cannot be made"):
            fitted(Checkpoints(walked / "checkpoints").latest(), width)
    for width in ("0", "0.0", "0.3", "7"):
        with pytest.raises(UserError, match=f"post-hoc-{float(width):g} is no average: widths lie between"):
            read_weights(walked, f"post-hoc-{width}")


def test_a_copy_without_its_snapshots_says_what_it_can_give(walked, tmp_path):
    path = tmp_path / "mine.safetensors"
    path.write_bytes(Checkpoints(walked / "checkpoints").latest().read_bytes())
    read_weights(path, "post-hoc-0.1")
    with pytest.raises(UserError, match="post-hoc-0.15 cannot be made of the 2 averages up to mine.safetensors"):
        read_weights(path, "post-hoc-0.15")


def test_a_run_without_profiles(tmp_path):
    fit(Run(tmp_path), part())
    with pytest.raises(UserError, match=r"holds no profiles to make others of: train with --averages.profiles"):
        read_weights(tmp_path, "post-hoc-0.1")
    assert widths(tmp_path) == [] and available(tmp_path) == ["model", "ema"]
    assert how_good(tmp_path, "ema") is None
    assert not (tmp_path / "averages").exists()


# --- in a training ------------------------------------------------------------------------------------------

KEPT = {"profiles": PAIR, "snapshot_every": 2, "more": (0.5,)}


def files(folder) -> dict[str, bytes]:
    """Snapshots and the last checkpoint, byte for byte."""
    last = Checkpoints(folder / "checkpoints").latest()
    return {path.name: path.read_bytes() for path in [*(folder / "averages").iterdir(), last]}


@pytest.mark.parametrize("stop", [3, 4])
def test_interrupted_and_resumed_is_uninterrupted(stop, tmp_path):
    """Bit for bit, counts included; a snapshot later than the checkpoint is written again."""
    whole, cut = Run(tmp_path / "whole", {"a": 1}), Run(tmp_path / "cut", {"a": 1})
    fit(whole, part(**KEPT), save_every=stop)
    fit(cut, part(**KEPT), save_every=stop, stop=5)
    later = cut.folder / "averages" / "step-00000004.safetensors"
    assert later.exists()
    if stop == 3:
        later.write_text("of a run that was lost")
    cut.figures.clear()
    fit(cut, part(**KEPT), save_every=stop, resume=Checkpoints(cut.folder / "checkpoints").latest())
    assert files(cut.folder) == files(whole.folder)
    assert sorted(files(whole.folder)) == [f"step-0000000{n}.safetensors" for n in (2, 4, 6)]


def test_no_keep_deletes_snapshots_and_leftovers_of_a_kill_go(tmp_path):
    run = Run(tmp_path)
    (tmp_path / "averages").mkdir()
    (tmp_path / "averages" / ".partial-step-00000009.safetensors").write_text("half")
    fit(run, part(**KEPT), save_every=1, keep=1)
    assert sorted(path.name for path in (tmp_path / "averages").iterdir()) == [
        f"step-0000000{n}.safetensors" for n in (2, 4, 6)
    ]
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1


def test_a_checkpoint_is_never_without_the_snapshots_before_it(tmp_path, monkeypatch):
    """Killed between the two, a resume would start after the snapshot and never write it."""
    order, plain = [], Checkpoints._write
    monkeypatch.setattr(
        Checkpoints, "_write", lambda self, n, *a: order.append((n, self.folder.name)) or plain(self, n, *a)
    )
    fit(Run(tmp_path), part(**KEPT), save_every=2)
    assert order == [(n, name) for n in (2, 4, 6) for name in ("averages", "checkpoints")]


def test_a_broken_network_leaves_no_snapshot(tmp_path):
    def loss(model, x, cond):
        return tiny.loss(model, x, cond) * float("inf" if model.calls > 2 else 1)

    with pytest.raises(UserError, match="not finite"):
        fit(Run(tmp_path), part(loss=loss, **KEPT | {"snapshot_every": 1}), log_every=0)
    assert len(list((tmp_path / "averages").iterdir())) < 4
    for path in (tmp_path / "averages").iterdir():
        assert all(v.isfinite().all() for v in read_tensors(path, "profile-0.1").values() if v.is_floating_point())


def test_all_that_a_run_keeps_can_be_read(tmp_path):
    run = Run(tmp_path)
    averages = fit(run, part(**KEPT, swa_start=2))
    names = ["model", "ema", "ema-0.5", "swa", "profile-0.05", "profile-0.1"]
    assert available(tmp_path) == names
    assert available(tmp_path / "averages" / "step-00000004.safetensors") == ["profile-0.05", "profile-0.1"]
    for name in names[1:]:
        state, _ = read_weights(tmp_path, name)
        assert all(torch.equal(v, averages.network(name).state_dict()[k].float()) for k, v in state.items())
    with pytest.raises(UserError, match="holds no ema-0.9 weights, only model, ema, ema-0.5, swa, profile-0.05, prof"):
        read_weights(tmp_path, "ema-0.9")
    for name in ("optimizer", "ema-0", "profile-0", ""):  # the beginnings of other names
        with pytest.raises(UserError, match=f"holds no {name} weights"):
            read_weights(tmp_path, name)


def test_other_tensors_are_no_weights(tmp_path):
    write_checkpoint(tmp_path / "x", {f"{n}.w": torch.zeros(1) for n in ("modelled", "swap", "ema-0.5")}, {})
    assert available(tmp_path / "x") == ["ema-0.5"]


def test_an_average_that_has_not_begun_is_none(tmp_path):
    fit(Run(tmp_path), part(swa_start=99))
    assert available(tmp_path) == ["model", "ema"]
    with pytest.raises(UserError, match="averages.swa_start was not reached"):
        read_weights(tmp_path, "swa")


def test_a_run_of_defaults_holds_what_it_always_did(tmp_path):
    fit(Run(tmp_path), part())
    with safe_open(Checkpoints(tmp_path / "checkpoints").latest(), framework="pt") as file:
        assert {name.split(".")[0] for name in file.keys()} == {"model", "ema", "optimizer"}
