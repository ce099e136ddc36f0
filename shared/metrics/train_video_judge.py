"""Introduced in task 3; used by tasks 3, 5.

Train the judge of clips and write `video_judge.safetensors`: `python -m shared.metrics.train_video_judge`, 5 minutes on
one core.

It needs the full MNIST, from the folder in DIFFUSION_DATA or else `data/`. The 5,000 training images that every clone
carries are left out, as in the training of the judge of digits: real clips are drawn from them, and are to be as new to
it as generated ones. The accuracies that it prints and stores are on clips of held-out embedded digits.

On the CPU the same seed, torch and processor kind give the same file, bit for bit.
"""

import json
import sys
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor
from torch.optim.lr_scheduler import OneCycleLR

from shared.datasets.moving_digits import MovingDigits, boxed, direction
from shared.datasets.ranges import to_uint8, to_unit
from shared.errors import UserError
from shared.files import write_whole
from shared.metrics.train_judge import unseen
from shared.metrics.video_judge import MOTIONS, WEIGHTS, VideoJudge

COMMAND = "python -m shared.metrics.train_video_judge"
SEED, STEPS, BATCH, LEARNING_RATE, WEIGHT_DECAY = 0, 1400, 64, 4e-3, 1e-2
LENGTHS = (8, 12, 16, 16, 16, 24)  # frames of a batch, drawn among these
SPEEDS = {"half speed": 0.5, "double speed": 2.0, "still": 0.0}  # of the others: 1
ANY = -100  # cross entropy passes this label over


class Batch(NamedTuple):
    """Clips with what is to be told of them."""

    clips: Tensor  # (B, 1, F, H, W) in [-1, 1]
    labels: tuple[Tensor, Tensor, Tensor]  # (B,) each: digit, direction, motion


class Clips:
    """Moving digits with faults in their motion, from the digits of a data set."""

    def __init__(self, data: MovingDigits):
        self.data, self.step = data, data.step

    def clip(self, i: int, motion: int, frames: int) -> tuple[Tensor, int, int]:
        """Clip `i` of `frames` frames, uint8 (F, H, W), its digit and its direction; random from torch's generator."""
        name, data = MOTIONS[motion], self.data
        data.frames, data.step = frames, self.step * SPEEDS.get(name, 1.0)
        path = data.trajectory(i)
        clip, label = data.drawn(path), data.labels[path.digits[0]]
        towards = direction(*path.velocities[0, 0].tolist())
        if name == "shuffled":
            clip = clip[torch.randperm(frames)]
        elif name == "digit changed half-way":
            other = int(torch.randint(len(data.tiles), ()))
            clip = torch.cat([clip[: frames // 2], data.drawn(path._replace(digits=(other,)))[frames // 2 :]])
            label = ANY
        return clip, label, ANY if name in ("shuffled", "still") else towards

    def batch(self, numbers: list[int], frames: int, motions: list[int]) -> Batch:
        """The clips of these numbers."""
        found = [self.clip(i, motion, frames) for i, motion in zip(numbers, motions, strict=True)]
        clips, digits, directions = zip(*found, strict=True)
        labels = torch.tensor(digits), torch.tensor(directions), torch.tensor(motions)
        return Batch(to_unit(torch.stack(clips)[:, None]).contiguous(memory_format=torch.channels_last_3d), labels)


def training_batches() -> Iterator[Batch]:
    """Clips of the digits that are not embedded, without end: each digit once a round, in a new order and motion."""
    images, labels = unseen()
    data = MovingDigits("train")
    data.tiles = [boxed(image) for image in to_uint8(images[:, 0])]
    data.labels = labels.tolist()
    clips, first = Clips(data), 0
    while True:
        for part in torch.randperm(len(data.tiles)).split(BATCH):
            frames = LENGTHS[int(torch.randint(len(LENGTHS), ()))]
            motions = torch.randint(len(MOTIONS), (len(part),)).tolist()
            yield clips.batch((part + first).tolist(), frames, motions)
        first += len(data.tiles)


def fit() -> VideoJudge:
    """A judge trained for STEPS steps, printing a line every 100."""
    judge = VideoJudge().to(memory_format=torch.channels_last_3d)
    optimizer = torch.optim.AdamW(judge.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = OneCycleLR(optimizer, LEARNING_RATE, total_steps=STEPS, pct_start=0.2)
    totals = torch.zeros(3)
    for step, (clips, labels) in zip(range(1, STEPS + 1), training_batches(), strict=False):
        with torch.autocast("cpu", torch.bfloat16):  # twice as fast
            logits = judge(clips)
        losses = torch.stack([F.cross_entropy(z.float(), y) for z, y in zip(logits, labels, strict=True)])
        optimizer.zero_grad()
        losses.sum().backward()
        optimizer.step()
        schedule.step()
        totals += losses.detach()
        if step % 100 == 0:
            shown = "  ".join(f"{t / 100:.4f}" for t in totals.tolist())
            print(f"step {step}/{STEPS}  loss of digit, direction, motion: {shown}", flush=True)
            totals.zero_()
    return judge.to(memory_format=torch.contiguous_format).eval()


@torch.no_grad()
def accuracies(judge: VideoJudge, clips: int = 3000) -> dict[str, float]:
    """Shares right, of clips of 16 frames of the held-out embedded digits, all motions equally often."""
    source = Clips(MovingDigits("test"))
    torch.manual_seed(SEED)
    right, asked = torch.zeros(3), torch.zeros(3)
    for numbers in torch.arange(clips).split(60):
        x, labels = source.batch(numbers.tolist(), 16, (numbers % len(MOTIONS)).tolist())
        for k, (z, y) in enumerate(zip(judge(x), labels, strict=True)):
            right[k] += (z.argmax(dim=1) == y)[y != ANY].sum()
            asked[k] += (y != ANY).sum()
    return dict(zip(("digit", "direction", "motion"), (right / asked).tolist(), strict=True))


def main() -> None:
    """Train, round, measure after the rounding, save."""
    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)  # the number of threads decides the order of sums
    judge = fit()
    state = {k: (v.half() if v.ndim > 1 else v).contiguous() for k, v in judge.state_dict().items()}
    judge.load_state_dict(state)
    facts = {
        "accuracy": accuracies(judge),
        "measured_on": "clips of 16 frames of the 500 held-out embedded digits",
        "trained_on": "moving digits from the MNIST training images without the 5,000 embedded digits (55,000)",
        "command": COMMAND,
        "seed": SEED,
        "steps": STEPS,
        "torch": torch.__version__,
    }
    write_whole(WEIGHTS, lambda partial: save_file(state, partial, metadata={"video_judge": json.dumps(facts)}))
    WEIGHTS.chmod(0o644)  # save_file leaves it to its owner alone
    print(json.dumps(facts, indent=2))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
