"""How results/steps.png was made: `python -m task4_dit.results.few_steps`. The same noise in 1, 2 and 4 steps."""

import torch

from shared import pictures
from task4_dit.model import RESULTS, load


def main() -> None:
    """Rows in pairs: the teacher in n steps, below it the student in as many."""
    teacher, student, rows = load(), load(RESULTS / "student.safetensors"), []
    for steps in (1, 2, 4):
        for model in (teacher, student):
            told = model.told(10, label=list(range(10)))
            rows.append(model.sample(10, told, seed=3, steps=steps))
    print(pictures.save(pictures.grid(torch.cat(rows), columns=10), RESULTS / "steps.png"))


if __name__ == "__main__":
    main()
