"""Introduced in task 1; used by tasks 1, 2, 3, 4.

`runs reproduce`: a run again, from its folder alone. Its code is unpacked, never run: the command that runs it is
printed, for a person who has looked at whose code it is.
"""

import io
import os
import re
import shlex
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from shared.cli import flat
from shared.errors import UserError
from shared.experiments.history import Run, open_run
from shared.experiments.provenance import LARGEST, provenance
from shared.experiments.show import MAIN_PACKAGES, mapping, sessions
from shared.experiments.tables import clean, warn

TOTAL = 64 * LARGEST  # bytes of source, unpacked: far more than anybody writes
MEMBERS = 10_000
NO_ARCHIVE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError, OverflowError)
# Trained by another run, and kept with this one; and the field that names it, if the training has that: a student's
# autoencoder has none, and is found beside its teacher.
PARTS = {
    "autoencoder.safetensors": "latents.autoencoder",
    "teacher.safetensors": "distill.teacher",
    "image.safetensors": "inflate.image",
    "base.safetensors": "base",
}
MACHINE = ("python", "platform", "processor", "cpus", "gpu")


def read_source(path: Path) -> dict[str, bytes]:
    """The files of a source.zip by name, each checked before any is unpacked.

    Raises:
        UserError: it is not there, not an archive that a run writes, or made to do harm.
    """
    if not path.is_file():
        raise UserError(f"there is no file {path}: it holds the code of the run")
    if path.stat().st_size > TOTAL:
        raise UserError(f"{path} is larger than {TOTAL >> 20} MiB: no run writes such an archive")
    try:
        with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as archive:
            members = archive.infolist()
            check_members(path, members)
            return {member.filename: archive.read(member) for member in members}
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except NO_ARCHIVE:
        raise UserError(f"{path} is damaged: it is not a whole zip file; take it from a copy of the run") from None


def check_members(path: Path, members: list[zipfile.ZipInfo]) -> None:
    """Raise UserError unless these are regular files of moderate size, and all within the folder they go to."""
    names = {member.filename for member in members}
    if len(members) > MEMBERS or sum(member.file_size for member in members) > TOTAL:
        raise UserError(f"{path} would unpack to more than {TOTAL >> 20} MiB or {MEMBERS:,} files: no run writes that")
    for member in members:
        name, parts = member.filename, member.filename.split("/")
        inside = not set(parts) & {"", ".", ".."} and not set(name) & {"\\", ":"} and clean(name) == name
        above = {"/".join(parts[:i]) for i in range(1, len(parts))}
        if not inside or above & names or len(names) < len(members):
            raise UserError(f"{path} holds a file named {name}, which is none of a run: nothing was unpacked")
        mode = member.external_attr >> 16
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG) or member.file_size > LARGEST or member.flag_bits & 1:
            raise UserError(f"{path} holds {name}, which is no source file: nothing was unpacked")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise UserError(f"{path} holds {name}, packed as no run packs it: nothing was unpacked")


def reproduce(run: str, out: str, folder: str = "runs") -> int:
    """Unpack a run's own code and config, and say which command trains it again.

    Args:
        run: its folder, or its name
        out: a new folder for code and config
        folder: folder of all runs, in which a name is looked for
    """
    found, target = open_run(run, Path(folder)), Path(out)
    if not found.record or not found.config:
        raise UserError("; ".join(found.problems) or f"{found.folder / 'config.yaml'} is empty")
    source = read_source(found.folder / "source.zip")
    module = training_module(found, source)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target} is there already: give a new folder as --out")
    unpack(source, [found.folder / name for name in ("config.yaml", *PARTS)], target)
    print(f"unpacked: {len(source)} files in {clean(target / 'code')}, which is code of the run: look whose it is")
    for line in [*changes(found), *missing(found)]:
        print(clean(line))
    print("run it again with:")
    print(clean(f"cd {shlex.quote(str(target))} && {environment(found)}python -m {module} {' '.join(options(found))}"))
    warn(found.problems)
    return 0


def training_module(run: Run, names: dict[str, bytes]) -> str:
    """The training command's module, as the archive has it: `task2-train-autoencoder` is the stage's
    train_autoencoder.py, and train.py what a notebook or a program of one's own has called.

    Raises:
        UserError: there is none.
    """
    stage = run.task.partition("-")[0]  # "task2" of "task2-autoencoder"
    words = str(run.record.get("command")).split() or [""]
    program = words[2] if words[:2] == ["python", "-m"] and len(words) > 2 else words[0]
    stem = program.removesuffix(".py").removeprefix(f"{stage}-").replace("-", "_").rpartition(".")[2]
    for wanted in (stem, "train"):
        found = [n for n in names if re.fullmatch(rf"task\d_\w+/{re.escape(wanted)}\.py", n, re.ASCII)]
        found = [name for name in found if name.startswith(f"{stage}_")]
        if len(found) == 1 and wanted.isidentifier():
            return found[0].removesuffix(".py").replace("/", ".")
    raise UserError(f"{run.folder / 'source.zip'} holds no {stage}_…/train.py: it is not the code of this run")


def unpack(source: dict[str, bytes], files: list[Path], target: Path) -> None:
    """Write the code, and copy those of the run's files that there are. What cannot be written whole is not there."""
    made = not target.exists()
    target.mkdir(parents=True, exist_ok=True)
    try:
        for name, content in source.items():
            path = target / "code" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        for file in filter(Path.is_file, files):
            (target / file.name).write_bytes(file.read_bytes())
    except BaseException:  # a full disk, Ctrl-C
        for file in files:
            (target / file.name).unlink(missing_ok=True)
        shutil.rmtree(target if made else target / "code", ignore_errors=True)
        raise


def changes(run: Run) -> Iterator[str]:
    """What is another here than where the run was trained, a line each."""
    now = provenance()
    for name in MACHINE:
        if name in run.record and run.record[name] != now[name]:
            yield f"differs: {name} was {run.record[name]}, and is {now[name]} here"
    then, here = mapping(run.record.get("packages")), now["packages"]
    other = {name: version for name, version in then.items() if here.get(name) != version}
    for name in filter(other.get, MAIN_PACKAGES):
        yield f"differs: {name} was {other[name]}, and is {here.get(name, 'not installed')} here"
    if rest := [name for name in other if name not in MAIN_PACKAGES]:
        yield f"differs: {len(rest)} other packages, such as {', '.join(rest[:3])}; see runs show --packages true"


def missing(run: Run) -> Iterator[str]:
    """What the run depends on besides its folder, a line each."""
    command = str(run.record.get("command"))
    if match := re.search(r"--init[-_]from[ =](\S+)", command):
        yield f"not in the folder: the weights of {match[1]} that it started from; add --init-from with them"
    if root := flat(run.config).get("data.root"):
        yield f"not in the folder: the images in {root}; add --data.root with where they lie"
    for step, what in sessions(run):
        yield f"it was gone on with from step {step} ({what}); what follows is the run as it was begun"


def environment(run: Run) -> str:
    """The variables of the command. As many threads as then: sums of floats depend on how they are split."""
    threads = run.record.get("threads")
    count = f"OMP_NUM_THREADS={threads} " if isinstance(threads, int) and 0 < threads <= 2**10 else ""
    return f"{count}PYTHONPATH={os.pathsep.join(('code', 'code/own'))} "


def options(run: Run) -> list[str]:
    """The options of the command: all is in config.yaml but the place."""
    fields = flat(run.config)
    steps, planned = run.record.get("step"), fields.get("train.steps")
    went_on = run.state == "finished" and isinstance(steps, int) and steps != planned  # by --resume --train.steps
    parts = [f"--{field} {name}" for name, field in PARTS.items() if field in fields and (run.folder / name).is_file()]
    return ["--config config.yaml --run.folder runs", *parts, *([f"--train.steps {steps}"] if went_on else [])]
