"""Files made to attack whoever reads them: nothing in them is run, and reading them takes little time and memory.

One table for each kind of file. More of the same kind, not repeated here: what is no checkpoint at all (pickles of two
sorts among it) in `test_checkpoint.py`; zips that climb, lie and never end in `test_datasets_folder.py`; images that
declare any size in `test_datasets_decode.py`; pickles of published sets in `test_datasets.py`; and the commands that
meet such files in `task1_unconditional/tests`.
"""

import contextlib
import io
import json
import os
import pickle
import struct
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save

from shared.cli import Parser, flat, read_yaml
from shared.datasets import DataConfig, folder, load
from shared.errors import UserError
from shared.metrics import judge
from shared.tests.faults import restored
from shared.tests.limited import limited
from shared.tests.test_checkpoint import Malicious
from shared.tests.test_datasets_decode import bomb
from shared.training.checkpoint import digest, read_facts, read_tensors
from shared.training.config import TrainConfig

SECONDS = 20.0  # for one file; most take milliseconds
GIB = 1.0


def outcome(act: Callable[[], object]) -> str:
    """ "read", or the one line in which it ended; any other end is a traceback to a person, and none is right."""
    began, err = time.process_time(), io.StringIO()
    try:
        with contextlib.redirect_stderr(err):
            act()
        end = "read"
    except UserError as error:
        end = f"line: {error}"
    except SystemExit:
        end = f"line: {err.getvalue().strip()}"
    except BaseException as error:
        end = f"raised {error!r}"
    return end if time.process_time() - began < SECONDS else f"too long: {end}"


def names(folder: Path) -> set[str]:
    """Everything in a folder and below."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def attacked(function: Callable, at: Path) -> dict[str, str]:
    """The outcomes of a function of this module, in a process with limits; nothing must be made but its own file."""
    (at / "given").mkdir()
    found = limited(f"{__name__}:{function.__name__}", str(at / "given"), gib=GIB, seconds=200)
    assert names(at) <= {"given", *(f"given/{path.name}" for path in (at / "given").iterdir())}
    assert not any("executed" in name for name in names(at))
    for attack, end in found.items():
        assert "\n" not in end and len(end) < 600, attack
    return found


# --- checkpoints --------------------------------------------------------------------------------------------


def raw(header: bytes | dict, data: bytes = bytes(16), length: int | None = None) -> bytes:
    """A safetensors file with any header, which may declare another length."""
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def one(shape: list[int], begin: int, end: int, dtype: str = "F32") -> dict:
    """A tensor as the header declares it."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def stating(facts: str) -> bytes:
    """A valid safetensors file with any text as its facts."""
    return save({"ema.a": torch.zeros(4)}, metadata={"checkpoint": facts})


def signed(**facts: object) -> bytes:
    """A valid file whose facts have a valid digest."""
    facts = {"format": 2, "digests": {}, **facts}
    return stating(json.dumps(facts | {"digest": digest(json.dumps(facts))}))


CHECKPOINTS: dict[str, Callable[[], bytes]] = {
    "a header of 2^63 bytes": lambda: raw(b"{}", length=2**63),
    "a header of 2^64 - 1 bytes": lambda: raw(b"{}", length=2**64 - 1),
    "a header of 99 MB that is not there": lambda: raw(b"{}", length=99_000_000),
    "a header of 0 bytes": lambda: raw(b"", length=0),
    "tensors that overlap": lambda: raw({"ema.a": one([2], 0, 8), "ema.b": one([2], 4, 12)}),
    "a tensor beyond the end": lambda: raw({"ema.a": one([2**20], 0, 2**22)}),
    "a tensor that ends before it begins": lambda: raw({"ema.a": one([4], 16, 0)}),
    "a shape whose size overflows": lambda: raw({"ema.a": one([2**62, 4], 0, 16)}),
    "a negative shape": lambda: raw({"ema.a": one([-4], 0, 16)}),
    "a type that is none": lambda: raw({"ema.a": one([4], 0, 16, "OBJECT")}),
    "a header of nested lists": lambda: raw(b"[" * 100_000),
    "a header of nested objects": lambda: raw(b'{"a":' * 100_000),
    "a name twice": lambda: raw(b'{"ema.a":%s,"ema.a":%s}' % ((json.dumps(one([4], 0, 16)).encode(),) * 2)),
    "nested facts": lambda: stating("[" * 100_000),
    "nested facts in their place": lambda: stating('{"format": 2, "digest": ' + '{"a":' * 100_000),
    "3 MB of little lists": lambda: stating('{"format": 2, "digest": [' + "[]," * 1_000_000 + "1]}"),
    "a number of a million digits": lambda: stating('{"format": 2, "digest": 1' + "0" * 1_000_000 + "}"),
    "an endless format": lambda: stating('{"format": 1e999}'),
    "half a character": lambda: stating('{"format": 2, "digest": "\\ud800"}'),
    "a digest of numbers": lambda: signed(digests={"ema.a": 1}),
    "digests of tensors that are not there": lambda: signed(digests={f"ema.{i}": "0" for i in range(9)}),
    "an optimizer alone": lambda: signed(optimizer={"a": 1}),
    "a step of 2^4000": lambda: signed(step=2**4000, config={}, averages={}, optimizer={}),
}


def read_checkpoints(at: str) -> dict[str, str]:
    """Every attack by each of the three that read; run by `limited`."""
    path, found = Path(at) / "x.safetensors", {}
    for attack, make in CHECKPOINTS.items():
        path.write_bytes(make())
        reads = {"facts": read_facts, "tensors": lambda p: read_tensors(p, "ema"), "all": restored}
        for name, read in reads.items():
            found[f"{attack}, {name}"] = outcome(lambda read=read: read(path))
    return found


def test_checkpoints(tmp_path):
    found = attacked(read_checkpoints, tmp_path)
    assert len(found) == 3 * len(CHECKPOINTS)
    harmless = ("a digest of", "digests of", "an optimizer alone", "a step of")  # their facts are JSON, with a digest
    for attack, end in found.items():
        if not (attack.startswith(harmless) and attack.endswith("facts")):
            assert end.startswith("line: ") and "x.safetensors" in end, f"{attack}: {end}"


def test_the_judges_weights_are_never_unpickled(tmp_path, monkeypatch):
    """They lie in the package; a pickle in their place ends the program, and is not run."""
    path = tmp_path / "judge.safetensors"
    path.write_bytes(pickle.dumps(Malicious(tmp_path / "executed")))
    monkeypatch.setattr(judge, "WEIGHTS", path)
    for read in (judge.load_judge, judge.reference, judge.provenance):
        with pytest.raises(Exception, match="(?i)header|safetensors"):
            read.__wrapped__()
    assert names(tmp_path) == {"judge.safetensors"}


# --- YAML ---------------------------------------------------------------------------------------------------

LAUGHS = "a0: &a0 [lol]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 12))

YAML = {
    "a call": "train: !!python/object/apply:os.system ['touch executed']",
    "a call, begun anew": "train: !!python/object/new:os.system ['touch executed']",
    "an object": "train: !!python/object:subprocess.Popen {args: [touch, executed]}",
    "a name": "train: {steps: !!python/name:os.system }",
    "a module": "train: !!python/module:antigravity",
    "a tag of its own": "train: !touch executed",
    "aliases of aliases": LAUGHS + "train: *a11",
    "merged aliases": MERGES + "train: *a11",
    "a list that holds itself": "train: &a [*a]",
    "a mapping that holds itself": "train: &a {steps: *a}",
    "an alias of nothing": "train: *nothing",
    "nested lists": "train: " + "[" * 100_000,
    "nested mappings": "{a: " * 100_000,
    "nested blocks": "".join(" " * i + "a:\n" for i in range(3000)),
    "millions of values": "train: [" + "1," * 2_000_000 + "]",
    "no boolean": "train: {steps: !!bool x}",
    "no time": "train: {steps: !!timestamp x}",
    "no number": "train: {steps: !!int x}",
    "a number of 5,000 digits": "train: {steps: " + "9" * 5000 + "}",
    "a NUL": "train: \0",
    "bytes": "train: {steps: !!binary '*'}",
}


def read_texts(at: str) -> dict[str, str]:
    """Every attack as the config of a run, as a person's, and as an option's value; run by `limited`."""
    os.chdir(at)
    path, found = Path("config.yaml"), {}
    parser = Parser(prog="task9-train")
    parser.add_argument("--config", action="config")
    parser.add_argument("--train", type=TrainConfig)
    for attack, text in YAML.items():
        path.write_text(text)
        found[f"{attack}, run"] = outcome(lambda: flat(read_yaml(path)))
        found[f"{attack}, --config"] = outcome(lambda: parser.parse_args(["--config", str(path)]))
        value = text.removeprefix("train: ").replace("\0", "\1")  # the system lets no NUL into an option
        found[f"{attack}, option"] = outcome(lambda value=value: parser.parse_args([f"--train={value}"]))[:500]
    return found


def test_yaml(tmp_path):
    found = attacked(read_texts, tmp_path)
    assert len(found) == 3 * len(YAML)
    for attack, end in found.items():
        assert end.startswith("line: ") or attack == "bytes, run", f"{attack}: {end}"  # that is a value


def test_what_yaml_is_for(tmp_path):
    """The checks leave to a config what it may hold: anchors, merges, numbers without a point, long lists."""
    path = tmp_path / "c.yaml"
    path.write_text(
        "a: &a {lr: 1e-4, betas: [0.9, 0.99]}\nb: {<<: *a, lr: 2}\nc: [*a, *a]\nd: [" + "x, " * 20_000 + "]"
    )
    first = {"lr": 1e-4, "betas": [0.9, 0.99]}
    expected = {"a": first, "b": {**first, "lr": 2}, "c": [first, first], "d": ["x"] * 20_000}
    assert read_yaml(path) == expected


# --- data ---------------------------------------------------------------------------------------------------


def picture(size: tuple[int, int] = (8, 8), kind: str = "PNG", **options: object) -> bytes:
    """A black image."""
    file = io.BytesIO()
    Image.new("L", size).save(file, kind, **options)
    return file.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    """Of a PNG."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def with_chunk(name: bytes, content: bytes) -> bytes:
    """A PNG with one more chunk after its header."""
    png = picture()
    return png[:33] + chunk(name, content) + png[33:]


def packed(**members: bytes) -> bytes:
    """A zip; `b_png` is the member b.png."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("_", "."), content)
    return file.getvalue()


def linked(target: str) -> bytes:
    """A zip in which x.png is a symbolic link."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        member = zipfile.ZipInfo("x.png")
        member.create_system, member.external_attr = 3, 0o120777 << 16
        archive.writestr(member, target)
    return file.getvalue()


ZEROS = zlib.compress(bytes(2**28), 9)  # a quarter of a GiB in 260 kB
IMAGES: dict[str, Callable[[], dict[str, bytes]]] = {
    "text that unpacks to 256 MiB": lambda: {"a.png": with_chunk(b"zTXt", b"Comment\0\0" + ZEROS)},
    "a profile that unpacks to 256 MiB": lambda: {"a.png": with_chunk(b"iCCP", b"p\0\0" + ZEROS)},
    "a chunk that declares 2 GiB": lambda: {"a.png": picture()[:33] + struct.pack(">I", 2**31 - 1) + b"IDAT"},
    "an image of 400 megapixels": lambda: {"a.png": bomb(20_000, 20_000).getvalue()},
    "one of 400 megapixels in a zip": lambda: {"a.zip": packed(a_png=bomb(20_000, 20_000).getvalue())},
    "one of 400 megapixels after a small one": lambda: {"a.png": picture(), "b.png": bomb(20_000, 20_000).getvalue()},
    "one of 80 megapixels after a small one": lambda: {"a.png": picture(), "b.png": picture((8_900, 8_900))},
    "a zip named as an image": lambda: {"a.png": packed(a_png=picture())},
    "a zip in a zip": lambda: {"a.zip": packed(a_png=packed(a_png=packed(a_png=picture())))},
    "a link to a file outside, in a zip": lambda: {"a.zip": linked("/etc/passwd")},
    "256 MiB of zeros in a zip": lambda: {"a.zip": packed(a_png=bytes(2**28))},
    "PostScript": lambda: {
        "a.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(executed) (w) file\nshowpage\n"
    },
    "an SVG": lambda: {"a.png": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'},
    "a pickle": lambda: {"a.png": pickle.dumps(Malicious(Path("executed")))},
}


def read_images(at: str) -> dict[str, str]:
    """Every attack as data set, all of it in memory and one by one; run by `limited`."""
    os.chdir(at)
    torch.set_num_threads(1)
    found = {}
    for i, (attack, make) in enumerate(IMAGES.items()):
        root = Path(f"{i}")
        root.mkdir()
        for name, content in make().items():
            (root / name).write_bytes(content)
        root = root / "a.zip" if (root / "a.zip").exists() else root
        for limit in (2**28, 0):
            folder.IN_MEMORY = limit

            def read(root=root) -> None:
                data = load(DataConfig(name="folder", root=str(root)))
                for k in range(len(data)):
                    data[k]

            found[f"{attack}, {limit}"] = outcome(read)
    return found


@pytest.mark.slow
def test_images(tmp_path):
    (tmp_path / "given").mkdir()
    found = limited(f"{__name__}:read_images", str(tmp_path / "given"), gib=2, seconds=200)
    for attack, end in found.items():
        if not attack.startswith(("text that", "a profile that")):  # Pillow passes over them, or refuses them
            assert end.startswith("line: ") and ".png" in end, f"{attack}: {end}"
        assert end == "read" or (end.startswith("line: ") and "\n" not in end and len(end) < 600), f"{attack}: {end}"
    assert not any("executed" in name for name in names(tmp_path))


def test_a_pipe_among_the_images_is_not_waited_for(tmp_path):
    (tmp_path / "a.png").write_bytes(picture())
    os.mkfifo(tmp_path / "b.png")
    with pytest.raises(UserError, match="b.png cannot be read as an image .it is no file"):
        load(DataConfig(name="folder", root=str(tmp_path)))
    with pytest.raises(UserError, match="neither a folder nor a whole zip"):
        load(DataConfig(name="folder", root=str(tmp_path / "b.png")))
