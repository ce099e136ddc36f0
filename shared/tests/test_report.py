"""`report`: the page parsed as a browser does, held against the files that it was made of; and hostile folders."""

import base64
import io
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from shared.errors import UserError
from shared.experiments import comparison
from shared.experiments.compare_tables import paper_value
from shared.experiments.figures import shown
from shared.experiments.papers import papers
from shared.experiments.protocol import differences
from shared.experiments.report import command as report
from shared.experiments.report import stages as report_stages
from shared.experiments.report.curves import curve_svg
from shared.experiments.report.page import HERE
from shared.experiments.report.pictures import png, read_picture
from shared.experiments.report.text import read_readme, render
from shared.tests.commands import call
from shared.tests.made_evaluations import evaluation, make, published

ROOT = Path(__file__).parents[2]
VOID = {"meta", "img", "input", "br", "hr"}
EVIL = "<script>alert(1)</script>\"'></svg><img src=https://evil.example/x onerror=alert(2)>"


class Page(HTMLParser):
    """Elements in order, with what a browser would do with their attributes."""

    def __init__(self, text: str):
        super().__init__()
        self.elements, self.texts, self.open, self.badly_nested, self.rows = [], [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        elif tag in ("th", "td"):
            self.rows[-1].append([tag, dict(attrs).get("scope"), ""])
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.badly_nested.append(tag)

    def handle_data(self, data):
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1][2] += data
        if "style" not in self.open:
            self.texts.append(data)

    def all(self, *tags):
        """The attributes of the elements of these kinds."""
        return [attributes for tag, attributes in self.elements if tag in tags]

    @property
    def text(self):
        """All that is read."""
        return " ".join(" ".join(self.texts).split())


def made(out: Path, *arguments: object) -> Page:
    """The page of a command that went well."""
    call(report.main, "report", "--out", out, *arguments).well()
    return Page(out.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Page:
    """The page of all stages, without runs."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "runs").mkdir()
    return made(folder / "report.html", "--folder", folder / "runs")


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty current folder, with its own list of published figures, and one stage, the one of the smallest files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(report_stages, "packages", lambda: {"task1": "task4_dit"})
    monkeypatch.setattr(comparison, "FILE", published(tmp_path / "papers.yaml"))
    return tmp_path


def harmless(page: Page) -> None:
    """Nothing runs, nothing is loaded, and whatever is open was closed where it should be."""
    assert not page.all(
        "script", "iframe", "object", "embed", "link", "base", "form", "foreignobject", "animate", "set"
    )
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        for name in ("src", "srcset", "href", "xlink:href", "action", "background", "poster"):
            address = attributes.get(name, "")
            allowed = ("data:image/png;", "data:image/gif;", "data:image/jpeg;", "data:image/webp;")
            allowed = allowed if tag == "img" else ("#", "https://arxiv.org/", "https://github.com/")
            assert not address or address.startswith(allowed), (tag, name, address[:80])
        assert not re.search(r"url\((?!#)|@import|expression", attributes.get("style") or "")
    assert not page.badly_nested and not page.open


def accessible(page: Page) -> None:
    """What can be told of a page without looking at it."""
    (html,) = page.all("html")
    assert html["lang"] == "en" and len(page.all("h1")) == len(page.all("main")) == len(page.all("title")) - len(
        page.all("svg")
    )
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes in page.elements:
        pointed = [attributes[name][1:] for name in ("href",) if attributes.get(name, "").startswith("#")]
        pointed += attributes.get("aria-labelledby", "").split() + [attributes.get("for", "content")]
        pointed += re.findall(r"url\(#([^)]+)\)", " ".join(str(value) for value in attributes.values()))
        assert set(pointed) <= set(ids), (tag, attributes)
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1 and all(b <= a + 1 for a, b in zip(levels, levels[1:], strict=False))
    assert all(attributes.get("alt", "").strip() for attributes in page.all("img"))
    assert all(a.get("role") == "img" and len(a["aria-labelledby"].split()) == 2 for a in page.all("svg"))
    assert all(attributes.get("scope") in ("row", "col") for attributes in page.all("th"))
    for first, *rest in page.rows:  # a cell is read out with its row's heading and its column's
        heads = {scope for _, scope, _ in rest}
        assert (first[1] in ("row", "col") or not first[2].strip()) and heads <= {
            None if first[1] == "row" else "col",
            None,
        }
    assert len(page.all("caption")) == len(page.all("table"))
    assert all(a.get("tabindex") == "0" and a.get("aria-label") for a in page.all("pre"))
    switches = {attributes["for"] for attributes in page.all("label")}
    assert {attributes["id"] for attributes in page.all("input")} == switches


# The page of the stages


def test_nothing_of_the_page_runs_or_loads(whole):
    harmless(whole)
    policies = [a["content"] for a in whole.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert len(policies) == 1 and policies[0].startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'")
    css = (HERE / "page.css").read_text()
    assert "url(" not in css and "@import" not in css and "<" not in css


def test_the_page_can_be_read_without_eyes_or_mouse(whole):
    accessible(whole)


@pytest.mark.parametrize("stage", sorted(path.parent.name for path in ROOT.glob("task*/README.md")))
def test_every_picture_of_a_stage_is_shown_with_its_alternative_text(whole, stage):
    readme = (ROOT / stage / "README.md").read_text()
    shown = {}
    for attributes in whole.all("img"):
        shown.setdefault(attributes["alt"], []).append(base64.b64decode(attributes["src"].partition(",")[2]))
    found = dict((file, alt) for alt, file in re.findall(r"!\[([^\]]+)\]\(([^)]+)\)", readme))
    assert found
    for file, alt in found.items():
        assert (ROOT / stage / file).read_bytes() in shown[alt]
    title, question = re.search(r"# (.+)\n\n(.+)\n", readme).groups()
    assert title in whole.text and question in whole.text
    legends = re.findall(r"^From the left, .+?\.$", readme, re.M | re.S)
    assert all(" ".join(legend.split())[:60] in whole.text for legend in legends)


@pytest.mark.parametrize("stage", sorted(path.parent.name for path in ROOT.glob("task*/README.md")))
def test_the_curves_figures_and_commands_are_those_of_the_files(whole, stage):
    results = ROOT / stage / "results"
    for path in results.glob("metrics*.jsonl"):
        last = json.loads(path.read_text().splitlines()[-1])
        rest = path.stem.partition("-")[2]
        name = f"Training loss: the committed model{', ' if rest else ''}{rest} training loss: "
        ends = f"{last['loss']:.4g} at step {last['step']:,};"
        assert any(part.partition(";")[0].endswith(ends[:-1]) for part in whole.text.split(name)[1:])
    for path in results.glob("evaluation*.json"):
        facts = json.loads(path.read_text())
        assert str(facts["protocol"]["reference"]) in whole.text
        rest = path.stem.partition("-")[2].replace("-", " ")
        model = f"The committed model{', ' if rest else ''}{rest}"
        value = shown(facts["main"], facts["figures"][facts["main"]])
        overview = [[text for _, _, text in row] for row in whole.rows if row[1][2] == model]
        assert [model, value, f"{facts['step']:,}"] in [[row[1], row[3], row[5]] for row in overview]
    texts = (results / "README.md").read_text() + "\n" + (ROOT / stage / "README.md").read_text()
    for language, block in re.findall(r"^```(\w*)\n(.+?)^```", texts, re.M | re.S):
        if language in ("", "bash", "sh"):
            assert " ".join(block.split()) in whole.text
    for row in re.findall(r"^\| ([^|]+?) \|", (results / "README.md").read_text(), re.M):
        assert re.sub(r"[`*]|\]\([^)]*\)|\[", "", row) in whole.text.replace("\\|", "|")


def test_a_figure_stands_beside_what_it_is_held_against(whole):
    autoencoder = json.loads((ROOT / "task2_latent/results/evaluation-autoencoder.json").read_text())["figures"]
    line = f"{autoencoder['psnr']:.2f} PSNR of PCA with as many numbers, dB: {autoencoder['pca_psnr']:.2f}"
    assert line in whole.text
    one = json.loads((ROOT / "task1_unconditional/results/evaluation.json").read_text())
    assert f"{one['figures']['judge_confident']:.1%} 99.0%" in whole.text  # the floor that its own rows state


def test_a_published_figure_stands_with_what_else_its_protocol_states(whole):
    """DDIM's table 1 has rows that differ in eta alone."""
    rows = [[text for _, _, text in row] for row in whole.rows if len(row) == 10 and row[0][1] == "row"]
    seen = [(row[0], row[2], float(re.search(r"\beta ([\d.]+)", row[8])[1])) for row in rows if "eta " in row[8]]
    told = [(row.label, paper_value(row), row.protocol["eta"]) for row in papers() if "eta" in row.protocol]
    assert sorted(seen) == sorted(told) and len(rows) == len(papers())


def test_one_stage_alone_and_the_same_bytes_from_another_process(tmp_path):
    runs = tmp_path / "runs"
    runs.mkdir()
    page = made(tmp_path / "a.html", "--stage", "task4", "--folder", runs)
    accessible(page)
    assert "Stage 4" in page.text and "Stage 1:" not in page.text
    script = "import sys; from shared.experiments.report.command import main\ntry: main()\n"
    script += "except SystemExit as end: assert not end.code\nassert 'torch' not in sys.modules"
    command = [sys.executable, "-c", script, "--out", "b.html", "--stage", "task4", "--folder", "runs"]
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(ROOT), "TZ": "Asia/Tokyo"}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True)
    ours = (tmp_path / "a.html").read_text().replace(str(runs), "runs")
    assert (tmp_path / "b.html").read_text() == ours


def luminance(colour: str) -> float:
    """WCAG 2's relative luminance of #rrggbb."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_contrast(scheme):
    blocks = re.findall(r":root \{(.*?)\}", (HERE / "page.css").read_text(), re.S)
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", blocks[scheme]))
    assert len(blocks) == 2 and set(colours) == set(dict(re.findall(r"--([\w-]+): (#)", blocks[0])))
    for behind in ("paper", "panel"):
        for name, least in {"ink": 4.5, "quiet": 4.5, "link": 4.5, "alarm": 4.5, "curve": 3, "line": 3}.items():
            light, dark = sorted((luminance(colours[name]), luminance(colours[behind])), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= least, (name, behind)


def test_sizes_of_letters_follow_the_readers_own():
    css = (HERE / "page.css").read_text()
    assert not re.findall(r"font(?:-size)?:[^;]*\d(?:px|pt)", css)
    assert "prefers-reduced-motion: reduce" in css and "@media print" in css


# Pictures


def film(path: Path, frames: int = 3) -> list[Image.Image]:
    """A GIF of squares that grow lighter."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [Image.new("L", (8, 8), 40 * i) for i in range(frames)]
    images[0].save(path, save_all=True, append_images=images[1:], duration=50, loop=0)
    return images


def test_a_film_has_its_last_frame_as_a_still(tmp_path):
    last = film(tmp_path / "a.gif")[-1]
    found = read_picture(tmp_path / "a.gif", "squares")
    still = Image.open(io.BytesIO(base64.b64decode(found.still.partition(",")[2])))
    assert still.format == "PNG" and still.convert("L").tobytes() == last.tobytes()


def test_a_film_can_be_stopped_and_does_not_start_for_who_asked_for_less_motion(whole):
    films = [a for a in whole.all("img") if a["src"].startswith("data:image/gif")]
    stills = [a for a in whole.all("img") if "still" in a.get("class", "")]
    assert films and len(films) == len(stills) == len(whole.all("input"))
    assert all(a["class"].startswith("moving") for a in films)


@pytest.mark.parametrize(
    "content",
    [
        b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
        b"",
        b"\x89PNG\r\n\x1a\n" + b"x" * 50,
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\xff\xff\0\0\xff\xff\x08\x02\0\0\0\x1b\xf5\x03\xd4",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    ],
    ids=["svg", "empty", "damaged", "bomb", "eps"],
)
def test_what_is_no_picture_is_named(tmp_path, content):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(UserError, match="a.png"):
        read_picture(path, "a")


def test_other_formats_and_too_many_pixels_are_refused_before_they_are_decoded(tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "a.png", format="BMP")
    with pytest.raises(UserError, match="a.png.*neither PNG, JPEG, GIF nor WebP"):
        read_picture(tmp_path / "a.png", "a")
    Image.new("1", (5100, 5000)).save(tmp_path / "b.png")  # some kilobytes
    with pytest.raises(UserError, match="b.png.*5100 x 5000 pixels"):
        read_picture(tmp_path / "b.png", "b")


def test_a_film_of_too_many_frames_and_a_cut_picture_are_named(tmp_path):
    Image.frombytes("L", (64, 64), os.urandom(64 * 64)).save(tmp_path / "long.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "long.png").read_bytes()[:2000])
    images = [Image.new("L", (2, 2), i % 256) for i in range(401)]
    images[0].save(tmp_path / "many.gif", save_all=True, append_images=images[1:])
    for name in ("cut.png", "many.gif"):
        with pytest.raises(UserError, match=name):
            read_picture(tmp_path / name, "a")


def test_a_large_picture_is_made_smaller_and_loses_what_else_its_file_said(tmp_path):
    from PIL.PngImagePlugin import PngInfo

    secret = PngInfo()
    secret.add_text("Comment", "where I live")
    Image.new("RGB", (3200, 40), (9, 8, 7)).save(tmp_path / "a.png", pnginfo=secret)
    found = read_picture(tmp_path / "a.png", "a line")
    content = base64.b64decode(found.source.partition(",")[2])
    small = Image.open(io.BytesIO(content))
    assert small.size == (1600, 20) and b"where I live" not in content
    assert small.convert("RGB").getpixel((5, 5)) == (9, 8, 7)
    picture = Image.new("RGBA", (4, 4), (1, 2, 3, 0))
    assert Image.open(io.BytesIO(png(picture))).convert("RGBA").getpixel((0, 0))[3] == 0


# Curves


def heights(svg: str) -> list[float]:
    """The heights of the raw line's vertices, from above."""
    (path,) = [a["d"] for a in Page(svg).all("path") if "stroke-opacity" in a.get("style", "")]
    return [float(y) for _, y in re.findall(r"[ML] ([\d.]+) ([\d.]+)", path)]


def test_a_curve_is_drawn_at_its_values():
    values = [1.0, 10.0, 100.0, 10.0]  # a decade is as high as any other on a logarithmic axis
    found = heights(curve_svg(list(enumerate(values, 1)), "a", "loss", "k"))
    assert found[0] - found[1] == pytest.approx(found[1] - found[2], abs=0.05) and found[1] == found[3]
    straight = heights(curve_svg([(1, -1.0), (2, 0.0), (3, 1.0)], "a", "loss", "k"))  # not all positive: linear
    assert straight[0] - straight[1] == pytest.approx(straight[1] - straight[2], abs=0.05)


def test_curves_of_one_page_share_no_id_and_bring_no_style():
    one, other = (Page(curve_svg([(1, 200.0), (2, 1.0)], EVIL, "loss", key)) for key in ("a", "b"))
    harmless(one)
    ids = [{a["id"] for _, a in page.elements if "id" in a} for page in (one, other)]
    assert ids[0] and not ids[0] & ids[1]
    assert not one.all("style", "metadata") and EVIL in one.text
    colours = {c for _, a in one.elements for c in re.findall(r"(?:stroke|fill): ([^;]+)", a.get("style", ""))}
    assert colours <= {"none", "var(--ink)", "var(--rule)", "var(--curve)"}  # else one of two schemes cannot show it


# A stage's own text


def test_markdown_cannot_bring_markup_or_links_of_other_kinds():
    text = f"# T\n\nQ?\n\n## A {EVIL}\n\n{EVIL}\n\n[a](javascript:alert(1)) [b](data:text/html,x) [c](../secret)\n"
    text += f"[d](https://arxiv.org/abs/1)\n\n| {EVIL} | b |\n|---|---|\n| c | {EVIL} |\n\n"
    text += f'```\n{EVIL}\n```\n\n![x"y](z.png)\n'
    page = Page(render(text, 3, "k", lambda file, alt: "<em>shown</em>"))
    harmless(page)
    assert [a["href"] for a in page.all("a")] == ["https://arxiv.org/abs/1"]
    assert page.text.count(EVIL) >= 4 and len(page.all("em")) == 1


def test_captions_are_told_apart_and_commands_found():
    text = "# T\n\nWhy?\n\n![one](a.png) ![two](b.gif)\n\nLeft: the *first*. Right: the second.\n\nMore.\n\n"
    text += "## Run it\n\n```\ngo <now>\n```\n\n## Else\n\n```\nno\n```\n"
    found = read_readme(text)
    assert [(i.file, i.alt, i.caption) for i in found.images] == [
        ("a.png", "one", "The <em>first</em>."),
        ("b.gif", "two", "The second."),
    ]
    assert (found.question, found.intro, found.commands) == ("Why?", "<p>More.</p>", ["go <now>", "no"])


def test_no_level_of_headings_is_left_out_and_several_pictures_keep_their_legend():
    page = Page(
        "<h3>Results</h3>" + str(render("# T\n\n### A\n\n###### B\n\n## C\n\n#### D\n", 3, "k", lambda file, alt: ""))
    )
    levels = [int(tag[1]) for tag, _ in page.elements]
    assert levels[0] == 3 and all(b <= a + 1 for a, b in zip(levels, levels[1:], strict=False)) and len(levels) == 5
    text = "# T\n\nWhy?\n\n## A\n\n![one](a.png) ![two](b.gif)\n\nFrom the left: *x*.\n\n![three](c.png)\n\nElse.\n"
    assert read_readme(text).legend == "<p>From the left: <em>x</em>.</p>"


# One's own runs


def test_a_run_is_shown_with_what_may_stand_beside_it(here):
    run = make("mine")
    evaluation(run, 4.25)
    (run / "samples").mkdir()
    Image.new("L", (4, 4), 7).save(run / "samples" / "step-9.png")
    Image.new("L", (4, 4), 8).save(run / "samples" / "step-10.png")  # as numbers, not as text
    film(run / "samples" / "training.gif")
    make("other", state="failed", reason="it broke")
    page = made(here / "a.html", "--stage", "task1")
    harmless(page)
    accessible(page)
    assert "samples of the run mine after 10 steps" in [a["alt"] for a in page.all("img")]
    assert "samples of the run mine after 9 steps" not in page.text
    assert "film of the run mine, training.gif" in [a["alt"] for a in page.all("img")]
    assert "other task1 failed" in page.text and "it broke" in page.text
    assert "judge distance 4.250" in page.text
    (listed,) = [[text for _, _, text in row] for row in page.rows if row[0][2] == "mine"]
    assert listed[:4] == ["mine", "task1", "finished", "300"] and listed[5:] == [
        "38 min 51 s",
        "judge distance",
        "4.250",
    ]
    names = [row[0][2] for row in page.rows if row[0][1] == "row"]
    assert names.index("judge distance", names.index("mine")) < names.index("confident (≥ 0.9)", names.index("mine"))
    section = page.text[page.text.index("Runs in runs") :]
    assert "published, by the same protocol" in section and "4.500 ± 0.250" in section
    assert "4.625" not in section  # 7 steps, not 50


def test_reasons_are_those_of_the_protocols(here):
    """Against the real list: each refused line of stage 2's autoencoder says what `differences` says."""
    from shared.experiments.history import Evaluation
    from shared.experiments.papers import papers
    from shared.experiments.report.figures import measured

    file = ROOT / "task2_latent/results/evaluation-autoencoder.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparison, "FILE", ROOT / "shared/experiments/papers.yaml")
        found = measured("a", Evaluation.read(file))
    rows = {row.label: row for row in papers() if row.figure == "psnr"}
    assert not found.together and {line.name for line in found.apart} == set(rows)
    wanted = json.loads(file.read_text())["protocol"]
    for line in found.apart:
        assert list(line.reasons) == differences(wanted, rows[line.name].protocol)


def test_hostile_runs_stay_text(here):
    # a file's name has no slash, and is not longer than this
    name = "<script>alert(1)<img src=x onerror=alert(2)>\"'\u202e"
    run = make(name, state="failed", reason=EVIL, command=EVIL, task=f"task1-{EVIL}")
    evaluation(run, 1.0, figures={EVIL: 2.0}, name="<b>", sampler="javascript:alert(1)", weights=EVIL, data=[EVIL])
    (run / "samples").mkdir()
    Image.new("L", (4, 4)).save(run / "samples" / f"{name}.png")
    (run / "samples" / "step-00000001.gif").write_text(f"<svg>{EVIL}</svg>")
    make("reasons", state="failed", reason={"a": [EVIL]}, command=[1, EVIL], step=10**400, seconds=-1e308)
    (here / "runs/sweeps/<i>").mkdir(parents=True)
    (here / "runs/sweeps/<i>/trials.csv").write_text(f"trial,{EVIL}\n{EVIL},2\n\nshort\nnumbers,0.021600820741402058\n")
    (here / "runs/sweeps/<i>/parallel.png").write_bytes((run / "samples" / f"{name}.png").read_bytes())
    (here / "runs/sweeps/empty").mkdir()
    (here / "runs/sweeps/empty/trials.csv").write_text("")
    page = made(here / "a.html")
    harmless(page)
    accessible(page)
    assert EVIL in page.text and "<script>alert(1)<img src=x onerror=alert(2)>\"'?" in page.text
    assert "javascript:alert(1)" in page.text and "Trials of <i>" in page.text
    assert [["th", "row", "numbers"], ["td", None, "0.0216"]] in page.rows
    assert [["th", "row", EVIL], ["td", None, "2"]] in page.rows and [
        ["th", "row", "short"],
        ["td", None, ""],
    ] in page.rows
    first = f". First in the table: trial {EVIL}"
    assert any("3 trials of the sweep <i>" in one["alt"] and first in one["alt"] for one in page.all("img"))
    assert "\u202e" not in (here / "a.html").read_text()  # would turn the direction of what follows
    assert "step-00000001.gif" in page.text[page.text.index("What could not be shown") :]
    assert "sweeps/empty/trials.csv" in page.text


def test_damaged_files_are_named_and_hide_nothing_else(here):
    good = evaluation(make("good"), 2.0)
    bad = make("bad")
    evaluation(bad, 3.5, name="2026-01-01-000000")
    (evaluation(bad, 1.0, name="2026-01-02-000000")).write_text("{")
    with (bad / "metrics.jsonl").open("a") as file:
        file.write("no json\n" + json.dumps({"step": 9e99, "loss": 1e300}) + "\n")
    (bad / "samples").mkdir()
    (bad / "samples/step-00000001.png").write_text("no picture")
    (make("worse") / "record.json").write_text("[]")
    ended = call(report.main, "report", "--stage", "task1").well()
    page = Page((here / "report.html").read_text())
    problems = page.text[page.text.rindex("What could not be shown") :]
    for name in ("bad/metrics.jsonl", "2026-01-02-000000/evaluation.json", "step-00000001.png", "worse/record.json"):
        assert name in problems and name in ended.err
    assert good.parent.name in page.text and "judge distance 3.500" in page.text
    assert "damaged" in page.text and "Stage 4" in page.text
    # of what can be read, and can be drawn
    assert "Training loss of task1/bad training loss: 4 at step 100, 1 at step 300" in page.text


def test_links_out_of_a_run_are_not_followed(here):
    Image.new("L", (4, 4), 77).save(here / "private.png")
    run = make("mine")
    (run / "samples").mkdir()
    (run / "samples/step-00000001.png").symlink_to(here / "private.png")
    made(here / "a.html", "--stage", "task1")
    assert base64.b64encode((here / "private.png").read_bytes()).decode() not in (here / "a.html").read_text()


def test_pictures_that_there_is_no_room_for_are_counted(here, monkeypatch):
    from shared.experiments.report import content as report_content

    for name in "ab":
        run = make(name)
        (run / "samples").mkdir()
        Image.frombytes("L", (64, 64), os.urandom(64 * 64)).save(run / "samples/step-00000001.png")
    monkeypatch.setattr(report_content.Report, "room", 6000)
    found = report_content.Report(room=6000)
    from shared.experiments.report.runs import add_runs

    add_runs(found, Path("runs"))
    found.close()
    assert [len(own.pictures) for own in found.runs] == [1, 0] and "already: 1;" in found.problems[0]


# Mistakes


def test_mistakes_are_one_line(here):
    (here / "folder.html").mkdir()
    (here / "file").write_text("")
    call(report.main, "report", "--out", "folder.html").says(1, "folder.html", "is a folder")
    call(report.main, "report", "--out", "weights.safetensors").says(1, "weights.safetensors", ".html")
    call(report.main, "report", "--out", "file/a.html").says(1, "file")
    call(report.main, "report", "--stage", "task9").says(1, "task9", "there are task1")
    call(report.main, "report", "--sage", "task1").says(2, "--sage")
    assert not [path for path in here.rglob("*.html") if path.is_file()]


def test_a_folder_that_is_not_there_is_said_and_the_stages_are_shown(here):
    ended = call(report.main, "report", "--stage", "task1", "--folder", "nowhere").well()
    page = Page((here / "report.html").read_text())
    assert "nowhere" in ended.err and "--folder nowhere is no folder" in page.text and "Stage 4" in page.text
    ended = call(report.main, "report", "--stage", "task1").well()
    assert ended.err == "" and "There is no run in runs" in Page((here / "report.html").read_text()).text
