"""The commands of stage 3, called as a person would, but in this process: torch is imported once."""

import json

from shared.tests.commands import Ended, call
from task3_conditional import edit, evaluate, sample, train, train_classifier

COMMON = [
    *"--network.width 8 --network.patch 2 --network.multipliers [1] --network.attention [none]".split(),
    *"--network.middle-attention none --schedule.name cosine".split(),
    *"--optimizer.schedule constant --optimizer.warmup 0".split(),
    *"--train.batch 4 --train.device cpu --train.precision fp32 --train.sample-every 0".split(),
]
CLASSIFIER = [*COMMON, "--data.name", "digits"]  # of noisy images, as BY_CLASS makes them
DIFFUSION = [
    *COMMON,
    *"--diffusion.predict v --condition.dim 8 --condition.dropout 0.1".split(),
    *"--sampling.sampler ddim --sampling.eta 0 --sampling.precision fp32 --sampling.steps 2".split(),
]  # the smallest; every option in which a preset, which holds where nothing is said, might not be plain
BY_CLASS = [*DIFFUSION, *"--data.name digits --condition.label vanilla --condition.text none".split()]
BY_CAPTION = [
    *DIFFUSION,
    *"--data.name captioned_digits --data.objects 1 --condition.label none --condition.text cross_attention".split(),
    *"--text.encoder learned --text.layers 1 --network.middle-attention full --train.workers 0".split(),
]


def do_train(*arguments: object) -> Ended:
    """task3-train."""
    return call(train.main, "task3-train", *arguments)


def do_classifier(*arguments: object) -> Ended:
    """task3-train-classifier."""
    return call(train_classifier.main, "task3-train-classifier", *arguments)


def do_sample(*arguments: object) -> Ended:
    """task3-sample, on the CPU."""
    return call(sample.main, "task3-sample", "--device", "cpu", *arguments)


def do_evaluate(*arguments: object) -> Ended:
    """task3-evaluate, on the CPU."""
    return call(evaluate.main, "task3-evaluate", "--device", "cpu", *arguments)


def do_edit(way: str, *arguments: object) -> Ended:
    """task3-edit: two results in two steps, on the CPU, unless said otherwise."""
    return call(edit.main, "task3-edit", way, "--device", "cpu", "--steps", 2, "--n", 2, *arguments)


def own_spec(module: str, **arguments: object) -> dict[str, object]:
    """The data set of `OWN`, in this module, as a config names it."""
    return {"class_path": f"{module}.Squares", "init_args": arguments}


def own_data(module: str, **arguments: object) -> list[str]:
    """The options of a training on that data set, the last two; they say nothing yet of a condition."""
    data = json.dumps(own_spec(module, **arguments))
    ways = [f"--condition.{name}=none" for name in ("label", "attributes", "text", "image")]
    words = "--text.encoder learned --text.layers 1 --network.middle-attention full --train.workers 0".split()
    return [*DIFFUSION, *ways, *words, "--own-data", data]


OWN = '''
import torch
from torch.utils.data import Dataset


class Squares(Dataset):
    """Squares of which everything is said that can be; one thing, `by`, decides whether they are dark or light."""

    def __init__(self, by: str = "label", wrong: str = "", first: int = 0):
        self.by, self.wrong = by, wrong
        self.classes = ["dark", "light", "rather light, or so"]
        self.attributes = ["light", "striped"]
        self.captions = self.words = ["a dark square", "a light square", "a square that is light"][first:]
        if wrong.startswith("no "):
            setattr(self, wrong.removeprefix("no "), None)
        if wrong == "numbers for names":
            self.classes = (10, 20, 30)

    def __len__(self):
        return 48

    def __getitem__(self, i):
        label, attributes = i % 3, torch.tensor([i // 3 % 2, i // 6 % 2])
        caption, shade = i % len(self.words), 2 * (i // 12 % 2) - 1
        words = self.words[caption].split()
        light = {"label": label > 0, "attributes": attributes[0], "text": "light" in words, "image": shade > 0}[self.by]
        x = torch.full((1, 4, 4), 0.9 if light else -0.9) + 0.05 * torch.randn(1, 4, 4).clamp(-1, 1)
        said = {"label": torch.tensor(label), "attributes": attributes, "caption": torch.tensor(caption)}
        said["image"] = torch.full((2, 4, 4), 0.9 * shade)
        return x, said | self.mistaken(i, said)

    def mistaken(self, i, said):
        """What is wrong with some of what is said."""
        return {
            "label of four": {"label": torch.tensor(3 if i == 45 else 0)},
            "negative label": {"label": torch.tensor(-1)},
            "label as a float": {"label": torch.tensor(1.0)},
            "label as a number": {"label": 1},
            "label in a list": {"label": torch.tensor([1])},
            "attributes as bools": {"attributes": said["attributes"] > 0},
            "three attributes": {"attributes": torch.tensor([0, 1, 0])},
            "attribute of two": {"attributes": torch.tensor([0, 2])},
            "grey image": {"image": said["image"][:1]},
            "large image": {"image": torch.zeros(2, 8, 8)},
            "images that differ": {"image": torch.zeros(1 + i % 2, 4, 4)},
            "image that is none": {"image": torch.full((2, 4, 4), float("nan"))},
            "image in words": {"image": "a square"},
            "caption beyond": {"caption": torch.tensor(9)},
        }.get(self.wrong, {})
'''
