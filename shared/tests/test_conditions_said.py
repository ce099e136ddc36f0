"""What is said: tokens and their masks, nulls, and dropping, which is done sample by sample."""

import pytest
import torch
from torch import nn

from shared.conditions.said import (
    AttributeTokens,
    FrozenFeatures,
    LabelTokens,
    PooledTokens,
    TextTokens,
    dropped,
    text_tokens,
)

LABEL = nn.ModuleList([LabelTokens(3, 6, 4)])
LABEL_AND_TEXT = nn.ModuleList([*LABEL, TextTokens(FrozenFeatures(5, 6, 1))])


def test_a_label_becomes_as_many_tokens_as_asked_for():
    tokens, mask = LabelTokens(3, 6, 4)({"label": torch.tensor([0, 3])})
    assert tokens.shape == (2, 4, 6) and mask.all()


def test_an_attribute_may_be_left_open():
    said = AttributeTokens(3, 4)
    open_one = torch.tensor([[1, 2, 0]])
    tokens, mask = said({"attributes": open_one})
    _, nothing = said({"attributes": said.null({"attributes": open_one})["attributes"]})
    assert mask.tolist() == [[True, False, True]] and tokens.shape == (1, 3, 4) and not nothing.any()
    answers = [said({"attributes": torch.full((1, 3), answer)})[0][0] for answer in (0, 1)]
    assert len({tuple(token) for tokens in answers for token in tokens.tolist()}) == 6  # no answer is another's


def test_in_a_share_of_the_samples_some_answers_are_left_open():
    """Of the others none; which, and how many, differs from sample to sample; what was answered stays answered."""
    torch.manual_seed(0)
    said = AttributeTokens(20, 4)
    answers = torch.randint(2, (2000, 20))
    part = said.partly(answers, 0.5)
    open_ = part == said.OPEN
    assert torch.equal(part[~open_], answers[~open_])
    shares = open_.double().mean(dim=1)
    assert 0.44 < (shares == 0).double().mean() < 0.6  # half were not chosen, and some of the chosen lost none
    some = shares[shares > 0]
    assert some.min() < 0.15 and some.max() > 0.85 and abs(some.mean() - 0.5) < 0.05
    assert torch.equal(said.partly(answers, 0.0), answers)


def test_captions_become_tokens_by_what_is_known_of_their_reader():
    about = {"width": 5, "tokens": 0, "length": 4, "pooled": False}
    features, mask = torch.randn(2, 4, 5), torch.tensor([[1, 1, 1, 0], [0, 0, 0, 0]], dtype=torch.bool)
    tokens, there = text_tokens(about, 6, 3, 2)({"text": features, "text_mask": mask})
    assert tokens.shape == (2, 4, 6) and torch.equal(there, mask)
    pooled = text_tokens({**about, "pooled": True}, 6, 3, 2)
    tokens, there = pooled({"text": features[:, :1], "text_mask": mask[:, :1]})
    assert isinstance(pooled, PooledTokens) and tokens.shape == (2, 3, 6)
    assert there.tolist() == [[True] * 3, [False] * 3]
    learned = text_tokens({**about, "width": None, "tokens": 7}, 8, 3, 2)
    tokens, there = learned({"text": torch.tensor([[1, 6, 2, 0], [0, 0, 0, 0]]), "text_mask": mask})
    assert tokens.shape == (2, 4, 8) and torch.equal(there, mask) and len(learned.read.layers) == 2
    for said in (pooled, learned):
        null = said.null({"text": features, "text_mask": mask})
        assert null.keys() == set(said.keys) and not null["text_mask"].any() and not null["text"].any()


# --- dropping ------------------------------------------------------------------------------------------------


def many(n: int = 4000) -> dict[str, torch.Tensor]:
    return {
        "label": torch.zeros(n, dtype=torch.long),
        "text": torch.ones(n, 2, 5),
        "text_mask": torch.ones(n, 2, dtype=torch.bool),
    }


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_a_share_of_the_samples_is_told_nothing_each_for_itself(share):
    """Not the whole batch at one toss, which is right on average and wrong in every batch."""
    torch.manual_seed(0)
    kept = dropped(LABEL, many(), share)
    null = (kept["label"] == 3).double()
    assert abs(null.mean().item() - share) < 4 * (share * (1 - share) / 4000) ** 0.5 + 1e-9
    runs = (null[1:] != null[:-1]).double().mean().item()
    assert abs(runs - 2 * share * (1 - share)) < 0.05  # neighbours are independent


@pytest.mark.parametrize("together", [True, False])
def test_several_are_dropped_together_or_each_for_itself(together):
    torch.manual_seed(0)
    kept = dropped(LABEL_AND_TEXT, many(), 0.3, together)
    label, text = kept["label"] == 3, ~kept["text_mask"].any(dim=1)
    assert abs(label.double().mean() - 0.3) < 0.03 and abs(text.double().mean() - 0.3) < 0.03
    both = (label & text).double().mean().item()
    assert abs(both - (0.3 if together else 0.09)) < 0.03
    assert torch.equal(text, (kept["text"] == 0).flatten(1).all(dim=1))  # a caption goes with its mask


def test_dropping_leaves_the_batch_as_it_is():
    cond = many(10)
    before = {name: value.clone() for name, value in cond.items()}
    dropped(LABEL_AND_TEXT, cond, 1.0)
    assert all(torch.equal(cond[name], before[name]) for name in cond)


@pytest.mark.parametrize("wrapped", [False, True])
def test_attributes_are_left_open_where_they_stand_alone_and_inside_another_module(wrapped):
    torch.manual_seed(0)
    said = AttributeTokens(20, 4)
    holder = nn.Module()
    holder.said, holder.keys, holder.null = said, said.keys, said.null
    cond = {"attributes": torch.ones(500, 20, dtype=torch.long)}
    kept = dropped(nn.ModuleList([holder if wrapped else said]), cond, 0.0, open_share=1.0)["attributes"]
    open_ = (kept == AttributeTokens.OPEN).double().mean(dim=1)
    assert abs(open_.mean() - 0.5) < 0.05 and open_.min() < 0.1 and open_.max() > 0.9
