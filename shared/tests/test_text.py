"""Readers and the captioned data set: what a checkpoint keeps of them, and what it may not make them do."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from shared.errors import UserError
from shared.text.config import TextConfig
from shared.text.reader import build_reader, described, rebuilt_reader
from shared.training.data import check_data

CAPTIONS = ["a red three above two blue sevens", "左边是红色的三", "seven"]
SOURCE = Path("a-run/step-9.safetensors")


class Pictures(Dataset):
    """Latents of which the second has the first caption."""

    ranged, classes = False, ["only one"]

    def __init__(self, captions: list[str], order: tuple[int, ...] = (1, 0, 2)):
        self.captions, self.order = captions, order
        self.conds = [{"caption": torch.tensor(caption), "label": torch.tensor(7)} for caption in order]

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, i: int) -> tuple[Tensor, dict[str, Tensor]]:
        return torch.full((1, 2, 2), 5.0), self.conds[i]


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> Path:
    """A tiny BERT with random weights, never changed by a test."""
    pytest.importorskip("transformers", reason="needs the extra text")
    from shared.tests import test_text_encoders as made

    return made.save(made.bert(), tmp_path_factory.mktemp("text") / "bert")


@pytest.fixture(params=["learned", "frozen", "pooled"])
def config(request, bert, tmp_path) -> TextConfig:
    if request.param == "learned":
        return TextConfig(encoder="learned")
    return TextConfig(encoder=str(bert), pooled=request.param == "pooled", cache=str(tmp_path / "cache"))


def test_a_rebuilt_reader_gives_the_same(config):
    reader = build_reader(config, CAPTIONS)
    facts = json.loads(json.dumps(reader.facts()))  # as a checkpoint holds them
    again = rebuilt_reader(config, facts, SOURCE)
    one, other = reader.read(CAPTIONS), again.read(CAPTIONS)
    assert all(torch.equal(one[name], other[name]) for name in ("text", "text_mask")) and one.keys() == other.keys()
    assert (again.width, again.tokens, again.facts()) == (reader.width, reader.tokens, reader.facts())


def test_a_described_data_set_is_the_data_set_with_text_for_captions(config):
    reader, data = build_reader(config, CAPTIONS), Pictures(CAPTIONS)
    text = described(data, reader, config)
    assert len(text) == 3 and text.classes == ["only one"] and text.ranged is False and text.captions == CAPTIONS
    assert not hasattr(text, "shape") and getattr(text, "attributes", None) is None
    check_data(text)  # which refuses the fives of a data set of images
    read = reader.read(CAPTIONS)
    for (x, cond), caption in zip(text, data.order, strict=True):
        assert cond.keys() == {"label", "text", "text_mask"} and cond["label"] == 7 and (x == 5).all()
        assert torch.allclose(cond["text"].float(), read["text"][caption].float(), atol=2e-3)
        assert torch.equal(cond["text_mask"], read["text_mask"][caption])
    assert data[0][1].keys() == {"caption", "label"}
    copy = pickle.loads(pickle.dumps(text))
    assert copy.classes == ["only one"] and torch.equal(copy[0][1]["text"], text[0][1]["text"])


def test_items_are_as_long_as_the_longest_caption_present(bert):
    frozen = TextConfig(encoder=str(bert), cache=None, length=20)
    for config, marks in ((TextConfig(encoder="learned"), 0), (frozen, 2)):
        reader = build_reader(config, CAPTIONS)
        for captions in (CAPTIONS, CAPTIONS[1:], CAPTIONS[2:]):
            data = described(Pictures(captions, (0,)), reader, config)
            assert len(data[0][1]["text"]) == len(data[0][1]["text_mask"]) == {3: 7, 2: 7, 1: 1}[len(captions)] + marks
            assert data[0][1]["text_mask"].sum() == (7 if len(captions) > 1 else 1) + marks


@pytest.mark.parametrize("index", [-1, 3])
def test_an_item_of_no_caption_is_one_line(config, index):
    data = described(Pictures(CAPTIONS, (0, index)), build_reader(config, CAPTIONS), config)
    with pytest.raises(UserError, match=f"item 1 of the data set has caption {index}; it has captions 0 … 2"):
        data[1]


@pytest.mark.parametrize("captions", [None, []])
def test_a_data_set_without_captions_is_one_line(config, captions):
    with pytest.raises(UserError, match="the data set has no captions: text needs"):
        described(Pictures(captions), build_reader(config, CAPTIONS), config)


def test_pooling_what_is_learned_is_refused():
    with pytest.raises(UserError, match="text.pooled is for a frozen text encoder"):
        build_reader(TextConfig(encoder="learned", pooled=True), CAPTIONS)


def test_another_encoder_under_the_name_is_refused(bert, tmp_path):
    config = TextConfig(encoder=str(bert))
    facts = build_reader(config, []).facts()
    with pytest.raises(UserError, match="step-9.safetensors was trained with another text encoder than") as error:
        rebuilt_reader(config, {**facts, "fingerprint": "0" * 32}, SOURCE)
    assert "\n" not in str(error.value)
    (tmp_path / "moved").symlink_to(bert, target_is_directory=True)
    moved = TextConfig(encoder=str(tmp_path / "moved"))
    assert rebuilt_reader(moved, facts, SOURCE).facts()["fingerprint"] == facts["fingerprint"]
    for other in (TextConfig(encoder=str(bert), pooled=True), TextConfig(encoder=str(bert), length=31)):
        with pytest.raises(UserError, match="trained with another text.pooled or text.length"):
            rebuilt_reader(other, facts, SOURCE)


@pytest.mark.parametrize("facts", [None, [], "minilm", {}, {"encoder": "learned"}, {"fingerprint": {}}, {"pooled": []}])
def test_facts_that_are_of_no_frozen_encoder_are_one_line(bert, facts):
    with pytest.raises(UserError, match="step-9.safetensors (does not say|was trained with another)"):
        rebuilt_reader(TextConfig(encoder=str(bert)), facts, SOURCE)


@pytest.mark.parametrize(
    "facts",
    [
        None,
        {},
        {"encoder": "minilm"},
        {"vocabulary": None},
        {"vocabulary": []},
        {"vocabulary": {"a": 1}},
        {"vocabulary": ["a", "a"]},
        {"vocabulary": ["a", 3]},
        {"vocabulary": ["a", "two words"]},
        {"vocabulary": ["a", "A"]},
        {"vocabulary": ["a", ""]},
        {"length": 0},
        {"length": "32"},
        {"length": True},
        {"length": 31},
        {"more": 1},
    ],
)
def test_facts_that_are_of_no_words_are_one_line(facts):
    whole = {"encoder": "learned", "length": 32, "vocabulary": ["a", "seven"]}
    config = TextConfig(encoder="learned")
    assert rebuilt_reader(config, whole, SOURCE).read(["Seven!"])["text"].tolist() == [[2]]
    with pytest.raises(UserError, match="step-9.safetensors (does not say|holds no words|was trained with another)"):
        rebuilt_reader(config, facts and {**whole, **facts}, SOURCE)
