"""Introduced in task 1; used by task 1.

What must be equal for two figures to stand side by side. A FID of 1,000 samples is no FID of 50,000, and one against
the training images is none against the test images: such pairs are refused, with the reason.
"""

from collections.abc import Collection, Mapping
from typing import Any

# All of these must be stated and equal. The string "none" says that a field does not apply.
REQUIRED = (
    "data",  # the data set, with its size where a paper resized it
    "n",  # number of samples, or of images reconstructed
    "reference",  # what they are measured against
    "extractor",  # the network whose features are compared
    "sampler",
    "steps",
    "guidance",  # 1 is the conditional model; "none" for a model without a condition
    "weights",  # "ema", "model" (the raw ones) or "swa"
)
# Details that few papers give: compared where both state them.
FINER = ("eta", "spacing", "clamp")


def differences(wanted: Mapping[str, Any], other: Mapping[str, Any], free: Collection[str] = ()) -> list[str]:
    """Why a figure of protocol `other` cannot stand beside one of protocol `wanted`; empty if it can.

    Args:
        wanted: fields of `REQUIRED` and `FINER` by name; None or a missing one is not stated, and others such as
            the seed do not count.
        other: the same of the figure in question.
        free: fields that may differ, because they are the axis of a plot.

    Returns:
        One reason for each field, such as "steps 20, not 50" or "n is not stated", in the order of the two lists.
    """
    reasons = []
    for name in REQUIRED + FINER:
        here, there = wanted.get(name), other.get(name)
        if name in free:
            continue
        if here is None or there is None:
            if name in REQUIRED:
                reasons.append(f"{name} is not stated" + ("" if there is None else " by what it is compared with"))
        elif not equal(here, there):
            reasons.append(f"{name} {text(there)}, not {text(here)}")
    return reasons


def equal(a: Any, b: Any) -> bool:
    """Whether two fields say the same: numbers as numbers (50 is 50.0), but a yes or no is no number."""
    return isinstance(a, bool) == isinstance(b, bool) and a == b


def text(value: Any) -> str:
    """A field's value as a person writes it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
