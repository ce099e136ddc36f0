"""Which figures may stand side by side, and the one list of their names."""

import random
import subprocess
import sys

import pytest

from shared.experiments.figures import FIGURES, shown
from shared.experiments.protocol import FINER, REQUIRED, differences

OURS = {
    "data": "digits",
    "n": 1000,
    "reference": "features of the 10,000 MNIST test images",
    "extractor": "shared.metrics judge",
    "sampler": "ddim",
    "steps": 50,
    "eta": 1.0,
    "spacing": "trailing",
    "guidance": "none",
    "weights": "ema",
    "clamp": True,
    "precision": "auto",
    "seed": 0,
}
NAMES = ("data", "n", "reference", "extractor", "sampler", "steps", "guidance", "weights")  # typed again, on purpose


def changed(name: str) -> dict:
    """Our protocol with another value in one field."""
    return OURS | {name: not OURS[name] if isinstance(OURS[name], bool) else "another"}


def some_protocol(rng: random.Random) -> dict:
    """A protocol of a few values, some of them not stated, of a kind or another."""
    values = ["none", None, 1, 1.0, True, False, 0, "1", 50, 50.0]
    return {name: rng.choice(values) for name in REQUIRED + FINER if rng.random() < 0.95}


def test_the_fields_are_those_of_the_design():
    assert REQUIRED == NAMES
    assert FINER == ("eta", "spacing", "clamp")


def test_a_protocol_stands_beside_itself():
    assert differences(OURS, dict(OURS)) == []


@pytest.mark.parametrize("name", NAMES + FINER)
def test_one_changed_field_is_one_reason_that_names_it(name):
    (reason,) = differences(OURS, changed(name))
    assert reason.startswith(f"{name} ")
    assert differences(OURS, changed(name), free=[name]) == []


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("forget", [lambda d, k: d | {k: None}, lambda d, k: {n: v for n, v in d.items() if n != k}])
def test_what_is_not_stated_cannot_be_compared(name, forget):
    without = forget(OURS, name)
    assert differences(OURS, without) == [f"{name} is not stated"]
    (reason,) = differences(without, OURS)
    assert reason.startswith(f"{name} is not stated")
    assert differences(without, without) == [f"{name} is not stated"]
    assert differences(without, OURS, free={name}) == []


@pytest.mark.parametrize("name", FINER)
def test_finer_details_count_where_both_state_them(name):
    without = {key: value for key, value in OURS.items() if key != name}
    assert differences(OURS, without) == differences(without, OURS) == []


def test_reasons_read_as_a_person_says_them():
    assert differences(OURS, OURS | {"steps": 20}) == ["steps 20, not 50"]
    assert differences(OURS, OURS | {"eta": 0.5}) == ["eta 0.5, not 1"]
    assert differences(OURS, OURS | {"clamp": False}) == ["clamp no, not yes"]
    assert differences(OURS, OURS | {"guidance": 1.5}) == ["guidance 1.5, not none"]


def test_reasons_come_in_the_order_of_the_fields():
    other = {name: "another" for name in reversed(REQUIRED + FINER)}
    assert [reason.split()[0] for reason in differences(OURS, other)] == list(NAMES + FINER)


@pytest.mark.parametrize("name", ["precision", "seed", "something else"])
def test_other_fields_never_count(name):
    assert differences(OURS, OURS | {name: "another"}) == []


def test_numbers_are_equal_as_numbers_and_a_yes_is_no_number():
    assert differences(OURS, OURS | {"steps": 50.0}) == []
    assert differences(OURS | {"guidance": 1}, OURS | {"guidance": True}) == ["guidance yes, not 1"]
    assert differences(OURS, OURS | {"clamp": 1}) == ["clamp 1, not yes"]
    assert differences(OURS, OURS | {"steps": "50"}) != []


def test_does_not_apply_is_equal_to_itself_alone():
    assert differences(OURS | {"steps": "none"}, OURS | {"steps": "none"}) == []
    assert differences(OURS, OURS | {"guidance": None}) == ["guidance is not stated"]
    assert differences(OURS | {"guidance": 0}, OURS) == ["guidance none, not 0"]


@pytest.mark.parametrize("seed", range(200))
def test_properties_of_any_two_protocols(seed):
    rng = random.Random(seed)
    a, b = some_protocol(rng), some_protocol(rng)
    if rng.random() < 0.3:
        b = dict(reversed(a.items()))
    forth, back = differences(a, b), differences(b, a)
    assert [reason.split()[0] for reason in forth] == [reason.split()[0] for reason in back]
    complete = all(a.get(name) is not None for name in NAMES)
    assert (differences(a, a) == []) == complete
    for name in NAMES + FINER:  # to free a field takes its own reason away and no other
        assert differences(a, b, free=[name]) == [reason for reason in forth if not reason.startswith(f"{name} ")]
    assert differences(a, b, free=NAMES + FINER) == []


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("fid", 3.174, "3.17"),
        ("judge_confident", 0.921, "92.1%"),
        ("reconstruction_mse", 0.0065, "0.0065"),
        ("judge_distance", 0.59140, "0.591"),
        ("something new", 1234.567, "1235"),
        ("something new", 0.000123456, "0.0001235"),
    ],
)
def test_a_figure_is_shown_with_the_digits_of_its_kind(name, value, text):
    assert shown(name, value) == text


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_of_the_list_has_a_label_and_can_be_shown(name):
    figure = FIGURES[name]
    assert figure.label and figure.better in ("lower", "higher", None)
    assert "0" in shown(name, 0.0)


def test_labels_are_told_apart():
    assert len({figure.label for figure in FIGURES.values()}) == len(FIGURES)


@pytest.mark.parametrize("module", ["papers", "protocol", "figures"])
def test_the_lists_are_read_without_torch(module):
    check = f"import sys, shared.experiments.{module}; print({{'torch', 'numpy', 'pandas'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
