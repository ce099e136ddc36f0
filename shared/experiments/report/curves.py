"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

Training curves as SVG inside a page: drawn by matplotlib, coloured by the page's style sheet, so that a light and a
dark page have one drawing, with its text as text. Import this where a curve is drawn, as matplotlib is slow to import.
"""

import io
import re
import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from shared.experiments.plots import Curve, scale, smoothed
from shared.experiments.tables import amount

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
# Colours that matplotlib is told, and what the style sheet calls them.
INK, GRID, LINE = "#010203", "#dddddd", "#040506"
CSS = {INK: "var(--ink)", GRID: "var(--rule)", LINE: "var(--curve)"}
POINTS = 400  # of a line: more is not seen, and only takes room
SMOOTHED = 30  # a curve is smoothed over one part in so many of its length
KEPT = ("svg", "g", "path", "text", "tspan", "use", "defs", "clipPath", "rect")


def curve_svg(points: Curve, title: str, ylabel: str, key: str) -> str:
    """A curve over the optimizer steps, raw and smoothed, as an <svg> element.

    Args:
        points: (step, value).
        title: its name, for who does not see it.
        ylabel: what the values are.
        key: begins every id in it: unlike for every drawing of a page.
    """
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": key, "font.size": 11}):
        figure = Figure(figsize=(5, 2.9), layout="constrained")  # 360 units wide: its text is the page's on a phone
        axes = figure.subplots()
        draw(axes, points, ylabel)
        file = io.BytesIO()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing")
            figure.savefig(file, format="svg", metadata={"Date": None}, transparent=True)
    return inline(file.getvalue(), title, described(points, ylabel), key)


def draw(axes, points: Curve, ylabel: str) -> None:
    """The lines, and axes in the colours of the page."""
    x, y = zip(*thinned(points), strict=True)
    length = max(1.0, (points[-1][0] - points[0][0]) / SMOOTHED)
    mean = thinned(list(zip((x for x, _ in points), smoothed(points, length), strict=True)))
    axes.plot(x, y, color=LINE, alpha=0.4, linewidth=0.8)
    axes.plot(*zip(*mean, strict=True), color=LINE, linewidth=1.8)
    axes.set_xlabel("optimizer steps", color=INK)
    axes.set_ylabel(ylabel, color=INK)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    scale(axes, "y" if min(y) > 0 else "none")
    axes.tick_params(which="both", colors=INK)
    for spine in axes.spines.values():
        spine.set_color(INK)
        spine.set_visible(spine.spine_type in ("left", "bottom"))


def thinned(points: Curve) -> Curve:
    """At most POINTS of the points, evenly, the first and the last among them."""
    if len(points) <= POINTS:
        return list(points)
    return [points[round(i * (len(points) - 1) / (POINTS - 1))] for i in range(POINTS)]


def described(points: Sequence[tuple[float, float]], what: str) -> str:
    """What the curve shows, in words."""
    (first, start), (last, end) = points[0], points[-1]
    at, least = min(points, key=lambda point: point[1])
    way = f"{what}: {start:.4g} at step {amount(first)}, {end:.4g} at step {amount(last)}"
    return f"{way}; the least is {least:.4g}, at step {amount(at)}; {len(points)} points."


def inline(svg: bytes, title: str, description: str, key: str) -> str:
    """A drawing of matplotlib as part of a page: no style sheet, no metadata, and no id that another one has."""
    root = ElementTree.fromstring(svg)
    prune(root)
    known = {id: f"{key}-{i}" for i, id in enumerate(e.get("id") for e in root.iter() if e.get("id"))}
    for element in root.iter():
        element.tag = element.tag.removeprefix(f"{{{SVG}}}")
        if f"{{{XLINK}}}href" in element.attrib:
            element.set("href", element.attrib.pop(f"{{{XLINK}}}href"))
        for name, content in list(element.attrib.items()):
            element.set(name, renamed(name, content, known))
    for name in ("width", "height", "version", "id"):
        root.attrib.pop(name, None)
    parts = {"title": title, "desc": description}
    root.attrib |= {"role": "img", "aria-labelledby": f"{key}-title {key}-desc", "class": "curve"}
    for i, (tag, text) in enumerate(parts.items()):
        element = ElementTree.Element(tag, id=f"{key}-{tag}")
        element.text = text
        root.insert(i, element)
    used = set(re.findall(rf"(?:url\(#|\"#)({re.escape(key)}-\d+)", ElementTree.tostring(root, encoding="unicode")))
    for element in root.iter():
        if re.fullmatch(rf"{re.escape(key)}-\d+", element.get("id", "")) and element.get("id") not in used:
            del element.attrib["id"]
    return ElementTree.tostring(root, encoding="unicode")


def prune(element: ElementTree.Element) -> None:
    """Take out what is no drawing: metadata, and a style sheet that would be the whole page's."""
    for child in list(element):
        if child.tag.removeprefix(f"{{{SVG}}}") in KEPT:
            prune(child)
        else:
            element.remove(child)


def renamed(name: str, content: str, known: dict[str, str]) -> str:
    """An attribute with the page's ids, colours and font."""
    if name == "id":
        return known[content]
    content = re.sub(r"(url\(#|^#)([\w-]+)", lambda m: m[1] + known.get(m[2], m[2]), content)
    for colour, variable in CSS.items():
        content = content.replace(colour, variable)
    if name == "d":  # a hundredth of a pixel is enough
        return re.sub(r"\d+\.\d+", lambda number: f"{float(number[0]):.2f}".rstrip("0").rstrip("."), content)
    if name == "style":  # the page's font, in the size of the drawing
        content = re.sub(r"font: ([\d.]+px) [^;]*", r"font-size: \1", content)
        content = re.sub(r"(font-family|font-weight): [^;]*;? ?", "", content)
    return content
