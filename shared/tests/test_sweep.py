"""The search over a training's config: what is refused before Ray starts, what is drawn, what is told of it."""

import importlib.util
import json
import math
import re
import shutil
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
import yaml

from shared.errors import UserError
from shared.experiments.history import Run, find_runs
from shared.experiments.sweep import child as sweep_child
from shared.experiments.sweep import cluster
from shared.experiments.sweep import command as sweep
from shared.experiments.sweep import space as sweep_space
from shared.experiments.sweep.config import Dimension, EarlyStopping, Resources, SweepConfig, read_sweep
from shared.experiments.sweep.outcome import Scale, note_stopped, outcome, table, write_outcome
from shared.experiments.sweep.state import Sweep
from shared.files import write_text
from shared.tests import sweep_stub
from shared.tests.commands import Ended, call, record

GOOD = """
command: task1-train
space: {optimizer.lr: {grid: [0.1, 0.5]}, levels: {grid: [[1, 2], [3]]}}
search: grid
"""
DRAWN = "command: task1-train\nspace: {optimizer.lr: {loguniform: [1e-4, 1e-1]}}\n"
ROOT = Path(__file__).parents[2]
need_optuna = pytest.mark.skipif(importlib.util.find_spec("optuna") is None, reason="needs the extra sweep")
need_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the extra sweep")


@pytest.fixture(autouse=True)
def stub(monkeypatch):
    """The stub is what task1-train means."""
    monkeypatch.setattr(sweep_space, "stage_commands", lambda: sweep_stub.COMMANDS)


def written(folder: Path, text: str, **changes: object) -> Path:
    """A sweep's YAML file with its runs in `folder`."""
    content = yaml.safe_load(text) | {"folder": str(folder / "runs")} | changes
    path = folder / "space.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def made(folder: Path, text: str = GOOD, **changes: object) -> Sweep:
    """A sweep that has begun no trial."""
    config = read_sweep(written(folder, text, **changes))
    points = config.points() if config.search == "grid" else []
    return Sweep.create("s", config, sweep_space.base_of(config), points)


def trained(sweep: Sweep, number: int, losses: list[float], state: str = "finished", **facts: object) -> Path:
    """Give a trial a run."""
    folder = sweep.root / "task1" / sweep.name(sweep.trials[number])
    folder.mkdir(parents=True)
    content = {"task": "task1", "state": state, "step": len(losses), "reason": None, **facts}
    write_text(folder / "record.json", json.dumps(content))
    lines = [json.dumps({"step": n, "loss": loss}) + "\n" for n, loss in enumerate(losses, 1)]
    write_text(folder / "metrics.jsonl", "".join(lines))
    return folder


# --- what is refused ------------------------------------------------------------------------------------------

BAD = {
    "no command": ({"command": ""}, "command"),
    "no such command": ({"command": "task1-trian"}, "no training task1-trian; did you mean task1-train?"),
    "no training": ({"command": "task1-sample"}, "task1-sample trains nothing"),
    "search": ({"search": "bayes"}, "bayes"),
    "unknown key": ({"trails": 3}, "there is no field trails; there are command,"),
    "a value for values": ({"space": {"optimizer.lr": 3}}, "optimizer.lr has no kind: write {choice: [3]}"),
    "no such kind": ({"space": {"optimizer.lr": {"lin": [1, 2]}}}, "has the kind lin; there are grid, choice,"),
    "no list": ({"space": {"optimizer.lr": {"grid": 3}}}, "grid needs a list, such as grid: [3]"),
    "one end": ({"space": {"optimizer.lr": {"uniform": [3]}}}, "uniform needs two numbers"),
    "no names": ({"space": [1]}, "space must hold fields and their values"),
    "empty space": ({"space": {}}, "the space is empty"),
    "field": ({"space": {"optimizer.lrr": {"grid": [1]}}}, "no field optimizer.lrr; did you mean optimizer.lr?"),
    "value": ({"space": {"optimizer.lr": {"grid": [0.1, "much"]}}}, "optimizer.lr = much"),
    "end": ({"search": "random", "trials": 2, "space": {"optimizer.lr": {"uniform": [-1, 1]}}}, "optimizer.lr = -1"),
    "the run's name": ({"space": {"run.name": {"grid": ["a"]}}}, "run.name is not for a sweep"),
    "the name of all runs": ({"overrides": {"run": {"name": "a"}}}, "overrides: run.name is not for a sweep"),
    "the folder of all runs": ({"overrides": {"run.folder": "a"}}, "overrides: run.folder is not for a sweep"),
    "no class": ({"space": {"own_network.init_args.width": {"grid": [1]}}}, "give own_network.class_path, too"),
    "no argument": (
        {"space": {"own_network.class_path": {"grid": ["a.B"]}, "own_network.width": {"grid": [1]}}},
        "arguments of a class are in own_network.init_args",
    ),
    "two kinds": ({"space": {"optimizer.lr": {"grid": [1], "choice": [1]}}}, "grid and choice"),
    "no kind": ({"space": {"optimizer.lr": {}}}, "says nothing"),
    "no values": ({"space": {"optimizer.lr": {"grid": []}}}, "needs values"),
    "a value twice": ({"space": {"optimizer.lr": {"grid": [0.1, 0.1]}}}, "each once"),
    "range": ({"search": "tpe", "trials": 2, "space": {"optimizer.lr": {"uniform": [2, 1]}}}, "from 2.0 to 1.0"),
    "between": (
        {"search": "random", "trials": 2, "space": {"train.steps": {"uniform": [2, 8]}}},
        "train.steps = 4.2",
    ),
    "no text": ({"space": {True: {"grid": [1]}}}, "True in space is not the name of a field"),
    "too many": ({"search": "tpe", "trials": 10**7, "space": {"optimizer.lr": {"choice": [1.0]}}}, "more than 10,000"),
    "log of 0": ({"search": "tpe", "trials": 2, "space": {"optimizer.lr": {"loguniform": [0, 1]}}}, "0 < first"),
    "grid of a range": ({"space": {"optimizer.lr": {"uniform": [0.1, 1]}}}, "has no grid"),
    "tpe of a grid": ({"search": "tpe", "trials": 2}, "is a grid, and search is tpe"),
    "trials 0": ({"search": "random", "trials": 0}, "trials"),
    "trials of a grid": ({"trials": 4}, "leave them out"),
    "no trials": ({"search": "random", "space": {"optimizer.lr": {"choice": [1.0]}}}, "how many trials"),
    "twice": ({"overrides": {"optimizer": {"lr": 1}}}, "optimizer.lr is given twice, in space and in overrides"),
    "override": ({"overrides": {"optimizer": {"rl": 1}}}, "the base config"),
    "no base": ({"config": "nowhere.yaml"}, "nowhere.yaml"),
    "gpus": ({"resources": {"gpu": 1.5}}, "1.5 GPUs"),
    "no cpu": ({"resources": {"cpu": 0}}, "cpu"),
    "factor": ({"early_stopping": {"grace": 2, "factor": 1}}, "factor"),
    "grace": ({"early_stopping": {"grace": 20}}, "grace 20 is more than train.steps"),
    "most": ({"early_stopping": {"grace": 4, "most": 2}}, "most 2 is less"),
    "no lines": ({"overrides": {"train": {"log_every": 0}}}, "log_every is 0"),
    "evaluation": ({"evaluate": "task1-train --n 5"}, "no command task1-train"),
    "evaluation of another": ({"evaluate": "task1-evaluate --run x"}, "--run and --out are given"),
    "evaluation's option": ({"evaluate": "task1-evaluate --nonsense 5"}, "task1-evaluate refuses it: "),
    "evaluation's value": ({"evaluate": "task1-evaluate --n many"}, "task1-evaluate refuses it: "),
    "evaluation's help": ({"evaluate": "task1-evaluate --help"}, "it measures nothing"),
    "evaluation of another stage": ({"evaluate": "task2-evaluate --n 5"}, "it is of another stage"),
    "quotes": ({"evaluate": "task1-evaluate '"}, "no command"),
}


@pytest.mark.parametrize("changes, part", BAD.values(), ids=BAD)
def test_a_mistake_is_one_line_before_anything_starts(tmp_path, changes, part):
    path = written(tmp_path, GOOD, **changes)
    with mock.patch.object(sweep, "need_ray"), mock.patch.object(sweep, "work") as work:
        assert call(sweep.main, "sweep", path).says(1, part)
    assert not work.called and not (tmp_path / "runs").exists()


def test_a_name_that_is_given_twice_is_seen_though_yaml_takes_the_last(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text(GOOD + "seed: 1\nseed: 2\n")
    with pytest.raises(UserError, match="seed is given twice"):
        read_sweep(path)
    path.write_text("command: task1-train\nspace: {log-every: {grid: [1]}, log_every: {grid: [2]}}\nsearch: grid\n")
    with pytest.raises(UserError, match="log_every is given twice"):
        read_sweep(path)


def test_without_ray_it_says_what_to_install(tmp_path):
    with mock.patch("importlib.util.find_spec", lambda name: None):
        ended = call(sweep.main, "sweep", written(tmp_path, GOOD))
    assert ended.says(1, "pip install -e '.[sweep]'")


def test_help_needs_neither_torch_nor_ray():
    slow = "{'torch', 'ray', 'optuna', 'matplotlib'}"
    code = f"import sys; import shared.experiments.sweep.command; print({slow} & set(sys.modules))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert ended.stdout.strip() == "set()", ended.stderr


def test_help_names_every_field():
    ended = call(sweep.main, "sweep", "--help").well()
    names = {field.name for kind in (SweepConfig, Dimension, EarlyStopping, Resources) for field in fields(kind)}
    assert {name for name in names if not re.search(rf"\b{name}\b", ended.out.partition("Fields of the")[2])} == set()
    (example,) = re.findall(r"\S+/widths.yaml", ended.out)
    assert (ROOT / example).is_file() and read_sweep(ROOT / example).count == 10


@pytest.mark.parametrize("stage", range(1, 6))
def test_every_evaluation_is_held_against_its_options(stage, monkeypatch):
    monkeypatch.undo()
    commands, command = sweep_space.stage_commands(), f"task{stage}-evaluate"
    if command not in commands:
        pytest.skip("the package is not installed with its commands")
    config = SweepConfig(f"task{stage}-train", {}, evaluate=f"{command} --n 50 --device cpu")
    assert sweep_space.evaluation(config) == (commands[command], ["--n", "50", "--device", "cpu"])
    config.evaluate = f"{command} --nonsense 5"
    with pytest.raises(UserError, match="refuses it: .*nonsense"):
        sweep_space.evaluation(config)


def test_options_that_contradict_each_other(tmp_path):
    with mock.patch.object(sweep, "need_ray"):
        assert call(sweep.main, "sweep").says(1, "name a YAML file")
        assert call(sweep.main, "sweep", "--resume", tmp_path).says(1, "not the folder of a sweep")
        assert call(sweep.main, "sweep", written(tmp_path, GOOD), "--again").says(1, "--resume")
        assert call(sweep.main, "sweep", "--resume", tmp_path, "--name", "x").says(1, "leave out --name")
        assert call(sweep.main, "sweep", written(tmp_path, GOOD), "--name", "../x").says(1, "name of a folder")


@pytest.mark.parametrize(
    "command", ["task1-train", "task2-train-autoencoder", "task3-train", "task4-distill", "task5-train"]
)
def test_every_stage_can_be_searched(command, monkeypatch):
    monkeypatch.undo()
    if command not in sweep_space.stage_commands():
        pytest.skip("the package is not installed with its commands")
    config = SweepConfig(command, {"optimizer.lr": Dimension(choice=[1e-3])}, trials=1)
    assert sweep_space.check_space(config, sweep_space.base_of(config)).optimizer.lr > 0
    config.space = {"optimizer.lrr": Dimension(choice=[1e-3])}
    with pytest.raises(UserError, match="no field optimizer.lrr; did you mean"):
        sweep_space.check_space(config, sweep_space.base_of(config))


# --- the points -----------------------------------------------------------------------------------------------


def test_a_grid_is_every_combination_once(tmp_path):
    points = read_sweep(written(tmp_path, GOOD)).points()
    assert points == [{"optimizer.lr": lr, "levels": levels} for lr in (0.1, 0.5) for levels in ([1, 2], [3])]


@need_optuna
def test_random_points_are_spread_as_their_kind_says_and_the_same_for_the_same_seed(tmp_path):
    space = {
        "optimizer.lr": {"loguniform": [1e-4, 1e-1]},
        "train.seconds": {"uniform": [2, 4]},
        "train.steps": {"int": [1, 3]},
        "levels": {"choice": [[1], [2, 3]]},
    }
    config = read_sweep(written(tmp_path, DRAWN, space=space, search="random", trials=400))
    points = sweep_space.known_points(config)
    rates = sorted(math.log10(point["optimizer.lr"]) for point in points)
    assert -4 <= rates[0] < -3.9 and -1.1 < rates[-1] <= -1 and abs(rates[200] + 2.5) < 0.2  # linear: about -1.3
    seconds = sorted(point["train.seconds"] for point in points)
    assert 2 <= seconds[0] and seconds[-1] <= 4 and abs(seconds[200] - 3) < 0.15
    assert {point["train.steps"] for point in points} == {1, 2, 3}
    assert [[1], [2, 3]] == sorted({json.dumps(p["levels"]): p["levels"] for p in points}.values())
    assert points == sweep_space.known_points(config)
    config.seed = 1
    assert points != sweep_space.known_points(config)
    for point in points[:5]:
        assert sweep_space.values_at(config, sweep_space.places(config, point)) == point


# --- the folder -----------------------------------------------------------------------------------------------


def test_a_sweep_is_reopened_as_it_was_and_by_one_process(tmp_path):
    sweep = made(tmp_path)
    with pytest.raises(UserError, match="being run by another process"):
        Sweep.reopen(sweep.folder)
    sweep.trials[1].stopped = 4
    sweep.save()
    sweep.release()
    again = Sweep.reopen(sweep.folder)
    assert (again.trials, again.base, again.config.to_dict()) == (sweep.trials, sweep.base, sweep.config.to_dict())
    again.release()
    with pytest.raises(UserError, match="exists: choose another --name, or go on with it by --resume"):
        made(tmp_path)
    assert list(find_runs(tmp_path / "runs")) == []  # a sweep is no run


@pytest.mark.parametrize("file", ["sweep.yaml", "base.yaml"])
def test_a_changed_search_is_not_gone_on_with(tmp_path, file):
    sweep = made(tmp_path)
    sweep.release()
    path = sweep.folder / file
    path.write_text(path.read_text() + "seed: 5\n")
    with pytest.raises(UserError, match="is not as it was"):
        Sweep.reopen(sweep.folder)


@pytest.mark.parametrize(
    "trials", ["[]x", "[1]", '[{"number": 1, "values": {}}]', '[{"number": 0, "values": {"a": 1}}]']
)
def test_a_damaged_list_of_trials_is_said(tmp_path, trials):
    sweep = made(tmp_path)
    sweep.release()
    path = sweep.folder / "trials.json"
    facts = json.loads(path.read_text())
    path.write_text(f'{{"of": "{facts["of"]}", "trials": {trials}}}')
    with pytest.raises(UserError, match="damaged"):
        Sweep.reopen(sweep.folder)


def test_another_file_and_code_of_ones_own_are_not_taken_on(tmp_path):
    sweeping = made(tmp_path)
    sweeping.release()
    with mock.patch.object(sweep, "need_ray"), mock.patch.object(sweep, "work") as work:
        other = written(tmp_path, GOOD, seed=3)
        assert call(sweep.main, "sweep", other, "--resume", sweeping.folder).says(1, "began with another seed")
        with mock.patch.object(sweep, "names_own_code", lambda base, space: True):
            assert call(sweep.main, "sweep", "--resume", sweeping.folder).says(1, "add --trust true")
        assert not work.called
        ended = call(sweep.main, "sweep", written(tmp_path, GOOD), "--resume", sweeping.folder)
        assert ended.status == 130 and "trials.csv" in ended.out and "parallel.png" not in ended.out
        assert work.called


def test_reading_a_sweep_neither_imports_nor_builds_a_class_that_it_names(tmp_path, monkeypatch):
    (tmp_path / "hostile_to_sweeps.py").write_text("raise SystemExit('it was run')\n")
    monkeypatch.syspath_prepend(tmp_path)
    own = {"class_path": "hostile_to_sweeps.Any", "init_args": {"n": 1}}
    path = written(tmp_path, GOOD, overrides={"own_data": own}, space={"own_network": {"grid": [own, None]}})
    config = read_sweep(path)
    assert config.space["own_network"].values == [own, None]
    assert config.overrides == {"own_data.class_path": own["class_path"], "own_data.init_args.n": 1}
    for changes in ({"overrides.own_data": own}, {"space.own_data": {"grid": [own]}}, {"overrides": [own]}):
        with pytest.raises(UserError, match="overrides|space"):
            read_sweep(written(tmp_path, GOOD, **changes))
    assert "hostile_to_sweeps" not in sys.modules


def test_code_of_ones_own_is_seen_wherever_it_is_named():
    assert not sweep_space.names_own_code({"own_network": None, "network": {"width": 8}}, ["network.width"])
    assert sweep_space.names_own_code({"own_network": {"class_path": "a.B"}})
    assert sweep_space.names_own_code({"own_network": None}, ["optimizer.lr", "own_network.class_path"])


def test_a_sweep_knows_its_runs_from_everywhere_and_not_under_another_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "space.yaml").write_text(GOOD)  # its runs are in runs/, from here
    config = read_sweep(tmp_path / "space.yaml")
    sweep = Sweep.create("s[1]", config, sweep_space.base_of(config), config.points())
    trained(sweep, 0, [0.5])
    sweep.release()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "runs").rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = Sweep.reopen(Path("../moved/sweeps/s[1]"))
    again.release()
    assert again.run(again.trials[0]).folder == tmp_path / "moved" / "task1" / "s[1]-0"
    assert [again.ended(trial) for trial in again.trials[:2]] == [True, False]
    for place in ("moved/sweeps/t", "s[1]"):
        shutil.copytree(again.folder, tmp_path / place)
        with pytest.raises(UserError, match=r"name it sweeps/s\[1\] again"):
            Sweep.reopen(tmp_path / place)


@need_ray
@need_optuna
@pytest.mark.parametrize("metric, lines", [("loss", 1), ("lss", 2)])
def test_early_stopping_by_what_is_not_recorded_is_said(tmp_path, metric, lines):
    from shared.experiments.sweep.search import Told

    sweep, said = made(tmp_path, early_stopping={"grace": 1, "metric": metric}), []
    trained(sweep, 0, [0.5])
    ended = SimpleNamespace(config={"name": "s-0"}, last_result={"state": "finished"})
    Told(sweep, None, said.append).on_trial_complete(0, [], ended)
    assert len(said) == lines and (lines == 1 or "recorded no lss; there are loss, step" in said[1])


def test_a_run_with_the_name_of_a_trial_is_in_the_way(tmp_path):
    folder = tmp_path / "runs" / "task1" / "s-0"
    folder.mkdir(parents=True)
    (folder / "record.json").write_text("{}")
    with pytest.raises(UserError, match="has the name of a trial"):
        made(tmp_path)
    folder.rename(folder.with_name("s-wide"))  # which no trial is called
    made(tmp_path).release()


# --- the outcome ----------------------------------------------------------------------------------------------


def test_the_table_tells_apart_how_trials_ended(tmp_path):
    sweep = made(tmp_path)
    trained(sweep, 0, [3.0, 2.0, 1.5])
    trained(sweep, 1, [3.0, 0.5, 0.4], "interrupted")
    trained(sweep, 2, [3.0, 2.0, 1.0])
    sweep.trials[1].stopped = 2
    sweep.trials[3].failed = "the loss | is not finite"
    rows = write_outcome(sweep)
    assert [row.trial.number for row in rows] == [2, 0, 1, 3]  # the lower figure of fewer steps is not the best
    assert [row.figure for row in rows] == [1.0, 1.5, 0.5, None]
    lines = (sweep.folder / "trials.csv").read_text().splitlines()
    assert lines[0] == "trial,optimizer.lr,levels,state,steps,loss"
    assert lines[1] == 's-2,0.5,"[1, 2]",finished,3,1.0'
    assert lines[3] == "s-1,0.1,[3],stopped by ASHA at step 2,2,0.5"
    assert "failed: the loss \\| is not finite" in (sweep.folder / "trials.md").read_text()
    assert (sweep.folder / "parallel.png").read_bytes().startswith(b"\x89PNG")
    sweep.trials[3].failed, sweep.trials[3].stopped = None, 1
    trained(sweep, 3, [0.1], "interrupted")
    assert [row.trial.number for row in outcome(sweep)] == [2, 0, 1, 3]  # nor the best of those that were stopped
    sweep.config.mode = "max"
    assert [row.trial.number for row in outcome(sweep)] == [0, 2, 1, 3]


def test_a_record_says_that_asha_stopped_it_and_a_finished_one_that_it_finished(tmp_path):
    sweep = made(tmp_path)
    runs = [trained(sweep, n, [1.0, 2.0], state) for n, state in enumerate(["interrupted", "running", "finished"])]
    for trial in sweep.trials[:3]:
        trial.stopped = 1
    note_stopped(sweep)
    reason = "stopped by ASHA at step 1, in the sweep s"
    assert [(record(run)["state"], record(run)["reason"]) for run in runs] == [
        ("interrupted", reason),
        ("interrupted", reason),  # killed: it said running, and nobody trained it
        ("finished", None),
    ]
    assert (outcome(sweep)[0].state, outcome(sweep)[0].figure) == ("finished", 2.0)


def test_a_trial_without_an_end_is_not_said_to_have_one(tmp_path):
    sweep = made(tmp_path)
    trained(sweep, 0, [1.0], "running")
    states = {row.trial.number: row.state for row in outcome(sweep)}
    assert states == {0: "unfinished (killed)", 1: "not begun", 2: "not begun", 3: "not begun"}
    assert not any(map(sweep.ended, sweep.trials)) and "not begun" in table(sweep, outcome(sweep), "terminal")


def test_an_axis_places_values_by_their_logarithm_where_they_were_drawn_so():
    log, linear, listed = Scale([1e-4, 1e-2], True), Scale([0, 10], False), Scale(["a", "b"], False, ["a", "b"])
    assert [log(1e-4), log(1e-3), log(1e-2)] == pytest.approx([0, 0.5, 1])
    assert (linear(2.5), listed("a"), listed("b")) == (0.25, 0.0, 1.0)
    assert [float(text) for _, text in log.ticks()] == [1e-4, 1e-3, 1e-2]
    assert [height for height, _ in log.ticks()] == pytest.approx([0, 0.5, 1])


# --- what decides ---------------------------------------------------------------------------------------------


@need_ray
def test_asha_stops_what_is_worse_and_knows_it_again_after_a_kill(tmp_path):
    from shared.experiments.sweep.search import Halving

    stopping = {"grace": 2, "factor": 2}
    sweep = made(tmp_path, early_stopping=stopping)

    def report(halving: Halving, number: int, step: int, loss: float) -> str:
        trial = SimpleNamespace(trial_id=f"t{number}")
        return halving.on_trial_result(None, trial, {"step": step, "rung": loss})

    halving = Halving(sweep, sweep.config.early_stopping, 8)
    for number in (0, 1, 2):
        assert halving.remind(f"t{number}", sweep.trials[number]) == 0
    assert report(halving, 0, 1, 9.0) == report(halving, 0, 2, 1.0) == "CONTINUE"  # the first at a rung goes on
    assert report(halving, 1, 1, 9.0) == "CONTINUE"  # before the grace is over
    assert report(halving, 1, 2, 2.0) == "STOP"
    assert json.loads((sweep.folder / "trials.json").read_text())["trials"][1]["stopped"] == 2
    assert report(halving, 2, 2, 0.5) == "CONTINUE"
    assert report(halving, 0, 8, 0.1) == "CONTINUE"
    assert report(halving, 2, 8, 99.0) == "CONTINUE"  # at its end it has finished, however badly

    trained(sweep, 0, [9.0, 1.0], "running")
    after = Halving(sweep, sweep.config.early_stopping, 8)
    assert after.remind("t0", sweep.trials[0]) == 2 and after.remind("t3", sweep.trials[3]) == 0
    assert report(after, 3, 2, 2.0) == "STOP"  # worse than what trial 0 had before the kill


@need_ray
def test_a_resumed_search_first_takes_what_was_not_finished_then_what_is_new(tmp_path):
    from ray.tune.search import Searcher

    from shared.experiments.sweep.search import Points

    sweep = made(tmp_path, DRAWN, search="tpe", trials=4)
    first = Points(sweep, None)
    names = [first.suggest(f"a{n}")["name"] for n in range(3)]
    trained(sweep, 1, [0.5])
    values = [trial.values for trial in sweep.trials]
    sweep.release()

    again = Sweep.reopen(sweep.folder)
    assert [trial.values for trial in again.trials] == values  # on the disk before they were begun
    second = Points(again, None)
    known = [trial.value for trial in second.tpe._ot_study.get_trials() if trial.state.name == "COMPLETE"]
    assert known == [0.5]
    assert [second.suggest(f"b{n}")["name"] for n in range(3)] == [names[0], names[2], "s-3"]
    assert [trial.values for trial in again.trials[:3]] == values
    told = [trial.params for trial in second.tpe._ot_study.get_trials() if trial.state.name == "RUNNING"]
    assert told == [values[0], values[2], again.trials[3].values]  # what Optuna learns from is what was tried
    assert second.suggest("b3") == Searcher.FINISHED
    on_disk = yaml.safe_load((again.folder / "configs" / "s-2.yaml").read_text())
    assert on_disk["optimizer"]["lr"] == values[2]["optimizer.lr"]


# --- Ray itself -----------------------------------------------------------------------------------------------


def swept(*arguments: object) -> Ended:
    """The command in a process of its own: there, it is the first to import Ray."""
    command = [sys.executable, "-m", "shared.tests.sweep_stub", "sweep", *map(str, arguments)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    return Ended(ended.returncode, ended.stdout, ended.stderr)


@need_ray
def test_trials_run_side_by_side_and_each_ends_as_one_row(tmp_path):
    space = {"optimizer.lr": {"grid": [0.5]}, "fault": {"grid": ["", "early"]}}
    ended = swept(written(tmp_path, GOOD, space=space), "--name", "s").well()
    folder = tmp_path / "runs" / "sweeps" / "s"
    lines = (folder / "trials.csv").read_text().splitlines()
    assert lines[1:] == ["s-0,0.5,'',finished,8,0.625", "s-1,0.5,early,failed: it cannot be built,,"]
    assert "s-0" in ended.out and "(2 of 2)" in ended.err and ended.err.count("\n") == 5, ended.err
    (run,) = find_runs(tmp_path / "runs")
    assert (run.name, run.state, run.task, len(run.metrics)) == ("s-0", "finished", "task1", 8)
    assert not (folder / "ray").exists()  # nothing that was pickled stays
    again = call(sweep.main, "sweep", "--resume", folder).well()  # there is nothing to do, and Ray is not started
    assert again.out == ended.out and again.err == ""


@need_ray
def test_no_cluster_is_waited_for(tmp_path):
    begun = time.monotonic()
    for address, part in (
        ("127.0.0.1:1", "no Ray cluster answers"),
        ("nowhere", "host:port"),
        ("ray://x:1", "host:port"),
    ):
        assert call(sweep.main, "sweep", written(tmp_path, GOOD), "--address", address).status == 1, address
        ended = call(sweep.main, "sweep", written(tmp_path, GOOD), "--address", address)
        assert part in ended.err.splitlines()[-1]
    assert time.monotonic() - begun < 20 and not list((tmp_path / "runs" / "sweeps").iterdir())


def test_what_no_machine_has_is_refused(tmp_path):
    sweeping = made(tmp_path, resources={"cpu": 1, "gpu": 0.5})
    machines = [{"Alive": True, "Resources": {"CPU": 2.0}}, {"Alive": False, "Resources": {"CPU": 2.0, "GPU": 8.0}}]
    ray = SimpleNamespace(nodes=lambda: machines)
    with mock.patch.dict(sys.modules, ray=ray):
        with pytest.raises(UserError, match="needs 1 CPU and 0.5 GPU, and no machine has that"):
            cluster.check_fits(sweeping)
        machines[1]["Alive"] = True
        cluster.check_fits(sweeping)


def test_a_run_is_read_whatever_its_stage(tmp_path):
    sweep = made(tmp_path)
    folder = trained(sweep, 0, [1.0])
    folder.parent.rename(folder.parent.with_name("task2-autoencoder"))
    assert isinstance(sweep.run(sweep.trials[0]), Run) and sweep.figure(sweep.trials[0]) == (1, 1.0)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells a process that its parent has ended")
def test_a_training_ends_with_what_began_it_however_that_ends():
    child = [sys.executable, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(60)"]
    code = (
        "import os, subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, '-I', '-S', {sweep_child.__file__!r}, str(os.getpid()), *{child!r}])\n"
        "time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    process = Path("/proc") / parent.stdout.readline().strip()
    assert process.exists()
    parent.kill()
    parent.wait()
    until = time.monotonic() + 5
    while process.exists() and (process / "stat").read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < until, "it lives on"
        time.sleep(0.02)
    orphan = [sys.executable, sweep_child.__file__, "1", *child]  # begun by one that has ended since
    assert subprocess.run(orphan, capture_output=True, timeout=5).returncode == 128 + 15
