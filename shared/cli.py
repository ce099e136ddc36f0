"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

The command line of every entry point: dataclasses are the schema and the defaults, a YAML file holds what differs, and
any field can be set as `--section.field value`. jsonargparse does the work; here it is made to speak in one line.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml
from jsonargparse import ArgumentParser, Namespace, get_loader, set_loader, set_parsing_settings

from shared.errors import UserError
from shared.training.processes import desert, leave, report

set_parsing_settings(docstring_parse_attribute_docstrings=True)  # the text under a field is its help


# A class of a person's own, in a file outside this repository: {"class_path": "my_file.MyClass", "init_args": {…}}.
Own = dict[str, Any]

# Short name of an option -> its full name, and what is given besides, such as "--optimizer.schedule=step".
Short = Mapping[str, Sequence[str]]

C = TypeVar("C")

DEPTH, NODES = 50, 100_000  # levels and values in a YAML text: more than any config has
their_loader = get_loader("yaml")  # YAML's safe one, but 1e-4 is a number


class Parser(ArgumentParser):
    """Errors on one line with exit status 2; hyphens and underscores alike in option names."""

    def __init__(self, *arguments: Any, short: Short | None = None, **options: Any):
        """As jsonargparse's, but a name is given in full: half of one may be a typing mistake.

        Args:
            arguments, options: jsonargparse's.
            short: further names of options, such as {"--lr": ["--optimizer.lr"]}; see `spelled_out`.
        """
        self.short = short or {}
        if self.short:
            names = ", ".join(f"{name} is {' '.join(fields)}" for name, fields in self.short.items())
            options = {"epilog": f"Short names: {names}.", **options}
        super().__init__(*arguments, **{"allow_abbrev": False, **options})

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print what is wrong on one line and leave."""
        lines = [line.strip().removeprefix("- ") for line in str(message).splitlines()]
        report(self.prog, f"error: {' '.join(filter(None, lines))} (see {self.prog} --help)")
        sys.exit(2)

    def parse_args(self, args: Sequence[str] | None = None, **options: Any) -> Namespace:
        """Parse the command line."""
        given = sys.argv[1:] if args is None else args
        return super().parse_args(self.answered([plain(a) for a in spelled_out(given, self.short)]), **options)

    def answered(self, arguments: Sequence[str]) -> list[str]:
        """A command line in which every yes-or-no option has its answer: one without says yes."""
        full = []
        for argument, after in zip(arguments, [*arguments, "--"][1:], strict=True):
            full.append(argument)
            asks = getattr(self._option_string_actions.get(argument), "_typehint", None) in (bool, bool | None)
            if asks and after.startswith("--"):
                full.append("true")
        return full


def parser_of_ways(program: str, description: str, ways: Mapping[str, type]) -> Parser:
    """A parser with a subcommand for each dataclass of options; which was asked for is in the field `way`."""
    parser = Parser(prog=program, description=description)
    subcommands = parser.add_subcommands(dest="way", required=True)
    for name, options in ways.items():
        line = options.__doc__.splitlines()[0]
        sub = Parser(description=line)
        sub.add_class_arguments(options)
        subcommands.add_subcommand(name, sub, help=line)
        sub.prog = f"{program} {name}"
    return parser


def spelled_out(arguments: Sequence[str], short: Short) -> list[str]:
    """A command line with the full names of its options; hyphens and underscores are alike in short ones too."""
    full = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        field, *besides = short.get(name.replace("_", "-"), [name])
        full += [*besides, f"{field}{equals}{value}"]
    return full


def plain(argument: str) -> str:
    """An option's name with underscores for hyphens; its value as it is."""
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument.partition("=")
    return "--" + name[2:].replace("-", "_") + equals + value


def check_yaml(text: str) -> None:
    """Raise YAMLError for a text of which a few lines exhaust the stack (by nesting) or the memory (by aliases)."""
    sizes: dict[str | None, int] = {}  # of what has an anchor, with all that the aliases in it stand for
    levels: list[list] = [[None, 0]]
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        if isinstance(event, yaml.CollectionStartEvent):
            levels.append([event.anchor, 1])
        elif isinstance(event, yaml.NodeEvent | yaml.CollectionEndEvent):
            anchor, size = levels.pop() if isinstance(event, yaml.CollectionEndEvent) else (event.anchor, 1)
            if isinstance(event, yaml.AliasEvent):
                endless = anchor in [name for name, _ in levels]  # it stands for what holds it
                size = NODES + 1 if endless else sizes.get(anchor, 1)
            sizes[anchor] = size
            levels[-1][1] += size
        if len(levels) > DEPTH or levels[-1][1] > NODES:
            raise yaml.YAMLError(f"it holds more than {DEPTH} levels or {NODES:,} values")


def load_yaml(text: str) -> Any:
    """What a YAML text says. Raises YAMLError for whatever is wrong with it."""
    check_yaml(text)
    try:
        return their_loader(text)
    except yaml.YAMLError:
        raise
    except Exception as error:  # of a value that its tag does not fit, such as !!bool x
        raise yaml.YAMLError(f"{type(error).__name__}: {error}") from None


set_loader("yaml", load_yaml, (yaml.YAMLError,))


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file of names and values, read without following any tag.

    Raises:
        UserError: it is not there, or not such a file.
    """
    if path.exists() and not path.is_file():  # reading a pipe would wait for ever
        raise UserError(f"cannot read {path}: it is no regular file")
    try:
        content = load_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} does not hold names and values")
    return content


def flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested config as one level of dotted names."""
    fields = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        fields |= flat(value, f"{name}.") if isinstance(value, dict) and value else {name: value}
    return fields


def build_own(own: Own, base: type, **given: Any) -> Any:
    """Import and build the class that `own` names, its arguments checked against its type hints.

    Args:
        own: dotted path and arguments.
        base: what the class must be a kind of.
        given: arguments that the program adds where the class takes them, such as the number of channels.

    Raises:
        UserError: there is no such class, it is not of that kind, or it takes other arguments.
    """
    import inspect

    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    parser = ArgumentParser(exit_on_error=False)
    try:
        path = own["class_path"]
        module, _, name = path.rpartition(".")
        accepted = inspect.signature(getattr(__import__(module, fromlist=[name]), name)).parameters
        given = {key: value for key, value in given.items() if key in accepted}
        parser.add_argument("--own", type=base)
        spec = {"class_path": path, "init_args": {**given, **own.get("init_args", {})}}
        return parser.instantiate(parser.parse_object({"own": spec})).own
    except Exception as error:  # whatever a person's own module may raise while it is imported and built
        raise UserError(
            f"cannot build {own.get('class_path', 'a class without class_path')}: {' '.join(str(error).split())}"
        ) from None


def stored_config(kind: type[C], saved: Any, stage: str) -> C:
    """The config, of the dataclass `kind`, that a run or checkpoint stores. No class that it names is imported.

    Raises:
        UserError: it is not a config of this stage.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind)
    try:
        for name, default in vars(kind()).items():
            value = saved.get(name, {})  # own classes are none of these sections, and not imported here
            if is_dataclass(default) and (not isinstance(value, dict) or "class_path" in value):
                raise ValueError(f"{name} must hold names and values, and no class_path")
        parsed = parser.instantiate(parser.parse_object(saved))
    except Exception as error:  # jsonargparse lets through what the types' own parsing raises
        raise UserError(f"this is not a config of {stage}: {' '.join(str(error).split())}") from None
    return kind(**{name: getattr(parsed, name) for name in asdict(kind())})


def command(main: Callable[[], int | None]) -> int:
    """Run an entry point. A mistake that a person can mend is printed as one line, status 1; Ctrl-C is no traceback.

    Of several processes that make the same mistake one prints it.
    """
    program = Path(sys.argv[0]).name
    try:
        status = main() or 0
        leave()
        return status
    except UserError as error:
        report(program, f"error: {error}", error)
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        report(program, f"error: cannot read or write{where}: {error.strerror or error}", error)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(
            words in str(error) for words in ("allocate memory", "out of memory")
        ):
            raise
        less = "ask for fewer images at a time, or a smaller network"
        report(program, f"error: there is not enough memory: {less}", error)
    except KeyboardInterrupt as error:
        report(program, "stopped", error)
        return desert(130)
    return desert(1)
