"""The command `doctor`: on the committed models, on copies with a planted fault, and on what strangers send.

Nothing is found in any committed model or curve; each of the faults that are planted in a copy of one is.
"""

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np
import pytest
import yaml
from PIL import Image

from shared.experiments.doctor import command as doctor
from shared.experiments.doctor.examined import Asked
from shared.experiments.doctor.gather import examine
from shared.experiments.doctor.model import latents
from shared.tests import made_runs
from shared.training.checkpoint import read_facts, read_tensors, write_checkpoint
from shared.training.state import prefixed

ROOT = Path(__file__).parents[2]
MODELS = sorted(ROOT.glob("task*/results/*.safetensors"))
CURVES = sorted(ROOT.glob("task*/results/*.jsonl"))
DIGITS = ROOT / "task1_unconditional/results/digits.safetensors"
CONTROL = ROOT / "task3_conditional/results/controlnet.safetensors"
QUICK = ("--samples", 0, "--n", 8)


class Ended(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str


def call(*arguments):
    """Run `doctor`; an exception other than the exit is a traceback, and fails the test."""
    out, err, status = io.StringIO(), io.StringIO(), 0
    with (
        mock.patch.object(sys, "argv", ["doctor", *map(str, arguments)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            doctor.main()
        except SystemExit as end:
            status = end.code
    return Ended(status, out.getvalue(), err.getvalue())


def checks(ended):
    """Of a report as JSON, the checks by name."""
    return {one["name"]: one for one in json.loads(ended.out)["checks"]}


def copy(path, source=DIGITS, facts=(), **changes):
    """A checkpoint with other fields in its config, and its weights under other names besides."""
    saved = read_facts(source)
    for name, value in changes.items():
        section, _, field = name.partition("__")
        saved["config"][section][field] = value
    tensors = read_tensors(source, "ema")
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = {name: value for name, value in saved.items() if name != "digests"}
    write_checkpoint(path, prefixed("ema", tensors), kept | dict(facts))
    return path


# --- what is committed --------------------------------------------------------------------------------------------


def test_there_is_something_to_examine():
    assert len(MODELS) >= 12 and len(CURVES) >= 12


@pytest.mark.parametrize("path", CURVES, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_nothing_is_found_in_a_committed_curve(path):
    assert call(path).status == 0


@pytest.mark.slow
@pytest.mark.parametrize("path", MODELS, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_nothing_is_found_in_a_committed_model(path):
    ended = call(path, "--format", "json", "--trust", "true")  # a data set may be a class of a stage's own
    assert ended.status == 0
    found = checks(ended)
    assert found["range"]["state"] == "fine"
    made = path.name != "autoencoder.safetensors"
    assert found["colour"]["state"] == ("fine" if made else "unknown")
    assert found["schedule"]["state"] == ("fine" if made and path.name != "student.safetensors" else "unknown")


def test_a_committed_model_is_examined():
    ended = call(DIGITS, *QUICK)
    assert ended.status == 0 and "fine  range" in ended.out and "fine  schedule" in ended.out
    assert "not examined  condition: the network is told nothing" in ended.out and not ended.err


def test_a_control_is_examined_with_the_base_that_it_steers():
    ended = call(CONTROL, "--samples", 0, "--n", 16)
    assert ended.status == 0 and "fine  condition" in ended.out and "fine  schedule" in ended.out


# --- planted faults -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"schedule__T": 1250},
        pytest.param({"schedule__name": "linear"}, marks=pytest.mark.slow),
        pytest.param({"diffusion__predict": "v"}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_a_schedule_that_is_not_the_trained_one_is_found(tmp_path, change):
    ended = call(copy(tmp_path / "edited.safetensors", **change), "--samples", 0, "--n", 48)
    assert ended.status == 1 and "FINDING  schedule" in ended.out
    assert all(f"  {line}: " in ended.out for line in ("measured", "why", "change"))


def run_of(tmp_path, name="it", task="task1", **evaluation):
    """A run's folder with a small model in it, raw and averaged."""
    folder = made_runs.make(tmp_path, name, task, checkpoints=0)
    saved, tensors = read_facts(DIGITS), read_tensors(DIGITS, "ema")
    raw = {key: value * 1.01 for key, value in tensors.items()}
    both = prefixed("ema", tensors) | prefixed("model", raw)
    (folder / "checkpoints").mkdir()
    facts = {"step": 20, "config": saved["config"], "averages": {"ema": 20}}
    write_checkpoint(folder / "checkpoints" / "step-00000020.safetensors", both, facts)
    config = {key: value for key, value in saved["config"].items() if key != "shape"}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    if evaluation:
        made_runs.evaluate(folder, "2026", **evaluation)
    return folder


def test_raw_weights_of_a_run_are_found(tmp_path):
    run = run_of(tmp_path, weights="model")
    found = checks(call(run, *QUICK, "--format", "json"))
    assert found["weights"]["state"] == "finding" and "0.99%" in found["weights"]["measured"]
    made_runs.evaluate(run, "2027", weights="ema")
    assert checks(call(run, *QUICK, "--format", "json"))["weights"]["state"] == "fine"


@pytest.mark.parametrize("weights, state", [("model", "finding"), ("ema", "fine")])
def test_raw_weights_of_an_exported_file_are_found(tmp_path, weights, state):
    path = copy(tmp_path / "it.safetensors", facts={"weights": weights})
    assert checks(call(path, *QUICK, "--format", "json"))["weights"]["state"] == state


def test_a_config_that_is_not_the_checkpoints_is_found(tmp_path):
    run = run_of(tmp_path)
    assert "schedule, as written" not in call(run, *QUICK).out
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["schedule"]["T"] = 999
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    ended = call(run, *QUICK)
    assert ended.status == 1 and "FINDING  schedule, as written" in ended.out and "schedule.T 999" in ended.out


def test_an_autoencoder_of_another_scale_is_found():
    """As one that is taken over with a published 0.18215 for its own."""
    found = examine(ROOT / "task2_latent/results/diffusion.safetensors", Asked(64, 0))
    assert latents(found.x0, found.scaled).state == "fine"
    for factor in (0.85, 1.5, 0.18215):
        assert latents(found.x0 * factor, found.scaled).state == "finding"


# --- data sets ----------------------------------------------------------------------------------------------------


def test_data_sets_by_name_config_and_folder(tmp_path):
    assert "4,500 samples of (1, 28, 28)" in call("digits").out
    config = tmp_path / "it.yaml"
    config.write_text("data: {name: moving_digits, frames: 4}\ntrain: {steps: 3}\n")
    assert "(1, 4, 32, 32)" in call(config, "--n", 8).out
    clips, frames = (ROOT / "task5_video/configs" / name for name in ("demo.yaml", "image.yaml"))
    assert "(1, 16, 32, 32)" in call(clips, "--n", 8).out and "(1, 32, 32)" in call(frames, "--n", 8).out
    published = tmp_path / "MNIST"
    published.mkdir()
    told = call(published)
    assert told.status == 2 and f"DIFFUSION_DATA={tmp_path} doctor mnist" in told.err
    for i in range(4):
        noise = np.random.default_rng(i).integers(0, 256, (80, 70, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{i}.png")
    ended = call(tmp_path)
    assert ended.status == 0 and "(3, 64, 64)" in ended.out


@pytest.mark.parametrize("factor", [1.02, 2.0, 255.0])
def test_a_data_set_of_ones_own_is_built_if_it_is_trusted(tmp_path, monkeypatch, factor):
    (tmp_path / "mine_of_doctor.py").write_text(
        "import torch\nfrom torch.utils.data import Dataset\n"
        "class Mine(Dataset):\n"
        "    def __init__(self, factor: float):\n        self.factor = factor\n"
        "    def __len__(self):\n        return 30\n"
        "    def __getitem__(self, i):\n"
        "        return self.factor * torch.linspace(-1, 1, 64).view(1, 8, 8), {}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("mine_of_doctor", None)
    config = tmp_path / "it.yaml"
    own = {"class_path": "mine_of_doctor.Mine", "init_args": {"factor": factor}}
    config.write_text(yaml.safe_dump({"own_data": own}))
    refused = call(config)
    assert refused.status == 2 and "--trust true" in refused.err and "mine_of_doctor" not in sys.modules
    assert call(config, "--trust", "true").status == 1
    own["init_args"]["factor"] = 1.0
    config.write_text(yaml.safe_dump({"own_data": own}))
    assert call(config, "--trust", "true").status == 0


# --- what strangers send ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["nothing", "it.safetensors", "it.jsonl", "it.yaml", "it.zip", "empty"])
@pytest.mark.parametrize("content", ["", "{", "\x00\x80\x04.", '{"a": ' * 2000])
def test_what_is_nothing_ends_in_one_line(tmp_path, name, content):
    path = tmp_path / name
    if name == "empty":
        path.mkdir()
    elif name != "nothing":
        path.write_text(content)
    ended = call(path)
    assert ended.status == 2 and not ended.out
    assert len(ended.err.splitlines()) == 1 and ended.err.startswith("doctor: error: ")


@pytest.mark.parametrize(
    "file", ["record.json", "config.yaml", "metrics.jsonl", "checkpoints/step-00000020.safetensors"]
)
def test_a_damaged_file_of_a_run_leaves_the_other_checks(tmp_path, file):
    run = run_of(tmp_path, weights="ema")
    (run / file).write_bytes(b"\x80\x04\x95cposix\nsystem\n\x1b[2J\n")
    ended = call(run, *QUICK)
    assert ended.status in (0, 1) and "Traceback" not in ended.err and "\x1b" not in ended.out + ended.err
    assert "damaged" in ended.out + ended.err or "YAML" in ended.err
    assert ("fine  range" in ended.out) == (file[:5] != "check")


def test_escapes_in_names_do_not_reach_a_terminal(tmp_path):
    run = run_of(tmp_path, "a\x1b[2Jb")
    ended = call(run, *QUICK)
    assert ended.status == 0 and "\x1b" not in ended.out + ended.err and "a?[2Jb" in ended.out


def test_a_network_of_ones_own_is_not_built(tmp_path):
    run = run_of(tmp_path)
    path = next((run / "checkpoints").iterdir())
    saved = read_facts(path)
    saved["config"]["own_network"] = {"class_path": "os.system"}
    kept = {name: value for name, value in saved.items() if name != "digests"}
    write_checkpoint(path, prefixed("ema", read_tensors(path, "ema")), kept)
    ended = call(run, *QUICK)
    assert ended.status == 0 and ended.out.count("--trust true") == 1
    assert "not examined  range, colour, latents, condition, codebook, schedule: " in ended.out


def test_help_needs_no_torch():
    program = "import sys; from shared.experiments.doctor import command; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
