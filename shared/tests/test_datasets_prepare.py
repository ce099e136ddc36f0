"""prepare-images: what it drops and why, what it makes of the others, and that it appears whole or not at all."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from shared.datasets import DataConfig, load, prepare_images, prepared_image, prepared_set, whole_folder
from shared.datasets.prepare_images import PrepareConfig
from shared.datasets.prepared_set import prepare
from shared.errors import UserError
from shared.tests.test_datasets_folder import corrupted, emptied, text, truncated, write, zipped


def noise(path: Path, width: int, height: int, mode: str = "RGB", **options) -> Image.Image:
    """A file of noise, and the image in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = {"L": (), "RGB": (3,), "RGBA": (4,), "CMYK": (4,), "I;16": ()}[mode]
    random = np.random.default_rng(width * height)
    kind = np.uint16 if mode == "I;16" else np.uint8
    values = random.integers(0, np.iinfo(kind).max + 1, (height, width, *channels), dtype=kind)
    image = Image.fromarray(values, mode if mode == "CMYK" else None)
    image.save(path, **options)
    return image


@pytest.fixture
def source(tmp_path) -> Path:
    """Four good images in two classes and loose, and one of each fault."""
    root = tmp_path / "source"
    noise(root / "cats/1.png", 50, 40)
    noise(root / "cats/deep/2.jpg", 40, 60)
    noise(root / "dogs/3.PNG", 64, 64)
    noise(root / "4.webp", 48, 33, lossless=True)
    noise(root / "cats/small.png", 100, 31)
    write(root / "dogs/few.png", 3, (64, 64))
    text(root / "dogs/text.png")
    for name, damage in (("cut", truncated), ("flipped", corrupted), ("empty", emptied)):
        damage(root / f"{name}.png")
    (root / "notes.txt").write_text("no image")
    return root


def done(source: Path, target: Path, **options) -> prepared_set.Result:
    return prepare(source, target, PrepareConfig(str(target), **options))


def note(target: Path) -> dict:
    if target.is_dir():
        return json.loads((target / "prepared.json").read_text())
    return json.loads(zipfile.ZipFile(target).read("prepared.json"))


def opened(target: Path, form: str = "folder", **config):
    return load(DataConfig(name="lmdb" if form == "lmdb" else "folder", root=str(target), **config))


def command(*arguments: object, capsys) -> tuple[int, str, str]:
    """Exit status and what the command prints."""
    old, sys.argv = sys.argv, ["prepare-images", *map(str, arguments)]
    try:
        with pytest.raises(SystemExit) as ended:
            prepare_images.main()
    finally:
        sys.argv = old
    printed = capsys.readouterr()
    return ended.value.code or 0, printed.out, printed.err


# --- what is written ----------------------------------------------------------------------------------------

FORMS = ["folder", "zip", "lmdb"]


@pytest.mark.parametrize("as_zip", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_what_is_kept_loads_with_its_classes_and_what_is_dropped_is_named(source, tmp_path, form, as_zip):
    if form == "lmdb":
        pytest.importorskip("lmdb", reason="an LMDB needs the extra lmdb")
    target = tmp_path / "made"
    result = done(zipped(source, prefix="source/") if as_zip else source, target, format=form, size=32, crop="centre")
    assert result.kept == 4 and len(result.dropped) == 6
    data = opened(target, form)
    assert data.shape == (3, 32, 32) and data.classes == [".", "cats", "dogs"] and data.labels.tolist() == [0, 1, 1, 2]
    said = note(target)
    assert said["made_by"] == "prepare-images" and said["pictures"] == 4 and said["size"] == 32
    inside = "source/" if as_zip else ""
    assert {entry["file"].removeprefix(inside) for entry in said["dropped"]} == {
        *("cats/small.png", "dogs/few.png", "dogs/text.png", "cut.png", "flipped.png", "empty.png")
    }
    assert sum(said["counts"].values()) == 6 and said["counts"]["too small"] == 1
    reasons = {entry["file"].removeprefix(inside): entry["reason"] for entry in said["dropped"]}
    assert reasons["cats/small.png"] == "100×31 pixels, less than 32 on a side"


@pytest.mark.parametrize("crop", ["none", "centre"])
def test_pictures_are_those_that_pillow_makes(tmp_path, crop):
    image = noise(tmp_path / "source/a.png", 90, 60)
    done(tmp_path / "source", tmp_path / "made", size=20, crop=crop)
    if crop == "centre":
        expected = image.resize((20, 20), Image.Resampling.LANCZOS, box=(15, 0, 75, 60))
    else:
        expected = image.resize((30, 20), Image.Resampling.LANCZOS)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "made/a.png")), np.asarray(expected))


def test_loading_what_was_prepared_is_loading_the_source_in_that_size(source, tmp_path):
    done(source, tmp_path / "made", size=32, crop="centre")
    for name in ("few", "text", "small", "cut", "flipped", "empty"):
        next(source.rglob(f"{name}.png")).unlink()
    assert torch.equal(opened(tmp_path / "made").images, opened(source, size=32).images)


def test_images_of_any_kind_become_plain_ones(tmp_path):
    root = tmp_path / "source"
    noise(root / "alpha.png", 40, 33, "RGBA")
    noise(root / "print.jpg", 40, 34, "CMYK")
    noise(root / "deep.png", 40, 35, "I;16")
    turned = Image.Exif()
    turned[0x0112] = 6
    noise(root / "turned.jpg", 40, 36, exif=turned)
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "blue")]
    frames[0].save(root / "film.gif", save_all=True, append_images=frames[1:])
    for channels, mode in ((3, "RGB"), (1, "L")):
        done(root, tmp_path / mode, min_bytes=0, channels=channels)
        made = {path.stem: Image.open(path) for path in (tmp_path / mode).glob("*.png")}
        assert len(made) == 5 and {image.mode for image in made.values()} == {mode}
        assert made["turned"].size == (36, 40) and not made["turned"].getexif()
    red, _, blue = Image.open(tmp_path / "RGB/film.png").getpixel((5, 5))
    assert red > 250 and blue < 5  # the first frame


@pytest.mark.parametrize(("encoding", "kind"), [("png", "PNG"), ("jpeg", "JPEG"), ("webp", "WEBP")])
def test_encodings(tmp_path, encoding, kind):
    noise(tmp_path / "source/a.bmp", 40, 40)
    sizes = []
    for quality in (20, 100):
        done(tmp_path / "source", tmp_path / f"made-{quality}", encoding=encoding, quality=quality)
        (path,) = (tmp_path / f"made-{quality}").glob("a.*")
        assert path.suffix == f".{encoding}" and Image.open(path).format == kind
        sizes.append(path.stat().st_size)
    assert (sizes[0] < sizes[1]) == (encoding != "png")


def test_names_that_would_meet_are_kept_apart(tmp_path):
    for name in ("a.jpg", "a.png", "A.bmp", "cDe.png", "cdE.png", "b/a.png"):
        noise(tmp_path / "source" / name, 40, 40)
    done(tmp_path / "source", tmp_path / "made")
    names = sorted(path.relative_to(tmp_path / "made").as_posix() for path in (tmp_path / "made").rglob("*.png"))
    assert len({name.casefold() for name in names}) == 6 and "b/a.png" in names and "a-jpg.png" in names


def test_one_class_with_folders_in_it_stays_that_class_in_a_zip(tmp_path):
    noise(tmp_path / "source/cats/young/1.png", 40, 40)
    for form in ("folder", "zip"):
        done(tmp_path / "source", tmp_path / form, format=form)
        assert opened(tmp_path / form).classes == ["cats"]


def test_splits_stay_splits(tmp_path):
    noise(tmp_path / "source/train/a/1.png", 40, 40)
    noise(tmp_path / "source/test/a/2.png", 40, 40)
    done(tmp_path / "source", tmp_path / "made.zip", format="zip")
    assert [len(opened(tmp_path / "made.zip", split=split)) for split in ("train", "test")] == [1, 1]


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_workers_changes_nothing(tmp_path, workers):
    for i in range(20):
        noise(tmp_path / f"source/{i}.png", 40 + i, 40)
    done(tmp_path / "source", tmp_path / "made.zip", format="zip", workers=workers)
    with zipfile.ZipFile(tmp_path / "made.zip") as archive:
        assert archive.namelist() == sorted(f"{i}.png" for i in range(20)) + ["prepared.json"]


# --- what is dropped ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "dropped"),
    [
        ({"min_side": 40}, {"narrow"}),
        ({"min_side": 39}, set()),
        ({"min_side": 0}, set()),
        ({"min_bytes": 2000}, {"plain"}),
        ({"min_bytes": 0}, set()),
        ({"max_aspect": 2.0}, {"long"}),
        ({"max_aspect": 2.5}, set()),
        ({"duplicates": False}, {"twin"}),
    ],
)
def test_each_threshold_is_an_option(tmp_path, options, dropped):
    root = tmp_path / "source"
    noise(root / "good.png", 50, 50)
    shutil.copy(root / "good.png", root / "twin.png")
    noise(root / "narrow.png", 39, 50)
    noise(root / "long.png", 40, 100)
    write(root / "plain.png", 3, (60, 60))
    assert (root / "plain.png").stat().st_size < 2000 < (root / "narrow.png").stat().st_size
    off = {"min_side": 0, "min_bytes": 0, "max_aspect": 0.0}
    result = done(root, tmp_path / "made", **{**off, **options})
    assert {name.removesuffix(".png") for name, _ in result.dropped} == dropped
    assert {path.stem for path in (tmp_path / "made").glob("*.png")} == {
        *("good", "twin", "narrow", "long", "plain")
    } - dropped


def test_a_size_counts_as_it_is_looked_at(tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6
    noise(tmp_path / "source/a.jpg", 90, 40, exif=turned)
    result = done(tmp_path / "source", tmp_path / "made", min_side=32)
    assert result.kept == 1 and Image.open(tmp_path / "made/a.png").size == (40, 90)


def test_what_would_become_too_large_is_dropped_before_it_is_made(tmp_path):
    noise(tmp_path / "source/good.png", 40, 40)
    Image.new("L", (60_000, 2)).save(tmp_path / "source/long.png")
    result = done(tmp_path / "source", tmp_path / "made", size=512, min_side=0, min_bytes=0)
    assert [name for name, _ in result.dropped] == ["long.png"] and result.kinds == {"too long": 1}


def test_more_bytes_than_a_picture_has_are_not_read(tmp_path, monkeypatch):
    noise(tmp_path / "source/good.png", 33, 33)
    noise(tmp_path / "source/huge.png", 99, 99)
    monkeypatch.setattr(prepared_image, "MAX_MEMBER", 10_000)
    assert [name for name, _ in done(tmp_path / "source", tmp_path / "made").dropped] == ["huge.png"]


def test_a_name_that_is_not_utf8_is_dropped_and_reported(tmp_path):
    noise(tmp_path / "source/good.png", 40, 40)
    try:
        shutil.copy(tmp_path / "source/good.png", os.fsencode(tmp_path / "source") + b"/\xff.png")
    except OSError:
        pytest.skip("this file system has only names in UTF-8")
    result = done(tmp_path / "source", tmp_path / "made")
    assert result.kept == 1 and "UTF-8" in note(tmp_path / "made")["dropped"][0]["reason"]


def test_where_nothing_is_kept_nothing_is_written(source, tmp_path):
    for options in ({}, {"dry_run": True}):
        with pytest.raises(UserError, match=r"none of 10 images in .* is kept, such as "):
            done(source, tmp_path / "made", min_side=5000, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


# --- the command --------------------------------------------------------------------------------------------


def test_a_dry_run_writes_nothing_and_says_what_the_true_one_does(source, tmp_path, capsys):
    target = tmp_path / "below/made"
    code, out, _ = command(source, "--out", target, "--dry-run", "true", "--size", 32, capsys=capsys)
    assert code == 0 and not (tmp_path / "below").exists()
    assert "4 images would be written" in out and "6 would be dropped" in out
    code, real, _ = command(source, "--out", target, "--size", 32, capsys=capsys)
    assert code == 0 and f"4 images written: {target}" in real and "6 dropped" in real
    for entry in note(target)["dropped"]:
        assert f"dropped: {entry['file']} ({entry['reason']})" in out
    assert out.splitlines()[-1].split(": ")[1] == real.splitlines()[-1].split(": ")[1].partition(" (")[0]


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_nothing_is_replaced_unless_told_and_nothing_that_it_did_not_make(source, tmp_path, capsys, form):
    target = tmp_path / "made"
    options = (source, "--out", target, "--format", form)
    assert command(*options, capsys=capsys)[0] == 0
    before = note(target)
    code, _, error = command(*options, "--min-bytes", 0, capsys=capsys)
    assert code == 1 and "--overwrite true" in error and note(target) == before
    assert command(*options, "--min-bytes", 0, "--overwrite", "true", capsys=capsys)[0] == 0
    assert note(target)["pictures"] == 5
    other = tmp_path / "other"
    write(other / "mine.png", 3)
    (other / "prepared.json").write_text('{"made_by": "prepare-emoji"}')
    code, _, error = command(source, "--out", other, "--overwrite", "true", capsys=capsys)
    assert code == 1 and "was not made by prepare-images" in error and (other / "mine.png").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--size", 0], "size"),
        (["--quality", 101], "quality"),
        (["--format", "tar"], "format"),
        (["--min-side", -1], "min_side"),
    ],
)
def test_a_wrong_option_is_one_line(source, tmp_path, capsys, options, expected):
    code, _, error = command(source, "--out", tmp_path / "made", *options, capsys=capsys)
    assert code == 2 and expected in error and len(error.splitlines()) == 1


def test_a_wrong_place_is_one_line(source, tmp_path, capsys):
    (tmp_path / "nothing").mkdir()
    for place, out, expected in (
        (tmp_path / "none", "made", "does not exist"),
        (tmp_path / "nothing", "made", "no images in"),
        (source, "source/made", "lie in each other"),
        (source, "source", "lie in each other"),
    ):
        code, _, error = command(place, "--out", tmp_path / out, capsys=capsys)
        assert code == 1 and expected in error and len(error.splitlines()) == 1


class Stop(BaseException):
    """As Ctrl-C would be."""


@pytest.mark.parametrize("form", ["folder", "zip"])
@pytest.mark.parametrize("fails", ["encoded", "force", "rename"])
def test_a_run_that_ends_anywhere_leaves_the_old_set(source, tmp_path, monkeypatch, form, fails):
    target = tmp_path / "made"
    done(source, target, format=form)

    def stopping(*arguments):
        raise Stop

    with monkeypatch.context() as patch:
        owner = {"encoded": prepared_image, "force": whole_folder, "rename": os}[fails]
        patch.setattr(owner, fails, stopping)
        with pytest.raises(Stop):
            done(source, target, format=form, min_bytes=0, overwrite=True)
    assert len(opened(target, size=32)) == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made", "source"]


def test_help_needs_neither_torch_nor_pillow():
    program = """
import sys
sys.argv = ["prepare-images", "--help"]
from shared.datasets.prepare_images import main
try:
    main()
except SystemExit as ended:
    assert not ended.code and not {"torch", "PIL", "lmdb"} & set(sys.modules)
"""
    shown = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert "--min_side" in shown.stdout and "--dry_run" in shown.stdout
