"""No option is read nowhere: each field of the training's config changes something."""

import ast
import itertools
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import pytest
import torch

import shared
from shared.errors import UserError
from shared.tests import tiny
from shared.training.config import AveragesConfig, OptimizerConfig, TrainConfig

# For each field that enters into the result: another value, and what else must be set for it to matter.
OPTIMIZER = {
    "name": ("adam", {"weight_decay": 0.1}),
    "lr": (2e-3, {}),
    "betas": ((0.5, 0.6), {}),
    "momentum": (0.5, {"name": "sgd"}),
    "weight_decay": (0.3, {}),
    "schedule": ("cosine", {}),
    "warmup": (3, {}),
    "final": (0.5, {"schedule": "cosine"}),
    "milestones": ((2,), {"schedule": "multistep"}),
    "step_size": (2, {"schedule": "step"}),
    "step_epochs": (1, {"schedule": "step", "step_size": 100}),
    "gamma": (0.5, {"schedule": "step", "step_size": 2}),
}
AVERAGES = {"ema": 0.1, "more": (0.5,), "swa_start": 3, "swa_every": 1, "profiles": (0.1,)}
TRAIN = {
    "steps": 5,
    "batch": 3,
    "accumulate": 2,
    "clip": 0.01,
    "seed": 1,
    "precision": "bf16",
}
ELSEWHERE = {
    "epochs": "test_processes.py",
    "shard": "test_processes.py",
    "compile": "test_training_compile.py",
    "deterministic": "matters on a GPU alone",
    "device": "here",
    "workers": "here",
    "log_every": "here",
    "sample_every": "task1_unconditional/tests/test_commands.py",
    "save_every": "here",
    "save_epochs": "test_processes.py",
    "keep": "here",
}
AVERAGES_ELSEWHERE = {"snapshot_every": "test_posthoc.py"}


def names(config: type) -> set[str]:
    """Of a dataclass's fields."""
    return {field.name for field in fields(config)}


def test_every_field_is_listed_here():
    assert names(OptimizerConfig) == set(OPTIMIZER)
    assert names(AveragesConfig) == set(AVERAGES) | set(AVERAGES_ELSEWHERE)
    assert names(TrainConfig) == set(TRAIN) | set(ELSEWHERE)


def outcome(folder: Path, train: dict, **options) -> list[torch.Tensor]:
    """The weights, raw and averaged, after a short training."""
    trained = tiny.part(**options)
    averages = tiny.fit(tiny.Run(folder), trained, **train)
    networks = [trained.model, *(averages.network(name) for name in averages.models)]
    return [p.detach().clone() for network in networks for p in network.parameters()]


def differ(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    """Whether two outcomes are not the same."""
    return len(a) != len(b) or any(not torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_the_same_config_gives_the_same_weights(tmp_path):
    """Without this, the tests below would show nothing."""
    assert not differ(outcome(tmp_path, {}), outcome(tmp_path, {}))


@pytest.mark.parametrize("name", OPTIMIZER)
def test_optimizer_field_changes_the_weights(name, tmp_path):
    value, besides = OPTIMIZER[name]
    assert differ(outcome(tmp_path, {}, **besides), outcome(tmp_path, {}, **besides, **{name: value}))


@pytest.mark.parametrize("name", AVERAGES)
def test_averages_field_changes_the_averages(name, tmp_path):
    besides = {"swa_start": 1} if name == "swa_every" else {}
    value = {name: AVERAGES[name]}
    assert differ(outcome(tmp_path, {}, **besides), outcome(tmp_path, {}, **besides, **value))


@pytest.mark.parametrize("name", TRAIN)
def test_train_field_changes_the_weights(name, tmp_path):
    assert differ(outcome(tmp_path, {}), outcome(tmp_path, {name: TRAIN[name]}))


@pytest.mark.parametrize(("every", "expected"), [(0, []), (1, [1, 2, 3, 4, 5, 6]), (4, [4, 6]), (9, [6])])
def test_log_every(every, expected, tmp_path):
    run = tiny.Run(tmp_path)
    tiny.fit(run, tiny.part(), log_every=every)
    assert list(run.figures) == expected


@pytest.mark.parametrize(("every", "keep", "kept"), [(0, 9, [6]), (2, 9, [2, 4, 6]), (2, 1, [6]), (4, 2, [4, 6])])
def test_save_every_and_keep(every, keep, kept, tmp_path):
    tiny.fit(tiny.Run(tmp_path), tiny.part(), save_every=every, keep=keep)
    files = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert files == [f"step-{n:08d}.safetensors" for n in kept]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_device_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="train.device is cuda, but torch sees no GPU"):
        tiny.fit(tiny.Run(tmp_path), tiny.part(), device="cuda")


def test_workers_reach_the_loader(monkeypatch):
    from shared.training import data

    asked = {}
    monkeypatch.setattr(data, "DataLoader", lambda *_, **options: asked.update(options) or [])
    streamed = replace(tiny.CONFIG, workers=3)
    list(data.streamed(None, itertools.repeat([]), torch.device("cpu"), streamed.workers))
    assert asked["num_workers"] == 3 and asked["worker_init_fn"] is data.apart


def attributes_read(folders: list[Path]) -> set[str]:
    """The names after a dot in all code but the tests."""
    files = [p for folder in folders for p in folder.rglob("*.py") if "tests" not in p.parts]
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in files]
    return {node.attr for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


def all_fields(config: type) -> set[str]:
    """The names of a dataclass's fields, and of the fields of those that are dataclasses."""
    inner = [f.default_factory for f in fields(config) if is_dataclass(f.default_factory)]
    return names(config).union(*map(all_fields, inner))


def test_every_field_of_stage_1_is_read_somewhere():
    from task1_unconditional.config import Config
    from task1_unconditional.evaluate import EvaluateConfig
    from task1_unconditional.sample import SampleConfig

    root = Path(shared.__file__).parents[1]
    read = attributes_read([root / "shared", root / "task1_unconditional"])
    # `overrides` and `replace` read these by their names, held by test_commands.py
    by_name = {"sampler", "steps", "eta", "spacing"}
    wanted = all_fields(Config) | all_fields(SampleConfig) | all_fields(EvaluateConfig)
    assert wanted - read - by_name == set()
