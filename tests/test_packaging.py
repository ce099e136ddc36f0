"""What a clone promises: commands that exist, declared dependencies, whole wheels, nothing of one machine."""

import ast
import importlib
import importlib.metadata
import re
import subprocess
import sys
import tomllib
import zipfile
from collections import defaultdict
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
PACKAGES = {package["include"] for package in PYPROJECT["tool"]["poetry"]["packages"]}
EXTRAS = PROJECT["optional-dependencies"]

# Bytes of weights where they are not 8 MB: shared holds two judges, of images and of clips, and stage 3 seven models
LARGEST = {"shared": 1.5e6, "task3_conditional": 12e6}


def tracked():
    """The files that git knows and that are there."""
    answer = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    files = [ROOT / name for name in answer.stdout.split("\0") if name]
    if answer.returncode or not files:
        pytest.skip("not a git checkout, so what is committed is not known")
    return [path for path in files if path.is_file()]


def names(requirements):
    return {canonicalize_name(Requirement(line).name) for line in requirements}


def imports(path):
    """The top-level names that a file imports, wherever in the file it does."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("target", PROJECT["scripts"].values(), ids=list(PROJECT["scripts"]))
def test_every_command_has_its_function(target):
    module, _, function = target.partition(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_every_package_is_listed():
    assert {path.parent.name for path in ROOT.glob("*/__init__.py")} == PACKAGES


def test_every_import_is_declared():
    """`make demo` installs no developers' tools: only tests may import those."""
    dists = importlib.metadata.packages_distributions()
    at_run = names(PROJECT["dependencies"]).union(*(names(EXTRAS[extra]) for extra in EXTRAS if extra != "dev"))
    in_tests = at_run | names(EXTRAS["dev"])
    unknown = defaultdict(set)
    for path in (path for package in [*PACKAGES, "tests"] for path in (ROOT / package).rglob("*.py")):
        allowed = in_tests if "tests" in path.relative_to(ROOT).parts else at_run
        for name in {*imports(path)} - sys.stdlib_module_names - PACKAGES:
            if not allowed & {canonicalize_name(dist) for dist in dists.get(name, [name])}:
                unknown[name].add(str(path.relative_to(ROOT)))
    assert not unknown, f"imported, and not among the dependencies in pyproject.toml: {dict(unknown)}"


def test_what_is_installed_fits():
    lines = map(Requirement, PROJECT["dependencies"] + EXTRAS["dev"])
    found = [(line, importlib.metadata.version(line.name)) for line in lines]
    wrong = [f"{line} (found {version})" for line, version in found if version not in line.specifier]
    assert not wrong, f"run `make setup` again: {wrong}"


def test_the_wheel_has_all_but_the_tests(tmp_path):
    build = f"from poetry.core.masonry.api import build_wheel; build_wheel({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=ROOT, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    parts = {path: path.relative_to(ROOT).parts for path in tracked()}
    assert packed >= {"/".join(p) for p in parts.values() if p[0] in PACKAGES and "tests" not in p}
    assert not [name for name in packed if "tests" in name.split("/")]


def test_weights_are_small_and_never_pickled():
    sizes = defaultdict(int)
    for path in tracked():
        assert path.suffix not in {".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin"}, f"{path} may be a pickle"
        if path.suffix == ".safetensors":
            sizes[path.relative_to(ROOT).parts[0]] += path.stat().st_size
    assert not {top: size for top, size in sizes.items() if size > LARGEST.get(top, 8e6)}


def test_no_file_names_a_place_on_one_machine():
    place = re.compile(r"(?<![\w.${}~/-])/(work|tmp|home|root|Users)/\w")
    found = []
    for path in tracked():
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:  # a picture, or weights
            continue
        found += [
            f"{path.relative_to(ROOT)}:{n}: {line.strip()[:80]}"
            for n, line in enumerate(lines, 1)
            if place.search(line)
        ]
    assert not found


def test_the_readme_opens_with_commands_that_exist():
    readme = (ROOT / "README.md").read_text()
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    first = readme.split("```")[1]
    assert "make demo" in first and "make test" in first
    used = re.findall(r"^(?:\$ )?make ([a-z][\w-]*)|`make ([a-z][\w-]*)", readme, re.MULTILINE)
    assert {a or b for a, b in used} <= targets
