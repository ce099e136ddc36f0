"""Train a classifier of noisy images, for classifier guidance: `task3-train-classifier --help`.

The same loop as for a diffusion, with another loss: how well the class can be told from a noisy image.
"""

import shlex
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.cli import command
from shared.errors import UserError
from shared.options import TrainingOptions
from task3_conditional.classifier_config import CLASSIFIER, ClassifierTraining, classifier_config

if TYPE_CHECKING:  # imported where they are used: torch takes seconds, and --help should not
    from torch import Tensor, nn
    from torch.utils.data import Dataset

    from shared.experiments.run import RunRecord
    from shared.schedulers.diffusion import Diffusion

PROGRAM, FOLDER = "task3-train-classifier", "task3-classifier"
DEMO = Path(__file__).parent / "configs" / "classifier.yaml"
SHARES = tuple(eighth / 8 for eighth in range(9))  # of T, at which the accuracy is measured
MEASURED = 1000  # images for that, at most


@dataclass
class Examples:
    """Images by which the accuracy is measured, and what they are called."""

    images: "Tensor"
    labels: "Tensor"
    kind: str


def fit(
    network: "nn.Module",
    data: "Dataset",
    examples: Examples,
    config: ClassifierTraining,
    record: "RunRecord",
    resume: Path | None,
) -> None:
    """Train the classifier, and measure its accuracy by noise level at intervals."""
    from shared.training.loop import device_for, train
    from shared.training.part import Part
    from task3_conditional.classifier import NoisyCrossEntropy, build_noise

    diffusion = build_noise(config.schedule)
    diffusion.schedule.to(device_for(config.train))  # beside the data, or each step would wait for a copy
    loss = NoisyCrossEntropy(diffusion)
    part = Part(network, loss, config.optimizer, config.averages, figures=loss.figures)
    for step in train(part, data, config.train, record, resume=resume):
        if step.every(config.train.sample_every):
            save_accuracies(record, step.ema, diffusion, examples, step.n)


def save_accuracies(
    record: "RunRecord", network: "nn.Module", diffusion: "Diffusion", examples: Examples, n: int
) -> None:
    """Write the accuracy of the averaged network by noise level into the run's accuracy.md, whole."""
    from shared.experiments.tables import render
    from shared.files import write_text
    from task3_conditional.classifier import accuracies

    found = accuracies(network, diffusion, examples.images, examples.labels, SHARES)
    alphas = [diffusion.schedule.level(share * diffusion.schedule.T).alpha.item() for share in SHARES]
    rows = [[f"{s:.3f}", f"{a:.4f}", f"{f:.1%}"] for s, a, f in zip(SHARES, alphas, found, strict=True)]
    count = len(examples.labels)
    about = f"After {n} steps, averaged weights, {count} images {examples.kind}; standard error at most "
    table = render(["t / T", "alpha", "accuracy"], rows, "markdown")
    text = f"{about}{0.5 / count**0.5:.1%}.\n\n{table}"
    record.keep(lambda run: write_text(run / "accuracy.md", text))


def examples_for(config: ClassifierTraining, data: "Dataset") -> Examples:
    """Held-out images, where the data set has some of the same kind; else images of the training, and called so."""
    import torch

    from shared.datasets import load

    chosen, kind = data, "of the training itself (none are held out)"
    if not config.own_data and config.data.split == "train":
        try:
            held_out = load(replace(config.data, split="test"))
            if held_out.shape == tuple(data[0][0].shape) and held_out.classes == data.classes:
                chosen, kind = held_out, "held out of the training"
        except UserError:  # a folder without a test part, a download without its test files
            pass
    count = min(MEASURED, len(chosen))
    pairs = [chosen[i * len(chosen) // count] for i in range(count)]  # evenly spaced: they may lie by class
    return Examples(torch.stack([x for x, _ in pairs]), torch.stack([c["label"] for _, c in pairs]), kind)


def read_source(source: Path) -> dict[str, Any]:
    """The config that a classifier's run or checkpoint stores."""
    from shared.training.checkpoint import read_facts
    from shared.training.weights import newest

    saved = read_facts(newest(source)).get("config", {})
    classifier_config(saved)  # says so in one line if this is none
    return {name: value for name, value in saved.items() if name not in ("shape", "classes")}


OPTIONS = TrainingOptions(
    PROGRAM, "Train a classifier of noisy images.", ClassifierTraining, DEMO, CLASSIFIER, read_source
)


def prepare(config: ClassifierTraining, resume: Path | None, init_from: Path | None):
    """Build everything that can be wrong before a run is recorded: data, network, checkpoint, record."""
    import torch
    from torch.utils.data import Dataset

    from shared.cli import build_own
    from shared.datasets import load
    from shared.experiments.follower import create_record, reopen_record
    from shared.experiments.run import plain
    from shared.training.checkpoint import Checkpoints, load_into, training_facts
    from shared.training.loop import check_same, settle
    from shared.training.processes import in_turn
    from shared.training.weights import read_weights
    from task3_conditional.classifier import build_classifier, build_noise, classes_of

    with in_turn():
        data = build_own(config.own_data, Dataset) if config.own_data else load(config.data)
    settle(data, config.train, optimizers=[config.optimizer])
    classes = classes_of(data)
    build_noise(config.schedule)
    shape = tuple(data[0][0].shape)
    torch.manual_seed(config.train.seed)  # the network's first weights
    network = build_classifier(config, shape, len(classes))
    with in_turn():
        examples = examples_for(config, data)
    resolved = plain({"shape": shape, "classes": classes, **asdict(config)})  # what a checkpoint needs to be used
    if resume is None:
        if init_from is not None:
            load_into(network, *read_weights(init_from))
        record = create_record(FOLDER, config.run, asdict(config))
        record.config = resolved
        return network, data, examples, record, None
    record = reopen_record(resume)
    checkpoint = Checkpoints(record.folder / "checkpoints").latest()
    facts = training_facts(checkpoint)
    check_same(facts["config"], resolved, asdict(ClassifierTraining()))
    record.config = resolved
    record.go_on(facts["step"])
    return network, data, examples, record, checkpoint


def run() -> int:
    """Train; the exit status is 128 + the signal's number where one stopped it."""
    asked = OPTIONS.parse()
    config = asked.config

    from shared.training.loop import Interrupted
    from shared.training.processes import say

    network, data, examples, record, checkpoint = prepare(config, asked.resume, asked.init_from)
    say(f"run {record.folder}", sys.stderr)
    try:
        with record.closing():
            fit(network, data, examples, config, record, checkpoint)
    except Interrupted as stopped:
        trust = " --trust true" if config.own_data else ""
        say(
            f"{stopped} and saved; go on with: {PROGRAM} --resume {shlex.quote(str(record.folder))}{trust}",
            sys.stderr,
        )
        return 128 + stopped.number
    say(f"trained: {record.folder}")
    if config.train.sample_every:
        say(f"accuracy by noise level: {record.folder / 'accuracy.md'}")
    return 0


def main() -> None:
    """The command `task3-train-classifier`."""
    sys.exit(command(run))


if __name__ == "__main__":
    main()
