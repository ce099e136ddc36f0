"""The figures that stage 1 promises, measured: `python benchmarks/task1.py` (about 6 minutes on 2 cores).

Start of the commands, the demo's time and memory, the quality of its samples, and the time that sampling takes. Run
it on a machine that does nothing else. `--quick` leaves the training out and measures the committed model.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
DEMO = ["--config", str(ROOT / "task1_unconditional/configs/demo.yaml")]


def command(entry: str, *arguments: str) -> list[str]:
    """An entry point of stage 1, run by this Python."""
    return [sys.executable, "-m", f"task1_unconditional.{entry}", *arguments]


def seconds(arguments: list[str], until: str | None = None) -> float:
    """Wall seconds of a command, or until a line of its standard error begins with `until`."""
    begun = time.perf_counter()
    with subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if until and line.startswith(until):
                reached = time.perf_counter() - begun
                process.wait()
                return reached
        if process.wait() != 0:
            sys.exit(f"failed: {' '.join(arguments)}")
    return time.perf_counter() - begun


def evaluate(folder: str, *arguments: str) -> dict:
    """The figures of 1,000 samples."""
    seconds(command("evaluate", "--out", folder, *arguments))
    return json.loads((Path(folder) / "evaluation.json").read_text())


def show(figures: dict) -> None:
    """Print what was promised of samples, as measured."""
    judged, protocol = figures["judge"], figures["protocol"]
    print(f"confident                 {judged['confident']:.1%} of {judged['n']}")
    print(f"rarest, commonest digit   {min(judged['histogram']):.1%}, {max(judged['histogram']):.1%}")
    print(f"judge distance            {judged['ratio']:.1f} x the floor of {judged['floor']:.3f}")
    seconds = figures["figures"]["sampling_seconds"]
    print(f"sampling                  {seconds:.1f} s in {protocol['steps']} steps of {protocol['sampler']}")


def main() -> None:
    """Measure and print, one line a figure."""
    print(f"{os.cpu_count()} cores")
    help_seconds = statistics.median(seconds(command("train", "--help")) for _ in range(5))
    print(f"task1-train --help        {help_seconds:.2f} s (median of 5)")
    with tempfile.TemporaryDirectory() as folder:
        one = ["--train.steps", "1", "--train.log_every", "1", "--run.folder", folder]
        starts = [seconds(command("train", *DEMO, *one), until="step 1/1") for _ in range(3)]
        print(f"first step after          {statistics.median(starts):.1f} s (median of 3)")
        if "--quick" in sys.argv[1:]:
            print("the committed model:")
            show(evaluate(folder))
            return
        trained = seconds(command("train", *DEMO, "--run.folder", folder, "--run.name", "demo"))
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20  # the largest child so far; kB on Linux
        print(f"demo training             {trained:.0f} s, peak memory {peak:.2f} GiB")
        show(evaluate(folder, "--run", f"{folder}/task1/demo"))


if __name__ == "__main__":
    main()
