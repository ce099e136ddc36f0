"""The films of the READMEs, from the committed model: `python -m task5_video.results.pictures`."""

import torch

from shared import films
from task5_video.continuation import predicted
from task5_video.films_given import held_out
from task5_video.model import RESULTS, load

FPS = 8


def main() -> None:
    """Clips of all digits; and held-out clips, each with three ways to go on from its first four frames."""
    model = load()
    clips = model.sample(10, model.told(10, label=list(range(10))), seed=1)
    films.save_gif(clips, RESULTS / "clips.gif", FPS, columns=5, upscale=3)
    real, labels = held_out(model, 4, model.shape[1])
    rows, cond = [real], model.told(4, label=labels)
    for method in ("conditional", "replacement", "reconstruction"):
        rows.append(predicted(model, real[:, :, :4], cond, 1, method=method, weight=10.0))
    films.save_gif(torch.stack(rows, dim=1).flatten(0, 1), RESULTS / "given.gif", FPS, columns=4, upscale=3)


if __name__ == "__main__":
    main()
