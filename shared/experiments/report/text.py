"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

A stage's own Markdown as parts of a page: its question, its pictures with their alternative texts, its commands, and
the whole of its results. HTML in it stays text, and the only links kept are those to the web.
"""

import html
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

SIDES = re.compile(r"(?:^|(?<=[.:;] ))(?:Left|Middle|Right): ")
SHELL = ("", "sh", "bash", "shell", "console")

# How an image of the text is shown: its file's name as the text has it and its alternative text -> HTML.
Show = Callable[[str, str], str]


@dataclass(frozen=True)
class Image:
    """An image that a text shows."""

    file: str
    alt: str
    caption: Markup | None


@dataclass(frozen=True)
class Readme:
    """What a report takes out of a stage's README."""

    title: str
    question: str
    images: list[Image]
    intro: Markup
    """what stands before the first section, without images"""
    legend: Markup
    """what stands below the images of the later sections, where they are several"""
    commands: list[str]
    """blocks of commands, of every section"""


def parser() -> MarkdownIt:
    """CommonMark with tables; HTML is text."""
    return MarkdownIt("commonmark", {"html": False}).enable("table")


def read_readme(text: str) -> Readme:
    """A stage's README: its title, the question below it, pictures, and how it is run."""
    tokens = parser().parse(text)
    title = next((plain(tokens[i + 1]) for i, t in enumerate(tokens) if t.type == "heading_open"), "")
    first = next((i for i, t in enumerate(tokens) if t.type == "heading_open" and t.tag == "h2"), len(tokens))
    paragraphs = [tokens[i + 1] for i, t in enumerate(tokens[:first]) if t.type == "paragraph_open"]
    question, rest = (plain(paragraphs[0]), paragraphs[1:]) if paragraphs else ("", [])
    captions, kept, before = {}, [], []
    for paragraph in rest:
        if only_images(paragraph):
            before = pictures(paragraph)
            continue
        parts = [part.strip() for part in SIDES.split(paragraph.content.replace("\n", " "))]
        if before and not parts[0] and len(parts) == len(before) + 1:  # "Left: ... Right: ..." names them in order
            for (file, _), part in zip(before, parts[1:], strict=True):
                captions[file] = inline(part[:1].upper() + part[1:])
        elif len(before) == 1:
            captions[before[0][0]] = inline(paragraph.content)
        else:
            kept.append(Markup("<p>{}</p>").format(inline(paragraph.content)))
        before = []
    found = dict(pair for token in tokens if token.type == "inline" for pair in pictures(token))
    images = [Image(file, alt, captions.get(file)) for file, alt in found.items()]
    return Readme(title, question, images, Markup("").join(kept), legend(tokens[first:]), list(commands(tokens)))


def legend(tokens: list[Token]) -> Markup:
    """The paragraphs right below rows of several images."""
    found = []
    for i, token in enumerate(tokens):
        below = token.type == "paragraph_open" and i > 2 and tokens[i - 1].type == "paragraph_close"
        if below and only_images(tokens[i - 2]) and len(pictures(tokens[i - 2])) > 1:
            found.append(Markup("<p>{}</p>").format(inline(tokens[i + 1].content)))
    return Markup("").join(found)


def pictures(token: Token) -> list[tuple[str, str]]:
    """File and alternative text of the images in an inline token."""
    return [(t.attrGet("src"), t.content) for t in token.children or [] if t.type == "image"]


def only_images(token: Token) -> bool:
    """Whether a paragraph holds images and nothing else."""
    others = [t for t in token.children or [] if t.type not in ("image", "softbreak") and t.content.strip()]
    return bool(pictures(token)) and not others


def plain(token: Token) -> str:
    """The text of an inline token."""
    return "".join(" " if t.type == "softbreak" else t.content for t in token.children or [])


def commands(tokens: list[Token]) -> Iterator[str]:
    """Blocks of commands."""
    for token in tokens:
        if token.type == "fence" and token.info.strip() in SHELL:
            yield token.content.rstrip("\n")


def first_commands(text: str) -> str | None:
    """The first block of commands in a text: in results, how the committed models were made."""
    return next(commands(parser().parse(text)), None)


def inline(text: str) -> Markup:
    """A paragraph's text as HTML, with its links to the web, and without its images."""
    md = parser()
    tokens = md.parseInline(text)
    for token in tokens:
        token.children = linked(t for t in token.children or [] if t.type != "image")
    return Markup(md.renderer.render(tokens, md.options, {}))


def linked(tokens) -> list[Token]:
    """Tokens whose links lead to the web; others, into files that lie elsewhere, are their text alone."""
    kept, open_ = [], []
    for token in tokens:
        if token.type == "link_open":
            open_.append(str(token.attrGet("href")).startswith("https://"))
            if not open_[-1]:
                continue
        elif token.type == "link_close" and not open_.pop():
            continue
        kept.append(token)
    return kept


def render(text: str, level: int, key: str, show: Show) -> Markup:
    """A whole text as HTML.

    Args:
        text: Markdown.
        level: of its first heading, which is left out; those below it are as deep as they were.
        key: begins every id.
        show: its images.
    """
    md = parser()
    tokens = md.parse(text)
    if tokens and tokens[0].type == "heading_open" and tokens[0].tag == "h1":
        tokens = tokens[3:]
    md.add_render_rule("image", lambda self, ts, i, o, e: show(ts[i].attrGet("src"), ts[i].content))
    md.add_render_rule("table_open", lambda self, ts, i, o, e: table_open(ts[i]))
    md.add_render_rule("table_close", lambda self, ts, i, o, e: "</table></div>\n")
    md.add_render_rule("fence", lambda self, ts, i, o, e: code(ts[i].content, ts[i].meta["label"]))
    deepest, section, counts = level, "Results", {}
    for i, token in enumerate(tokens):
        if token.type in ("heading_open", "heading_close"):
            wanted = min(level + int(token.tag[1]) - 1, deepest + 1, 6)  # no level is left out
            token.tag = f"h{wanted}"
            if token.type == "heading_open":
                section, counts, deepest = plain(tokens[i + 1]), {}, wanted
        elif token.type == "inline":
            token.children = linked(token.children or [])
        elif token.type in ("table_open", "fence"):
            what = "table" if token.type == "table_open" else "commands"
            counts[what] = counts.get(what, 0) + 1
            number = f" {counts[what]}" if counts[what] > 1 else ""
            token.meta = {"label": f"{section}, {what}{number}", "id": f"{key}-{i}"}
        elif token.type == "th_open":
            token.attrs["scope"] = "col"
    first_columns(tokens)
    return Markup(md.renderer.render(tokens, md.options, {}))


def first_columns(tokens: list[Token]) -> None:
    """The first cell of a table's line is its heading; empty headings of columns are cells."""
    for i, token in enumerate(tokens):
        body = token.type == "td_open" and tokens[i - 1].type == "tr_open"
        empty = token.type == "th_open" and not tokens[i + 1].content.strip()
        if not body and not empty:
            continue
        close = next(t for t in tokens[i:] if t.type == token.type.replace("open", "close"))
        tag = "th" if body and tokens[i + 1].content.strip() else "td"
        token.tag = close.tag = tag
        token.attrs.pop("scope", None)
        if tag == "th":
            token.attrs["scope"] = "row"


def table_open(token: Token) -> str:
    """A table in a region of its own, which scrolls where it is wider than the page."""
    name, id = html.escape(token.meta["label"]), token.meta["id"]
    return (
        f'<div class="wide" role="group" tabindex="0" aria-labelledby="{id}">'
        f'<table><caption id="{id}">{name}</caption>\n'
    )


def code(text: str, label: str) -> str:
    """A block of commands, which scrolls by itself."""
    name = html.escape(label)
    return f'<pre role="group" tabindex="0" aria-label="{name}"><code>{html.escape(text.rstrip())}</code></pre>\n'
