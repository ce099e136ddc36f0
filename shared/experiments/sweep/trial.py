"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

What Ray runs for each trial: the ordinary training command in a process of its own, so that all promises of a run hold
(record, lock, checkpoints, resuming bit for bit), followed by its metrics.jsonl.

It is Ray's class interface, not the function one: a function's thread may end before the training does, and Linux would
take that for the death of the parent; and `cleanup` is called where a trial is stopped, and waited for.
"""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune

from shared.experiments.history import Run, is_locked, read_metrics
from shared.experiments.prune import Target, has_checkpoint, obstacle, place, remove, version
from shared.experiments.sweep import child
from shared.experiments.sweep.state import figure_of, run_of

POLL = 0.1  # seconds between two looks at a training
HEARTBEAT = 2.0  # seconds after which Ray hears from a trial without news: in between it cannot be stopped
HELD = 600.0  # seconds for which the training of a killed sweep is waited for
SIGNALLED = (128 + signal.SIGINT, 128 + signal.SIGTERM)  # the exit status of a training that was asked to end
STOPPING = 300.0  # seconds that a training has to finish its step and save


@dataclass(frozen=True)
class Job:
    """What all trials have in common, in plain values: it travels to other machines."""

    folder: str
    """the sweep's"""
    root: str
    """of all runs"""
    cwd: str
    """where the sweep was started: what paths in the config are relative to"""
    module: str
    """of the training"""
    evaluate: tuple[str, ...]
    """module and options of the evaluation; empty for none"""
    trust: bool
    """the config names code of one's own"""
    figure: str
    rung: str | None
    """name in metrics.jsonl that ASHA compares"""
    threads: int


class TrialProcess(tune.Trainable):
    """One trial. `config` has job (the fields of `Job`), name (of the run), and after (the last step Ray knows of)."""

    def setup(self, config: dict[str, Any]) -> None:
        """Begin the training, or go on with it."""
        self.job, self.name, self.reported = Job(**config["job"]), config["name"], config["after"]
        self.child: subprocess.Popen | None = None
        self.evaluating, self.problem = False, ""
        self.lines: list[dict[str, float]] = []
        self.seen: tuple[int, int] | None = None  # size and time of metrics.jsonl when it was read
        if not Path(self.job.cwd).is_dir():
            self.problem = f"this machine has no folder {self.job.cwd}: all machines of a cluster must share it"
            return
        run = run_of(Path(self.job.root), self.name)
        if run and is_locked(run.folder):
            run = self.waited(run)
        if self.problem or run and run.state == "finished":
            return
        arguments = ["--config", str(Path(self.job.folder) / "configs" / f"{self.name}.yaml")]
        arguments += [f"--run.folder={self.job.root}", f"--run.name={self.name}"]
        if run and has_checkpoint(run.folder):
            arguments = ["--resume", str(run.folder), *(["--trust", "true"] if self.job.trust else [])]
        elif run:
            target = Target(run, True, place(run.folder), version(run.folder))
            self.problem = obstacle(target, Path(self.job.root), target.path) or remove(target, target.path) or ""
        if not self.problem:
            self.start([self.job.module, *arguments])

    def waited(self, run: Run) -> Run | None:
        """The run, when the training of a killed sweep has let go of it."""
        until = time.monotonic() + HELD
        while is_locked(run.folder):
            if time.monotonic() > until:
                self.problem = f"{run.folder} is being trained by another process"
                break
            time.sleep(POLL)
        return run_of(Path(self.job.root), self.name)

    def start(self, arguments: list[str]) -> None:
        """`python -m` with these, its output added to the trial's log."""
        command = [sys.executable, "-I", "-S", child.__file__, str(os.getpid()), sys.executable, "-m", *arguments]
        environment = {**os.environ, "OMP_NUM_THREADS": str(self.job.threads)}
        with (Path(self.job.folder) / "logs" / f"{self.name}.log").open("ab") as log:
            self.child = subprocess.Popen(
                command,
                cwd=self.job.cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a Ctrl-C at the terminal reaches it once, through `cleanup`
            )

    def step(self) -> dict[str, Any]:
        """Wait for news. Ray hears of each line of metrics.jsonl, and at last how the trial ended."""
        until = time.monotonic() + HEARTBEAT
        while time.monotonic() < until:
            ended = self.child is None or self.child.poll() is not None  # first: what it wrote last is then there
            if not self.evaluating and (line := self.news()):
                self.reported = int(line["step"])
                return {"step": self.reported} | ({"rung": line[self.job.rung]} if self.job.rung in line else {})
            if ended:
                return self.end()
            time.sleep(POLL)
        return {"step": self.reported}

    def news(self) -> dict[str, float] | None:
        """The next line of figures that Ray does not know of."""
        run = run_of(Path(self.job.root), self.name)
        path = run and run.folder / "metrics.jsonl"
        if path and path.exists() and self.seen != (seen := (path.stat().st_size, path.stat().st_mtime_ns)):
            self.lines, self.seen = read_metrics(path)[0], seen
        return next((line for line in self.lines if line["step"] > self.reported), None)

    def end(self) -> dict[str, Any]:
        """What to report of a process that has ended; an evaluation may follow."""
        run = run_of(Path(self.job.root), self.name)
        status = self.child.returncode if self.child else 0
        state = run.state if run else "failed"
        if status > 0 and status not in SIGNALLED and not self.evaluating:
            state = "failed"  # also where it could not go on with its run, whose record says how that ended before
        found = run and figure_of(run, self.job.figure, bool(self.job.evaluate))
        if not self.problem and state == "finished" and not found:
            if self.job.evaluate and not self.evaluating:
                self.evaluating = True
                module, *options = self.job.evaluate
                self.start([module, "--run", str(run.folder), *options])
                return {"step": self.reported}
            self.problem = self.last_words() if self.evaluating and status else self.no_figure(run)
        if self.problem or state == "failed":
            said = run.record.get("reason") if run and run.state == "failed" else None
            reason = self.problem or said or self.last_words()
            return {"step": self.reported, "done": True, "state": "failed", "reason": str(reason)}
        figures = {"figure": found[1]} if found and state == "finished" else {}
        return {"step": self.reported, "done": True, "state": state, **figures}

    def no_figure(self, run: Run) -> str:
        """That the figure which the sweep is about was not recorded."""
        if self.job.evaluate:
            known = {name for evaluation in run.evaluations for name in evaluation.figures}
        else:
            known = {name for line in run.metrics for name in line}
        return f"it recorded no figure {self.job.figure}; there are {', '.join(sorted(known)) or 'none'}"

    def last_words(self) -> str:
        """The last line that the process printed."""
        log = Path(self.job.folder) / "logs" / f"{self.name}.log"
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.exists() else []
        return (lines[-1] if lines else "it ended without a word").rpartition("error: ")[2]

    def cleanup(self) -> None:
        """Have the training finish its step and save: ASHA stopped it, or the sweep ends."""
        if self.child is None or self.child.poll() is not None:
            return
        self.child.terminate()
        try:
            self.child.wait(STOPPING)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
