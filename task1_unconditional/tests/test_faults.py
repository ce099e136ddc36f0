"""task1-train killed at any instant, or out of room on the disk: nothing is lost; and files that attack a command."""

import json
import re
import shutil
import sys
from pathlib import Path
from unittest import mock

import pytest

from shared.tests.limited import OWN_MOUNTS, limited, no_small_disk
from shared.tests.test_checkpoint import pickled, torch_pickled
from shared.training.checkpoint import Checkpoints, read_facts, read_tensors, write_checkpoint
from task1_unconditional import export
from task1_unconditional.tests import faults
from task1_unconditional.tests.commands import OWN, TINY, Ended, call, do_evaluate, do_sample, do_train

KILLS = 20
MANY = 8.0  # GiB: what the trainings themselves take is not looked at here


@pytest.mark.slow
def test_a_run_killed_at_any_instant_ends_as_if_it_had_not_been(tmp_path):
    """Each resumed as often as it takes; every picture whole, every step once in metrics.jsonl, nothing left over."""
    found = limited(f"{faults.__name__}:kills", str(tmp_path), str(KILLS), gib=MANY, seconds=500)
    assert [point["faults"] for point in found] == [[]] * KILLS
    first = [point["stages"][0].startswith("step") for point in found]
    assert {True, False} == set(first) and len({stage for point in found for stage in point["stages"]}) >= 4
    assert sum(sum(point["killed"]) for point in found) >= KILLS / 2
    for point in found:
        if not point["stages"][0].startswith("step"):
            assert "there is no checkpoint in" in point["message"] or "cannot read" in point["message"], point


@pytest.mark.slow
def test_a_disk_that_fills_up_at_any_stage(tmp_path):
    """One line, what was saved is whole, and once there is room the run ends as if there had always been."""
    (tmp_path / "probe").mkdir()
    if reason := no_small_disk(tmp_path / "probe"):
        pytest.skip(f"no small disk can be mounted here: {reason}")
    found = limited(f"{faults.__name__}:full_disks", str(tmp_path), gib=MANY, seconds=500, before=OWN_MOUNTS)
    *full, enough = found
    assert not enough["full"] and enough["state"] == "finished"
    assert {"nothing", "set-up", "step-00000003"} <= {end["stage"] for end in full}
    for end in full:
        assert end["full"] and end["left"] == [] and end["faults"] == [], end
        assert re.fullmatch(r"cannot read or write( \S+)?: No space left on device", end["message"]), end
        assert end["state"] in (None, "running", "failed"), end  # "running" where no room is left to say more


def test_a_picture_that_a_kill_prevented_is_made_by_the_resume(here):
    """The checkpoint of a step comes before its picture: what a kill between the two leaves is a run without it."""
    run = Path("runs/task1/one")
    options = [*TINY, *"--train.steps 4 --train.save-every 2 --train.sample-every 2 --run.name one".split()]
    assert do_train(*options).status == 0
    pictures = {path.name: path.read_bytes() for path in (run / "samples").iterdir()}
    for step in (4, 2):
        (run / "samples" / f"step-{step:08d}.png").unlink()
        (run / "samples" / "training.gif").unlink()
        if step == 2:
            (run / "checkpoints" / "step-00000004.safetensors").unlink()
        assert do_train("--resume", run).status == 0
        assert {path.name: path.read_bytes() for path in (run / "samples").iterdir()} == pictures


# --- attacks ------------------------------------------------------------------------------------------------


def do_export(*arguments: object) -> Ended:
    """`python -m task1_unconditional.export`."""

    def main() -> None:
        sys.exit(export.command(export.run))

    main.__module__ = export.__name__
    return call(main, *arguments)


@pytest.fixture
def given(trained, here) -> Path:
    """A run's folder as a stranger could give it."""
    return Path(shutil.copytree(trained, here / "given"))


COMMANDS = {
    "sample": lambda run: do_sample("--run", run, "--n", 2, "--out", "out"),
    "evaluate": lambda run: do_evaluate("--run", run, "--n", 2, "--out", "out"),
    "export": lambda run: do_export(run, "out.safetensors"),
    "init": lambda run: do_train(*TINY, "--init-from", run, "--run.folder", "out"),
    "init without a config": lambda run: do_train("--init-from", run, "--run.folder", "out"),
    "resume": lambda run: do_train("--resume", run),
}


@pytest.mark.parametrize("make", [pickled, torch_pickled])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_pickle_in_place_of_a_runs_checkpoint(command, make, given, here):
    path = given / "checkpoints" / "step-00000008.safetensors"
    path.unlink()
    make(path)
    before = {p: p.read_bytes() for p in here.rglob("*") if p.is_file()}
    message = "is not a checkpoint of this project, or is damaged; remove it, and --resume goes on from step-00000004"
    assert COMMANDS[command](given).says(1, path.name, message)
    assert {p: p.read_bytes() for p in here.rglob("*") if p.is_file()} == before  # no "executed", and no "out"


CONFIGS = {
    "a tag": "shape: !!python/object/apply:os.system ['touch executed']",
    "aliases": "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)),
    "nesting": "train: " + "[" * 100_000,
    "no names": "[]",
    "no text": "\0",
}


@pytest.mark.parametrize("attack", CONFIGS)
def test_the_config_of_a_strangers_run(attack, given, here):
    (given / "config.yaml").write_text(CONFIGS[attack])
    ended = do_train("--resume", given)
    assert ended.says(1, "config.yaml") and len(ended.err) < 500
    assert not Path("executed").exists()


@pytest.mark.parametrize("kind", ["network", "data"])
def test_code_that_a_strangers_run_names_is_not_run(kind, given, here, monkeypatch):
    """By its config and by its checkpoint, unless it is trusted."""
    monkeypatch.syspath_prepend(here)
    (here / "trap.py").write_text(f"open('executed', 'w')\n{OWN}")
    path = given / "checkpoints" / "step-00000008.safetensors"
    facts, own = read_facts(path), {"class_path": "trap.Scale", "init_args": {}}
    parts = [(part, read_tensors(path, part)) for part in ("model", "ema", "swa", "optimizer")]
    facts["config"][f"own_{kind}"] = own
    tensors = {f"{part}.{name}": value.clone() for part, state in parts for name, value in state.items()}
    write_checkpoint(path, tensors, facts)
    (given / "config.yaml").write_text(json.dumps({k: v for k, v in facts["config"].items() if k != "shape"}))
    for name, command in COMMANDS.items():
        ended = command(given)
        used = name in ("init without a config", "resume") or (kind == "network" and name in ("sample", "evaluate"))
        assert ended.says(1, "--trust true") if used else ended.status in (0, 1), name
        assert "Traceback" not in ended.err and not Path("executed").exists(), name
    with mock.patch.dict(sys.modules):
        do_train("--resume", given, "--trust", "true")
    assert Path("executed").exists()  # the trap works


FACTS = [
    {"step": "8"},
    {"step": None},
    {"config": []},
    {"config": None},
    {"averages": {}},
    {"averages": {"ema": "8", "swa": 3}},
    {"optimizer": []},
]


@pytest.mark.parametrize("wrong", FACTS, ids=str)
def test_facts_of_another_kind_end_a_resume_in_one_line(wrong, given):
    """With a valid digest: somebody made them so."""
    path = Checkpoints(given / "checkpoints").latest()
    parts = [(part, read_tensors(path, part)) for part in ("model", "ema", "swa", "optimizer")]
    tensors = {f"{part}.{name}": value.clone() for part, state in parts for name, value in state.items()}
    write_checkpoint(path, tensors, read_facts(path) | wrong)
    ended = do_train("--resume", given, "--train.steps", 9)
    assert ended.status == 1 and "Traceback" not in ended.err
    assert ended.err.splitlines()[-1].startswith(f"task1-train: error: {path} is not a checkpoint of this project")


HUGE = {
    "width": ("network", {"width": 2**20}),
    "blocks": ("network", {"blocks": 10**7}),
    "levels": ("schedule", {"T": 10**11}),
    "steps": ("sampling", {"steps": 10**10}),
    "shape": ("shape", [1, 2**20, 2**20]),
}


def test_sizes_that_no_machine_has(trained, here):
    """In the config of a stranger's model: one line before anything of that size is made."""
    path = trained / "checkpoints" / "step-00000008.safetensors"
    tensors = {f"ema.{name}": value.clone() for name, value in read_tensors(path, "ema").items()}
    for name, (section, values) in HUGE.items():
        config = read_facts(path)["config"]
        config[section] = values if section == "shape" else config[section] | values
        write_checkpoint(here / f"{name}.safetensors", tensors, {"step": 8, "config": config})
    found = limited(f"{faults.__name__}:sampled", str(here), *HUGE, gib=2, seconds=60)
    for name in HUGE:
        assert found[name]["status"] == 1 and found[name]["err"].count("\n") == 1, found[name]
