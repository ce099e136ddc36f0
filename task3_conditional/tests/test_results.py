"""What is committed: the models work right after a clone, and are as good as the README says."""

import functools
import json
import re
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from shared.cli import read_yaml, stored_config
from shared.datasets import DataConfig
from shared.datasets import load as load_data
from shared.datasets.held_out import pictures_given
from shared.metrics.edges import edge_f1
from shared.metrics.reconstruction import psnr
from task3_conditional.classifier_config import ClassifierTraining
from task3_conditional.config import Config
from task3_conditional.control_config import ControlTraining
from task3_conditional.control_model import controlled, hinted, load_control
from task3_conditional.editing_measures import inpainting_figures, super_resolution_figures
from task3_conditional.given import averaged, check_given, grey
from task3_conditional.hints import HINTS
from task3_conditional.inpainting import fill, steps_of
from task3_conditional.measures import KINDS, by_caption, by_class
from task3_conditional.model import COMMITTED_TEXT, RESULTS, build_data, build_diffusion, build_network, load
from task3_conditional.results.edits import digits
from task3_conditional.results.one_token import varying
from task3_conditional.super_resolution import colourise, enlarge

STAGE = Path(__file__).parents[1]


def test_the_committed_models_are_small_and_in_bfloat16():
    paths = sorted(RESULTS.glob("*.safetensors"))
    assert {path.stem for path in paths} == {"digits", "captions", "inpaint", "sr", "small7", "colour", "controlnet"}
    assert sum(path.stat().st_size for path in paths) <= 12e6
    for path in paths:
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


OTHERS = {"classifier.yaml": ClassifierTraining, "controlnet.yaml": ControlTraining}
GIVEN = {"inpaint": "mask", "sr": "low", "sr64-256": "low", "sr256-1024": "low", "colour": "grey"}  # the others: none


def preset(name: str) -> Config:
    """A file of this stage's configs."""
    return stored_config(Config, read_yaml(STAGE / "configs" / f"{name}.yaml"), name)


def test_every_config_is_one_of_this_stage():
    """Each YAML file fills its dataclass, and the parts of a model fit together: the network can be built."""
    known = {"classes": ["a", "b"], "attributes": ["c"], "image": None}
    known["text"] = {"width": None, "tokens": 9, "length": 32, "pooled": False}
    kinds = {}
    for path in sorted((STAGE / "configs").glob("*.yaml")):
        if path.name in OTHERS:
            stored_config(OTHERS[path.name], read_yaml(path), path.name)
            continue
        config = preset(path.stem)
        kinds[path.stem] = config.given.kind
        side = config.data.size or (28 if config.data.name == "digits" else 32)
        build_diffusion(config)
        channels = 1 if config.data.name == "digits" else 3
        shape = build_data(config).shape if config.own_data else (channels, side, side)
        with torch.device("meta"):
            check_given(config.given, config.condition.told, shape)
            build_network(config, shape, known | {"image": config.given.channels(shape[0])})
    assert {name: kind for name, kind in kinds.items() if kind != "none"} == GIVEN


# --- pictures changed ---------------------------------------------------------------------------------------------


@functools.cache
def edits(experiment: str) -> dict[str, dict]:
    """What was found in an experiment of edits.py."""
    return json.loads((RESULTS / "edits.json").read_text())[experiment]["found"]


@functools.cache
def real(n: int = 50) -> tuple[torch.Tensor, torch.Tensor]:
    """Held-out digits (n, 1, 28, 28) of all classes in turn, and their labels."""
    return digits(n)


SHAPES = {"inpaint": (1, 28, 28), "sr": (1, 28, 28), "small7": (1, 7, 7), "colour": (3, 32, 32)}


@pytest.mark.parametrize("name", SHAPES)
def test_a_committed_model_is_of_its_config(name):
    model, config = load(RESULTS / f"{name}.safetensors"), preset(name)
    for section in ("own_data", "condition", "given", "network", "schedule", "diffusion", "guidance", "sampling"):
        assert getattr(model.config, section) == getattr(config, section), section
    assert (model.config.train.steps, model.config.train.batch) == (config.train.steps, config.train.batch)
    assert model.shape == SHAPES[name]


def test_the_committed_controlnet_steers_by_edges():
    """A floor under the figure that was written down, loose enough for 50 digits in 10 steps."""
    control, (x, labels) = load_control(RESULTS / "controlnet.safetensors"), real()
    assert control.config.hint == "edges"
    model, hints = controlled([control]), {"edges": HINTS["edges"](x)}
    samples = model.sample(hinted([control], hints, model.told(len(x), label=labels.tolist())), seed=1, steps=10)
    found = edge_f1(HINTS["edges"](samples) > 0, hints["edges"] > 0).f1
    written = edits("control")["edges"]
    assert found >= 0.97 and written["edge_f1"] >= 0.97
    assert written["edge_f1_floor"] < 0.8 < 0.99 * written["edge_f1_of_ceiling"]


def test_the_committed_model_enlarges():
    model, (x, labels) = load(RESULTS / "sr.safetensors"), real()
    low = averaged(x, 4)
    found = super_resolution_figures(enlarge(model, low, seed=1, steps=5), x, low, labels)
    written = edits("super_resolution")["5 steps"]
    assert found["psnr_gain"] == pytest.approx(written["psnr_gain"], abs=1.0) and found["judge_agreement"] >= 0.85
    assert found["consistency_rmse"] <= 1 / 255


def test_the_committed_model_fills_what_is_hidden():
    model, (x, labels) = load(RESULTS / "inpaint.safetensors"), real()
    mask = torch.zeros(1, 1, 28, 28, dtype=torch.bool)
    mask[..., :14] = True
    found = inpainting_figures(fill(model, model.told(len(x)), x, mask, 1, steps=10), x, mask, labels)
    written = edits("hidden_half")["told, class not"]
    assert found["known_unchanged"] and found["judge_agreement_mean"] < 0.4
    assert found["judge_agreement"] == pytest.approx(written["judge_agreement"], abs=0.15)


def test_the_committed_model_colours():
    """What is of a colour gets one, and is nearer to its own than the grey picture is."""
    model = load(RESULTS / "colour.safetensors")
    x = pictures_given(model, (), 64)
    found = colourise(model, grey(x), seed=1, steps=5)
    saturated = (x.amax(1) - x.amin(1)) > 0.5
    assert ((found.amax(1) - found.amin(1))[saturated] > 0.25).double().mean() > 0.9
    assert psnr(found, x) > psnr(grey(x).expand_as(x), x) + 3


def test_the_figures_of_the_cascade_are_consistent():
    """Of the same n pictures: what is gained and lost is the difference of the agreements."""
    written = json.loads((RESULTS / "cascade.json").read_text())
    assert {"real", "drawn, scale 1.5"} < set(written["found"])
    for found in written["found"].values():
        for name, figures in found.items():
            if name == "without":
                continue
            change = (figures["gained"] - figures["lost"]) / written["n"]
            assert figures["judge_agreement"] - found["without"]["judge_agreement"] == pytest.approx(change)
    assert written["found"]["drawn, scale 1.5"]["with, level 0"]["judge_agreement"] >= 0.9


def test_the_figures_of_edits_are_consistent():
    """Those that follow from others of the same line, and those that cannot be otherwise."""
    for figures in edits("super_resolution").values():
        assert figures["psnr_gain"] == pytest.approx(figures["psnr"] - figures["psnr_bicubic"])
        assert figures["judge_agreement_real"] > 0.97
    for name, figures in edits("super_resolution").items():
        assert (figures["consistency_rmse"] <= 1 / 255) == (name != "without the consistency step")
    for name, figures in edits("hidden_half").items():
        assert figures["known_unchanged"] is True
        ratio = figures["judge_agreement"] / figures["judge_agreement_mean"]
        assert figures["judge_agreement_over_mean"] == pytest.approx(ratio)
        repainting = re.match(r"RePaint, (\d+)", name)
        calls = steps_of(load(), 25, int(repainting[1]), 5) if repainting else preset("inpaint").sampling.steps
        assert figures["calls"] == calls
    for figures in edits("control").values():
        assert figures["edge_f1_of_ceiling"] == pytest.approx(figures["edge_f1"] / figures["edge_f1_ceiling"])
        parts = figures["edge_precision"], figures["edge_recall"]
        assert figures["edge_f1"] == pytest.approx(2 * parts[0] * parts[1] / sum(parts))
    strengths = edits("strength")
    assert strengths["0.2"]["still"] > 0.9 and strengths["1"]["judge_agreement"] > 0.9
    for figures in strengths.values():
        assert figures["still"] + figures["judge_agreement"] <= 1
