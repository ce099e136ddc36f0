"""`runs reproduce` and the archives that it is given: what is unpacked, what is said, and what is refused."""

import io
import os
import random
import stat
import struct
import zipfile
from pathlib import Path

import pytest

from shared.experiments import reproduce as reproduce_module
from shared.tests.made_runs import SOURCE, call, make, pack
from shared.tests.test_prune import tree

LAST = "python -m task1_x.train --config config.yaml --run.folder runs"


@pytest.fixture
def run(tmp_path, monkeypatch) -> Path:
    """A run in the folder `runs` of the current folder; what it says of packages and machine holds here."""
    monkeypatch.chdir(tmp_path)
    here = {name: "x" for name in reproduce_module.MACHINE} | {"packages": {"torch": "2.13.0"}}
    monkeypatch.setattr(reproduce_module, "provenance", lambda: here)
    return make(Path("runs"), "one", **here)


def refused(*words: object) -> str:
    """The one line that says why, after which nothing has changed."""
    before = tree(Path.cwd().parent)
    ended = call("reproduce", "one", "--out", "again", *words)
    assert (ended.status, ended.out, ended.err.count("\n")) == (1, "", 1), ended
    assert tree(Path.cwd().parent) == before
    return ended.err


def test_it_unpacks_the_code_and_says_the_command(run):
    ended = call("reproduce", "one", "--out", "a b")
    assert ended.status == 0 and ended.err == "" and len(ended.out.splitlines()) == 3
    assert ended.out.splitlines()[-1] == f"cd 'a b' && OMP_NUM_THREADS=1 PYTHONPATH=code:code/own {LAST}"
    unpacked = {name: content.decode() for name, content in tree(Path("a b") / "code").items() if content is not None}
    assert unpacked == SOURCE
    assert (Path("a b") / "config.yaml").read_bytes() == (run / "config.yaml").read_bytes()


@pytest.mark.parametrize("made", [False, True])
def test_a_folder_must_be_new_or_empty(made, run):
    if made:
        Path("again").mkdir()
    assert call("reproduce", run, "--out", "again").status == 0
    assert "again is there already: give a new folder" in refused()
    Path("file").write_text("")
    assert "file is there already" in call("reproduce", run, "--out", "file").err


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({"python": "3.9"}, ["differs: python was 3.9, and is x here"]),
        ({"packages": {"torch": "2.0"}}, ["differs: torch was 2.0, and is 2.13.0 here"]),
        ({"packages": {"numpy": "1"}}, ["differs: numpy was 1, and is not installed here"]),
        (
            {"packages": {"a": "1", "b": "1"}},
            ["differs: 2 other packages, such as a, b; see runs show --packages true"],
        ),
        ({"command": "task1-train --init-from runs/x"}, ["not in the folder: the weights of runs/x that it started"]),
        (
            {"resumed": [{"from_step": 5, "source": "source-2.zip", "command": "task1-train --resume x"}]},
            ["it was gone on with from step 5 (task1-train --resume x; code in source-2.zip); what follows is the run"],
        ),
        ({"gpu": "\x1b[2J", "packages": "none"}, ["differs: gpu was ?[2J, and is x here"]),
    ],
)
def test_what_differs_or_cannot_be_reproduced_is_said(changes, lines, run):
    here = {name: "x" for name in reproduce_module.MACHINE} | {"packages": {"torch": "2.13.0"}}
    make(Path("runs"), "other", **{**here, **changes})
    out = call("reproduce", "other", "--out", "again").out.splitlines()
    assert len(out) == 3 + len(lines) and all(out[1 + i].startswith(line) for i, line in enumerate(lines)), out


def test_images_of_ones_own_are_not_in_the_folder(run):
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("root: null", "root: ../pictures"))
    assert "not in the folder: the images in ../pictures" in call("reproduce", run, "--out", "again").out


@pytest.mark.parametrize(
    ("fields", "parts", "told"),
    [
        ("latents:\n  autoencoder: null\n", ["autoencoder"], " --latents.autoencoder autoencoder.safetensors"),
        ("distill:\n  teacher: null\n", ["teacher"], " --distill.teacher teacher.safetensors"),
        ("distill: {teacher: x}\n", ["autoencoder", "teacher"], " --distill.teacher teacher.safetensors"),
        ("base: null\n", ["base"], " --base base.safetensors"),
        ("latents:\n  autoencoder: x\n", [], ""),
        ("", ["autoencoder", "teacher"], ""),
    ],
)
def test_what_other_runs_have_trained_goes_along_and_is_named_as_the_command_takes_it(fields, parts, told, run):
    config = run / "config.yaml"
    config.write_text(config.read_text() + fields)
    for name in parts:
        (run / f"{name}.safetensors").write_text(name)
    assert call("reproduce", run, "--out", "again").out.endswith(f"{LAST}{told}\n")
    there = {path.name: path.read_text() for path in Path("again").glob("*.safetensors")}
    assert there == {f"{name}.safetensors": name for name in parts}


def test_a_run_that_went_on_for_more_steps(run):
    make(Path("runs"), "more", step=25)
    assert call("reproduce", "more", "--out", "a").out.endswith(f"{LAST} --train.steps 25\n")
    make(Path("runs"), "less", step=15, state="interrupted")
    assert call("reproduce", "less", "--out", "b").out.endswith(f"{LAST}\n")


@pytest.mark.parametrize("threads", ["1; touch executed", -1, 0, True, 10**9, None, [1]])
def test_no_word_of_a_record_becomes_a_command(threads, run):
    make(Path("runs"), "other", threads=threads, step="; touch executed", task="task1")
    last = call("reproduce", "other", "--out", "again").out.splitlines()[-1]
    assert "touch" not in last and last.endswith(LAST)


@pytest.mark.parametrize(
    ("command", "module"),
    [
        ("task1-train --a b", "train"),
        ("task1-train-other-part --a b", "train_other_part"),
        ("python -m task1_x.train_other_part", "train_other_part"),
        ("python -m task1_x.train", "train"),
        ("train_other_part.py", "train_other_part"),
        ("ipykernel_launcher.py -f x", "train"),
        ("python -m", "train"),
        ("", "train"),
        ("x;touch executed", "train"),
    ],
)
def test_the_module_of_the_command(command, module, run):
    """A stage may train several things."""
    other = make(Path("runs"), "other", command=command)
    pack(other / "source.zip", {**SOURCE, "task1_x/train_other_part.py": "", "task1_x/x;touch executed.py": ""})
    last = call("reproduce", "other", "--out", "again").out.splitlines()[-1]
    assert f"python -m task1_x.{module} --config" in last and "touch" not in last


def test_another_part_of_a_stage(run):
    other = make(Path("runs"), "other", "task2-part", command="task2-train-part --a b")
    pack(other / "source.zip", {"shared/a.py": "", "task2_y/train.py": "", "task2_y/train_part.py": ""})
    assert "python -m task2_y.train_part --config" in call("reproduce", "other", "--out", "again").out


@pytest.mark.parametrize("task", ["task2", "task1_x/train.py", ".*", "shared"])
def test_code_of_another_stage(task, run):
    record = run / "record.json"
    record.write_text(record.read_text().replace('"task": "task1"', f'"task": "{task}"'))
    assert "it is not the code of this run" in refused()


@pytest.mark.slow
def test_damaged_records(run):
    for name in ("record.json", "config.yaml"):
        content = (run / name).read_text()
        (run / name).write_text("{")
        assert name in refused()
        (run / name).write_text(content)
    (run / "source.zip").unlink()
    assert "there is no file runs/task1/one/source.zip" in refused()
    os.mkfifo(run / "source.zip")  # which would be waited for
    assert "there is no file" in refused()


@pytest.mark.parametrize(
    "name",
    ["../evil.py", "/evil.py", "a/../../evil.py", "a/..", "..\\evil.py", "C:evil.py", "./a", "a//b", "a/", ".", "\x1b"]
    + ["shared", "shared/a.py/b", "a\nb"],
)
def test_names_that_lead_elsewhere(name, run):
    """The last ones are a file where there is a folder, and the other way around."""
    pack(run / "source.zip", {**SOURCE, name: "evil"})
    assert "which is none of a run: nothing was unpacked" in refused()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_files_of_one_name(run):
    with zipfile.ZipFile(run / "source.zip", "a") as archive:
        archive.writestr("shared/a.py", "a = 2\n")
    assert "which is none of a run" in refused()


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFDIR])
def test_only_regular_files(kind, run):
    with zipfile.ZipFile(run / "source.zip", "a") as archive:
        info = zipfile.ZipInfo("link.py")
        info.external_attr = (kind | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    assert "holds link.py, which is no source file: nothing was unpacked" in refused()


@pytest.mark.slow
def test_archives_that_expand(run):
    with zipfile.ZipFile(run / "source.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("one.py", b"\0" * (reproduce_module.LARGEST + 1))
    assert "holds one.py, which is no source file" in refused()
    with zipfile.ZipFile(run / "source.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(65):
            archive.writestr(f"{i}.py", b"\0" * reproduce_module.LARGEST)
    assert (run / "source.zip").stat().st_size < 2**17 and "would unpack to more than 64 MiB" in refused()
    pack(run / "source.zip", {f"{i}.py": "" for i in range(reproduce_module.MEMBERS + 1)})
    assert "10,000 files: no run writes that" in refused()
    with open(run / "source.zip", "wb") as file:
        file.truncate(2**27)  # a hole: it takes no place on the disk
    assert "is larger than 64 MiB" in refused()


def test_an_archive_that_lies_about_its_size(run):
    """It says 10 bytes, and holds 16 MiB: no more than it says is ever unpacked."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("task1_x/train.py", b"\0" * 2**24)
    lie = content.getvalue().replace(struct.pack("<L", 2**24), struct.pack("<L", 10))
    (run / "source.zip").write_bytes(lie)
    assert "is damaged: it is not a whole zip file" in refused()


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_other_ways_to_pack(method, run):
    with zipfile.ZipFile(run / "source.zip", "a", method) as archive:
        archive.writestr("b.py", "b")
    assert "packed as no run packs it" in refused()


def test_an_archive_with_a_password(run):
    content = bytearray((run / "source.zip").read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(mark) + offset] |= 1
    (run / "source.zip").write_bytes(content)
    assert "which is no source file" in refused()


def test_damaged_archives(run):
    """At random: it is refused in a line, or what is unpacked is what was packed."""
    whole, rng, found = (run / "source.zip").read_bytes(), random.Random(0), set()
    for _ in range(200):
        content = bytearray(whole)
        if rng.random() < 0.3:
            del content[rng.randrange(len(content)) :]
        else:
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        (run / "source.zip").write_bytes(content)
        try:
            files = reproduce_module.read_source(run / "source.zip")
            found.add("whole" if {n: c.decode() for n, c in files.items()} == SOURCE else "other")
        except reproduce_module.UserError as error:
            assert "\n" not in str(error)
            found.add("refused")
    assert found >= {"whole", "refused"}  # a turned bit in a time or a name changes no content


def test_a_full_disk_leaves_nothing(run, monkeypatch):
    plain = Path.write_bytes

    def full(path, content):
        if path.name == "config.yaml":
            raise OSError(28, "No space left on device", str(path))
        return plain(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    assert "No space left on device" in refused()
    Path("again").mkdir()
    assert "No space left on device" in refused()
