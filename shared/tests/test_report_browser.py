"""The page of `report` in a real browser, at a desk's and a phone's width; skipped where there is no Chromium."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from shared.experiments.report import command as report
from shared.tests.commands import call

pytestmark = pytest.mark.slow
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ASK = """<script>addEventListener("load", () => {
  document.querySelectorAll("details").forEach(part => part.open = true);
  const wide = [...document.querySelectorAll(".wide, pre")].filter(part => part.scrollWidth > part.clientWidth).length;
  const broken = [...document.images].filter(image => image.complete && !image.naturalWidth).length;
  const root = document.documentElement;
  parent.postMessage([root.scrollWidth, root.clientWidth, wide, broken, getComputedStyle(document.body).backgroundColor,
    performance.getEntriesByType("resource").filter(entry => !entry.name.startsWith("data:")).length], "*");
});</script>"""
SWITCH = """<script>addEventListener("load", () => {
  const seen = () => [...document.querySelectorAll(".moving, .still")].map(part => getComputedStyle(part).display);
  const before = seen();
  document.querySelectorAll("label").forEach(label => label.click());
  document.body.dataset.found = JSON.stringify([before, seen()]);
});</script>"""
FRAME = """<!doctype html><meta charset=utf-8>
<iframe src="page.html" width={width} height=700 style="border:0"></iframe>
<script>onmessage = event => document.body.dataset.found = JSON.stringify(event.data)</script>"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The page of all stages, which answers a frame around it: for that alone its policy is taken out."""
    place = tmp_path_factory.mktemp("browser")
    call(report.main, "report", "--out", place / "report.html", "--folder", place).well()
    text = (place / "report.html").read_text()
    asked, count = re.subn(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    assert count == 1
    (place / "page.html").write_text(asked.replace("</body>", f"{ASK}</body>"))
    return place


@pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium here")
@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_page_never_scrolls_sideways_and_follows_the_scheme(folder, width, dark):
    outer = folder / f"frame-{width}.html"
    outer.write_text(FRAME.format(width=width))
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1400,900", "--dump-dom"]
    command += ["--virtual-time-budget=20000", f"--user-data-dir={folder / 'profile'}"]
    command += [f"--blink-settings=preferredColorScheme={0 if dark else 1}", outer.as_uri()]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = re.search(r'data-found="([^"]+)"', answer.stdout)
    assert found, answer.stderr[-500:]
    inner, outer_width, scrolled, broken, background, loaded = json.loads(found[1].replace("&quot;", '"'))
    assert inner <= outer_width <= width and outer_width > width - 30
    assert scrolled or width > 1000  # on a phone wide tables scroll by themselves
    assert broken == loaded == 0
    assert (sum(map(int, re.findall(r"\d+", background)[:3])) < 200) == dark


@pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium here")
@pytest.mark.parametrize("reduced", [False, True], ids=["motion", "less motion"])
def test_a_film_stops_and_plays_and_does_not_start_for_who_asked_for_less_motion(folder, reduced):
    text = (folder / "page.html").read_text()
    (folder / "switch.html").write_text(text.replace(ASK, SWITCH))
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", "--virtual-time-budget=20000"]
    command += [f"--user-data-dir={folder / 'profile'}", *["--force-prefers-reduced-motion"][: int(reduced)]]
    answer = subprocess.run([*command, (folder / "switch.html").as_uri()], capture_output=True, text=True, timeout=120)
    found = re.search(r'data-found="([^"]+)"', answer.stdout)
    assert found, answer.stderr[-500:]
    before, after = json.loads(found[1].replace("&quot;", '"'))
    moving, still = ["block", "none"] * (len(before) // 2), ["none", "block"] * (len(before) // 2)
    assert before and (before, after) == ((still, moving) if reduced else (moving, still))
