"""What is committed: the models work right after a clone, and are as good as the README says."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from shared.cli import read_yaml, stored_config
from shared.metrics.report import judge_labelled
from task4_dit.config import Config, Distillation
from task4_dit.model import COMMITTED, RESULTS, build_diffusion, build_network, load

STAGE = Path(__file__).parents[1]
STUDENT = RESULTS / "student.safetensors"


def judged(source: Path, n: int, seed: int, **options: object) -> dict:
    """What the judge says of samples of all digits alike."""
    model, labels = load(source), torch.arange(n) % 10
    return judge_labelled(model.sample(n, model.told(n, label=labels.tolist()), seed, **options), labels)


def test_the_committed_models_are_small_and_in_bfloat16():
    assert sum(path.stat().st_size for path in (COMMITTED, STUDENT)) <= 8e6
    for path in (COMMITTED, STUDENT):
        with safe_open(path, framework="pt") as file:
            assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.bfloat16}


def test_the_committed_model_draws_the_digit_asked_for():
    """A floor under the figures of the README (over 1,000 samples), loose enough for 100."""
    found = judged(COMMITTED, 100, 5)
    assert found["agreement"] >= 0.9 and found["judged"]["confident"] >= 0.85


def test_one_step_of_the_student_is_worth_more_than_one_of_its_teacher():
    """By the judge's distance, at the same noise; the teacher's single step is the blurred mean of all ends."""
    student, teacher = (judged(path, 200, 5, steps=1) for path in (STUDENT, COMMITTED))
    assert student["judged"]["distance"] < teacher["judged"]["distance"] / 1.5
    assert judged(STUDENT, 100, 6)["judged"]["confident"] >= 0.8


@pytest.mark.slow
@pytest.mark.parametrize("path, written", [(COMMITTED, "evaluation.json"), (STUDENT, "evaluation-student.json")])
def test_the_committed_figures_hold(path, written):
    """1,000 samples from another seed than the README's lie near its figures."""
    figures, found = json.loads((RESULTS / written).read_text())["figures"], judged(path, 1000, 1)
    assert found["agreement"] == pytest.approx(figures["judge_agreement"], abs=0.02)
    assert found["judged"]["ratio"] < 2 * figures["judge_distance_over_floor"] + 1


@pytest.mark.slow
def test_the_notebook_runs(tmp_path):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    notebook = nbformat.read(STAGE / "walkthrough.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()


def test_the_notebook_was_executed_in_order():
    cells = [c for c in json.loads((STAGE / "walkthrough.ipynb").read_text())["cells"] if c["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert not any(output["output_type"] == "error" for cell in cells for output in cell["outputs"])


@pytest.mark.parametrize("readme", [STAGE / "README.md", RESULTS / "README.md"], ids=["stage", "results"])
def test_the_links_and_pictures_of_a_readme_exist(readme):
    for target in re.findall(r"\]\(([^)#]+)\)", readme.read_text()):
        assert target.startswith("http") or (readme.parent / target).exists(), target


def test_the_figures_of_the_readme_are_those_that_were_written_down():
    """The headline figures, as percentages with a decimal, and the distances in floors."""
    text = (RESULTS / "README.md").read_text()
    for name in ("evaluation.json", "evaluation-student.json"):
        figures = json.loads((RESULTS / name).read_text())["figures"]
        for value in (figures["judge_agreement"], figures["judge_confident"]):
            assert f"{100 * value:.1f} %" in text
        assert f"{figures['judge_distance_over_floor']:.1f}" in text


def test_every_config_is_one_of_this_stage():
    """Each YAML file fills the dataclass, and its parts fit together: the network can be built."""
    known = {"classes": ["a", "b"], "attributes": [], "image": None}
    known["text"] = {"width": None, "tokens": 9, "length": 32, "pooled": False}
    for path in sorted((STAGE / "configs").glob("*.yaml")):
        kind = Distillation if path.stem in ("distill", "reflow") else Config
        config = stored_config(kind, read_yaml(path), path.name)
        if kind is Config:
            build_diffusion(config)
            side = config.data.size or (32 if config.data.name == "cifar10" else 28)
            with torch.device("meta"):
                build_network(config, (3, side, side), known)
