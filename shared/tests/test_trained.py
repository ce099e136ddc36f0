"""A trained model and its run: which run is meant, and what is written down where a model is measured."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from shared.datasets.config import DataConfig
from shared.errors import UserError
from shared.experiments.figures import FIGURES
from shared.experiments.history import Evaluation, Run
from shared.experiments.protocol import differences
from shared.experiments.trained import (
    figure_table,
    judge_figures,
    origin,
    protocol_of,
    run_folder,
    source_of,
    write_down,
)
from shared.metrics.report import JudgeReport
from shared.sampling_options import EvaluateOptions
from shared.tests.made_runs import make
from shared.training.checkpoint import write_checkpoint
from shared.training.config import TrainConfig


@dataclass
class Config:
    """Of a model, as much of it as a protocol states."""

    data: DataConfig = field(default_factory=lambda: DataConfig(name="mnist"))
    own_data: dict[str, Any] | None = None


CONFIG = EvaluateOptions(n=17, weights="swa", seed=5)
STATED = {"reference": "real ones", "extractor": "a judge", "sampler": "ddim", "steps": 3}


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty folder to be in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def checkpoint_of(folder: Path, **facts: Any) -> Path:
    """A checkpoint in a run's folder, or in any other."""
    path = folder / "checkpoints" / "step-00000020.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_checkpoint(path, {}, facts)
    return path


# --- which run ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nothing", [None, ""])
def test_nothing_named_is_nothing(nothing, here):
    make(Path("runs"), "one")
    assert source_of(nothing, "task1") is None


def test_a_path_is_itself_whether_it_is_there_or_not(here):
    assert source_of("runs/task1/gone", "task1") == Path("runs/task1/gone")


def test_latest_is_the_newest_of_the_task_alone(here):
    make(Path("runs"), "new", started=3e9)
    make(Path("runs"), "old", started=1e9)
    make(Path("runs"), "newer", task="task2", started=4e9)
    assert source_of("latest", "task1") == Path("runs/task1/new")
    assert source_of("latest", "task2") == Path("runs/task2/newer")
    with pytest.raises(UserError, match="there is no run in runs/task3"):
        source_of("latest", "task3")


def test_the_run_of_a_checkpoint(here):
    run = make(Path("runs"), "one")
    assert run_folder(run / "checkpoints" / "step-00000020.safetensors") == run
    assert run_folder(run / "copies" / "checkpoints" / "step-00000020.safetensors") is None
    assert run_folder(Path("alone.safetensors")) is None


# --- what is written down -----------------------------------------------------------------------------------


def test_the_origin_is_what_the_run_recorded(here):
    """19,200 images in 20 steps are what these options make; the run's record counted and timed them by itself."""
    run = make(Path("runs"), "one", images=19_200, seconds=275.0)
    found = origin("task1", checkpoint_of(run, step=20), TrainConfig(batch=320, accumulate=3))
    record = Run(run).record
    assert found["task"] == record["task"] and found["step"] == record["step"]
    assert (found["images"], found["seconds"]) == (record["images"], record["seconds"])
    assert found["source"] == "step-00000020.safetensors"  # a run may move


def test_the_time_is_that_up_to_the_step_and_not_the_whole_runs(here):
    run = make(Path("runs"), "one", seconds=275.0)
    lines = [{"step": n, "seconds": 10.0 * n} for n in (4, 10, 20)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert origin("task1", checkpoint_of(run, step=10), TrainConfig())["seconds"] == 100.0


def test_the_origin_of_a_file_that_lies_in_no_run(here):
    found = origin("task2", checkpoint_of(here, step=4), TrainConfig(batch=2, accumulate=1))
    assert (found["task"], found["step"], found["images"], found["seconds"]) == ("task2", 4, 8, None)


def test_the_origin_of_a_file_that_does_not_say(here):
    found = origin("task1", checkpoint_of(make(Path("runs"), "one")), TrainConfig())
    assert (found["step"], found["images"], found["seconds"]) == (None, None, None)


def test_a_protocol_states_all_that_a_comparison_asks_for():
    protocol = protocol_of(Config(), CONFIG, STATED)
    assert differences(protocol, protocol) == []
    assert protocol == {"data": "mnist", "n": 17, "weights": "swa", "seed": 5, "guidance": "none", **STATED}
    assert list(protocol)[: 1 + len(STATED)] == ["data", *STATED]


def test_what_is_stated_wins_and_stands_where_it_is_stated():
    protocol = protocol_of(Config(), CONFIG, {"n": 8, **STATED, "guidance": 2.0})
    assert list(protocol.items())[:2] == [("data", "mnist"), ("n", 8)] and protocol["guidance"] == 2.0
    assert list(protocol)[-3:] == ["guidance", "weights", "seed"]


def test_data_of_ones_own_are_named_by_their_class():
    own = {"class_path": "mine.Rings", "init_args": {"n": 3}}
    assert protocol_of(Config(own_data=own), CONFIG, STATED)["data"] == "mine.Rings"


@pytest.mark.parametrize("floor", [2.0, None])
def test_the_judges_figures_have_names_that_are_known(floor):
    report = JudgeReport(9, 0.75, [0.1] * 10, 8.0, floor, floor and 0.5, floor and 8.0 / floor, [])
    figures = judge_figures(report.to_dict())
    assert set(figures) <= set(FIGURES)
    assert figures["judge_confident"] == report.confident and figures["judge_distance"] == report.distance
    if floor:
        assert figures["judge_distance"] / figures["judge_floor"] == figures["judge_distance_over_floor"]
    else:
        assert figures["judge_floor"] is None is figures["judge_distance_over_floor"]


def test_a_table_and_its_caveat():
    rows = [("samples", 12), ("distance", "3.5")]
    assert figure_table(rows) == "| figure | value |\n|---|---|\n| samples | 12 |\n| distance | 3.5 |\n"
    assert figure_table(rows, "Alone.") == figure_table(rows) + "\nAlone.\n"


FACTS = {"task": "task1", "step": 20, "images": 80, "seconds": 1.5, "main": "fid"}
FACTS |= {"protocol": protocol_of(Config(), CONFIG, STATED), "figures": {"fid": 2.5}, "more": [1]}


def test_what_is_written_in_a_run_is_read_as_its_evaluation(here, capsys):
    run = make(Path("runs"), "one")
    checkpoint = run / "checkpoints" / "step-00000020.safetensors"
    first, second = (write_down(checkpoint, FACTS, "a table\n", None) for _ in range(2))
    assert [evaluation.path.parent for evaluation in Run(run).evaluations] == [first, second]
    evaluation = Evaluation.read(first / "evaluation.json")
    assert {name: getattr(evaluation, name) for name in FACTS if name != "more"} | {"more": [1]} == FACTS
    assert (first / "evaluation.md").read_text() == "a table\n"
    assert [str(folder) in line for folder, line in zip((first, second), written(capsys), strict=True)] == [True] * 2


def test_a_folder_that_is_asked_for_is_taken_in_place_of_the_runs(here, capsys):
    run = make(Path("runs"), "one")
    assert write_down(run / "checkpoints" / "x.safetensors", FACTS, "a table\n", "out/here") == Path("out/here")
    assert json.loads(Path("out/here/evaluation.json").read_text()) == FACTS
    assert not (run / "evaluations").exists() and written(capsys) == [
        "written: out/here/evaluation.json, out/here/evaluation.md"
    ]


def test_a_file_in_no_run_leaves_nothing_unless_a_folder_is_given(here, capsys):
    assert write_down(Path("alone.safetensors"), FACTS, "a table\n", None) is None
    assert list(here.iterdir()) == [] and written(capsys) == []
    assert write_down(Path("alone.safetensors"), FACTS, "a table\n", "o") == Path("o")


def written(capsys) -> list[str]:
    """The lines that were printed, without empty ones."""
    return list(filter(None, capsys.readouterr().out.splitlines()))
