"""The commands of stage 4, called as a person would, but in this process: torch is imported once."""

import importlib
import json

from shared.tests.commands import Ended, call
from task4_dit import distill, evaluate, sample, train

LOOP = [
    *"--optimizer.schedule constant --optimizer.warmup 0 --train.batch 4 --train.device cpu".split(),
    *"--train.workers 0 --train.precision fp32 --train.sample-every 0".split(),
    *"--sampling.steps 2 --sampling.precision fp32".split(),
]
DIFFUSION = [
    *"--network.width 16 --network.depth 1 --network.heads 2 --network.mlp-ratio 2 --network.patch 7".split(),
    *"--schedule.name flow --diffusion.predict velocity --diffusion.times uniform".split(),
    *"--condition.dropout 0.1 --guidance.scale 2 --sampling.sampler flow_euler".split(),
    *LOOP,
]  # the smallest; every option in which the demo's config, which holds where nothing is said, might not be plain
BY_CLASS = [*DIFFUSION, *"--data.name digits --condition.label true --condition.text false".split()]
BY_CAPTION = [
    *DIFFUSION,
    *"--data.name captioned_digits --data.objects 1 --data.size 32 --network.patch 8".split(),
    *"--network.conditioning adaln_cross --condition.label false --condition.text true".split(),
    *"--text.encoder learned --text.layers 1".split(),
]
DISTILL = [*LOOP, *"--distill.scale 2 --sampling.sampler consistency".split()]  # of whichever teacher


def do_train(*arguments: object) -> Ended:
    """task4-train."""
    return call(train.main, "task4-train", *arguments)


def do_distill(*arguments: object) -> Ended:
    """task4-distill."""
    return call(distill.main, "task4-distill", *arguments)


def do_sample(*arguments: object) -> Ended:
    """task4-sample, on the CPU."""
    return call(sample.main, "task4-sample", "--device", "cpu", *arguments)


def do_evaluate(*arguments: object) -> Ended:
    """task4-evaluate, on the CPU."""
    return call(evaluate.main, "task4-evaluate", "--device", "cpu", *arguments)


def of_another_stage(command: str, *arguments: object) -> Ended:
    """A command of another stage, such as task2-encode, which no module of this one imports."""
    stage, _, name = command.partition("-")
    package = {"task1": "task1_unconditional", "task2": "task2_latent", "task3": "task3_conditional"}[stage]
    return call(importlib.import_module(f"{package}.{name.replace('-', '_')}").main, command, *arguments)


def own_spec(module: str, **arguments: object) -> dict[str, object]:
    """The data set of `OWN`, in this module, as a config names it."""
    return {"class_path": f"{module}.Squares", "init_args": arguments}


def own_data(module: str, *kinds: str, **arguments: object) -> list[str]:
    """The options of a training on that data set, told these kinds: "label", "text"."""
    told = [f"--condition.{kind}={str(kind in kinds).lower()}" for kind in ("label", "text")]
    words = "--text.encoder learned --text.layers 1 --network.patch 2".split()
    return [*DIFFUSION, *words, *told, "--own-data", json.dumps(own_spec(module, **arguments))]


OWN = '''
import torch
from torch.utils.data import Dataset


class Squares(Dataset):
    """Dark and light squares, each with a label and a caption; one of the two, `by`, decides which it is."""

    def __init__(self, by: str = "label", channels: int = 1, names: bool = True):
        self.by, self.channels = by, channels
        self.classes = ["dark", "light", "rather light, or so"] if names else None
        self.captions = ["a dark square", "a light square", "a square that is light"]

    def __len__(self):
        return 48

    def __getitem__(self, i):
        label, caption = i % 3, i // 3 % 3
        light = {"label": label, "text": caption}[self.by] > 0
        x = torch.full((self.channels, 4, 4), 0.9 if light else -0.9) + 0.05 * torch.randn(1, 4, 4).clamp(-1, 1)
        return x, {"label": torch.tensor(label), "caption": torch.tensor(caption)}
'''
