#!/usr/bin/env bash
# What needs a GPU, from the root of the repository. Not run, and not timed.
set -euo pipefail
task1-train --config task5_video/configs/image64.yaml --run.name image64
task5-train --config task5_video/configs/two_digits.yaml --run.name two-digits
task5-evaluate --run runs/task5/two-digits --n 1000 --out task5_video/results/two-digits
for images in 0 4; do # with 8, the one above
    task5-train --config task5_video/configs/two_digits.yaml --joint-images $images --run.name two-digits-$images
    task5-evaluate --run runs/task5/two-digits-$images --n 1000
done
for method in conditional replacement reconstruction; do
    task5-evaluate --run runs/task5/two-digits --given data --method $method --n 1000
done
for attention in temporal full; do
    task5-train --config task5_video/configs/dit.yaml --temporal.attention $attention --run.name dit-$attention
    task5-evaluate --run runs/task5/dit-$attention --n 1000
done
