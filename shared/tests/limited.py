"""A function in a process of its own that may take no more than so much memory and time, or has a small disk."""

import importlib
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any


def limited(
    function: str, *arguments: str, gib: float = 2.0, seconds: float = 60.0, before: tuple[str, ...] = ()
) -> Any:
    """What `module:function(*arguments)` returns, through JSON.

    Args:
        function: the module, whose import is not limited, a colon, and the function's name.
        arguments: words.
        gib: memory that the function may ask for.
        seconds: of processor time, for the function.
        before: words to put before the command.

    Raises:
        subprocess.CalledProcessError: it ended in an exception, or was killed for its time.
    """
    command = [*before, sys.executable, "-m", __name__, function, str(gib), str(seconds), *arguments]
    ended = subprocess.run(command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(ended.stdout.splitlines()[-1])


OWN_MOUNTS = ("unshare", "--user", "--map-root-user", "--mount")  # what it mounts is gone when it ends


def small_disk(folder: Path, *options: str) -> None:
    """Mount a disk in memory on a folder, or mount it again with other options: "size=64k", "nr_inodes=9"."""
    again = ["remount"] if folder.is_mount() else []
    subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join([*again, *options]), "tmpfs", str(folder)], check=True)


def no_small_disk(folder: Path) -> str:
    """Why there can be no small disk here; empty where there can."""
    command = [*OWN_MOUNTS, "mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    try:
        return subprocess.run(command, stderr=subprocess.PIPE, text=True).stderr.strip()
    except OSError as error:
        return str(error)


def limit(gib: float, seconds: float) -> None:
    """Let this process ask for so much more memory and processor time than it has had."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    memory = pages * resource.getpagesize() + int(gib * 2**30)
    used = resource.getrusage(resource.RUSAGE_SELF)
    time = int(used.ru_utime + used.ru_stime + seconds) + 1
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (time, time))


if __name__ == "__main__":
    name, gib, seconds, *arguments = sys.argv[1:]
    module, _, attribute = name.partition(":")
    called = getattr(importlib.import_module(module), attribute)
    limit(float(gib), float(seconds))
    print(json.dumps(called(*arguments)))
