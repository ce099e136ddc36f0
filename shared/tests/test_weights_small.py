"""A run's weights as one small file: which they are, what the file says of them, and that nothing else is in it."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from shared.errors import UserError
from shared.tests.tiny import Run, fit, part
from shared.training.checkpoint import Checkpoints, read_facts, write_checkpoint
from shared.training.weights import available, read_weights, write_small

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, dict[str, State]]:
    """A run, and its networks as the training left them in memory. At 0.2 a profile was kept: that is post-hoc-0.2."""
    run = Run(tmp_path_factory.mktemp("run"), {"seed": 7})
    net = part(profiles=(0.05, 0.2), snapshot_every=1, more=(0.1,), lr=0.05)
    averages = fit(run, net)
    kept = {"ema": "ema", "ema-0.1": "ema-0.1", "post-hoc-0.2": "profile-0.2"}
    states = {name: averages.network(stored).state_dict() for name, stored in kept.items()}
    return run.folder, {"model": net.model.state_dict(), **states}


def off(state: State, other: State) -> float:
    """The largest relative difference of two networks' tensors."""
    assert state.keys() == other.keys()
    return max(float((state[name].float() - other[name].float()).norm() / other[name].float().norm()) for name in state)


@pytest.mark.parametrize("weights", ["ema", "model", "ema-0.1", "post-hoc-0.2"])
def test_a_small_file_holds_the_weights_that_were_asked_for(weights, trained, tmp_path):
    """Within bfloat16's 8 bits, and no other ones; as what is sampled from where nothing is said."""
    run, states = trained
    facts = write_small(run, tmp_path / "a.safetensors", weights)
    assert facts == {"step": 6, "config": {"seed": 7}, "weights": weights}
    content = load_file(tmp_path / "a.safetensors")
    assert {tensor.dtype for tensor in content.values()} == {torch.bfloat16}
    state = {name.removeprefix("ema."): tensor for name, tensor in content.items()}
    assert off(state, states[weights]) < 2**-8
    assert all(off(state, other) > 2**-8 for name, other in states.items() if name != weights)
    assert available(tmp_path / "a.safetensors") == ["ema"]
    assert off(read_weights(tmp_path / "a.safetensors")[0], states[weights]) < 2**-8
    said = read_facts(tmp_path / "a.safetensors")
    assert {name: said[name] for name in facts} == facts and not {"optimizer", "averages"} & said.keys()


def test_by_default_it_is_the_average(trained, tmp_path):
    run, states = trained
    assert write_small(run, tmp_path / "a.safetensors")["weights"] == "ema"
    assert off(read_weights(tmp_path / "a.safetensors")[0], states["ema"]) < 2**-8


def test_a_copy_of_a_small_file_says_the_same(trained, tmp_path):
    """There they are called ema; what they were is not forgotten."""
    write_small(trained[0], tmp_path / "a.safetensors", "post-hoc-0.2")
    write_small(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_files_of_earlier_versions_say_nothing_of_it(trained, tmp_path):
    """Their one set was the average."""
    state, path = read_weights(trained[0])
    facts = {name: read_facts(path)[name] for name in ("step", "config")}
    write_checkpoint(tmp_path / "old.safetensors", {f"ema.{name}": tensor for name, tensor in state.items()}, facts)
    assert write_small(tmp_path / "old.safetensors", tmp_path / "new.safetensors")["weights"] == "ema"


@pytest.mark.parametrize(
    ("weights", "message"), [("swa", "holds no swa weights, only model, ema"), ("ema-0.9", "holds no ema-0.9 weights")]
)
def test_weights_that_are_not_there_leave_no_file(weights, message, trained, tmp_path):
    with pytest.raises(UserError, match=message):
        write_small(trained[0], tmp_path / "a.safetensors", weights)
    assert not list(tmp_path.iterdir()) and Checkpoints(trained[0] / "checkpoints").latest().exists()
