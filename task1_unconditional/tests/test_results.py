"""What is committed: the model works right after a clone, and is as good as the README says."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from shared.metrics.report import judge_samples
from task1_unconditional.model import COMMITTED, load

STAGE = Path(__file__).parents[1]


def test_the_committed_model_is_small_and_in_bfloat16():
    assert COMMITTED.stat().st_size <= 8 * 2**20
    with safe_open(COMMITTED, framework="pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.bfloat16}


def test_the_committed_model_makes_digits():
    """A floor under the figure of the README (over 1,000 samples), loose enough for 100."""
    report = judge_samples(load().sample(100, seed=5))
    assert report.confident >= 0.8
    assert max(report.histogram) < 0.3


@pytest.mark.slow
def test_the_committed_figures_hold():
    """1,000 samples from another seed than the README's lie near its figures."""
    written = json.loads((STAGE / "results" / "evaluation.json").read_text())
    protocol = written["protocol"]
    options = {name: protocol[name] for name in ("sampler", "steps", "eta", "spacing")}
    report = judge_samples(load().sample(1000, seed=1, **options))
    assert report.confident == pytest.approx(written["judge"]["confident"], abs=0.04)
    assert report.ratio < 2 * written["judge"]["ratio"] + 1


@pytest.mark.slow
def test_the_notebook_runs(tmp_path):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    notebook = nbformat.read(STAGE / "walkthrough.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()


def test_the_notebook_was_executed_in_order():
    cells = [c for c in json.loads((STAGE / "walkthrough.ipynb").read_text())["cells"] if c["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert not any(output["output_type"] == "error" for cell in cells for output in cell["outputs"])


@pytest.mark.parametrize("readme", [STAGE.parent / "README.md", STAGE / "README.md"], ids=["root", "stage"])
def test_the_python_of_a_readme_runs(readme, capsys):
    for block in re.findall(r"```python\n(.*?)```", readme.read_text(), re.DOTALL):
        exec(compile(block, str(readme), "exec"), {})


@pytest.mark.parametrize("readme", [STAGE.parent / "README.md", STAGE / "README.md", STAGE / "results" / "README.md"])
def test_the_links_and_pictures_of_a_readme_exist(readme):
    for target in re.findall(r"\]\(([^)#]+)\)", readme.read_text()):
        assert target.startswith("http") or (readme.parent / target).exists(), target
