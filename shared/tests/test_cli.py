"""The command line: dataclasses, YAML and options in; one line out where something is wrong."""

import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from torch import nn
from torch.utils.data import Dataset

from shared.cli import Parser, build_own, command, plain, read_yaml
from shared.errors import UserError


@dataclass
class Inner:
    """A component."""

    rate: float = 0.1
    """how fast"""
    which_one: Literal["a", "b"] = "a"
    """the kind"""
    widths: tuple[int, ...] = (1, 2)
    """how wide"""


@dataclass
class Outer:
    """The whole."""

    inner_part: Inner = field(default_factory=Inner)
    steps: int = 3
    """how often"""
    own: dict | None = None
    """a class of one's own"""


def parse(*arguments: str) -> Outer:
    """The config that a command line gives."""
    parser = Parser(prog="task0-try")
    parser.add_argument("--config", action="config", help="YAML file")
    parser.add_class_arguments(Outer)
    built = parser.instantiate(parser.parse_args(arguments))
    return Outer(built.inner_part, built.steps, built.own)


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("--a-b.c-d", "--a_b.c_d"),
        ("--a-b=c-d", "--a_b=c-d"),
        ("--a-b=--c-d", "--a_b=--c-d"),
        ("value-with-hyphens", "value-with-hyphens"),
        ("-5", "-5"),
        ("--", "--"),
    ],
)
def test_hyphens_are_those_of_names_only(argument, expected):
    assert plain(argument) == expected


def test_options_override_the_file_which_overrides_the_defaults(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("steps: 5\ninner_part: {rate: 0.5, widths: [4]}\n")
    assert parse("--config", str(path), "--inner-part.rate", "0.7") == Outer(Inner(0.7, "a", (4,)), 5)
    assert parse("--config", str(path)) == Outer(Inner(0.5, "a", (4,)), 5)
    assert parse() == Outer()


@pytest.mark.parametrize("spelled", ["--inner-part.which-one", "--inner_part.which_one", "--inner-part.which_one"])
def test_hyphens_and_underscores_are_alike(spelled):
    assert parse(spelled, "b").inner_part.which_one == "b"
    assert parse(f"{spelled}=b").inner_part.which_one == "b"


WRONG = {
    "unknown option": (["--stepz", "3"], "stepz"),
    "unknown option of a part": (["--inner-part.rat", "3"], "inner_part.rat"),
    "abbreviation": (["--step", "3"], "step"),
    "wrong type": (["--steps", "many"], "steps.*many"),
    "wrong literal": (["--inner-part.which-one", "c"], "inner_part.which_one.*'a', 'b'.*c"),
    "wrong item": (["--inner-part.widths", "[1,x]"], "inner_part.widths.*x"),
    "a value too many": (["three"], "three"),
    "missing value": (["--steps"], "steps"),
    "missing file": (["--config", "gone.yaml"], "gone.yaml"),
}


@dataclass
class Asked:
    """Questions."""

    loud: bool = False
    """a question"""
    sure: bool | None = None
    """another"""
    n: int = 1
    """a number"""
    word: str = ""
    """a text"""


@pytest.mark.parametrize(
    "line, loud, sure",
    [
        (["--loud"], True, None),
        (["--loud", "--n", "3"], True, None),
        (["--n", "3", "--loud"], True, None),
        (["--loud", "false", "--sure"], False, True),
        (["--loud=false"], False, None),
        (["--loud", "true", "--word=--sure"], True, None),
    ],
)
def test_a_question_without_an_answer_is_answered_yes(line, loud, sure):
    parser = Parser(prog="x")
    parser.add_class_arguments(Asked)
    found = parser.parse_args(line)
    assert (found.loud, found.sure) == (loud, sure)


def test_what_is_no_question_still_needs_its_value(capsys):
    parser = Parser(prog="x")
    parser.add_class_arguments(Asked)
    with pytest.raises(SystemExit):
        parser.parse_args(["--n", "--loud"])
    assert "expected one argument" in capsys.readouterr().err


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_option_is_named_in_one_line(name, capsys):
    arguments, message = WRONG[name]
    one_line(arguments, message, capsys)


FILES = {
    "unknown key": ("stepz: 3", "stepz"),
    "unknown key of a part": ("inner_part: {rat: 3}", "rat"),
    "wrong type": ("steps: many", "steps.*many"),
    "no YAML": ("steps: [1, 2", "config"),
    "a word": ("steps", "config"),
    "a tag": ("steps: !!python/object/apply:pathlib.Path.touch [executed]", "config"),
    "a tag that makes an object": ("!!python/object/new:pathlib.Path [executed]", "config"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_wrong_file_is_named_in_one_line(name, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content, message = FILES[name]
    Path("c.yaml").write_text(content)
    one_line(["--config", "c.yaml"], message, capsys)
    assert [p.name for p in tmp_path.iterdir()] == ["c.yaml"]


def one_line(arguments: list[str], message: str, capsys) -> None:
    """Exit status 2, and a line that names what is wrong."""
    with pytest.raises(SystemExit) as error:
        parse(*arguments)
    out, err = capsys.readouterr()
    assert error.value.code == 2 and out == ""
    assert err.count("\n") == 1 and err.startswith("task0-try: error: ") and err.endswith("(see task0-try --help)\n")
    assert re.search(message, err)


def test_help_lists_every_field_with_its_text(capsys):
    with pytest.raises(SystemExit) as error:
        parse("--help")
    text = capsys.readouterr().out
    assert error.value.code == 0
    for name, about in (("inner_part.rate", "how fast"), ("inner_part.which_one", "the kind"), ("steps", "how often")):
        assert f"--{name}" in text and about in text


# --- YAML that is read by the program itself ----------------------------------------------------------------


def test_yaml_is_read(tmp_path):
    (tmp_path / "a.yaml").write_text("a: {b: 1}\nc: ε", encoding="utf-8")
    assert read_yaml(tmp_path / "a.yaml") == {"a": {"b": 1}, "c": "ε"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [1", "is not valid YAML"),
        ("- a", "does not hold names and values"),
        ("", "does not hold names and values"),
        ("a: !!python/object/apply:os.mkdir [executed]", "is not valid YAML"),
        (b"\xff\xfe\x00a", "is not valid YAML"),
    ],
)
def test_yaml_that_is_none(content, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=f"a.yaml {message}") as error:
        read_yaml(path)
    assert "\n" not in str(error.value) and not (tmp_path / "executed").exists()


@pytest.mark.parametrize("name", ["gone.yaml", "."])
def test_yaml_that_cannot_be_read(name, tmp_path):
    with pytest.raises(UserError, match="cannot read"):
        read_yaml(tmp_path / name)


# --- classes of a person's own ------------------------------------------------------------------------------

OWN = """
from torch import nn
from torch.utils.data import Dataset

class Net(nn.Module):
    def __init__(self, width: int = 3, channels: int = 0, deep: bool = False):
        super().__init__()
        self.width, self.channels, self.deep = width, channels, deep

class Plain(nn.Module):
    pass

class Strict(nn.Module):
    def __init__(self):
        raise RuntimeError("out of\\n order")

class Data(Dataset):
    pass
"""


@pytest.fixture
def own(tmp_path, monkeypatch) -> str:
    """A module of one's own in the current folder, and nowhere else; its name."""
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", str(Path.cwd()))])
    monkeypatch.chdir(tmp_path)
    name = f"own_{abs(hash(str(tmp_path)))}"
    Path(f"{name}.py").write_text(OWN)
    yield name
    sys.modules.pop(name, None)


def test_an_own_class_is_built_from_the_current_folder(own):
    net = build_own({"class_path": f"{own}.Net", "init_args": {"width": 7}}, nn.Module, channels=3)
    assert (type(net).__name__, net.width, net.channels, net.deep) == ("Net", 7, 3, False)


def test_arguments_are_turned_into_the_types_asked_for(own):
    net = build_own({"class_path": f"{own}.Net", "init_args": {"width": "7", "deep": "true"}}, nn.Module)
    assert (net.width, net.deep) == (7, True)


def test_what_the_program_gives_goes_only_to_who_takes_it(own):
    assert type(build_own({"class_path": f"{own}.Plain"}, nn.Module, channels=3)).__name__ == "Plain"


def test_the_person_has_the_last_word(own):
    net = build_own({"class_path": f"{own}.Net", "init_args": {"channels": 1}}, nn.Module, channels=3)
    assert net.channels == 1


@pytest.mark.parametrize(
    ("path", "arguments", "message"),
    [
        ("{}.Net", {"wide": 7}, "wide"),
        ("{}.Net", {"width": "seven"}, "width.*seven"),
        ("{}.Gone", {}, "Gone"),
        ("{}_gone.Net", {}, "_gone"),
        ("Net", {}, "module name"),
        ("{}.Data", {}, "Data"),
        ("{}.Strict", {}, "out of order"),
        ("collections.OrderedDict", {}, "OrderedDict"),
        ("builtins.print", {}, "print"),
    ],
)
def test_an_own_class_that_cannot_be_built_is_named_in_one_line(path, arguments, message, own):
    spec = {"class_path": path.format(own), "init_args": arguments}
    with pytest.raises(UserError, match=f"cannot build {spec['class_path']}: .*{message}") as error:
        build_own(spec, nn.Module)
    assert "\n" not in str(error.value)
    assert not Path("executed").exists()


@pytest.mark.parametrize("spec", [{}, {"init_args": {}}, {"class_path": None}, {"class_path": 3}])
def test_an_own_class_without_a_path(spec):
    with pytest.raises(UserError, match="cannot build"):
        build_own(spec, Dataset)


# --- the end of a command -----------------------------------------------------------------------------------


def ended(error: BaseException | None, capsys, monkeypatch) -> tuple[int, str]:
    """The exit status and what is on standard error after a command that raised this."""
    monkeypatch.setattr(sys, "argv", ["/some/where/task0-try", "--x"])

    def main():
        if error is not None:
            raise error

    return command(main), capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (None, 0, ""),
        (UserError("no such thing:\n mend it"), 1, "task0-try: error: no such thing: mend it\n"),
        (
            OSError(28, "No space left on device", "a.txt"),
            1,
            "error: cannot read or write a.txt: No space left on device\n",
        ),
        (OSError("broken"), 1, "error: cannot read or write: broken\n"),
        (KeyboardInterrupt(), 130, "task0-try: stopped\n"),
    ],
)
def test_a_command_ends_in_one_line(error, status, line, capsys, monkeypatch):
    code, err = ended(error, capsys, monkeypatch)
    assert code == status and err.endswith(line) and err.count("\n") <= 1


def test_a_mistake_of_ours_keeps_its_traceback(capsys, monkeypatch):
    with pytest.raises(ZeroDivisionError):
        ended(ZeroDivisionError(), capsys, monkeypatch)


def test_a_status_is_passed_on(monkeypatch):
    assert command(lambda: 143) == 143
