"""The commands of stage 5, called as a person would, but in this process: torch is imported once."""

import importlib
import json
from pathlib import Path

from shared.tests.commands import Ended, call
from shared.training.checkpoint import Checkpoints
from task5_video import evaluate, sample, train

RUNS = Path("runs/task5")
LOOP = [
    *"--optimizer.schedule constant --optimizer.warmup 0 --averages.ema 0.5 --train.batch 2 --train.device cpu".split(),
    *"--train.workers 0 --train.precision fp32 --train.sample-every 0".split(),
]
SAMPLING = "--sampling.sampler ddim --sampling.eta 0 --sampling.steps 2 --sampling.precision fp32".split()
NETWORK = "--unet.width 8 --unet.patch 4 --unet.multipliers [1] --unet.attention [none] --unet.middle-attention none"
PLAIN = [
    *LOOP,
    *SAMPLING,
    *f"--inflate.image null {NETWORK} --temporal.heads 1 --schedule.name cosine --diffusion.predict v".split(),
    *"--condition.text none --condition.dim 8 --condition.tokens 1 --condition.dropout 0.1".split(),
    *"--condition.together true --diffusion.times levels --guidance.scale 2 --given.share 0".split(),
    *"--given.first 9 --given.between 0.25".split(),
]  # the smallest; every option in which the demo's config, which holds where nothing is said, might not be plain
CLIPS = [*PLAIN, *"--data.name moving_digits --data.frames 4".split()]
BY_CLASS = [*CLIPS, *"--condition.label vanilla".split()]
TOLD_NOTHING = [*CLIPS, *"--condition.label none".split()]
DIT = [
    *"--network dit --dit.width 16 --dit.depth 1 --dit.heads 2 --dit.mlp-ratio 2 --dit.patch 8".split(),
    *"--dit.conditioning adaln_cross".split(),
]
BY_CAPTION = [
    *[*CLIPS, *DIT, *"--condition.label none --condition.text token".split()],
    *"--text.encoder learned --text.layers 1 --text.length 8".split(),
]
WITHOUT = "--condition.label none --condition.text none".split()


def do_train(*arguments: object) -> Ended:
    """task5-train."""
    return call(train.main, "task5-train", *arguments)


def do_sample(*arguments: object) -> Ended:
    """task5-sample, on the CPU."""
    return call(sample.main, "task5-sample", "--device", "cpu", *arguments)


def do_evaluate(*arguments: object) -> Ended:
    """task5-evaluate, on the CPU."""
    return call(evaluate.main, "task5-evaluate", "--device", "cpu", *arguments)


PACKAGES = dict(
    task1="task1_unconditional", task2="task2_latent", task3="task3_conditional", task4="task4_dit", task5="task5_video"
)


def of_stage(command: str, *arguments: object) -> Ended:
    """A command of any stage, such as task2-train-autoencoder, which no module of this one imports."""
    stage, _, name = command.partition("-")
    module = importlib.import_module(f"{PACKAGES[stage]}.{name.replace('-', '_')}")
    return call(module.main, command, *arguments)


def newest(run: Path) -> Path:
    """A run's newest checkpoint."""
    return Checkpoints(run / "checkpoints").latest()


def trained(*options: object, name: str) -> Path:
    """A training's run, in the current folder."""
    do_train(*options, "--run.name", name).well()
    return RUNS / name


def own_spec(module: str, **arguments: object) -> dict[str, object]:
    """The data set of `OWN`, in this module, as a config names it."""
    return {"class_path": f"{module}.Shades", "init_args": arguments}


def own_data(module: str, **arguments: object) -> list[str]:
    """The options of a training on that data set, which is told nothing."""
    return [*PLAIN, *WITHOUT, "--own-data", json.dumps(own_spec(module, **arguments))]


OWN = '''
import torch
from torch.utils.data import Dataset


class Shades(Dataset):
    """Clips of squares that are dark or light, each with a label and a caption that say which."""

    def __init__(self, shape: list[int] = [1, 4, 8, 8], length: int = 24):
        self.size, self.length = shape, length
        self.classes = self.captions = ["dark", "light"]

    def __len__(self):
        return self.length

    def __getitem__(self, i):
        x = torch.full(self.size, (-0.9, 0.9)[i % 2]) + 0.05 * torch.randn(self.size).clamp(-1, 1)
        return x, {"label": torch.tensor(i % 2), "caption": torch.tensor(i % 2)}
'''
