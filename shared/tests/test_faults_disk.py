"""A disk that is full: a small one in memory, filled by real saves, whatever stage of a save meets its end."""

import errno
from pathlib import Path

import pytest
import torch

from shared.files import write_text
from shared.tests.faults import State, restored
from shared.tests.faults_training import SHORT, files, trained
from shared.tests.limited import OWN_MOUNTS, limited, no_small_disk, small_disk
from shared.training.checkpoint import Checkpoints

SIZES = tuple(f"size={4 * pages}k" for pages in range(1, 15))  # a checkpoint takes 4 pages
INODES = tuple(f"nr_inodes={n}" for n in range(1, 6))
PLENTY = "size=1m", "nr_inodes=100"


def names(folder: Path) -> list[str]:
    """The files of a folder, and of those below."""
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def mounted(at: str, option: str) -> Path:
    """A small disk; for root of this process's namespace alone."""
    folder = Path(at) / option
    folder.mkdir()
    small_disk(folder, option)
    return folder


def saves_until_full(at: str) -> list[dict]:
    """Save until the disk is full, then make room and save again; what was left each time."""
    states = [State(n) for n in range(8)]
    found = []
    for option in (*SIZES, *INODES):
        folder = mounted(at, option)
        checkpoints, n, failed = Checkpoints(folder / "c", keep=99), 0, None
        while failed is None:
            n += 1
            try:
                states[n].save(checkpoints)
            except OSError as error:
                failed = error
        there = names(folder)
        whole = [restored(path).equals(states[int(path.stem[5:])]) for path in checkpoints.all()]
        small_disk(folder, *PLENTY)
        states[n].save(checkpoints)
        again = restored(checkpoints.latest()).equals(states[n])
        found.append({"saved": n - 1, "errno": failed.errno, "names": there, "whole": whole, "again": again})
    return found


def trainings_until_full(at: str) -> list[dict]:
    """Train until the disk is full, then make room and go on."""
    torch.set_num_threads(1)
    trained(Path(at) / "whole", **SHORT)
    found = []
    for option in (*SIZES, *INODES):
        folder, number = mounted(at, option), None
        try:
            trained(folder, **SHORT)
        except OSError as error:
            number = error.errno
        there = names(folder)
        small_disk(folder, *PLENTY)
        resume = Checkpoints(folder / "checkpoints").all()[-1:]
        trained(folder, resume=resume[0] if resume else None, **SHORT)
        found.append({"errno": number, "names": there, "equal": files(folder) == files(Path(at) / "whole")})
    return found


def texts_until_full(at: str) -> list[bool]:
    """Replace a text by longer ones until it does not fit; whether the last that did is still there, alone."""
    found = []
    for option in SIZES:
        folder, text = mounted(at, option), ""
        try:
            while True:
                longer = text + "x" * 3000
                write_text(folder / "a.txt", longer)
                text = longer
        except OSError:
            found.append(not text or ((folder / "a.txt").read_text() == text and names(folder) == ["a.txt"]))
    return found


def on_small_disks(function, folder: Path):
    """What a function of this module gives, where it can mount a small disk."""
    probe = folder / "probe"
    probe.mkdir()
    if reason := no_small_disk(probe):
        pytest.skip(f"no small disk can be mounted here: {reason}")
    return limited(f"{__name__}:{function.__name__}", str(folder), before=OWN_MOUNTS)


def test_saves_until_the_disk_is_full(tmp_path):
    found = on_small_disks(saves_until_full, tmp_path)
    for end in found:
        assert end["errno"] == errno.ENOSPC and end["again"], end
        assert end["names"] == [f"step-{n:08d}.safetensors" for n in range(1, end["saved"] + 1)]
        assert end["whole"] == [True] * end["saved"]
    assert {end["saved"] for end in found} >= {0, 1, 2, 3}


@pytest.mark.slow
def test_trainings_until_the_disk_is_full(tmp_path):
    """They end in the error, keep what was saved, and end bit-equal once there is room."""
    found = on_small_disks(trainings_until_full, tmp_path)
    steps = [2, 4, 6]
    for end in found:
        assert end["errno"] in (errno.ENOSPC, None) and end["equal"], end
        kept = [[f"step-{n:08d}.safetensors" for n in steps[max(k - 2, 0) : k]] for k in range(4)]
        assert end["names"] in kept
    assert {len(end["names"]) for end in found if end["errno"]} == {0, 1, 2}  # each save was one that failed
    assert any(end["errno"] is None for end in found)


@pytest.mark.slow
def test_texts_until_the_disk_is_full(tmp_path):
    assert all(on_small_disks(texts_until_full, tmp_path))
