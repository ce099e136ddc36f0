"""Checkpoints hold everything, survive everything, and are told from what is none."""

import errno
import json
import os
import pickle
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from shared.errors import UserError
from shared.files import partial
from shared.tests import faults, tiny
from shared.tests.faults import State, failing, restored
from shared.training.averages import Averages
from shared.training.checkpoint import (
    Checkpoints,
    digest,
    load_into,
    read_facts,
    read_tensors,
    restore,
    write_checkpoint,
)
from shared.training.config import OptimizerConfig
from shared.training.optim import build_optimizer
from shared.training.state import prefixed


@pytest.fixture
def checkpoints(tmp_path) -> Checkpoints:
    """Of a run that has none yet."""
    return Checkpoints(tmp_path / "checkpoints")


# --- killed -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kills(tmp_path_factory) -> dict:
    """What is left after a kill at each operation. In a process of its own, as pytest's is none to be forked."""
    command = [sys.executable, "-m", "shared.tests.faults", str(tmp_path_factory.mktemp("kills"))]
    root = Path(faults.__file__).parents[2]
    return json.loads(subprocess.run(command, cwd=root, capture_output=True, check=True, text=True).stdout)


def test_a_kill_at_any_file_operation_leaves_a_whole_checkpoint(kills):
    *points, through = kills["points"]
    assert not through["killed"] and through["newest"] == "new"
    for point in points:
        renamed = "after replace" in point["events"]
        expected = {
            "killed": True,
            "newest": "new" if renamed else "old",
            "all whole": True,
            "next save": True,
        }
        assert {name: point[name] for name in expected} == expected, point["events"][-1]


def test_every_operation_was_killed_before_and_after(kills):
    """Each run got one event further than the last, and no operation escaped: the interpreter reports no other."""
    events = kills["points"][-1]["events"]
    assert [point["events"] for point in kills["points"][:-1]] == [events[: k + 1] for k in range(len(events))]
    count = {name: events.count(f"before {name}") for name in ("create", "open", "replace", "unlink")}
    audit = {name: kills["audit"].count(name) for name in ("open", "os.rename", "os.remove")}
    assert audit == {
        "open": count["create"] + count["open"],
        "os.rename": count["replace"],
        "os.remove": count["unlink"],
    }
    assert count == {"create": 1, "open": 2, "replace": 1, "unlink": 2}


def test_the_disk_has_the_file_before_its_name_and_the_name_before_the_old_file_goes(kills):
    """Otherwise a power failure could leave a name without content, or none at all."""
    events = [
        e for e in kills["points"][-1]["events"] if e in ("after write", "after fsync", "after replace", "after unlink")
    ]
    leftover, *rest = events
    assert leftover == "after unlink"
    assert rest == ["after write", "after fsync", "after replace", "after fsync", "after unlink"]


def test_a_kill_by_the_kernel_amid_the_content_leaves_the_old_checkpoint(kills):
    expected = {"killed": True, "newest": "old", "all whole": True, "next save": True}
    assert kills["limits"] == [expected] * 4


# --- failing ------------------------------------------------------------------------------------------------

BEFORE_THE_NAME = ("create", "write", "close", "open", "fsync", "replace")


@pytest.mark.parametrize("event", ["amid write", *(f"before {name}" for name in BEFORE_THE_NAME)])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_save_that_fails_leaves_what_was_there_and_no_more(event, number, checkpoints):
    old = State(1)
    old.save(checkpoints)
    with pytest.raises(OSError) as error, failing(event, number):
        State(2).save(checkpoints)
    assert error.value.errno == number
    assert [path.name for path in checkpoints.folder.iterdir()] == ["step-00000001.safetensors"]
    assert restored(checkpoints.latest()).equals(old)
    new = State(2)
    new.save(checkpoints)
    assert restored(checkpoints.latest()).equals(new)


@pytest.mark.parametrize("user", ["nobody", "anyone"])
def test_a_folder_that_cannot_be_written(user, checkpoints):
    """For root there is no such folder: as nobody, and for anyone with a file in the folder's place."""
    if user == "anyone":
        checkpoints.folder.parent.mkdir(exist_ok=True)
        checkpoints.folder.write_text("a file")
        with pytest.raises(OSError, match="checkpoints"):
            State(1).save(checkpoints)
        assert checkpoints.folder.read_text() == "a file"
        return
    State(1).save(checkpoints)
    checkpoints.folder.chmod(0o555)
    me = os.geteuid()
    try:
        if me == 0:
            os.seteuid(65534)
        with pytest.raises(PermissionError, match="checkpoints"):
            State(2).save(checkpoints)
    finally:
        os.seteuid(me)
        checkpoints.folder.chmod(0o755)
    assert restored(checkpoints.latest()).equals(State(1))


# --- round trips --------------------------------------------------------------------------------------------


def test_a_checkpoint_holds_everything(checkpoints):
    state = State(3)
    state.save(checkpoints)
    again = restored(checkpoints.latest())
    assert again.equals(state) and again.n == 3
    assert again.averages.counts() == {"ema": 3, "swa": 3}
    assert not again.equals(State(2))


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_optimizer_goes_on_where_it_was(name, momentum, checkpoints):
    config = OptimizerConfig(name=name, momentum=momentum, weight_decay=0.1)

    def trained(model, optimizer, steps):
        for i in range(steps):
            torch.manual_seed(i)
            tiny.loss(model, torch.randn(4, 1, 4, 4), {}).backward()
            optimizer.step()
            optimizer.zero_grad()

    part = tiny.part()
    averages, optimizer = Averages(part.model, part.averages), build_optimizer(part.model, config)
    trained(part.model, optimizer, 3)
    path = checkpoints.save(3, [tiny.Whole(part.model, averages, optimizer)], {})
    trained(part.model, optimizer, 2)

    other = tiny.Net()
    resumed = build_optimizer(other, config)
    assert restore(path, [tiny.Whole(other, Averages(other, part.averages), resumed)]) == 3
    trained(other, resumed, 2)
    assert all(torch.equal(a, b) for a, b in zip(part.model.parameters(), other.parameters(), strict=True))
    groups = [{k: v for k, v in o.param_groups[0].items() if k != "params"} for o in (optimizer, resumed)]
    assert groups[0] == groups[1]


class Unreached(nn.Module):
    """A network with a parameter that no gradient reaches before `open` is set."""

    def __init__(self):
        super().__init__()
        self.used, self.idle, self.open = nn.Linear(2, 2), nn.Linear(2, 2), False

    def forward(self, x):
        return self.idle(self.used(x)) if self.open else self.used(x)


def test_a_parameter_that_no_gradient_has_reached(checkpoints):
    """It has no state in the optimizer, and still counts from zero when its first gradient comes after a resume."""

    def steps(model, optimizer, n):
        for i in range(n):
            torch.manual_seed(i)
            model(torch.randn(3, 2)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()

    config = OptimizerConfig(weight_decay=0.1)
    model = Unreached()
    averages, optimizer = Averages(model, tiny.part().averages), build_optimizer(model, config)
    steps(model, optimizer, 3)
    path = checkpoints.save(3, [tiny.Whole(model, averages, optimizer)], {})
    other = Unreached()
    resumed = build_optimizer(other, config)
    restore(path, [tiny.Whole(other, Averages(other, tiny.part().averages), resumed)])
    assert len(resumed.state) == len(optimizer.state) == 2
    for network in (model, other):
        network.open = True
    steps(model, optimizer, 2)
    steps(other, resumed, 2)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    assert resumed.state[other.idle.weight]["step"] == 2 and resumed.state[other.used.weight]["step"] == 5


def test_averages_and_model_are_kept_apart(checkpoints):
    path = State(3).save(checkpoints)
    model, ema, swa = (read_tensors(path, name) for name in ("model", "ema", "swa"))
    assert model.keys() == ema.keys() == swa.keys() == tiny.Net().state_dict().keys()
    name = "layers.0.weight"
    assert len({tuple(state[name].flatten().tolist()) for state in (model, ema, swa)}) == 3
    assert torch.equal(model[name], State(3).model.state_dict()[name])


def test_only_the_newest_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for n in (1, 2, 3, 4):
        State(n).save(checkpoints)
        assert restored(checkpoints.latest()).n == n
    assert [path.name for path in checkpoints.all()] == [
        "step-00000003.safetensors",
        "step-00000004.safetensors",
    ]


def test_other_files_in_the_folder_are_left_alone(checkpoints):
    checkpoints.folder.mkdir()
    mine = ["notes.txt", "step-00000001 of yesterday.safetensors", "step-best.safetensors"]
    for name in mine:
        (checkpoints.folder / name).write_text("mine")
    partial(checkpoints.folder / "step-00000007.safetensors").write_text("a kill's")
    for n in (1, 2, 3):
        State(n).save(checkpoints)
    assert [path.name for path in checkpoints.all()] == ["step-00000002.safetensors", "step-00000003.safetensors"]
    assert sorted(set(checkpoints.folder.iterdir()) - set(checkpoints.all())) == [checkpoints.folder / n for n in mine]


def test_the_newest_is_that_of_the_largest_step(checkpoints):
    """Also where the name grows by a digit."""
    checkpoints.folder.mkdir()
    for n in (99_999_999, 100_000_000, 2):
        (checkpoints.folder / f"step-{n:08d}.safetensors").write_text("")
    assert [int(path.stem[5:]) for path in checkpoints.all()] == [2, 99_999_999, 100_000_000]


def test_whoever_may_read_the_folder_may_read_the_file(checkpoints):
    """A temporary file is often its maker's alone, and the name it gets in the end does not change that."""
    before = os.umask(0o022)
    try:
        assert stat.S_IMODE(State(1).save(checkpoints).stat().st_mode) == 0o644
    finally:
        os.umask(before)


def test_the_same_state_makes_the_same_file(checkpoints):
    """Byte for byte, so that two runs can be compared by their files."""
    contents = {State(3).save(checkpoints).read_bytes() for _ in range(6)}
    assert len(contents) == 1


def test_the_state_is_copied():
    """A checkpoint is not changed by the training that goes on, nor refused for weights that share memory."""
    model = nn.Linear(2, 2)
    state = prefixed("model", model.state_dict() | {"tied": model.weight})
    model.weight.data.zero_()
    assert state["model.weight"].abs().sum() > 0
    assert state["model.weight"].data_ptr() != state["model.tied"].data_ptr()


# --- not a checkpoint ---------------------------------------------------------------------------------------


class Malicious:
    """Unpickling it leaves a trace."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


def text(path: Path) -> None:
    path.write_text("step 3\n" * 50)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps(Malicious(path.with_name("executed"))))


def torch_pickled(path: Path) -> None:
    torch.save({"model": Malicious(path.with_name("executed"))}, path)


def truncated(path: Path) -> None:
    content = State(1).save(Checkpoints(path.parent / "whole")).read_bytes()
    path.write_bytes(content[: len(content) // 2])


def truncated_header(path: Path) -> None:
    content = State(1).save(Checkpoints(path.parent / "whole")).read_bytes()
    path.write_bytes(content[:20])


def foreign(path: Path) -> None:
    save_file({"weight": torch.zeros(3)}, path)


def foreign_header(path: Path) -> None:
    save_file({"weight": torch.zeros(3)}, path, metadata={"checkpoint": '"words"'})


def no_json(path: Path) -> None:
    save_file({"weight": torch.zeros(3)}, path, metadata={"checkpoint": "{step: 3"})


def folder(path: Path) -> None:
    path.mkdir()


NO_CHECKPOINTS = [
    text,
    empty,
    pickled,
    torch_pickled,
    truncated,
    truncated_header,
    foreign,
    foreign_header,
    no_json,
    folder,
]


@pytest.mark.parametrize("make", NO_CHECKPOINTS)
def test_a_file_that_is_no_checkpoint_is_named_in_one_line(make, tmp_path):
    path = tmp_path / "step-00000003.safetensors"
    make(path)
    for read in (read_facts, lambda p: read_tensors(p, "model"), restored):
        with pytest.raises(UserError, match="step-00000003.safetensors is not a checkpoint of this project") as error:
            read(path)
        assert "\n" not in str(error.value)
    assert not (tmp_path / "executed").exists()


def test_the_trap_works(tmp_path):
    """What the test above shows to stay unexecuted would be executed by unpickling."""
    pickled(tmp_path / "x")
    pickle.loads((tmp_path / "x").read_bytes())
    assert (tmp_path / "executed").exists()


def test_a_missing_file(tmp_path):
    with pytest.raises(UserError, match="there is no file .*gone.safetensors"):
        read_facts(tmp_path / "gone.safetensors")


def test_a_folder_without_checkpoints(checkpoints):
    with pytest.raises(UserError, match="there is no checkpoint in .*checkpoints"):
        checkpoints.latest()


@pytest.mark.parametrize("version", [1, 3, "2", None, [2] * 999])
def test_another_format(version, tmp_path):
    path = tmp_path / "other.safetensors"
    write_checkpoint(path, {}, {"format": version})
    for read in (read_facts, lambda p: read_tensors(p, "model"), restored):
        with pytest.raises(UserError, match="has checkpoint format .{1,9}; this version reads 2: use the version"):
            read(path)


def test_a_model_for_sampling_cannot_be_resumed(tmp_path):
    path = tmp_path / "model.safetensors"
    write_checkpoint(path, prefixed("ema", tiny.Net().state_dict()), {"config": {}})
    with pytest.raises(UserError, match="model for sampling only.*--init-from"):
        restored(path)


FACTS = [
    {"step": "3"},
    {"step": 2.5},
    {"step": True},
    {"step": -1},
    {"step": 2**63},
    {"step": float("nan")},
    {"step": None},
    {"config": []},
    {"config": "words"},
    {"averages": []},
    {"averages": {}},
    {"averages": {"ema": 1}},
    {"averages": {"ema": 1, "swa": "1"}},
    {"averages": {"ema": 1, "swa": -1}},
    {"optimizer": 3},
    {"digests": []},
]


def content(path: Path) -> tuple[dict[str, torch.Tensor], dict]:
    """All tensors and facts of a file, read without this project's code."""
    with safe_open(path, framework="pt") as file:
        facts = json.loads(file.metadata()["checkpoint"])
        return {name: file.get_tensor(name).clone() for name in file.keys()}, facts


@pytest.mark.parametrize("wrong", [*FACTS, *("digest", "digests", "averages", "config", "step")], ids=str)
def test_facts_of_another_kind_or_missing(wrong, checkpoints):
    """Valid JSON with a valid digest: no damage, but no checkpoint that was written here."""
    source = State(3).save(checkpoints)
    tensors, facts = content(source)
    facts = {k: v for k, v in facts.items() if k != wrong} | (wrong if isinstance(wrong, dict) else {})
    if wrong != "digest":
        facts.pop("digest")
        facts["digest"] = digest(json.dumps(facts))
    save_file(tensors, source, metadata={"checkpoint": json.dumps(facts)})
    with pytest.raises(UserError, match="is not a checkpoint of this project, or is damaged"):
        restored(source)


def test_an_unusable_checkpoint_says_which_one_is_left(tmp_path):
    """The newest that is older; the message holds what a person does next."""
    checkpoints = Checkpoints(tmp_path, keep=3)
    first, second, third = (State(n).save(checkpoints) for n in (1, 2, 3))
    for path in (first, second, third):
        path.write_text("no checkpoint")
    expected = [
        "there is no earlier one beside it: give another, or train again",
        f"remove it, and --resume goes on from {first.name}",
        f"remove it, and --resume goes on from {second.name}",
    ]
    for path, words in zip((first, second, third), expected, strict=True):
        with pytest.raises(UserError) as error:
            restored(path)
        assert str(error.value) == f"{path} is not a checkpoint of this project, or is damaged; {words}"


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (OptimizerConfig(name="sgd"), "exp_avg is .* there and missing here"),
        (OptimizerConfig(betas=(0.5, 0.6)), r"betas is \[0.9, 0.99\] there and \[0.5, 0.6\] here"),
        (OptimizerConfig(weight_decay=0.3), "weight_decay is 0.0 there and 0.3 here"),
    ],
)
def test_a_checkpoint_of_another_optimizer(other, message, checkpoints):
    path, state = State(2).save(checkpoints), State(0)
    with pytest.raises(UserError, match=f"of another optimizer: .*{message}"):
        restore(path, [tiny.Whole(state.model, state.averages, build_optimizer(state.model, other))])


def test_moments_of_another_shape(checkpoints):
    """An optimizer takes them unseen, and its step would then read beyond their end."""
    path, name = State(2).save(checkpoints), "optimizer.state.layers.0.weight.exp_avg"
    write_checkpoint(path, content(path)[0] | {name: torch.zeros(2)}, read_facts(path))
    with pytest.raises(UserError, match=r"of another optimizer: .*exp_avg is \(2,\) there and \(8, 17\) here"):
        restored(path)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (tiny.Net(width=9), r"layers.0.bias is \(8,\) there and \(9,\) here"),
        (nn.Linear(2, 2), "bias is missing there"),
        (nn.Sequential(), "is .* there and missing here"),
    ],
)
def test_a_checkpoint_of_another_network(other, message, checkpoints):
    path = State(1).save(checkpoints)
    with pytest.raises(UserError, match=f"of another network: .*{message}") as error:
        load_into(other, read_tensors(path, "model"), path)
    assert "\n" not in str(error.value)
