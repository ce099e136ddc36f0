"""Compiling the network: the same training, and state-dict keys without a prefix."""

import os
import shutil

import pytest
import torch

from shared.tests.tiny import Run, fit, part
from shared.training.checkpoint import Checkpoints, read_tensors

COMPILER = os.environ.get("CXX", "g++")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which(COMPILER) is None, reason=f"there is no C++ compiler ({COMPILER})")
def test_a_compiled_network_trains_alike_and_keeps_its_names(tmp_path):
    compiled, plain = Run(tmp_path / "compiled"), Run(tmp_path / "plain")
    fit(compiled, part(), compile=True, steps=3)
    fit(plain, part(), steps=3)
    states = [read_tensors(Checkpoints(run.folder / "checkpoints").latest(), "ema") for run in (compiled, plain)]
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        assert torch.allclose(value, states[1][name], rtol=1e-4, atol=1e-5)


def test_compile_reaches_the_network(tmp_path, monkeypatch):
    trained, asked = part(), []
    monkeypatch.setattr(trained.model, "compile", lambda: asked.append(True))
    fit(Run(tmp_path), trained, compile=True, steps=1)
    assert asked
