"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

Captions as they lie in a folder: `metadata.jsonl`, or a text file beside each picture. shared/datasets/captions.py
says how they look.
"""

import json
import posixpath
from codecs import BOM_UTF8 as BYTE_ORDER_MARK
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from shared.datasets.sources import Tree
from shared.errors import UserError

METADATA = "metadata.jsonl"
NO_LANGUAGE = "text"  # the field of captions that name no language
MAX_TEXT = 2**20  # bytes of one text file: no captions need more

Said = dict[str, list[str]]  # the captions of one picture, by language


def read_folder(tree: Tree, languages: tuple[str, ...]) -> tuple[list[str], Callable[[str], Said]]:
    """The sorted names of the tree's pictures that have captions, and what is said of each in these languages.

    Metadata is read at once, a text file when its picture is asked for; either raises `UserError` if it cannot be
    read, says nothing, or speaks of a picture that is not there.
    """
    folders = {""} | {folder for name in tree.names for folder in above(name)}
    found = [folder for folder in sorted(folders) if (tree.path / folder / METADATA).is_file()]
    if not found:
        return tree.names, lambda name: beside(tree, name, languages)
    said: dict[str, Said] = {}
    pictures = set(tree.names)
    for folder in found:
        path = tree.path / folder / METADATA
        for where, fields in rows(path):
            name = located(folder, fields.get("file_name"), where)
            if name not in pictures:
                reason = "which is no image file" if (tree.path / name).exists() else "which is not there"
                raise UserError(f"{where} names {tree.where(name)}, {reason}: correct the line, or add the picture")
            of = said.setdefault(name, {})
            for language, texts in texts_of(fields, languages, where).items():
                of.setdefault(language, []).extend(texts)
    if not said:
        raise UserError(f"{tree.path / found[0] / METADATA} names no picture: give each a line, with its captions")
    return sorted(said), said.__getitem__


def above(name: str) -> list[str]:
    """The folders that a file lies in, from the nearest on: of "a/b/c.png" these are "a/b" and "a"."""
    parts = name.split("/")[:-1]
    return ["/".join(parts[:depth]) for depth in range(len(parts), 0, -1)]


def rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a file of JSON lines, each with words for its place. Empty lines are passed over."""
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                line = line.removeprefix(BYTE_ORDER_MARK).strip()
                where = f"{path}, line {number},"
                if line:
                    yield where, parse(line, where)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None


def located(folder: str, file_name: Any, where: str) -> str:
    """The name in the tree of the picture that a line in this folder's metadata names."""
    if not isinstance(file_name, str) or not file_name:
        raise UserError(f"{where} has no file_name: it must name the picture that the captions are of")
    relative = file_name.replace("\\", "/")  # as Windows writes it
    name = posixpath.normpath(posixpath.join(folder, relative))
    if relative.startswith("/") or relative[1:2] == ":" or name.split("/")[0] == "..":
        raise UserError(f"{where} names {file_name}, which leads out of the folder: put the picture below it")
    return name


def parse(line: bytes, where: str) -> dict[str, Any]:
    """The JSON object on a line. Raises `UserError` if there is none."""
    try:
        fields = json.loads(line.decode())
    except (ValueError, RecursionError) as error:  # RecursionError: a line of nothing but brackets
        raise UserError(f"{where} is not valid JSON ({str(error)[:200]}): correct it") from None
    if not isinstance(fields, dict):
        raise UserError(f"{where} is no JSON object: it must hold names and values, in braces")
    return fields


def texts_of(fields: dict[str, Any], languages: tuple[str, ...], where: str) -> Said:
    """The captions, by language, of an object with a text or a list of texts under each.

    What is null counts as left out. Raises `UserError` for anything else that is no text, or an empty one.
    """
    if fields.get(languages[0]) is None:
        fields = {**fields, languages[0]: fields.get(NO_LANGUAGE)}
    said = {}
    for language in languages:
        texts = fields.get(language)
        if texts is not None:
            said[language] = [checked(text, where) for text in (texts if isinstance(texts, list) else [texts])]
    return said


def checked(text: Any, where: str) -> str:
    """A caption without the space around it. Raises `UserError` for what is none."""
    if not isinstance(text, str):
        raise UserError(f"{where} has {json.dumps(text)[:100]} for a caption: it must be text, or a list of texts")
    if not text.strip():
        raise UserError(f"{where} has an empty caption: write one, or take it out")
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a character, which JSON can write and nothing can read
        raise UserError(f"{where} has a caption that is no valid text: correct it") from None
    return text.strip()


def beside(tree: Tree, name: str, languages: tuple[str, ...]) -> Said:
    """What the text files beside a picture say of it. Raises `UserError` if there are none."""
    stem = tree.path / posixpath.splitext(name)[0]
    plain = stem.with_name(f"{stem.name}.txt")
    paths = {language: stem.with_name(f"{stem.name}.{language}.txt") for language in languages}
    if not paths[languages[0]].is_file():
        paths[languages[0]] = plain
    said = {language: lines_of(path) for language, path in paths.items() if path.is_file()}
    if not said:
        expected = f"{plain.name} or {stem.name}.{languages[0]}.txt beside it, or a {METADATA} in {tree.path}"
        raise UserError(f"{tree.where(name)} has no caption: write {expected}")
    return said


def lines_of(path: Path) -> list[str]:
    """The captions in a text file, one on each line that is not empty. Raises `UserError` if there is none."""
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_TEXT + 1)
        if len(content) > MAX_TEXT:
            raise UserError(f"{path} is larger than {MAX_TEXT:,} bytes: it must hold captions, one on each line")
        lines = content.decode("utf-8-sig").splitlines()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8: save it as that") from None
    lines = [line.strip() for line in lines if line.strip()]
    if not lines:
        raise UserError(f"{path} is empty: write a caption, or remove it with its picture")
    return lines
