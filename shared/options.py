"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

The options that every training takes besides its config: which run to go on with, and which weights to start from.
Free of torch.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from jsonargparse import Namespace

from shared.cli import Parser, Short, flat, read_yaml, stored_config
from shared.errors import UserError

C = TypeVar("C")


@dataclass
class Asked(Generic[C]):
    """What a person asked a training command for."""

    config: C
    resume: Path | None  # the run to go on with
    init_from: Path | None  # the run or file whose weights to start from
    trust: bool


@dataclass
class TrainingOptions(Generic[C]):
    """The command line of a training."""

    program: str
    """the command's name"""
    about: str
    """one sentence"""
    kind: type[C]
    """the dataclass of its config"""
    default: Path
    """the YAML file that holds where no --config is given"""
    stage: str
    """what its configs are of, in messages: "stage 1" """
    read_source: Callable[[Path], dict[str, Any]]
    """the config that a run or checkpoint stores, as it was saved"""
    short: Short = field(default_factory=dict)
    """further names of its options"""

    def parse(self, arguments: list[str] | None = None) -> Asked[C]:
        """The command line, or these arguments. Ends the program, with one line, where they are wrong."""
        parser = Parser(prog=self.program, description=self.about, short=self.short)
        parser.add_argument(
            "--config", action="config", help="YAML file; options after it override it (default: the demo's)"
        )
        parser.add_argument("--resume", type=Path | None, help="folder of a run to go on with")
        parser.add_argument(
            "--init_from", type=Path | None, help="run or checkpoint whose weights a new run starts from"
        )
        parser.add_argument("--trust", type=bool, default=False, help="run the code of one's own that a run names")
        parser.add_class_arguments(self.kind)
        asked = parser.parse_args(arguments)
        if asked.resume and (asked.init_from or asked.config):
            parser.error("--resume goes on with a run as it was configured: leave out --config and --init-from")
        if not asked.config:
            parser.set_defaults(self._former(asked))
            asked = parser.parse_args(arguments)
        built = parser.instantiate(asked)
        config = self.kind(**{name: getattr(built, name) for name in asdict(self.kind())})
        return Asked(config, asked.resume, asked.init_from, asked.trust)

    def _former(self, asked: Namespace) -> dict[str, Any]:
        """What holds for the options that are not given, where there is no --config: the config of the run which is
        gone on with or started from, else the demo's. As dotted names.

        Raises:
            UserError: that run is of another stage, or its config names code of one's own and is not trusted.
        """
        if not asked.resume and not asked.init_from:
            return flat(read_yaml(self.default))
        source = asked.resume or asked.init_from
        saved = read_yaml(source / "config.yaml") if asked.resume else self.read_source(source)
        stored_config(self.kind, saved, self.stage)  # says so in one line if it is none
        if any(saved.get(name) for name in saved if name.startswith("own_")) and not asked.trust:
            raise UserError(f"{source} names code of its own, which would be run: if you know it, add --trust true")
        return {name: value for name, value in saved.items() if asked.resume or name != "run"}  # a new run: a new name
