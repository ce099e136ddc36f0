"""Commands started as several processes, by torchrun or by accelerate; and how near their ends lie to those of one.

`torchrun … -m shared.tests.launched module: argument … --- module: argument …` calls the `main` of several modules one
after the other, so that torch is imported once a process.
"""

import contextlib
import importlib
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import torch

from shared.experiments.provenance import ROOT
from shared.tests.commands import Ended, figures, whole

TORCHRUN = ["-m", "torch.distributed.run", "--nproc-per-node"]
# its own launcher for CPUs wants MPI; as if for GPUs, it starts processes as torchrun does
ACCELERATE = ["-m", "accelerate.commands.launch", *"--num_machines 1 --mixed_precision no --dynamo_backend no".split()]
# Two micro-batches add up to the same bits in any order; four do not, to 6e-8. Adam divides that by gradients that may
# be as small: found after four steps are differences of 5e-6 of a tensor's largest number. A wrong seed makes 1e-2.
RELATIVE = 1e-4


def start(*arguments: object, processes: int = 2, launcher: str = "torchrun", **environment: str) -> subprocess.Popen:
    """`-m module …` in several processes of one thread each."""
    by = [*TORCHRUN, str(processes)] if launcher == "torchrun" else [*ACCELERATE, "--multi_gpu", "--num_processes", "2"]
    return subprocess.Popen(
        [sys.executable, *by, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def launch(*arguments: object, **options: str) -> Ended:
    """`start`, to the end."""
    process = start(*arguments, **options)
    out, err = process.communicate(timeout=300)
    return Ended(process.returncode, out, err)


def lines_of(ended: Ended, program: str) -> list[str]:
    """What the program says among the launcher's own words."""
    return [line for line in ended.err.splitlines() if line.startswith(program)]


def assert_near(one: Path, other: Path, relative: float = RELATIVE) -> None:
    """Two runs' logged losses and all their tensors agree to rounding; the steps and names are the same."""
    losses = [{line["step"]: line["loss"] for line in figures(run)} for run in (one, other)]
    assert losses[0].keys() == losses[1].keys() and losses[0]
    for n, loss in losses[0].items():
        assert abs(loss - losses[1][n]) <= relative * abs(loss), (n, losses)
    tensors, others = whole(one), whole(other)
    assert tensors.keys() == others.keys()
    assert [name for name in tensors if not near(tensors[name], others[name], relative)] == []


def near(a: torch.Tensor, b: torch.Tensor, relative: float = RELATIVE) -> bool:
    """Whether two tensors agree, by their largest numbers; what is counted, as calls are, is each process's own."""
    if not a.is_floating_point():
        return True
    a, b = a.double(), b.double()
    scale = a.abs().max().item() if a.numel() else 0.0
    return torch.allclose(a, b, rtol=0, atol=relative * scale)


def main(arguments: list[str]) -> None:
    """Call each module's `main`."""
    while arguments:
        end = arguments.index("---") if "---" in arguments else len(arguments)
        module, *own = arguments[:end]
        with mock.patch.object(sys, "argv", [module, *own]), contextlib.suppress(SystemExit):
            importlib.import_module(module).main()
        arguments = arguments[end + 1 :]


if __name__ == "__main__":
    main(sys.argv[1:])
