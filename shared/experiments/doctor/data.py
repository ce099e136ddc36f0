"""Introduced in task 1; used by task 1.

What the doctor looks for in images: values that are not those of [-1, 1], and samples whose colours are not the data's.
"""

import torch
from torch import Tensor

from shared.experiments.doctor.finding import SURE, Checked, fine, surely, unknown

LEVEL = 2 / 255  # between two neighbouring values of 8 bits, in [-1, 1]
TINT = 5 * LEVEL  # of 255 levels: what is just seen of a plain area

# Mean and opponent colours, as rows over red, green, blue. Between the channels of a picture there is less variance
# than in any of them, so that a tint shows sooner there.
COLOURS = {
    1: {"brightness": [1.0]},
    3: {"brightness": [1 / 3, 1 / 3, 1 / 3], "red - green": [1.0, -1.0, 0.0], "yellow - blue": [0.5, 0.5, -1.0]},
}


def value_range(images: Tensor) -> Checked:
    """Whether images (n, …) are finite, within [-1, 1], use it, and are not those of [0, 1].

    The limit outside is half a level of 8 bits, which no picture shows. The other limits need no number: images that
    are nowhere below 0, or all of one value, are none that a network should learn from.
    """
    name, x = "range", images.detach().float()
    if not x.isfinite().all():
        share = 1 - x.isfinite().float().mean().item()
        return finding_of_range(f"{share:.2g} of the values are not finite", "find the files that they come from")
    low, high = (bound.item() for bound in x.aminmax())
    beyond = max(-1 - low, high - 1)
    measured = f"{len(x)} samples are in [{low:.4g}, {high:.4g}]"
    if beyond > LEVEL / 2:
        share = ((x < -1 - LEVEL / 2) | (x > 1 + LEVEL / 2)).flatten(1).any(1).float().mean().item()
        change = "map 0 … 255 by x / 127.5 - 1, or clamp what a resize overshot" if high > 1.5 else "clamp to [-1, 1]"
        limit = f"{share:.1%} of them reach beyond [-1, 1] (limit: half a level of 8 bits, {LEVEL / 2:.2g})"
        return finding_of_range(f"{measured}; {limit}", change)
    if high - low < LEVEL:
        return finding_of_range(f"{measured}: all of one value", "look at how the files are read")
    if low >= 0:
        return finding_of_range(f"{measured}: nothing is below 0", "map [0, 1] by 2 x - 1")
    if high <= 0:
        return finding_of_range(f"{measured}: nothing is above 0", "map to [-1, 1], with white at 1")
    return fine(name, measured)


def finding_of_range(measured: str, change: str) -> Checked:
    """Images that are not those of [-1, 1]."""
    why = (
        "samples are clamped to [-1, 1], and the noise is as strong as data of that range needs: what lies outside is "
        "cut off, and half a range is drowned too early"
    )
    return Checked("range", "finding", measured, why, change)


def colours(images: Tensor) -> dict[str, Tensor]:
    """Of images (n, C, H, W) or clips (n, C, F, H, W) the mean brightness of each (n,), of 3 channels the tints too."""
    means = images.double().flatten(2).mean(2)  # (n, C)
    axes = COLOURS.get(means.shape[1]) or {
        f"channel {i}": row for i, row in enumerate(torch.eye(means.shape[1]).tolist())
    }
    return {name: means @ torch.tensor(row, dtype=means.dtype) for name, row in axes.items()}


def colour(samples: Tensor, data: Tensor) -> Checked:
    """Whether the mean colours of samples are those of data, both (n, C, …) in [-1, 1].

    The pictures are the independent draws, so that the standard error of the difference of two means is that of their
    means over pictures; the limit is 4 of these (by Student's t more, of few) beyond 5 levels of 8 bits, which is what
    is just seen. With more
    samples it comes nearer to the 5 levels alone.
    """
    name, worst = "colour", None
    if min(len(samples), len(data)) < 2:
        return unknown(name, "2 samples and 2 of the data are needed")
    sure = surely(SURE, min(len(samples), len(data)))
    here, there = colours(samples), colours(data)
    for axis, ours in here.items():
        theirs = there[axis]
        drift = (ours.mean() - theirs.mean()).item()
        limit = TINT + sure * (ours.var() / len(ours) + theirs.var() / len(theirs)).sqrt().item()
        if worst is None or abs(drift) / limit > abs(worst[1]) / worst[2]:
            worst = axis, drift, limit
    axis, drift, limit = worst
    measured = (
        f"the {axis} of {len(samples)} samples is {drift:+.3f} from that of {len(data)} images, in [-1, 1]: "
        f"{drift / LEVEL:+.0f} levels of 255 (limit: ±{limit:.3f})"
    )
    if abs(drift) <= limit:
        return fine(name, measured)
    return Checked(
        name,
        "finding",
        measured,
        "the mean is what remains at the highest noise: a sampler that begins where training never was, or too strong "
        "a guidance, moves it, and everything after follows",
        "set schedule.zero_terminal_snr with predict v and spacing trailing; lower guidance.scale or set "
        "guidance.rescale; sample the averaged weights; train longer",
    )
