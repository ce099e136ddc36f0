"""What is committed: the models work right after a clone, and are as good as the README says."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from shared.datasets import DataConfig
from shared.datasets import load as load_data
from task3_conditional.measures import KINDS, by_caption, by_class
from task3_conditional.model import COMMITTED, COMMITTED_TEXT, load
from task3_conditional.results.one_token import varying

STAGE = Path(__file__).parents[1]
RESULTS = STAGE / "results"


def test_the_committed_models_are_small_and_in_bfloat16():
    assert sum(path.stat().st_size for path in (COMMITTED, COMMITTED_TEXT)) <= 8e6
    for path in (COMMITTED, COMMITTED_TEXT):
        with safe_open(path, framework="pt") as file:
            assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.bfloat16}


def test_the_committed_model_draws_the_digit_asked_for():
    """A floor under the figure of the README (over 1,000 samples), loose enough for 100."""
    assert by_class(load(), 100, 5, {"steps": 25})["agreement"] >= 0.9


def test_the_unconditional_model_does_not_know_the_class():
    """Scale 0: a tenth of the samples are what was asked for by chance."""
    from shared.schedulers.config import GuidanceConfig

    assert by_class(load(), 100, 5, {"steps": 25, "guidance": GuidanceConfig(scale=0)})["agreement"] < 0.3


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_committed_model_follows_captions_that_were_held_out(kind, language):
    """Half of what is asked of the preset, over 24 samples: enough to see one that reads nothing, which has 0."""
    model = load(COMMITTED_TEXT)
    data = load_data(DataConfig(name="captioned_digits", languages=("en", "zh"), split="test"))
    found = by_caption(model, data, language, kind, 24, 5, {"steps": 20})
    assert found.all >= {"one": 0.35, "two": 0.125, "two_alike": 0.125}[kind]
    assert found.colour >= 0.8 and found.place >= 0.6


def test_one_token_is_a_constant_shift_in_the_committed_model():
    """Whatever the image: what each cross-attention adds is the same everywhere, until there are two tokens."""
    model = load(COMMITTED_TEXT)
    assert max(varying(model, 1)) < 1e-6
    assert min(varying(model, 5)) > 0.01


@pytest.mark.slow
def test_the_committed_figures_hold():
    """1,000 samples from another seed than the README's lie near its figures."""
    written = json.loads((RESULTS / "evaluation.json").read_text())
    found = by_class(load(), 1000, 1, {})
    assert found["agreement"] == pytest.approx(written["figures"]["judge_agreement"], abs=0.02)
    assert found["judged"]["ratio"] < 2 * written["figures"]["judge_distance_over_floor"] + 1


@pytest.mark.slow
def test_the_committed_figures_of_captions_hold():
    written = json.loads((RESULTS / "evaluation-captions.json").read_text())["figures"]
    data = load_data(DataConfig(name="captioned_digits", languages=("en", "zh"), split="test"))
    for kind in ("one", "two"):
        found = by_caption(load(COMMITTED_TEXT), data, "en", kind, 200, 1, {})
        assert found.all == pytest.approx(written[f"followed_{kind}"], abs=0.12)


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


@pytest.mark.parametrize("readme", [STAGE / "README.md", RESULTS / "README.md"], ids=["stage", "results"])
def test_the_links_and_pictures_of_a_readme_exist(readme):
    for target in re.findall(r"\]\(([^)#]+)\)", readme.read_text()):
        assert target.startswith("http") or (readme.parent / target).exists(), target


def test_the_figures_of_the_readme_are_those_that_were_written_down():
    """The two headline figures, as percentages with a decimal."""
    text = (RESULTS / "README.md").read_text()
    by_label = json.loads((RESULTS / "evaluation.json").read_text())["figures"]
    by_text = json.loads((RESULTS / "evaluation-captions.json").read_text())["figures"]
    for value in (by_label["judge_agreement"], by_text["followed_one"], by_text["followed_two"]):
        assert f"{100 * value:.1f} %" in text


def test_every_config_is_one_of_this_stage():
    """Each YAML file fills the dataclass, and its parts fit together: the network can be built."""
    from shared.cli import read_yaml, stored_config
    from task3_conditional.config import Config
    from task3_conditional.given import check_given
    from task3_conditional.model import build_diffusion, build_network

    known = {"classes": ["a", "b"], "attributes": ["c"], "image": None}
    known["text"] = {"width": None, "tokens": 9, "length": 32, "pooled": False}
    for path in sorted((STAGE / "configs").glob("*.yaml")):
        if path.name == "classifier.yaml":
            continue
        config = stored_config(Config, read_yaml(path), path.name)
        side = config.data.size or (28 if config.data.name == "digits" else 32)
        build_diffusion(config)
        with torch.device("meta"):
            shape = (1 if config.data.name == "digits" else 3, side, side)
            check_given(config.given, config.condition.told, shape)
            build_network(config, shape, known | {"image": config.given.channels(shape[0])})
