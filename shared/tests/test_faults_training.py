"""A training that is killed, anywhere, and gone on with ends as if nothing had been."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from shared.tests import faults_training


@pytest.fixture(scope="module")
def trainings(tmp_path_factory) -> dict:
    """How the killed trainings ended. In a process of its own, as pytest's is none to be forked."""
    command = [sys.executable, "-m", faults_training.__name__, str(tmp_path_factory.mktemp("trainings"))]
    root = Path(faults_training.__file__).parents[2]
    return json.loads(subprocess.run(command, cwd=root, capture_output=True, check=True, text=True).stdout)


@pytest.mark.slow
@pytest.mark.parametrize("series", ["new", "resumed"])
def test_a_kill_at_any_file_operation_changes_nothing(series, trainings):
    """All files of the run that was gone on with, byte for byte: weights, averages, moments, counts."""
    *points, through = trainings[series]
    assert not through["killed"] and through["end"] == "equal"
    assert [point["end"] for point in points] == ["equal"] * len(points)
    events = through["events"]
    assert [point["events"] for point in points] == [events[: k + 1] for k in range(len(events))]
    saves = {"new": 3, "resumed": 2}[series]
    assert [events.count(f"{when} replace") for when in ("before", "after")] == [saves, saves]


def test_the_kills_meet_every_state_of_the_folder(trainings):
    """Nothing saved yet, one checkpoint, two, and a third before the first is deleted."""
    left = [len(point["left"]) for point in trainings["new"]]
    assert set(left) == {0, 1, 2, 3}


def test_a_kill_at_any_instant_changes_nothing(trainings):
    points = trainings["instants"]
    assert [point["end"] for point in points] == ["equal"] * 20
    assert sum(point["killed"] for point in points) >= 4
    assert len({point["left"][-1] for point in points if point["left"]}) >= 4  # they are spread over the training


@pytest.mark.parametrize("fault", faults_training.PLANTED)
def test_a_fault_that_was_planted_is_found(fault, trainings):
    """A save that is not one rename, a resume that leaves something out: the tests above would fail."""
    assert trainings["planted"][fault][-1]["end"] != "equal"
