"""`runs`: what it lists, shows and compares; and that a damaged run, or one made to attack, hides no other."""

import json
import os
import random
import re
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
import yaml

from shared.experiments import provenance as provenance_module
from shared.experiments import run as run_module
from shared.experiments.config import RunConfig
from shared.experiments.history import STATES
from shared.experiments.run import RunRecord
from shared.tests import faults
from shared.tests.made_runs import call, change, evaluate, make, pack

FILES = ("record.json", "config.yaml", "metrics.jsonl", "evaluations/new/evaluation.json", "source.zip")


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """The folder `runs` of the current folder, empty."""
    monkeypatch.chdir(tmp_path)
    return Path("runs")


def rows(text: str) -> list[list[str]]:
    """The rows of a terminal's tables, without headers."""
    return [re.split(r"\s{2,}", line) for line in text.splitlines() if line.strip("- ")]


def names(*options: object) -> list[str]:
    """The runs that a list has."""
    ended = call(*options, "--format", "csv")
    assert ended.status == 0 and ended.err == "", ended
    return [line.split(",")[1] for line in ended.out.splitlines()[1:]] if "," in ended.out else []


# The list


def test_a_list_names_the_main_figure_of_each(root):
    evaluate(make(root, "one"), "2026-01-01-000000", 4.25)
    make(root, "two", started=1.8e9, state="failed")
    ended = call()
    assert ended.err == "" and ended.status == 0
    one, two = rows(ended.out)[1:]
    assert one[:3] == ["task1", "one", "finished"] and re.match(r"2023-11-1\d \d\d:\d\d", one[3])
    assert one[4:] == ["20", "192,000", "4 min 35 s", "judge distance / floor", "4.2"]
    assert two[:3] == ["task1", "two", "failed"] and two[-2:] == ["loss", "0.0500"]
    assert call("list").out == ended.out


def test_the_newest_is_last_and_stages_are_together(root):
    for name, task, started in (("b", "task1", 3), ("c", "task2", 1), ("a", "task1", 2)):
        make(root, name, task, started=started)
    assert names() == ["a", "b", "c"] and names("--stage", "task2") == ["c"]


def test_a_spreadsheet_gets_numbers_and_not_words(root):
    evaluate(make(root, "one"), "2026-01-01-000000", 4.25)
    header, line = call("--format", "csv").out.splitlines()
    assert header == "stage,name,state,started,steps,images,wall-clock,main figure,value"
    assert line.split(",")[4:] == ["20", "192000", "275.0", "judge_distance_over_floor", "4.25"]
    assert call("--format", "markdown").out.startswith("| stage | name | state ")


def test_filters_by_state(root):
    for state in STATES:
        make(root, state, state=state)
    for state in STATES:
        found = ["running", "killed"] if state == "killed" else [] if state == "running" else [state]
        assert sorted(names("--state", state)) == sorted(found)  # nobody trains in it, so it was killed


@pytest.mark.parametrize(
    ("condition", "found"),
    [
        ("network.width=32", True),
        ("network.width=32.0", True),
        ("network.width=33", False),
        ("optimizer.lr=1e-4", True),
        ("optimizer.lr=0.0001", True),
        ("network.multipliers=[1, 2]", True),
        ("network.multipliers=[2, 1]", False),
        ("network.middle-attention=softmax", True),
        ("data.root=null", True),
        ("train.seed=false", False),
        ("own_data=", True),
        ("data.name=!!bool x", False),
    ],
)
def test_filters_by_config(condition, found, root):
    make(root, "one")
    assert names("--where", condition) == ["one"] * found


def test_several_conditions_hold_together(root):
    make(root, "one")
    assert names("--where", "network.width=32", "--where", "train.steps=20") == ["one"]
    assert names("--where", "network.width=32", "train.steps=21") == []


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("network.widht=3", "no run's config has a field network.widht: the closest are network.width"),
        ("width=3", "no run's config has a field width: the closest are network.width"),
        ("zzz=3", "no run's config has a field zzz: see runs show RUN for its fields"),
        ("network.width", "is no condition: give a config field and its value"),
        ("=3", "is no condition: give a config field and its value"),
    ],
)
def test_a_condition_that_cannot_be_meant(condition, message, root):
    make(root, "one")
    ended = call("--where", condition)
    assert (ended.status, ended.out, ended.err.count("\n")) == (1, "", 1) and message in ended.err


def test_nothing_to_list_says_what_to_do(root):
    assert call() == (0, "there is no run in runs: train one, as with task1-train, or give another --folder\n", "")
    make(root, "one")
    assert call("--state", "failed") == (0, "none of the 1 runs in runs is such a one: ask for less\n", "")
    assert "train one" in call("--folder", "elsewhere", "--where", "a=1").out


@pytest.mark.parametrize("words", [["shwo"], ["--stat", "failed"], ["--state", "lost"], ["show"], ["diff", "a"]])
def test_typing_mistakes_are_one_line(words, root):
    ended = call(*words)
    assert ended.status == 2 and ended.err.count("\n") == 1 and "error" in ended.err


def test_what_is_hidden_or_no_run_is_not_listed(root):
    make(root, "one")
    make(root, ".pruned-0123456789abcdef")
    (root / "task1" / "notes").mkdir()
    (root / "task1" / "file.txt").write_text("")
    assert names() == ["one"]


# show


def test_show_tells_everything(root):
    again = {"started": 1.75e9, "from_step": 10, "source": "source-2.zip", "command": "task1-train --resume x"}
    run = make(root, "one", state="failed", reason="the disk is full", untracked=["a.py"], resumed=[again])
    (run / "changes.patch").write_text("")
    evaluate(run, "2026-01-01-000000", steps=77)
    ended = call("show", "one")
    assert ended.status == 0 and ended.err == ""
    told = {row[0]: row[1] for row in rows(ended.out) if len(row) == 2}
    assert told["state"] == "failed: the disk is full" and told["command"] == "task1-train --train.steps 20"
    assert told["commit"].startswith("0123abc, with changes, see changes.patch; 1 untracked file")
    assert told["packages"] == "torch 2.13.0, numpy 2.4.6" and told["processor"] == "Some CPU"
    assert (told["seed"], told["wall-clock"], told["images"]) == ("0", "4 min 35 s", "192,000")
    assert (told["peak memory"], told["cpus"]) == ("0.50 GiB", "2, of which torch used 1")
    assert told["loss"] == "0.0500" and "steps 77" in ended.out and "judge distance / floor 3.0" in ended.out
    assert re.search(r"^10 +2025-.*; task1-train --resume x; code in source-2.zip$", ended.out, re.M)
    assert told["checkpoints/step-00000000.safetensors"] == "1.0 MiB" and "samples/ (1 file)" in told
    assert told["network.multipliers"] == "[1, 2]" and told["optimizer.lr"] == "0.0001"


def test_show_more_or_less(root):
    make(root, "one")
    assert "zlib-of-somebody 1.0" in call("show", "one", "--packages", "true").out
    assert "network.width" not in call("show", "one", "--config", "false").out


def test_a_run_is_found_by_folder_by_name_and_by_stage_and_name(root):
    folder = make(root, "one")
    make(root, "one", "task2")
    assert call("show", folder).out == call("show", "task1/one").out != ""
    ended = call("show", "one")
    assert ended.status == 1 and "several runs are called one" in ended.err
    assert "there is no run nine" in call("show", "nine").err


# diff


def test_diff_of_config_code_and_machine(root):
    make(root, "a")
    b = make(root, "b", commit="fedcba9", threads=2, packages={"torch": "2.14.0", "numpy": "2.4.6"})
    config = yaml.safe_load((b / "config.yaml").read_text())
    config["network"]["width"] = 64
    (b / "config.yaml").write_text(yaml.safe_dump(config))
    pack(b / "source.zip", {"shared/a.py": "a = 2\n", "task1_x/train.py": "b = 1\n", "own/mine.py": "", "new.py": ""})
    ended = call("diff", "a", "b", "--code", "true")
    assert ended.status == 0 and ended.err == ""
    found = rows(ended.out)
    assert ["network.width", "32", "64"] in found and ["commit", "0123abc", "fedcba9"] in found
    assert ["shared/a.py", "differs", "differs"] in found and ["pyproject.toml", "only here"] in found
    assert ["threads", "1", "2"] in found and ["torch (package)", "2.13.0", "2.14.0"] in found
    assert not [row for row in found if row[0] in ("run.name", "numpy (package)", "task1_x/train.py", "own/mine.py")]
    assert "-a = 1\n+a = 2\n" in ended.out and "--- a/shared/a.py" in ended.out


def test_diff_of_a_run_with_itself(root):
    make(root, "a")
    ended = call("diff", "a", "a")
    assert [f"{what}: the same" in ended.out for what in ("config", "code", "machine")] == [True] * 3


def test_figures_stand_side_by_side_where_the_protocols_are_equal(root):
    a, b = make(root, "a"), make(root, "b", images=96_000)
    evaluate(a, "2026-01-01", 9.0, steps=20)
    evaluate(a, "2026-01-02", 4.0)
    evaluate(b, "2026-01-01", 3.0, seed=5)
    found = rows(call("diff", "a", "b").out)
    assert ["judge distance / floor", "4.0", "3.0"] in found and ["images", "192,000", "192,000"] in found
    assert ["last loss", "0.0500", "0.0500"] in found and ["wall-clock", "4 min 35 s", "4 min 35 s"] in found


def test_unlike_protocols_are_refused_with_the_reason(root):
    a, b = make(root, "a"), make(root, "b")
    evaluate(a, "2026-01-01")
    evaluate(b, "2026-01-01", n=50_000, weights=None)
    ended = call("diff", "a", "b")
    assert "judge distance" not in ended.out
    assert ended.out.endswith("b's evaluation cannot stand beside a's: n 50000, not 1000; weights is not stated\n")


# Real records, and what must hold for all of it


@pytest.fixture
def quick(monkeypatch):
    """Records without git and source, which take longer than all else here."""
    for module in (run_module, provenance_module):
        monkeypatch.setattr(module, "git", lambda *_: None)
    monkeypatch.setattr(provenance_module, "source_files", lambda _: {})


def test_a_record_as_a_training_writes_it(root, quick):
    record = RunRecord.create("task1", RunConfig(folder="runs", name="real"), {"train": {"seed": 3, "steps": 2}})
    record.reached(2, 8)
    record.log(2, {"loss": 0.5})
    assert names("--state", "running") == ["real"]
    record.close("failed", "out of \x1b[31mluck")
    assert names("--state", "failed", "--where", "train.seed=3") == ["real"]
    told = {row[0]: row[1] for row in rows(call("show", "real").out) if len(row) == 2}
    assert told["state"] == "failed: out of ?[31mluck" and told["packages"].startswith("torch 2.")
    assert (told["seed"], told["steps"], told["images"], told["loss"]) == ("3", "2", "8", "0.5000")


class FixedTime(datetime):
    """Every run is started in the same second."""

    @classmethod
    def now(cls, tz=None):
        return cls(2026, 1, 2, 3, 4, 5)


def test_processes_that_start_in_the_same_second_never_share_a_folder(root, quick, monkeypatch):
    monkeypatch.setattr(run_module, "datetime", FixedTime)
    run_module.provenance()  # its imports: the children shall lose no time by them
    barrier, start = os.pipe()
    children = []
    for i in range(6):
        children.append(os.fork())
        if children[-1] == 0:
            status = 1
            try:
                os.close(start)
                os.read(barrier, 1)  # until the parent closes it, for all at once
                record = RunRecord.create("task1", RunConfig(folder="runs"), {"train": {"seed": i}})
                record.close("finished", f"by {os.getpid()}")
                status = 0
            finally:
                os._exit(status)
    os.close(start)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 6
    os.close(barrier)
    records = [json.loads(path.read_text()) for path in root.glob("task1/*/record.json")]
    assert {record["reason"] for record in records} == {f"by {child}" for child in children}
    assert sorted(record["seed"] for record in records) == [*range(6)]


def test_no_torch_and_an_answer_at_once(root):
    make(root, "a")
    evaluate(make(root, "b", state="failed", checkpoints=0), "2026-01-01")
    script = "import sys; from shared.experiments import runs; runs.run(); print('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    for words in ([], ["show", "a"], ["diff", "a", "b", "--code", "true"], ["prune", "--yes", "true"]):
        command = [sys.executable, "-c", script, *words]
        out = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
        assert out.endswith("False\n")
    spent = []
    for _ in range(3):
        before = os.times()
        subprocess.run(
            [sys.executable, "-m", "shared.experiments.runs", "--help"], env=environment, stdout=-1, check=True
        )
        after = os.times()
        spent.append(after.children_user + after.children_system - before.children_user - before.children_system)
    assert min(spent) < 0.5


# Damage

STRANGE = [None, [], {}, "x", "", -1, 0, 1e308, float("nan"), float("inf"), True, [[1]], {"a": {"b": 1}}, [None]]
STRANGE += ["\x1b[2J\r\n", 10**400, -(10**400), "中" * 50, 1e18, 10**20, "x" * 5000, {"": ""}]


def mutated(content, rng: random.Random):
    """Some value in it replaced by a strange one."""
    if isinstance(content, dict) and content and rng.random() < 0.85:
        name = rng.choice(list(content))
        inner = mutated(content[name], rng) if rng.random() < 0.5 else rng.choice(STRANGE)
        return {**content, name: inner, **({"\x1b[31mnew": 1} if rng.random() < 0.1 else {})}
    if isinstance(content, list) and content and rng.random() < 0.5:
        return [rng.choice(STRANGE), *content[1:]]
    return rng.choice(STRANGE)


def corrupt(path: Path, rng: random.Random) -> None:
    """Damage a file, take it away, put a folder in its place, or change what it says."""
    content, kind = path.read_bytes(), rng.randrange(6)
    if kind == 0 and rng.random() < 0.5:
        path.unlink()
        if rng.random() < 0.3:
            path.mkdir()
        return
    if kind < 3 or path.suffix == ".zip":
        content = faults.damaged(content, rng)
    elif path.suffix == ".yaml":
        content = yaml.safe_dump(mutated(yaml.safe_load(content), rng)).encode()
    else:
        parts = content.splitlines() if path.suffix == ".jsonl" else [content]
        content = b"".join(json.dumps(mutated(json.loads(part), rng)).encode() + b"\n" for part in parts)
    path.write_bytes(content)


def assert_all_survive(damaged: Path, neighbour: Path, columns: int = 1000) -> None:
    """Every subcommand ends in order, prints no control character, and a list has the run beside the damaged one."""
    root = damaged.parents[1]
    for words in (
        ["list", "--folder", root],
        ["list", "--folder", root, "--format", "csv", "--where", "network.width=32"],
        ["show", damaged],
        ["diff", neighbour, damaged, "--code", "true"],
        ["prune", "--folder", root, "--older-than", 1, "--state", "finished"],
        ["prune", damaged, "--folder", root, "--checkpoints", "true"],
    ):
        ended = call(*words, columns=columns)
        assert ended.status in (0, 1) and "Traceback" not in ended.err, ended
        assert all(character.isprintable() or character == "\n" for character in ended.out + ended.err), ended
        beside = re.search(r"task1[ ,]+neighbour[ ,]+finished", ended.out)
        assert words[0] != "list" or columns < 1000 or beside, ended


@pytest.mark.parametrize("part", [0, *(pytest.param(part, marks=pytest.mark.slow) for part in range(1, 4))])
def test_whatever_is_damaged_hides_no_other_run(part, tmp_path):
    """50 cases each, in two files at a time at most."""
    again = {"started": 1.75e9, "from_step": 10, "source": "source-2.zip", "command": "task1-train --resume x"}
    neighbour = make(tmp_path / "runs", "neighbour")
    damaged = make(tmp_path / "runs", "damaged", resumed=[again], reason="it")
    evaluate(neighbour, "old")
    evaluate(damaged, "old", steps=20)
    evaluate(damaged, "new")
    whole = {name: (damaged / name).read_bytes() for name in FILES}
    for seed in range(50 * part, 50 * part + 50):
        rng = random.Random(seed)
        for name in rng.sample(FILES, rng.choice([1, 1, 2])):
            corrupt(damaged / name, rng)
        assert_all_survive(damaged, neighbour, rng.choice([30, 80, 1000]))
        for name, content in whole.items():
            if (damaged / name).is_dir():
                (damaged / name).rmdir()
            (damaged / name).write_bytes(content)


def test_damage_is_named_in_a_line_each(root):
    run = make(root, "one")
    evaluate(run, "2026-01-01").write_text("[]")
    for name in ("record.json", "config.yaml", "metrics.jsonl"):
        (run / name).write_text("{\n")
    ended = call("show", "one")
    assert ended.status == 0 and "damaged" in ended.out
    lines = sorted(ended.err.splitlines())
    assert len(lines) == 4 and all(str(run) in line for line in lines)
    assert ["config.yaml" in lines[0], "evaluation.json" in lines[1], "metrics.jsonl" in lines[2]] == [True] * 3


BOMB = "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{l: *a{i - 1}, r: *a{i - 1}}}\n" for i in range(1, 30))
CHAIN = "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{l: *a{i - 1}}}\n" for i in range(1, 2000))
YAML = {
    "nested": "a: " + "[" * 5000,
    "in itself": "a: &a {b: *a}\n",
    "without end": BOMB,
    "a long chain": CHAIN,
    "code": "a: !!python/object/apply:os.system [touch executed]\n",
    "no bool": "a: !!bool x\n",
    "no date": "a: 2001-99-99\n",
    "no time": "a: !!timestamp x\n",
    "no int": "a: !!int x\n",
    "a long number": "a: " + "9" * 5000,
    "names of all kinds": "? [a, b]\n: 1\n1: 2\n2001-01-01: 3\nnull: 4\n",
    "values of all kinds": "a: !!binary aGVsbG8=\nb: !!set {x, y}\nc: [{2001-01-01: 1, null: .nan}]\n",
    "an escape": 'a: "\\e[2J"\n',
}
JSON = {
    "nested": "[" * 100_000,
    "a long number": '{"state": "finished", "task": "task1", "step": 1, "started": ' + "9" * 400 + "}\n",
    "a longer number": '{"state": "finished", "task": "task1", "step": 1, "started": ' + "9" * 5000 + "}\n",
    "half a character": '{"state": "failed", "task": "task1", "reason": "\\ud800"}\n',
    "lists": '{"state": ["failed"], "task": ["a"], "protocol": [], "figures": 1}\n',
}


@pytest.mark.parametrize("case", YAML)
def test_a_config_made_to_attack(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    neighbour, run = make(tmp_path / "runs", "neighbour"), make(tmp_path / "runs", "attack")
    (run / "config.yaml").write_text(YAML[case])
    assert_all_survive(run, neighbour)
    assert not Path("executed").exists()


@pytest.mark.parametrize("name", FILES[:1] + FILES[2:4])
@pytest.mark.parametrize("case", JSON)
def test_json_made_to_attack(case, name, tmp_path):
    neighbour, run = make(tmp_path / "runs", "neighbour"), make(tmp_path / "runs", "attack")
    evaluate(run, "new")
    (run / name).write_text(JSON[case])
    assert_all_survive(run, neighbour)


def test_names_made_to_attack(root):
    make(root, "neighbour")
    make(root, "a\x1b[2J\nb|c")
    change(make(root, "one") / "record.json", task="\x1b[2J", command="\x1b]0;x\x07", packages={"torch": "\r"})
    for words in (["list"], ["show", "one"], ["diff", "one", "neighbour"], ["prune", "--state", "finished"]):
        ended = call(*words)
        assert all(character.isprintable() or character == "\n" for character in ended.out + ended.err)
    assert len(call("--format", "markdown").out.splitlines()) == 5


def test_a_stage_has_all_its_kinds_of_run():
    from shared.experiments.history import in_stage

    assert in_stage("task2-autoencoder", "task2") and in_stage("task2", "task2") and in_stage("task2", None)
    assert not in_stage("task2", "task2-autoencoder") and not in_stage("task20", "task2")
