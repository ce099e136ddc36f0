"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

What the command `sweep` has Ray do: start on this machine, or join a cluster, run the trials, and leave nothing behind.
Ray is imported where it is used.
"""

import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from shared.errors import UserError
from shared.experiments.history import is_locked
from shared.experiments.sweep.space import check_space, evaluation, names_own_code, training_module
from shared.experiments.sweep.state import Sweep

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # the older output, which can be silent
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a trial without news says that it is there
}
SAVING = 300.0  # seconds that trainings have to save when the sweep ends


def say(line: str) -> None:
    """Print beside the output."""
    print(line, file=sys.stderr, flush=True)


def scratch(folder: Path) -> Path:
    """An empty folder for the sockets and logs of a Ray of this sweep's own: their paths must be short."""
    import hashlib
    import tempfile

    parent = tempfile.gettempdir()
    parent = parent if len(parent) <= 40 else "/tmp"
    path = Path(parent) / f"sweep-{os.getuid()}-{hashlib.sha256(bytes(folder)).hexdigest()[:12]}"
    if path.is_symlink() or path.exists() and path.stat().st_uid != os.getuid():
        raise UserError(f"{path} is somebody else's: remove it, or set TMPDIR to a folder of your own")
    shutil.rmtree(path, ignore_errors=True)  # of a sweep that was killed
    path.mkdir(mode=0o700)
    return path


@contextmanager
def deaf() -> Iterator[None]:
    """SIGTERM waits. What is started meanwhile never hears of it, and Ray's own processes should not.

    `timeout` sends it to a process group, Slurm and systemd to all processes of a job. Without Ray's, this one would
    wait a minute for Ray to answer, and be ended. In the end Ray's own shutdown follows SIGTERM by SIGKILL.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def connect(address: str | None, folder: Path) -> Path | None:
    """Start a Ray of one's own, or join a cluster. It does not call home, and opens no dashboard.

    Whoever may talk to Ray may run code by it, and it listens on all of a machine's addresses: one's own is given a
    token that only this process and what it starts know. A cluster has its own (see Ray's RAY_AUTH_MODE).

    Returns:
        the folder to remove in the end.

    Raises:
        UserError: no cluster answers there.
    """
    import secrets

    os.environ.update(QUIET)
    if address is None:
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    elif address != "auto":
        check_address(address)
    import ray  # it reads the environment once, when it is imported

    path = None if address else scratch(folder)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if address is not None:
            ray.init(address=address, **quiet)
            return None
        ray.init(address="local", include_dashboard=False, _temp_dir=str(path), **quiet)
        return path
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        where = "Ray cannot be started"
        if address:
            token = "" if "RAY_AUTH_MODE" in os.environ else " (or it wants a token: set RAY_AUTH_MODE=token)"
            where = f"no Ray cluster answers at {address}{token}"
        if path:
            shutil.rmtree(path, ignore_errors=True)
        raise UserError(f"{where}: {str(error)[:300]}") from None


def disconnect() -> None:
    """End one's own Ray, or leave the cluster."""
    if "ray" in sys.modules:
        sys.modules["ray"].shutdown()


def check_address(address: str) -> None:
    """Raise UserError where nothing listens: Ray itself would try for a minute."""
    import socket

    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in address:
        raise UserError(f"--address {address} is none: give host:port of the cluster's head, or auto")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, OverflowError) as error:
        raise UserError(f"no Ray cluster answers at {address}: {error}") from None


def check_fits(sweep: Sweep) -> None:
    """Raise UserError where no machine has what one trial needs: Ray would wait for ever."""
    import ray

    needs = {"CPU": sweep.config.resources.cpu, "GPU": sweep.config.resources.gpu}
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(all(machine.get(name, 0) >= need for name, need in needs.items()) for machine in machines):
        most = {name: max((machine.get(name, 0) for machine in machines), default=0) for name in needs}
        wanted = " and ".join(f"{need:g} {name}" for name, need in needs.items() if need)
        raise UserError(
            f"a trial needs {wanted}, and no machine has that (the most is {most['CPU']:g} CPU, {most['GPU']:g} GPU): "
            "change resources"
        )


def tune_trials(sweep: Sweep, steps: int) -> None:
    """Have Ray run the trials that have not ended.

    Args:
        sweep: an open one; Ray is connected.
        steps: of the base config's training.
    """
    import logging

    import ray
    from ray import tune
    from ray.tune import TuneError

    from shared.experiments.sweep.search import Halving, Points, Told
    from shared.experiments.sweep.trial import Job, TrialProcess

    config = sweep.config
    evaluate = evaluation(config) if config.evaluate else None
    job = Job(
        folder=str(sweep.folder),
        root=str(sweep.root),
        cwd=str(Path.cwd()),
        module=training_module(config.command).__name__,
        evaluate=(evaluate[0], *evaluate[1]) if evaluate else (),
        trust=names_own_code(sweep.base, sweep.config.space),
        figure=config.figure,
        rung=config.early_stopping.metric if config.early_stopping else None,
        threads=max(1, int(config.resources.cpu)),
    )
    halving = Halving(sweep, config.early_stopping, steps) if config.early_stopping else None
    points = Points(sweep, halving)
    resources = {name: amount for name, amount in asdict(config.resources).items() if amount}
    tuner = tune.Tuner(
        tune.with_resources(TrialProcess, resources),
        param_space={"job": asdict(job)},
        tune_config=tune.TuneConfig(
            search_alg=points,
            scheduler=halving,
            num_samples=config.count - sum(map(sweep.ended, sweep.trials)),
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name="ray",
            storage_path=str(sweep.folder),
            verbose=0,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # a run keeps its own
            callbacks=[Told(sweep, points, say)],
            failure_config=tune.FailureConfig(max_failures=2),  # of a machine: a training's own failure is a result
        ),
    )
    logging.getLogger("ray").setLevel(logging.CRITICAL)  # what there is to say, `Told` says
    try:
        tuner.fit()
    except (ray.exceptions.RayError, TuneError) as error:  # such as a cluster that is gone
        last = str(error).strip().splitlines()[-1:]
        raise UserError(f"Ray ended: {''.join(last)}; go on with: sweep --resume {sweep.folder}") from error


def work(sweep: Sweep, address: str | None) -> None:
    """Run what is left of a sweep, and leave nothing of Ray behind."""
    steps = check_space(sweep.config, sweep.base).train.steps
    shutil.rmtree(sweep.folder / "ray", ignore_errors=True)
    path, before = None, signal.getsignal(signal.SIGTERM)
    try:
        with deaf():
            path = connect(address, sweep.folder)
            # Tune handles that one; set here, as Ray sets its own while it connects, which aborts
            signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
        check_fits(sweep)
        tune_trials(sweep, steps)
    finally:
        until = time.monotonic() + SAVING  # with Ray, its workers end, and with them the trainings
        while time.monotonic() < until and any((run := sweep.run(t)) and is_locked(run.folder) for t in sweep.trials):
            time.sleep(0.1)
        disconnect()
        signal.signal(signal.SIGTERM, before)
        shutil.rmtree(sweep.folder / "ray", ignore_errors=True)
        if path:
            shutil.rmtree(path, ignore_errors=True)
