"""What is committed: the models work right after a clone, and are as good as the README says."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from shared.cli import read_yaml, stored_config
from shared.metrics.video_figures import measure
from task5_video.config import Config
from task5_video.inflate import read_image
from task5_video.model import COMMITTED, RESULTS, build_diffusion, build_network, load

STAGE = Path(__file__).parents[1]
IMAGE = RESULTS / "image.safetensors"
FOREIGN = {"image": "task3_conditional", "image64": "task1_unconditional"}  # configs of other stages' commands


def test_the_committed_models_are_small_and_in_bfloat16():
    assert sum(path.stat().st_size for path in (COMMITTED, IMAGE)) <= 8e6
    for path in (COMMITTED, IMAGE):
        with safe_open(path, framework="pt") as file:
            assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.bfloat16}


def test_the_committed_model_shows_digits_that_move():
    """A floor under the figures of the README (over 200 clips), loose enough for 12."""
    labels = torch.arange(12) % 10
    clips = load(COMMITTED).sample(12, load(COMMITTED).told(12, label=labels.tolist()), 5, steps=10)
    found = measure(clips, 1, labels=labels)
    assert found.agreement >= 0.8 and found.confident >= 0.7 and found.moving >= 0.9


def test_the_committed_model_was_made_from_the_committed_image_model():
    image, model = read_image(IMAGE), load(COMMITTED)
    taken = {name: model.network.image.state_dict()[name] for name in image.state}
    assert model.config.unet == image.network and model.known["classes"] == image.known["classes"]
    alike = [
        torch.cosine_similarity(taken[name].flatten(), value.flatten(), dim=0) for name, value in image.state.items()
    ]
    assert torch.stack(alike).median() > 0.8  # two trainings that began apart have nothing in common


@pytest.mark.slow
def test_the_notebook_runs(tmp_path):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    notebook = nbformat.read(STAGE / "walkthrough.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(tmp_path)}}).execute()


def test_the_notebook_was_executed_in_order():
    cells = [c for c in json.loads((STAGE / "walkthrough.ipynb").read_text())["cells"] if c["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert not any(output["output_type"] == "error" for cell in cells for output in cell["outputs"])


@pytest.mark.parametrize("readme", [STAGE / "README.md", RESULTS / "README.md"], ids=["stage", "results"])
def test_the_links_and_pictures_of_a_readme_exist(readme):
    for target in re.findall(r"\]\(([^)#]+)\)", readme.read_text()):
        assert target.startswith("http") or (readme.parent / target).exists(), target


def test_the_figures_of_the_readme_are_those_that_were_written_down():
    text = (RESULTS / "README.md").read_text()
    figures = json.loads((RESULTS / "evaluation.json").read_text())["figures"]
    for name in ("video_identity", "video_confident", "video_speed_right", "video_constant", "video_agreement"):
        assert f"{100 * figures[name]:.1f} %" in text
    assert f"{figures['video_distance_over_floor']:.1f}" in text


@pytest.mark.parametrize("path", sorted((STAGE / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_is_one_that_its_command_takes(path):
    """Each YAML file fills the dataclass of its stage; of this stage's its parts fit together."""
    if path.stem in FOREIGN:
        foreign = __import__(f"{FOREIGN[path.stem]}.config", fromlist=["Config"]).Config
        stored_config(foreign, read_yaml(path), path.name)
        return
    config = stored_config(Config, read_yaml(path), path.name)
    build_diffusion(config)
    known = {"classes": ["a", "b"], "attributes": [], "image": None}
    known["text"] = {"width": None, "tokens": 9, "length": 32, "pooled": False}
    with torch.device("meta"):
        build_network(config, (3, config.data.frames, 64, 64), known)
