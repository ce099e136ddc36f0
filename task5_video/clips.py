"""What a training clip consists of: the clip, single frames of others beside it, and frames of it that are given."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from shared.conditions.said import Cond, dropped
from task5_video.config import GivenConfig
from task5_video.network import VideoUNet
from task5_video.video_dit import VideoDiT


class WithStills(Dataset):
    """Clips with single frames of other clips behind their own: joint training on images (Ho 2022, section 3).

    Items are x (C, F + K, H, W) and cond, in which everything that is said has a row for the clip and one for each
    still, and "owner" (F + K,) says whose each frame is: 0 is the clip.
    """

    def __init__(self, data: Dataset, stills: int):
        """`stills` frames beside each clip of a data set, drawn anew each time."""
        self.data, self.stills = data, stills

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, i: int) -> tuple[Tensor, Cond]:
        """Clip i, and the stills that torch's generator draws."""
        x, cond = self.data[i]
        frames, told = [x], [cond]
        for _ in range(self.stills):
            j = (i + torch.randint(1, max(2, len(self.data)), ())) % len(self.data)  # of another clip, if there is one
            f = torch.randint(x.shape[1], ())
            other, said = self.data[int(j)]
            frames.append(other[:, int(f)][:, None])
            told.append(said)
        both = {name: torch.stack([said[name] for said in told]) for name in cond}
        owner = torch.cat([torch.zeros(x.shape[1], dtype=torch.long), torch.arange(1, self.stills + 1)])
        return torch.cat(frames, dim=1), {**both, "owner": owner}


def examples(data: Dataset, keys: Sequence[str], n: int) -> Cond:
    """The conditions of n clips of a data set, from all over it: clips at equal distances may all show the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the same in every picture
        told = [data[i][1] for i in torch.randint(len(data), (n,)).tolist()]
    return {name: torch.stack([cond[name] for cond in told]) for name in keys}


def told_less(network: VideoUNet | VideoDiT, cond: Cond, share: float, together: bool) -> Cond:
    """What the network reads of a batch's condition, a share of the clips, and of the stills, told nothing."""
    said = {name: cond[name] for name in network.keys}
    if "owner" not in cond:
        return dropped(network.said, said, share, together)
    rows = {name: value.flatten(0, 1) for name, value in said.items()}
    kept = dropped(network.said, rows, share, together)
    return {name: value.unflatten(0, said[name].shape[:2]) for name, value in kept.items()} | {"owner": cond["owner"]}


def draw_given(config: GivenConfig, clips: int, frames: int, device: torch.device) -> Tensor:
    """Which frames of each clip are given, (B, F) bool: the first ones, the first and the last, or none.

    Never all: of a clip too short for that none is given.
    """
    most = min(config.first, frames - 1)
    place = torch.arange(frames, device=device)
    count = 1 + (torch.rand(clips, 1, device=device) * most).long()  # (B, 1): 1 to most
    ends = (place == 0) | (place == frames - 1)  # (F,)
    between = torch.rand(clips, 1, device=device) < config.between
    chosen = torch.rand(clips, 1, device=device) < config.share
    given = chosen & torch.where(between, ends, place < count)  # (B, F)
    return given & ~given.all(dim=1, keepdim=True)


def with_given(config: GivenConfig, x: Tensor, cond: Cond, stills: int = 0) -> tuple[Cond, Tensor | None]:
    """The condition of clips x (B, C, F, H, W) with some of their own frames given, and which frames the loss counts.

    That mask is (B, 1, F, 1, 1), or None for all: of a frame that is known nothing is to be learned. The last `stills`
    frames are of other clips, and never given.
    """
    if config.share == 0:
        return cond, None
    known = F.pad(draw_given(config, len(x), x.shape[2] - stills, x.device), (0, stills), value=False)  # (B, F)
    return cond | {"given": x, "given_mask": known}, ~known[:, None, :, None, None]
