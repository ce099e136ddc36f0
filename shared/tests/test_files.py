"""Files are whole or not there; `test_checkpoint.py` kills and fails every operation of it."""

import os

import pytest

from shared.files import partial, write_text, write_whole
from shared.tests.faults import failing


def test_a_file_is_replaced(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    write_text(path, "new ε")
    assert path.read_text(encoding="utf-8") == "new ε"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_reader_sees_the_old_file_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def write(temporary):
        temporary.write_text("ne")
        assert path.read_text() == "old"
        temporary.write_text("new")

    write_whole(path, write)
    assert path.read_text() == "new"


@pytest.mark.parametrize("error", [OSError, ValueError, KeyboardInterrupt, SystemExit])
def test_what_goes_wrong_while_writing_is_passed_on_and_leaves_nothing(error, tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def write(temporary):
        temporary.write_text("half")
        raise error("wrong")

    with pytest.raises(error, match="wrong"):
        write_whole(path, write)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("event", ["before create", "amid write", "before fsync", "before replace"])
def test_a_disk_error_leaves_the_old_file(event, tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(OSError, match="No space"), failing(event):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_the_first_error_is_reported_where_nothing_was_written(tmp_path):
    """Cleaning up after a writer that made no file must not put another error in its place."""
    with pytest.raises(ZeroDivisionError):
        write_whole(tmp_path / "a", lambda temporary: 1 / 0)


def test_a_partial_file_keeps_the_suffix_and_is_hidden(tmp_path):
    """Writers choose the format by the suffix; and no pattern for whole files finds it."""
    name = partial(tmp_path / "grid.png").name
    assert name.endswith(".png") and name.startswith(".")


def test_the_folder_must_exist(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_text(tmp_path / "no" / "a.txt", "x")


def test_nothing_stays_open(tmp_path):
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else pytest.skip("no /proc here")
    for _ in range(5):
        write_text(tmp_path / "a.txt", "x")
    assert len(os.listdir("/proc/self/fd")) == before
