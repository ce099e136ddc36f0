"""What is committed: the models, their figures, and what the READMEs point at."""

import json
import re
from pathlib import Path

import pytest
import torch

import task2_latent
from shared.datasets import DataConfig
from shared.datasets import load as load_data
from shared.metrics.reconstruction import psnr
from shared.metrics.report import judge_samples
from task2_latent.model import COMMITTED, COMMITTED_AUTOENCODER, load, load_autoencoder
from task2_latent.pca import fit

STAGE = Path(task2_latent.__file__).parent
RESULTS = STAGE / "results"


def digits(split: str) -> torch.Tensor:
    """All embedded digits of a split, (N, 1, 28, 28) in [-1, 1]."""
    data = load_data(DataConfig(name="digits", split=split))
    return torch.stack([data[i][0] for i in range(len(data))])


def test_the_committed_models_are_small():
    assert sum(path.stat().st_size for path in (COMMITTED, COMMITTED_AUTOENCODER)) <= 8e6


def test_the_committed_autoencoder_is_two_decibels_above_pca():
    """On held-out digits, with as many numbers, both fitted on the same images."""
    network, test = load_autoencoder().network, digits("test")
    with torch.no_grad():
        made = network.decode(network.bottleneck.mean(network.encode(test))).clamp(-1, 1)
    numbers = torch.Size(network.latent_shape((1, 28, 28))).numel()
    assert numbers == 7 * 7 * 2
    assert psnr(made, test) >= psnr(fit(digits("train"), numbers).reconstruct(test), test) + 2


def test_the_committed_diffusion_makes_digits():
    report = judge_samples(load().sample(100, seed=5))
    assert report.confident >= 0.65
    assert max(report.histogram) < 0.3


@pytest.mark.slow
def test_the_committed_figures_hold():
    """1,000 samples from another seed than the README's lie near its figures."""
    written = json.loads((RESULTS / "evaluation.json").read_text())
    report = judge_samples(load().sample(1000, seed=1))
    assert report.confident == pytest.approx(written["judge"]["confident"], abs=0.05)
    assert report.ratio < 2 * written["judge"]["ratio"] + 1


@pytest.mark.parametrize("readme", [STAGE / "README.md", RESULTS / "README.md"], ids=["stage", "results"])
def test_the_links_and_pictures_of_a_readme_exist(readme):
    for target in re.findall(r"\]\(([^)#]+)\)", readme.read_text()):
        assert target.startswith("http") or (readme.parent / target).exists(), target


def test_the_committed_configs_are_valid():
    from task2_latent import train, train_autoencoder

    for path in (STAGE / "configs").glob("*.yaml"):
        options = train_autoencoder.OPTIONS if "autoencoder" in path.stem else train.OPTIONS
        asked = options.parse(["--config", str(path)])
        if options is train_autoencoder.OPTIONS:
            train_autoencoder.check_stages(asked.config)


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
