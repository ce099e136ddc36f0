"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

Where a run comes from: command, code, packages and machine. The code itself is kept, not only the commit's name: a
commit can be lost, and what is untried is rarely committed.
"""

import os
import platform
import shlex
import subprocess
import sys
import sysconfig
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

from shared.training.processes import world

ROOT = Path(__file__).resolve().parents[2]  # of the code: a clone, or where a wheel was installed
SOURCE = (".py", ".yaml", ".yml", ".toml", ".sh")
LARGEST = 1 << 20  # bytes: nobody writes a longer source file by hand
LEFT_OUT = {"tests", "results", "__pycache__"}
SAME_DAY = (1980, 1, 1, 0, 0, 0)  # of every file in an archive, so that the same code gives the same bytes


def git(*arguments: str) -> str | None:
    """What git says about the code's own repository, or None where there is no git, or it does not hold this code."""
    try:
        ask = [
            "git",
            "ls-files",
            "--error-unmatch",
            __file__,
        ]  # an environment inside somebody's repository is not of it
        for command in (ask, ["git", *arguments]):
            answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace", check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout


def command_line() -> str:
    """This process's command, as a shell takes it: `task1-train …`, or `python -m task1_unconditional.train …`."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    if spec is not None and spec.origin and Path(spec.origin) == Path(sys.argv[0]):
        return shlex.join(["python", "-m", spec.name, *sys.argv[1:]])
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def provenance() -> dict[str, Any]:
    """Command, commit, packages and hardware of this process, as JSON can hold them."""
    import torch  # slow to import

    commit, untracked = git("rev-parse", "HEAD"), git("ls-files", "--others", "--exclude-standard", "-z")
    return {
        "command": command_line(),
        "commit": commit.strip() if commit else None,
        "untracked": sorted(filter(None, (untracked or "").split("\0"))),
        "python": platform.python_version(),
        "packages": {d.name: d.version for d in sorted(metadata.distributions(), key=lambda d: d.name.lower())},
        "platform": platform.platform(),
        "processor": processor(),
        "cpus": os.cpu_count(),
        "processes": world(),
        "threads": torch.get_num_threads(),
        "memory_gib": memory_gib(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def memory_gib() -> float | None:
    """The machine's memory in GiB, where the system tells."""
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        return None


def peak_memory_gib() -> dict[str, float]:
    """The most memory that this process has held so far, in GiB: of the machine's, and of the GPU's if it has one.

    Without that of its loaders. Not `ru_maxrss` where there is another: on Linux that begins at the parent's.
    """
    peaks = {}
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        peaks["peak_memory_gib"] = round(next(int(x.split()[1]) for x in lines if x.startswith("VmHWM")) / 2**20, 3)
    except (OSError, StopIteration):
        peaks |= peak_by_usage()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        peaks["peak_gpu_memory_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 3)
    return peaks


def peak_by_usage() -> dict[str, float]:
    """The same as the system's accounting has it, where it has one."""
    try:
        import resource

        unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
        return {"peak_memory_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30, 3)}
    except ImportError:  # Windows
        return {}


def is_source(path: Path) -> bool:
    """Whether a file is one that somebody wrote."""
    return path.suffix in SOURCE and path.is_file() and path.stat().st_size <= LARGEST


def source_files(task: str) -> dict[str, Path]:
    """Every source file that a run of a task ("task1", "task2-autoencoder") may depend on, by its name in the archive.

    The code of `shared` and of the task as it lies on the disk; what git does not track beside it; and, under
    `own/`, the modules of a person's own that were imported.
    """
    files = {"pyproject.toml": ROOT / "pyproject.toml"}
    for package in [ROOT / "shared", *ROOT.glob(f"{task.partition('-')[0]}_*")]:
        for path in package.rglob("*"):
            if not LEFT_OUT & set(path.relative_to(ROOT).parts):
                files[path.relative_to(ROOT).as_posix()] = path
    for name in filter(None, (git("ls-files", "--others", "--exclude-standard", "-z") or "").split("\0")):
        if not LEFT_OUT & set(Path(name).parts):
            files[name] = ROOT / name
    files |= {f"own/{name}": path for name, path in own_modules().items()}
    return {name: path for name, path in sorted(files.items()) if is_source(path)}


def own_modules() -> dict[str, Path]:
    """The imported modules that belong neither to this code nor to an installed package."""
    ours = [ROOT / "shared", *ROOT.glob("task*_*")]
    others = [*ours, *(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "purelib", "platlib"))]
    found = {}
    for name, module in list(sys.modules.items()):
        path = Path(getattr(module, "__file__", None) or "/").resolve()
        installed = {"site-packages", "dist-packages"} & set(path.parts) or any(path.is_relative_to(o) for o in others)
        if name != "__main__" and path.suffix == ".py" and not installed:
            tail = "/__init__.py" if path.name == "__init__.py" else ".py"
            found[name.replace(".", "/") + tail] = path
    return found


def write_source(archive: Path, task: str) -> None:
    """Put `source_files` into a zip. The same files give the same bytes."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for name, path in source_files(task).items():
            file.writestr(zipfile.ZipInfo(name, SAME_DAY), path.read_bytes(), zipfile.ZIP_DEFLATED)
