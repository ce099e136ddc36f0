"""The design's rules about imports, and the line that says where a module comes from, held against the syntax trees."""

import ast
import functools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TASKS = sorted(path.name for path in ROOT.glob("task[1-5]_*") if path.is_dir())


def sources(package: str) -> list[Path]:
    """The Python files of a package, without its tests."""
    return [path for path in sorted((ROOT / package).rglob("*.py")) if "tests" not in path.parts]


@functools.cache
def imports(path: Path) -> set[str]:
    """Every module of this repository that a file imports, wherever in the file, as dotted names."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} uses a relative import"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    parts = [name.split(".") for name in found]
    packages = {".".join(part[:i]) for part in parts for i in range(1, len(part) + 1)}  # importing a.b imports a
    return {name for name in packages if name.split(".")[0] in ("shared", *TASKS) and module(name)}


@functools.cache
def module(name: str) -> Path | None:
    """The file of a dotted name, if it is a module of this repository."""
    path = ROOT / name.replace(".", "/")
    return next((p for p in (path.with_suffix(".py"), path / "__init__.py") if p.exists()), None)


def name_of(path: Path) -> str:
    """The dotted name of a file."""
    return str(path.relative_to(ROOT).with_suffix("")).replace("/", ".").removesuffix(".__init__")


def reached(paths: list[Path]) -> set[str]:
    """Every shared module that these files import, directly or through others."""
    todo = {name for path in paths for name in imports(path)}
    done = set()
    while todo:
        name = todo.pop()
        done.add(name)
        todo |= imports(module(name)) - done
    return {name for name in done if name.startswith("shared.")}


def is_command(path: Path) -> bool:
    """Whether a file is run by itself."""
    return '__name__ == "__main__"' in path.read_text()


@pytest.mark.parametrize("task", TASKS)
def test_a_task_imports_shared_and_no_other_task(task):
    for path in sources(task):
        others = {name for name in imports(path) if name.split(".")[0] not in ("shared", task)}
        assert not others, f"{path} imports {others}"


def test_shared_imports_no_task():
    for path in sources("shared"):
        assert not {name for name in imports(path) if not name.startswith("shared")}, path


def test_blocks_import_only_blocks():
    for path in sources("shared/blocks"):
        assert all(name.startswith("shared.blocks") for name in imports(path) - {"shared"}), path


def test_noise_diffusion_samplers_build_on_each_other_in_this_order():
    order = ["noise", "diffusion", "samplers", "guidance"]
    for path in sources("shared/schedulers"):
        if path.stem in order:
            later = {f"shared.schedulers.{name}" for name in order[order.index(path.stem) :]}
            assert not imports(path) & later, path


def test_only_entry_points_import_experiments():
    for path in sources("shared"):
        if "experiments" not in path.parts:
            assert not any(name.startswith("shared.experiments") for name in imports(path)), path


@pytest.mark.parametrize("path", [p for p in sources("shared") if p.read_text().strip()], ids=name_of)
def test_a_shared_module_says_truly_who_uses_it(path):
    """Commands of `shared` itself, and what they alone import, are used by whoever uses what they make."""
    first = (ast.get_docstring(ast.parse(path.read_text())) or "").splitlines()[0]
    match = re.fullmatch(r"Introduced in task (\d); used by tasks? (\d(?:, \d)*)\.", first)
    assert match, f"{path} begins with: {first}"
    users = [int(task[4]) for task in TASKS if name_of(path) in reached(sources(task))]
    if users or not (is_command(path) or name_of(path) in reached(list(filter(is_command, sources("shared"))))):
        assert [int(n) for n in match[2].split(", ")] == users, f"{path}: used by {users}"
    assert int(match[1]) == min(int(n) for n in match[2].split(", "))


def test_equations_of_the_samplers_live_in_shared_alone():
    """A task builds samplers and losses from shared pieces; only stage 1's toy, a book of its own, writes them out."""
    for task in TASKS:
        for path in sources(task):
            if path.name != "toy.py":
                assert not re.search(r"alpha\w* \* x0", path.read_text()), path
