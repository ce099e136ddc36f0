"""The options that the commands of all stages share: each stage has them, says something of each, and repeats none."""

import importlib
import re
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

import shared
from shared.cli import Parser
from shared.errors import UserError
from shared.sampling_options import DrawOptions, EvaluateOptions, SampleOptions, device_of, overrides
from shared.schedulers.config import SamplingConfig

ROOT = Path(shared.__file__).parents[1]
STAGES = [
    (f"{path.parent.name}.{path.stem}", config, base)
    for path, config, base in [
        *((path, "SampleConfig", SampleOptions) for path in sorted(ROOT.glob("task[1-4]*/sample.py"))),
        *((path, "SampleConfig", DrawOptions) for path in sorted(ROOT.glob("task5*/sample.py"))),  # films, not pictures
        *((path, "EvaluateConfig", EvaluateOptions) for path in sorted(ROOT.glob("task*/evaluate.py"))),
    ]
]


def config_of(module: str, name: str) -> type:
    """The dataclass of a command's options."""
    return getattr(importlib.import_module(module), name)


def entries(kind: type) -> dict[str, str]:
    """What --help says of each option of a dataclass, type and default with it."""
    parser = Parser(prog="x")
    parser.add_class_arguments(kind)
    found = (entry.partition(" ") for entry in parser.format_help().split("\n  --")[1:])
    return {name: " ".join(text.split()) for name, _, text in found}


@pytest.mark.parametrize(("module", "name", "base"), STAGES)
def test_each_stage_has_them_all(module, name, base):
    assert issubclass(config_of(module, name), base)
    assert list(entries(config_of(module, name)))[: len(fields(base))] == [field.name for field in fields(base)]


@pytest.mark.parametrize(("module", "name", "base"), STAGES)
def test_each_takes_the_same_values_in_every_stage(module, name, base):
    types = {field.name: field.type for field in fields(config_of(module, name))}
    assert [field.name for field in fields(base) if types[field.name] != field.type] == []


@pytest.mark.parametrize(("module", "name", "base"), STAGES)
def test_each_option_says_what_it_is(module, name, base):
    kind = config_of(module, name)
    told = {option: re.sub(r"^\S+ ", "", text).partition("(type:")[0] for option, text in entries(kind).items()}
    assert set(told) == {field.name for field in fields(kind)}
    assert [option for option, text in told.items() if not text.strip()] == []


@pytest.mark.parametrize(
    ("kind", "base"),
    [
        *((f"{module}:{name}", base) for module, name, base in STAGES),
        *((f"shared.sampling_options:{name}", DrawOptions) for name in ("SampleOptions", "EvaluateOptions")),
    ],
)
def test_an_option_is_stated_again_only_where_another_thing_is_said(kind, base):
    own = config_of(*kind.split(":"))
    here, there = entries(own), entries(base)
    again = set(vars(own).get("__annotations__", {})) & set(there)
    assert [option for option in again if here[option] == there[option]] == []


@pytest.mark.parametrize(("module", "name", "base"), [stage for stage in STAGES if stage[0].startswith("task1_")])
def test_stage_1_names_what_it_inherits(module, name, base):
    """Its page can be read by itself."""
    listed = re.findall(r"\(([\w, \n]+)\)", config_of(module, name).__doc__)
    assert sorted(re.findall(r"\w+", " ".join(listed))) == sorted(field.name for field in fields(base))


# What a run's own way to sample is not, for each option about it; 0 is given, too.
GIVEN = {"sampler": "heun", "steps": 0, "eta": 0.0, "spacing": "linspace"}
RUNS_OWN = SamplingConfig(sampler="ddpm", steps=7, eta=0.25, spacing="leading", precision="bf16", clamp=False)


def test_what_is_not_given_is_the_runs():
    assert overrides(SampleOptions()) == overrides(EvaluateOptions()) == {}


@pytest.mark.parametrize("name", GIVEN)
def test_what_is_given_holds_and_nothing_else_changes(name):
    got = replace(RUNS_OWN, **overrides(replace(DrawOptions(run="latest", seed=3), **{name: GIVEN[name]})))
    assert getattr(got, name) == GIVEN[name] != getattr(RUNS_OWN, name)
    assert replace(got, **{name: getattr(RUNS_OWN, name)}) == RUNS_OWN


def test_every_option_about_sampling_is_among_them():
    about = {field.name for field in fields(SamplingConfig)} & {field.name for field in fields(DrawOptions)}
    assert about == set(GIVEN)


@pytest.mark.parametrize("weights", ["model", "ema", "swa", "ema-0.99", "ema-1e-05", "profile-0.05", "post-hoc-0.10"])
def test_names_of_weights(weights):
    parser = Parser(prog="x")
    parser.add_class_arguments(DrawOptions)
    assert parser.parse_args(["--weights", weights]).weights == weights


@pytest.mark.parametrize(
    "weights", ["raw", "", "ema-", "ema-x", "post-hoc", "post-hoc--1", "profile", "model.x", "EMA"]
)
def test_what_weights_are_never_called(weights, capsys):
    """Said before anything is loaded, with what they may be called."""
    parser = Parser(prog="x")
    parser.add_class_arguments(DrawOptions)
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(["--weights", weights])
    said = capsys.readouterr().err
    assert ended.value.code == 2 and "weights" in said and "say ema, model, swa" in said


@pytest.mark.parametrize(
    ("asked", "there", "taken"),
    [
        ("auto", True, "cuda"),
        ("auto", False, "cpu"),
        ("cpu", True, "cpu"),
        ("cpu", False, "cpu"),
        ("cuda", True, "cuda"),
    ],
)
def test_the_device(asked, there, taken, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert device_of(DrawOptions(device=asked)) == taken


def test_a_gpu_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="^--device is cuda, but torch sees no GPU: use cpu, or auto$"):
        device_of(DrawOptions(device="cuda"))


@pytest.mark.parametrize("module", ["shared.sampling_options", "shared.experiments.trained"])
def test_they_need_no_torch(module):
    script = f"import sys, {module}; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True).stdout == "False\n"
