"""Measure stage 2, a diffusion or an autoencoder by itself: `task2-evaluate --help`."""

import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from jsonargparse.typing import PositiveInt

from shared.cli import Parser, command
from shared.errors import UserError
from shared.sampling_options import EvaluateOptions, TrustOptions, device_of, overrides
from task2_latent.sample import load_for

PICTURES = 24  # images in the side-by-side


@dataclass
class EvaluateConfig(TrustOptions, EvaluateOptions):
    """What to measure, and with how many images.

    To the options of stage 1 (see `EvaluateOptions` and `TrustOptions`) come the autoencoder, and that it may be
    measured by itself.
    """

    run: str | None = None
    """a run's folder, a checkpoint file, or "latest", of a diffusion or an autoencoder; default: the package's own"""
    autoencoder: str | None = None
    """the autoencoder of a diffusion; only where it does not lie with it"""
    reconstructions: bool = False
    """measure the autoencoder of a diffusion, not its samples"""
    n: PositiveInt = 1000
    """number of samples; for an autoencoder, of held-out images at most"""


def table(facts: dict[str, Any]) -> str:
    """The figures as a Markdown table, with the protocol that they hold for."""
    from shared.experiments.figures import FIGURES, shown
    from shared.experiments.trained import figure_table

    protocol, judged = facts["protocol"], facts.get("judge")
    rows = [("images", protocol["n"]), ("weights", protocol["weights"])]
    if judged:
        rows += [("sampler, steps", f"{protocol['sampler']}, {protocol['steps']}")]
        rows += [("share of each digit, 0 to 9", " ".join(f"{share:.1%}" for share in judged["histogram"]))]
    known = [(name, value) for name, value in facts["figures"].items() if value is not None]
    rows += [(FIGURES[name].label if name in FIGURES else name, shown(name, value)) for name, value in known]
    return figure_table(rows, judged["caveat"] if judged else None)


def is_autoencoder(source: Path | None) -> bool:
    """Whether a run or checkpoint is an autoencoder's. Raises UserError where it cannot be read."""
    from shared.training.checkpoint import read_facts
    from shared.training.weights import newest

    config = read_facts(newest(source)).get("config") if source else None
    return isinstance(config, dict) and "autoencoder" in config


def measure_samples(config: EvaluateConfig):
    """Sample and judge. Returns as `measure_reconstructions`; there is no picture."""
    import torch

    from shared.experiments.trained import judge_figures, origin, protocol_of
    from shared.metrics.judge import centre
    from shared.metrics.report import judge_samples

    model = load_for(config)
    centre(torch.empty(1, *model.shape))  # says so before the work if the judge cannot take such images
    options = overrides(config)
    begun = time.perf_counter()
    samples = model.sample(config.n, config.seed, **options)
    seconds = time.perf_counter() - begun
    judged = judge_samples(samples.cpu()).to_dict()
    protocol = {"reference": judged["reference"], "extractor": judged["extractor"]}
    protocol |= asdict(replace(model.config.sampling, **options))
    del protocol["clamp"]  # latents never are: it is no choice that would tell two figures apart
    facts = {
        **origin("task2", model.source, model.config.train),
        "main": "judge_distance_over_floor",
        "protocol": protocol_of(model.config, config, protocol),
        "figures": {**judge_figures(judged), "sampling_seconds": seconds},
        "judge": judged,
    }
    return facts, model.source, None


def measure_reconstructions(config: EvaluateConfig, source: Path | None):
    """Reconstruct held-out images and compare; for digits, also with what the judge sees and with PCA.

    Returns:
        the fields of `shared.experiments.history.Evaluation`, the checkpoint, and the picture of both side by side.
    """
    import torch

    from shared.datasets import load as load_data
    from shared.experiments.trained import origin, protocol_of
    from shared.latents.space import encoded
    from shared.metrics import reconstruction as metrics
    from shared.metrics.perceptual import build_perceptual, mean_distance
    from task2_latent import pca
    from task2_latent.config import autoencoder_config
    from task2_latent.model import load_autoencoder
    from task2_latent.views import side_by_side

    loaded = load_autoencoder(source, weights=config.weights)
    training, _ = autoencoder_config(loaded.facts["config"])
    if training.own_data:
        advice = "measure it in Python, by shared.metrics.reconstruction"
        raise UserError(f"{loaded.source} was trained on data of its own, of which no test part is known: {advice}")
    network, data = loaded.network.to(device_of(config)), training.data
    test = load_data(replace(data, split="test"))
    originals = torch.stack([test[i][0] for i in range(min(config.n, len(test)))])
    config.n = len(originals)
    device, parts, codes = next(network.parameters()).device, [], []
    for moments, _ in encoded(network, [(x, {}) for x in originals]):
        moments = moments.to(device)
        with torch.no_grad():
            parts.append(network.decode(network.bottleneck.mean(moments)).clamp(-1, 1).cpu())
        if training.autoencoder.bottleneck == "vq":
            codes.append(network.bottleneck.indices(moments).flatten().cpu())
    made = torch.cat(parts)
    figures = {
        "psnr": metrics.psnr(made, originals),
        "ssim": metrics.ssim(made, originals),
        "st_lpips": mean_distance(build_perceptual("st_lpips"), made, originals),
        "sharpness": metrics.sharpness(made, originals),
    }
    if codes:
        share = torch.cat(codes).bincount(minlength=training.autoencoder.vq.codes).double() / len(torch.cat(codes))
        figures |= {"codebook_usage": (share > 0).double().mean().item()}
        figures |= {"codebook_perplexity": torch.special.entr(share).sum().exp().item()}
    if data.name in ("digits", "mnist"):
        figures["judge_reconstruction_distance"] = metrics.reconstruction_frechet(made, originals)
    if data.name == "digits":
        train = load_data(data)
        numbers = torch.Size(network.latent_shape(loaded.shape)).numel()
        baseline = pca.fit(torch.stack([train[i][0] for i in range(len(train))]), numbers)
        figures["pca_psnr"] = metrics.psnr(baseline.reconstruct(originals), originals)
    protocol = {"reference": "the originals, held out", **dict.fromkeys(("extractor", "sampler", "steps"), "none")}
    facts = {
        **origin("task2", loaded.source, training.train),
        "main": "psnr",
        "protocol": protocol_of(training, config, protocol),
        "figures": figures,
    }
    return facts, loaded.source, side_by_side(originals[:PICTURES], made[:PICTURES], upscale=2)


def run() -> int:
    """Measure, print, and write the figures down."""
    parser = Parser(prog="task2-evaluate", description="Measure a trained model of stage 2.")
    parser.add_class_arguments(EvaluateConfig)
    config = parser.parse_args()

    from shared import pictures
    from shared.experiments.trained import source_of, write_down
    from shared.latents.stored import autoencoder_of
    from shared.training.weights import newest
    from task2_latent.model import COMMITTED_AUTOENCODER

    source = source_of(config.run, "task2")
    if is_autoencoder(source):
        facts, source, picture = measure_reconstructions(config, source)
    elif config.reconstructions:
        place = config.autoencoder or (autoencoder_of(newest(source)) if source else COMMITTED_AUTOENCODER)
        if place is None:
            raise UserError(f"no autoencoder lies with {source}: give it by --autoencoder")
        facts, source, picture = measure_reconstructions(config, Path(place))
    else:
        facts, source, picture = measure_samples(config)
    print(table(facts), end="")
    folder = write_down(source, facts, table(facts), config.out)
    if folder and picture:
        print(f"originals above reconstructions: {pictures.save(picture, folder / 'reconstructions.png')}")
    return 0


def main() -> None:
    """The command `task2-evaluate`."""
    sys.exit(command(run))


if __name__ == "__main__":
    main()
