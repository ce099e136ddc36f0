"""The emoji: their names, which of them a font has (against the font's own tables), the set that is written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from shared.datasets import DataConfig, emoji_set, load, prepare_emoji, whole_folder
from shared.datasets.emoji_font import EmojiFont, Undrawn, find_font
from shared.datasets.emoji_names import Emoji, all_emoji, named
from shared.errors import UserError

pytest.importorskip("emoji", reason="the names of emoji need the extra text")
pytest.importorskip("lmdb", reason="an LMDB needs the extra text")

TONES = {chr(code) for code in range(0x1F3FB, 0x1F400)}
VARIATION = "\N{VARIATION SELECTOR-16}"

# What a small font is to have. Its characters let more be written than it can join.
KEPT = ["😀", "👋", "🏻", "🚀", "👩", "👩‍🚀", "🇳🇴", "🇧🇻", "🏴", "🏴󠁧󠁢󠁳󠁣󠁴󠁿", "1️⃣"]
LACKING = {
    "🌉": "not in the font",
    "👋🏻": "only in its parts",
    "👩🏻‍🚀": "only in its parts",
    "🏴󠁧󠁢󠁥󠁮󠁧󠁿": "only as its first part",  # England, of which the flag remains: tags are invisible
}


@pytest.fixture(scope="module")
def font_path() -> Path:
    if not features.check("raqm"):
        pytest.skip("needs a Pillow with Raqm: install FriBiDi")
    try:
        return find_font()
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def known() -> list[Emoji]:
    return all_emoji()


class Tables:
    """What a font says of itself, read by fontTools: which glyph a character has, and a sequence of glyphs."""

    def __init__(self, path: Path):
        self.font = pytest.importorskip("fontTools.ttLib").TTFont(path, lazy=True)
        self.cmap = self.font.getBestCmap()
        self.ligatures = {}
        for lookup in self.font["GSUB"].table.LookupList.Lookup:
            for table in lookup.SubTable:
                table = getattr(table, "ExtSubTable", table)
                for first, joined in getattr(table, "ligatures", {}).items():
                    self.ligatures |= {(first, *one.Component): one.LigGlyph for one in joined}

    def glyph(self, code: str) -> str | None:
        """The one glyph of an emoji, or None."""
        parts = tuple(self.cmap.get(ord(character)) for character in code if character != VARIATION)
        return self.ligatures.get(parts) if len(parts) > 1 else parts[0]


@pytest.fixture(scope="module")
def tables(font_path) -> Tables:
    return Tables(font_path)


@pytest.fixture(scope="module")
def small_font(tables, font_path, tmp_path_factory) -> Path:
    """A font with KEPT alone, and with all the characters that LACKING but for the bridge is written in."""
    from fontTools import subset

    options = subset.Options(layout_closure=False, notdef_outline=True)
    cutter = subset.Subsetter(options)
    written = set("".join([*KEPT, *LACKING])) - {"🌉"}
    cutter.populate(unicodes=map(ord, written), glyphs=[tables.glyph(code) for code in KEPT])
    font = subset.load_font(str(font_path), options)
    cutter.subset(font)
    path = tmp_path_factory.mktemp("font") / "small.ttf"
    font.save(path)
    return path


# --- names --------------------------------------------------------------------------------------------------


def test_every_emoji_has_readable_names_in_both_languages(known):
    assert len(known) > 3600 and len({emoji.code for emoji in known}) == len(known)
    for emoji in known:
        for name in (emoji.en, emoji.zh):
            assert name == name.strip() and name and "_" not in name and "::" not in name
            assert ":" not in name.removeprefix("flag: ").removeprefix("旗: ")
        assert any("\u4e00" <= character <= "\u9fff" for character in emoji.zh) or emoji.zh.isascii()
    assert sum(any("\u4e00" <= c <= "\u9fff" for c in emoji.zh) for emoji in known) > 0.98 * len(known)


def test_names_as_they_are_known(known):
    by_code = {emoji.code: emoji for emoji in known}
    assert by_code["😀"].en == "grinning face" and by_code["🐼"].zh == "熊猫"
    assert by_code["🇳🇴"][1:] == ("flag: Norway", "旗: 挪威")
    assert by_code["🏴󠁧󠁢󠁥󠁮󠁧󠁿"].en == "flag: England" and by_code["🏴‍☠️"].en == "pirate flag"
    assert by_code["👋🏻"].en == "waving hand light skin tone" and by_code["👋🏻"].file_name == "1f44b-1f3fb"
    assert named("x", ":AB_button_(blood_type):", ":AB型血:")[1:] == ("AB button (blood type)", "AB型血")
    assert not {"🏻", "🦰"} & set(by_code)  # parts, no emoji


def test_each_skin_tone_is_in_the_group_of_an_emoji_without_one(known):
    without = {emoji.group for emoji in known if not TONES & set(emoji.code)}
    assert {emoji.group for emoji in known if TONES & set(emoji.code)} <= without
    groups = {emoji.code: emoji.group for emoji in known}
    for same in (
        ["👋", "👋🏻", "👋🏿"],
        ["💏", "💏🏻", "🧑🏻‍❤️‍💋‍🧑🏼"],
        ["🤝", "🫱🏻‍🫲🏼"],
        ["👱‍♀️", "👱🏾‍♀️"],
        ["☝️", "☝🏽"],
    ):
        assert len({groups[code] for code in same}) == 1
    assert groups["👋"] != groups["🤚"] and groups["💏"] != groups["👩‍❤️‍💋‍👨"] != groups["😘"]
    plain = [emoji.group for emoji in known if not TONES & set(emoji.code)]
    assert len(set(plain)) == len(plain)  # and no two others share a group


# --- the font -----------------------------------------------------------------------------------------------


def test_a_small_font_has_what_it_was_given_and_nothing_else(small_font):
    font = EmojiFont(small_font)
    for code in KEPT:
        assert font.draw(code).size == (font.side, font.side)
    for code, reason in LACKING.items():
        with pytest.raises(Undrawn, match=reason):
            font.draw(code)
    with pytest.raises(Undrawn):  # Brunei, of which fonts make this or that
        font.draw("🇧🇳")


def test_the_whole_font_has_what_its_tables_say(font_path, tables, known):
    font = EmojiFont(font_path)
    chosen = known[::40] + [emoji for emoji in known if tables.glyph(emoji.code) is None][::8]
    chosen += [emoji for emoji in known if emoji.en == "flag: Sark"]  # for which it may have a question mark
    for emoji in chosen:
        try:
            font.draw(emoji.code)
            drawn = True
        except Undrawn as reason:
            if "first part" in str(reason):  # a glyph of its own may look the same: a snowboarder shows no skin
                continue
            drawn = False
        assert drawn == (tables.glyph(emoji.code) is not None), emoji


def test_a_picture_is_the_fonts_bitmap_in_the_middle_of_white(font_path, tables):
    from io import BytesIO

    font = EmojiFont(font_path)
    strike = tables.font["CBDT"].strikeData[0]
    for code in ("😀", "👩‍🚀", "🇳🇴", "⬛"):
        bitmap = Image.open(BytesIO(strike[tables.glyph(code)].imageData)).convert("RGBA")
        assert font.side == max(bitmap.size)
        expected = Image.new("RGBA", (font.side, font.side), "white")
        expected.alpha_composite(bitmap, ((font.side - bitmap.width) // 2, (font.side - bitmap.height) // 2))
        difference = np.abs(np.asarray(font.draw(code), int) - np.asarray(expected.convert("RGB"), int))
        assert difference.max() <= 3  # FreeType rounds alpha its own way
        assert np.asarray(font.draw(code))[0, 0].tolist() == [255, 255, 255]


def test_a_font_that_is_none(tmp_path, font_path):
    from matplotlib import font_manager

    letters = Path(font_manager.findfont("DejaVu Sans"))
    for path, words in (
        (tmp_path / "missing.ttf", "is no file"),
        (tmp_path, "is no file"),
        (Path(__file__), "cannot be opened as a font"),
        (letters, "no colour bitmaps"),
    ):
        with pytest.raises(UserError) as caught:
            EmojiFont(path)
        assert str(path) in str(caught.value) and words in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_missing_on_the_machine_is_said_in_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(features, "check", lambda name: False)
    with pytest.raises(UserError, match="Raqm.*libfribidi0"):
        EmojiFont(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="fc-list cannot be run.*--font"):
        find_font()
    tool = tmp_path / "fc-list"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    with pytest.raises(UserError, match="finds no Noto Color Emoji.*fonts-noto-color-emoji.*--font"):
        find_font()


def test_of_several_fonts_the_one_with_bitmaps_is_found(monkeypatch, tmp_path, small_font):
    curves = tmp_path / "Noto-COLRv1.ttf"
    curves.write_bytes(b"\0" * 100)
    tool = tmp_path / "fc-list"
    tool.write_text(f"#!/bin/sh\necho '{curves}'; echo '{small_font}'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert find_font() == small_font


# --- the set ------------------------------------------------------------------------------------------------


@pytest.fixture
def few(monkeypatch, known) -> list[Emoji]:
    """Only those of Unicode's list that are in KEPT or LACKING."""
    chosen = [emoji for emoji in known if emoji.code in KEPT or emoji.code in LACKING]
    monkeypatch.setattr(emoji_set, "all_emoji", lambda: chosen)
    monkeypatch.setattr(emoji_set, "HELD_OUT", 3)
    return chosen


def prepared(monkeypatch, capsys, *arguments: object) -> tuple[int, str, str]:
    """The command: its exit status, what it printed, and its complaint."""
    monkeypatch.setattr(sys, "argv", ["prepare-emoji", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        prepare_emoji.main()
    out, err = capsys.readouterr()
    return ended.value.code, out, err


@pytest.mark.parametrize("form", ["folder", "lmdb"])
def test_what_is_prepared_can_be_loaded_and_is_what_was_drawn(form, few, small_font, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DIFFUSION_DATA", str(tmp_path))  # where the one writes and the other reads
    code, out, _ = prepared(monkeypatch, capsys, "--font", small_font, "--size", 32, "--format", form)
    root = tmp_path / "emoji"
    drawable = [emoji for emoji in few if emoji.code in KEPT]
    assert code == 0 and f"{len(drawable)} emoji of 32×32 pixels: {root}" in out
    font, expected = EmojiFont(small_font), {}
    for emoji in drawable:
        pixels = np.asarray(font.draw(emoji.code).resize((32, 32), Image.Resampling.LANCZOS))
        expected[pixels.transpose(2, 0, 1).tobytes(), emoji.en, emoji.zh] = emoji
    found = {}
    for split in ("train", "test"):
        data = load(DataConfig(name="emoji", split=split, languages=("en", "zh")))
        assert data.shape == (3, 32, 32) and len(data) > 0
        for i in range(len(data)):
            en, zh = (data.captions[j] for j in data.captions_of(i))
            found[data.pictures.images[i].numpy().tobytes(), en, zh] = split
    assert found.keys() == expected.keys()
    sides = {emoji.code: found[key] for key, emoji in expected.items()}
    assert sides["🇳🇴"] == sides["🇧🇻"]  # one picture


def test_the_note_names_what_is_left_out_and_the_licences_are_there(few, small_font, tmp_path, monkeypatch, capsys):
    import hashlib

    code, out, _ = prepared(monkeypatch, capsys, "--font", small_font, "--out", tmp_path / "set")
    lacking = {emoji.code: LACKING[emoji.code] for emoji in few if emoji.code in LACKING}
    note = json.loads((tmp_path / "set/prepared.json").read_text())
    noted = {line.split()[0]: reason for reason, lines in note["left_out"].items() for line in lines}
    assert noted == lacking and f"left out are {len(lacking)}: " in out
    assert note["font"]["sha256"] == hashlib.sha256(small_font.read_bytes()).hexdigest()
    assert str(small_font.parent) not in json.dumps(note)
    licences = " ".join((tmp_path / "set/LICENSE.txt").read_text().split())
    assert all(words in licences for words in ("SIL Open Font License, Version 1.1", "CLDR", "Unicode License"))


def test_every_run_divides_alike_and_skin_tones_stay_together(known):
    drawn = [emoji_set.Drawn(emoji, emoji.code.encode()) for emoji in known]
    sides = emoji_set.splits(drawn)
    assert 0.03 < sides.count("test") / len(sides) < 0.07
    assert len({(emoji.group, side) for emoji, side in zip(known, sides, strict=True)}) == len({e.group for e in known})
    shuffled = drawn[1::2] + drawn[::2]
    assert emoji_set.splits(shuffled) == sides[1::2] + sides[::2]
    fewer = drawn[::3]  # of another font
    assert emoji_set.splits(fewer) == sides[::3]
    by_name = dict(zip((emoji.en for emoji in known), sides, strict=True))  # in another process, too
    assert {by_name[name] for name in ("turtle", "zebra", "coin", "old woman", "SOS button")} == {"test"}
    assert {by_name[name] for name in ("panda", "unicorn", "dog", "grinning face", "ear")} == {"train"}


def test_emoji_with_one_picture_are_on_one_side_whatever_lies_between(known):
    drawn = [emoji_set.Drawn(emoji, str(i % 50).encode()) for i, emoji in enumerate(known[:300])]
    sides = emoji_set.splits(drawn)
    for picture in range(50):
        assert len(set(sides[picture::50])) == 1
    assert emoji_set.splits(drawn[::-1]) == sides[::-1]
    groups = [emoji.group for emoji in known[:300]]
    assert len(set(zip(groups, sides, strict=True))) == len(set(groups))


@pytest.mark.parametrize("size", [7, 137])
def test_a_size_that_the_font_has_not(few, small_font, tmp_path, monkeypatch, capsys, size):
    code, _, err = prepared(monkeypatch, capsys, "--font", small_font, "--out", tmp_path / "set", "--size", size)
    assert code == 1 and f"--size is {size}: it must be from 8 to 136" in err and err.count("\n") == 1
    assert not any(tmp_path.iterdir())


def test_nothing_of_others_is_replaced_and_a_former_set_only_when_told(few, small_font, tmp_path, monkeypatch, capsys):
    target = tmp_path / "set"
    target.mkdir()  # empty: may be filled
    make = (monkeypatch, capsys, "--font", small_font, "--out", target, "--size")
    assert prepared(*make, 16)[0] == 0
    before = sorted((path, path.read_bytes()) for path in target.rglob("*") if path.is_file())
    code, _, err = prepared(*make, 32)
    assert code == 1 and f"{target} exists: add --overwrite true" in err
    assert sorted((path, path.read_bytes()) for path in target.rglob("*") if path.is_file()) == before
    assert prepared(*make, 32, "--format", "lmdb", "--overwrite", "true")[0] == 0
    assert load(DataConfig(name="emoji", root=str(target))).shape == (3, 32, 32)
    assert not (target / "train").exists()
    for content in ('{"made_by": "hand"}', "[]", "{"):
        (target / "prepared.json").write_text(content)
        code, _, err = prepared(*make, 16, "--overwrite", "true")
        assert code == 1 and f"{target} exists and was not made by prepare-emoji" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set"]


@pytest.mark.parametrize("form", ["folder", "lmdb"])
def test_a_disk_without_room_is_one_line_and_nothing_remains(few, small_font, tmp_path, monkeypatch, capsys, form):
    import resource

    make = (monkeypatch, capsys, "--font", small_font, "--out", tmp_path / "set", "--format", form)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (900, limits[1]))  # bytes of a file, more than which fail to be written
    try:
        code, _, err = prepared(*make)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert code == 1 and ("too large" in err or "No space left" in err) and err.count("\n") == 1
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("out", ["/", ".", ".."])
def test_a_folder_that_holds_other_things_is_refused_by_any_name(tmp_path, monkeypatch, capsys, out):
    (tmp_path / "work").mkdir()
    (tmp_path / "work/notes.txt").write_text("mine")
    monkeypatch.chdir(tmp_path / "work")
    code, _, err = prepared(monkeypatch, capsys, "--out", out, "--overwrite", "true")
    assert code == 1 and "was not made by prepare-emoji" in err


class Stop(BaseException):
    """As Ctrl-C would be."""


@pytest.mark.parametrize("former", [False, True])
@pytest.mark.parametrize("step", ["write_folder", "write_text", "force", "os.rename 1", "os.rename 2", "restore"])
def test_a_run_that_ends_anywhere_leaves_the_old_set_or_the_new(few, small_font, tmp_path, monkeypatch, step, former):
    target = tmp_path / "set"
    drawn, _ = emoji_set.collect(EmojiFont(small_font), 16)
    if former:
        emoji_set.write_set(target, drawn[:2], "folder", {"which": "old"})
    name, _, count = step.partition(" ")
    owner = os if name.startswith("os.") else emoji_set if name.startswith("write") else whole_folder
    real, calls = getattr(owner, name.removeprefix("os.")), []

    def stopping(*arguments):
        calls.append(arguments)
        if len(calls) == int(count or 1):
            raise Stop
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name.removeprefix("os."), stopping)
        if step == "os.rename 2" and not former:
            emoji_set.write_set(target, drawn, "folder", {"which": "new"})  # there is but one renaming
        else:
            with pytest.raises(Stop):
                emoji_set.write_set(target, drawn, "folder", {"which": "new"})
    whole_folder.check_target(target, emoji_set.COMMAND, overwrite=True)
    if target.exists():
        which = json.loads((target / "prepared.json").read_text())["which"]
        assert which in ("old", "new") and (former or which == "new")
        assert len(list(target.rglob("*.png"))) == (2 if which == "old" else len(drawn))
    else:
        assert not former
    assert [path.name for path in tmp_path.iterdir()] in (["set"], [])


def test_a_killed_run_is_tidied_up_by_the_next(few, small_font, tmp_path):
    target = tmp_path / "set"
    drawn, _ = emoji_set.collect(EmojiFont(small_font), 16)
    emoji_set.write_set(target, drawn, "folder", {})
    target.rename(tmp_path / ".former-set")  # killed between the two renamings,
    (tmp_path / ".partial-set/train").mkdir(parents=True)  # or while it wrote
    with pytest.raises(UserError, match="exists: add --overwrite true"):
        whole_folder.check_target(target, emoji_set.COMMAND, overwrite=False)
    emoji_set.write_set(target, drawn[:3], "folder", {})
    assert [path.name for path in tmp_path.iterdir()] == ["set"] and len(list(target.rglob("*.png"))) == 3


def test_without_the_names_one_line_says_what_to_install_and_help_needs_nothing(monkeypatch):
    monkeypatch.setitem(sys.modules, "emoji", None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[text\]'"):
        all_emoji()
    program = """
import sys
sys.argv = ["prepare-emoji", "--help"]
from shared.datasets.prepare_emoji import main
try:
    main()
except SystemExit as ended:
    assert not ended.code and not {"torch", "PIL", "emoji", "lmdb"} & set(sys.modules)
"""
    shown = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert "--font" in shown.stdout and "--overwrite" in shown.stdout
