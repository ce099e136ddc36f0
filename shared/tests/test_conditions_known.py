"""What can be said, and what is asked for: names to numbers, by what a model keeps of its data set."""

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from shared.conditions.asked import blank, check_count, label_cond, labels_of, text_cond
from shared.conditions.known import attribute_number, class_number, known_of, needed, reader_of, with_text
from shared.errors import UserError
from shared.text.config import TextConfig
from shared.training.checkpoint import write_checkpoint

TOLD = {"label": "here", "text": "there"}
TEXT = TextConfig(encoder="learned", length=5)


class Squares(Dataset):
    """Two squares with their captions; the classes are named by numbers that are not their own."""

    def __init__(self):
        self.classes, self.attributes, self.captions = ["1", "0", "a, b"], [], ["a dark one", "a light one"]

    def __len__(self) -> int:
        return 2

    def __getitem__(self, i: int) -> tuple[Tensor, dict[str, Tensor]]:
        return torch.full((1, 2, 2), i - 0.5), {"label": torch.tensor(i), "caption": torch.tensor(i)}


@pytest.fixture
def read():
    return with_text(TEXT, Squares(), "cpu")


def test_a_data_set_is_held_against_what_the_network_is_to_be_told():
    needed(TOLD, Squares())
    with pytest.raises(UserError, match="^the network is told nothing"):
        needed({}, Squares())
    with pytest.raises(UserError, match="^condition.image is concatenation, but the data set gives no image"):
        needed({"image": "concatenation"}, Squares())


@pytest.mark.parametrize("classes", [10, "ten"])
def test_classes_that_are_no_list_of_names_are_said(classes):
    data = Squares()
    data.classes = classes
    with pytest.raises(UserError, match=f"^the data set's `classes` is {classes!r}: make it a list of names"):
        known_of(["label"], data, None, TEXT)


def test_what_is_known_is_enough_to_build_the_reader_again(read):
    data, reader = read
    known = known_of(TOLD, data, reader, TEXT)
    assert known["classes"] == ["1", "0", "a, b"] and known["image"] is None and known["text"]["tokens"] == 5
    again = reader_of(TEXT, known, "a file")
    assert again.read(["light dark"])["text"].tolist() == reader.read(["light dark"])["text"].tolist()
    assert known_of({"label"}, data, None, TEXT)["text"] is None


def test_a_checkpoint_gives_its_reader_and_one_without_is_refused(read, tmp_path):
    data, reader = read
    path = tmp_path / "a.safetensors"
    known = known_of(TOLD, data, reader, TEXT)
    write_checkpoint(path, {"x.y": torch.zeros(1)}, {"config": {"known": known}})
    other = Squares()
    other.captions = ["one", "light"]  # of itself it would learn fewer words
    assert with_text(TEXT, other, "cpu", path)[1].vocabulary == reader.vocabulary
    for config in ({}, {"known": 3}, None, []):
        write_checkpoint(path, {"x.y": torch.zeros(1)}, {"config": config})
        with pytest.raises(UserError, match="does not say what its conditions can say"):
            with_text(TEXT, other, "cpu", path)


def test_names_come_before_numbers():
    known = {"classes": ["1", "0", "a, b"], "attributes": ["hat"]}
    assert [class_number(known, name) for name in ("1", 0, 2, "2", "a, b")] == [0, 1, 2, 2, 2]
    assert label_cond("2", known, 2)["label"].tolist() == [2, 2]
    assert label_cond([0, "1"], known, 2)["label"].tolist() == [1, 0]
    assert labels_of("a, b", known, 2) == ["a, b"] * 2 and labels_of("1, 2", known, 3) == ["1", "2", "1"]
    assert labels_of(None, known, 4) == [0, 1, 2, 0] and labels_of(2, known, 1) == ["2"]
    for wrong in ("3", -1, "c"):
        with pytest.raises(UserError, match=f"^there is no class {wrong}: this model knows 1, 0, a, b"):
            class_number(known, wrong)
    assert attribute_number(known, "hat") == 0
    with pytest.raises(UserError, match="^there is no attribute beard"):
        attribute_number(known, "beard")


def test_a_condition_is_of_as_many_samples_as_asked_for(read):
    data, reader = read
    known = known_of(TOLD, data, reader, TEXT)
    cond = blank(TOLD, known, 3) | text_cond("a light one", reader, 3)
    assert {name: tuple(value.shape) for name, value in cond.items()} == {
        "label": (3,), "text": (3, 3), "text_mask": (3, 3)
    }  # fmt: skip
    check_count(cond, 3)
    with pytest.raises(UserError, match="^3 samples need as many of each condition, and text has 2"):
        check_count(cond | text_cond(["a", "one"], reader, 3), 3)
    assert blank({"text"}, {"text": {"width": 7}}, 2)["text"].shape == (2, 1, 7)
