"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

What decides in a sweep: which point comes next, and which trial is stopped. Both are Ray's and Optuna's; here they are
made to write down what they decide before it is done, and to be told again, by a resumed sweep, what they knew.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
from ray import tune
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from shared.experiments.sweep.config import EarlyStopping
from shared.experiments.sweep.space import distributions, places, values_at
from shared.experiments.sweep.state import Sweep, Trial
from shared.experiments.tables import clean


class Halving(ASHAScheduler):
    """Ray's ASHA; a trial that it stops is written down first."""

    def __init__(self, sweep: Sweep, stopping: EarlyStopping, steps: int):
        """`steps` are those of the base config's training."""
        super().__init__(
            time_attr="step",
            metric="rung",
            mode=stopping.mode,
            grace_period=stopping.grace,
            max_t=max(stopping.most or steps, stopping.grace),
            reduction_factor=stopping.factor,
            stop_last_trials=False,  # at its last step a training ends by itself, and has then finished
        )
        self.sweep, self.last = sweep, stopping.most or steps
        self.trials: dict[str, Trial] = {}

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Whether it goes on."""
        decision = super().on_trial_result(tune_controller, trial, result)
        if decision != TrialScheduler.STOP or result["step"] >= self.last:
            return TrialScheduler.CONTINUE
        mine = self.trials[trial.trial_id]
        mine.stopped = int(result["step"])
        self.sweep.save()
        return decision

    def remind(self, trial_id: str, trial: Trial) -> int:
        """What a trial reported before the sweep was killed, for the trials that it is compared with.

        Nothing is decided again: a trial that was let pass a rung has passed it.

        Returns:
            the last step that was reported.
        """
        self.trials[trial_id] = trial
        run, stopping = self.sweep.run(trial), self.sweep.config.early_stopping
        lines = [line for line in (run.metrics if run else []) if stopping.metric in line]
        same = SimpleNamespace(trial_id=trial_id)
        super().on_trial_add(None, same)
        for line in lines:
            if trial.stopped is None or line["step"] <= trial.stopped:
                super().on_trial_result(None, same, {"step": line["step"], "rung": line[stopping.metric]})
        return int(lines[-1]["step"]) if lines else 0


class Points(Searcher):
    """The trials that have not ended, then new ones, until there are as many as were asked for."""

    def __init__(self, sweep: Sweep, halving: Halving | None):
        """`halving` is the scheduler, where there is early stopping."""
        super().__init__(metric="figure", mode=sweep.config.mode)
        self.sweep, self.halving = sweep, halving
        self.pending = [trial for trial in sweep.trials if not sweep.ended(trial)]
        self.running: dict[str, Trial] = {}
        for trial in sweep.trials:
            if halving and trial not in self.pending:
                halving.remind(f"before-{trial.number}", trial)
        self.tpe = self.informed() if sweep.config.search == "tpe" else None

    def informed(self) -> OptunaSearch:
        """Optuna's TPE, told of the trials that ended; the first that it suggests are those that did not."""
        config = self.sweep.config
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        seed = (config.seed + len(self.sweep.trials)) % 2**32  # a resumed search does not draw the same once more
        points = [places(config, trial.values) for trial in self.pending]
        sampler = optuna.samplers.TPESampler(seed=seed)
        tpe = OptunaSearch(distributions(config), "figure", config.mode, points, sampler)
        for trial in self.sweep.trials:
            if trial not in self.pending:
                found = self.sweep.figure(trial)
                tpe.add_evaluated_point(places(config, trial.values), found and found[1], error=found is None)
        return tpe

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """What the next trial is; the point is on the disk before."""
        trials, config = self.sweep.trials, self.sweep.config
        if not self.pending and len(trials) >= config.count:
            return Searcher.FINISHED
        point = self.tpe.suggest(trial_id) if self.tpe else {}
        if self.pending:
            trial = self.pending.pop(0)
        else:
            trial = Trial(len(trials), values_at(config, point))
            trials.append(trial)
        self.sweep.prepare(trial)
        self.running[trial_id] = trial
        after = self.halving.remind(trial_id, trial) if self.halving else 0
        return {"name": self.sweep.name(trial), "after": after}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Learn from it; a failure is written down."""
        trial, result = self.running.pop(trial_id), result or {}
        if result.get("state") == "failed":
            trial.failed = str(result.get("reason") or "it ended without a word")
            self.sweep.save()
        if self.tpe:
            found = self.sweep.figure(trial) if trial.failed is None else None
            self.tpe.on_trial_complete(trial_id, {"figure": found[1]} if found else None, error=found is None)

    def save(self, checkpoint_path: str) -> None:
        """Ray asks for a pickle; what is to be kept is in trials.json."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        """Never."""


class Told(tune.Callback):
    """A line for each trial that begins or ends."""

    def __init__(self, sweep: Sweep, points: Points, say: Any):
        """`say(line)` prints it."""
        self.sweep, self.points, self.say = sweep, points, say

    def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """It begins, or goes on."""
        mine = self.points.running[trial.trial_id]
        values = ", ".join(f"{name} {shown(value)}" for name, value in mine.values.items())
        self.say(clean(f"{self.sweep.name(mine)}: {values}"))

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """It has ended, or was stopped."""
        name = trial.config["name"]
        mine = next(t for t in self.sweep.trials if self.sweep.name(t) == name)
        found = self.sweep.figure(mine)
        figure = f", {self.sweep.config.figure} {found[1]:.4g}" if found else ""
        state = (trial.last_result or {}).get("state", "interrupted")
        state = f"stopped by ASHA at step {mine.stopped}" if mine.stopped is not None else state
        done = sum(self.sweep.ended(t) for t in self.sweep.trials)
        why = f": {mine.failed}" if mine.failed else ""
        self.say(clean(f"{name}: {state}{figure}{why} ({done} of {self.sweep.config.count})"))
        stopping, run = self.sweep.config.early_stopping, self.sweep.run(mine)
        if stopping and run and run.metrics and not any(stopping.metric in line for line in run.metrics):
            known = ", ".join(sorted({figure for line in run.metrics for figure in line}))
            self.say(
                clean(f"{name}: early_stopping cannot compare it: it recorded no {stopping.metric}; there are {known}")
            )

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """What ran it is gone, and has been begun again in vain."""
        self.say(clean(f"{trial.config['name']}: Ray lost it, as where a machine is gone or out of memory"))


def shown(value: Any) -> str:
    """A field's value, in four digits where it was drawn."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
