"""Several processes train as one does: with the same micro-batches, to rounding. Real processes, on the CPU."""

import json
from pathlib import Path
from unittest import mock

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from shared.errors import UserError
from shared.experiments import provenance as provenance_module
from shared.experiments.follower import Follower
from shared.experiments.run import RunRecord
from shared.tests import processes, tiny
from shared.tests.commands import figures, record, whole
from shared.tests.launched import assert_near, launch, near
from shared.training.averages import Averages
from shared.training.config import OptimizerConfig, TrainConfig
from shared.training.loop import accelerator_for, settle, train
from shared.training.processes import buckets


@pytest.fixture(autouse=True)
def no_git(monkeypatch):
    """Asking git takes longer than all else here."""
    monkeypatch.setattr("shared.experiments.run.git", lambda *_: None)
    monkeypatch.setattr(provenance_module, "git", lambda *_: None)
    monkeypatch.setattr(provenance_module, "source_files", lambda _: {})


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The scenarios of `processes.py` in two processes, beside the same in this one."""
    root = tmp_path_factory.mktemp("processes")
    (root / "two").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shared.experiments.run.git", lambda *_: None)
        patch.setattr("shared.experiments.run.write_source", lambda path, task: path.touch())
        processes.alike(root / "one")
        processes.trained(root / "two" / "resumed" / "other", stop=2)
        ended = launch("-m", "shared.tests.processes", root / "two")
        assert ended.status == 0, ended.err
    return root


def of(folder: Path, *parts: str) -> Path:
    """The run of a scenario."""
    return folder.joinpath(*parts, "task1", "run")


def said(folder: Path, scenario: str) -> list:
    """What each process said of a scenario."""
    return [json.loads((folder / "two" / f"said-{rank}.json").read_text())[scenario] for rank in (0, 1)]


# --- the same training --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["plain", "bf16", "shard", "bf16 shard", "four"])
def test_two_processes_train_as_one_does(name, folder):
    assert_near(of(folder, "one", name), of(folder, "two", "alike", name))


@pytest.mark.parametrize("name", ["shard", "bf16 shard"])
def test_shares_train_as_whole_weights_do(name, folder):
    """And are saved as such: the file of two processes' shares has the tensors of one process's checkpoint."""
    assert_near(of(folder, "one", name.replace("shard", "").strip() or "plain"), of(folder, "two", "alike", name))


@pytest.mark.parametrize("name", ["no averaging", "the same noise", "the same data", "each its own loss"])
def test_the_comparison_sees_a_fault(name, folder):
    with pytest.raises(AssertionError):
        assert_near(of(folder, "one", "plain"), of(folder, "two", "faults", name))


def test_another_number_of_processes_goes_on(folder):
    """Two steps by one process, two by two, two by two with shares; and once more by one."""
    assert_near(of(folder, "one", "plain"), of(folder, "two", "resumed", "other"))
    processes.trained(folder / "two" / "alike" / "plain", processes.newest(folder / "two" / "alike" / "plain"), steps=8)
    processes.trained(folder / "one" / "plain", processes.newest(folder / "one" / "plain"), steps=8)
    assert_near(of(folder, "one", "plain"), of(folder, "two", "alike", "plain"))


def test_images_a_second_count_all_processes(folder):
    for line in figures(of(folder, "two", "alike", "plain")):
        assert line["images"] == 8 * line["step"]  # 2 micro-batches of 4


# --- the first writes ---------------------------------------------------------------------------------------


def test_only_the_first_process_writes(folder):
    writes = said(folder, "writes")
    assert len(writes[0]) > 50 and writes[1] == []


def test_the_record_says_how_many_processes(folder):
    assert record(of(folder, "two", "alike", "plain"))["processes"] == 2
    assert record(of(folder, "one", "plain"))["processes"] == 1


def test_a_follower_answers_all_that_a_record_is_asked():
    methods = {name for name in vars(Follower) if not name.startswith("_")}
    assert methods == {"go_on", "note", "reached", "log", "keep", "picture", "skipped", "closing", "close"}
    assert all(callable(getattr(RunRecord, name)) for name in methods)


def test_what_the_first_does_reaches_all(folder):
    one, other = said(folder, "once")
    assert one.pop("there") is False and other.pop("there") is True  # in turn
    assert one == other and one["result"] == {"by": 0, "text": "ε" * 5000} and one["nothing"] is None
    assert one["error"] == "UserError: wrong" and "Permission denied: 'a file'" in one["system"]


# --- the end ------------------------------------------------------------------------------------------------


def test_a_signal_to_one_process_stops_all_after_the_same_step(folder):
    assert [words["signal"] for words in said(folder, "stopped")] == ["Interrupted: stopped at step 5"] * 2
    run = of(folder, "two", "stopped", "signal")
    assert record(run)["state"] == "interrupted" and processes.newest(run.parents[1]).stem == "step-00000005"
    processes.trained(run.parents[1], processes.newest(run.parents[1]))
    tensors = whole(run)
    assert all(near(t, tensors[name]) for name, t in whole(of(folder, "one", "shard")).items())


def test_a_loss_that_is_not_finite_in_one_process_stops_all(folder):
    one, other = (words["infinite"] for words in said(folder, "stopped"))
    assert one == other and "not finite at step 6" in one
    assert record(of(folder, "two", "stopped", "infinite"))["state"] == "failed"


def test_a_full_disk_stops_all(folder):
    one, other = (words["full"] for words in said(folder, "stopped"))
    assert one == other and "No space left" in one


def test_processes_that_do_not_divide_the_micro_batches(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="2 processes cannot share 3 micro-batches evenly: make train.accumulate a mul"):
        accelerator_for(TrainConfig(accumulate=3, device="cpu"))


# --- alone --------------------------------------------------------------------------------------------------


def test_buckets_hold_all_gradients_in_their_order(monkeypatch):
    monkeypatch.setattr("shared.training.processes.BUCKET", 5)
    tensors = [torch.zeros(n, dtype=dtype) for n, dtype in ((2, torch.float32), (3, torch.float32), (1, torch.float32))]
    tensors += [torch.zeros(9), torch.zeros(1, dtype=torch.float64)]
    groups = list(buckets(tensors))
    assert [[t.numel() for t in group] for group in groups] == [[2, 3], [1], [9], [1]]
    assert list(buckets([])) == []


@pytest.mark.parametrize(("batch", "accumulate", "steps"), [(4, 1, 8), (4, 2, 4), (13, 1, 2), (50, 3, 2)])
def test_epochs_become_steps(batch, accumulate, steps):
    """13 images, twice; the last step of a pass may reach into the next."""
    config = TrainConfig(epochs=2, batch=batch, accumulate=accumulate, device="cpu", steps=77, precision="auto")
    settle(tiny.data(), config)
    assert (config.epochs, config.steps) == (None, steps) and config.precision in ("fp32", "bf16")


@pytest.mark.parametrize(("samples", "each"), [(None, 4), (20, 5)])
def test_passes_between_checkpoints_and_falls_of_the_rate_become_steps(samples, each):
    """13 images, 4 at a time, or so many as are yet to be drawn; with epochs or without."""
    asked = {"step_epochs": 3, "step_size": 7}, {"schedule": "step"}, {"schedule": "step", "step_size": 7}, {}
    optimizers = [OptimizerConfig(**options) for options in asked]
    config = TrainConfig(save_epochs=2, save_every=7, batch=4, device="cpu", steps=77)
    for _ in range(2):  # what is settled stays as it is
        settle(tiny.data(), config, samples, optimizers)
        assert (config.save_epochs, config.save_every, config.steps) == (None, 2 * each, 77)
        assert [one.step_epochs for one in optimizers] == [None] * 4
        assert [one.step_size for one in optimizers] == [3 * each, each, 7, None]


def test_no_pass_between_checkpoints_is_none():
    config = TrainConfig(save_epochs=0, device="cpu")
    settle(tiny.data(), config)
    assert config.save_every == 0


@pytest.mark.parametrize(("options", "falls"), [({"step_epochs": 2}, [8, 16]), ({}, [4, 8, 12, 16])])
def test_the_loop_counts_passes_that_nobody_has_settled(options, falls, tmp_path):
    """A training of one's own: 4 steps are a pass over 13 images."""
    run = tiny.Run(tmp_path)
    tiny.fit(run, tiny.part(lr=0.5, schedule="step", gamma=0.5, **options), steps=18)
    assert [n for n in range(1, 18) if run.figures[n + 1]["lr"] < run.figures[n]["lr"]] == falls


class Reads(TorchDispatchMode):
    """Counts the times that Python asks for a tensor's value: on a GPU each would wait for all work before it."""

    count = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*arguments, **(options or {}))


def reads(steps: int, folder: Path, **options) -> int:
    """Of a training of so many steps; without averages, whose counts lie on the CPU (`test_training_averages.py`)."""
    options = {"accumulate": 2, "log_every": 0, **options}
    with mock.patch.object(Averages, "update"), Reads() as mode:
        tiny.fit(tiny.Run(folder), tiny.part(), steps=steps, **options)
    return mode.count


def test_no_step_reads_a_value(tmp_path):
    assert reads(5, tmp_path) == reads(9, tmp_path) < reads(9, tmp_path, log_every=1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_no_step_waits_for_a_gpu(tmp_path):
    steps = train(tiny.part(), tiny.data(), tiny.replace(tiny.CONFIG, log_every=0, device="cuda"), tiny.Run(tmp_path))
    next(steps), next(steps)  # whatever is set up in the first
    try:
        torch.cuda.set_sync_debug_mode("error")
        next(steps), next(steps)
    finally:
        torch.cuda.set_sync_debug_mode("default")
