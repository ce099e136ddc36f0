#!/usr/bin/env bash
# The figures of stage 3 that need a GPU, one run each: `bash task3_conditional/results/gpu.sh` from the repository's folder.
# Not run yet: see README.md. DIFFUSION_DATA names the folder that holds cifar-10-batches-py.
set -euo pipefail
CONFIGS=task3_conditional/configs

preset() { # config, options
    name=$1 && shift
    [ -e "runs/task3/$name" ] || task3-train --config "$CONFIGS/$name.yaml" --run.name "$name" "$@"
}

preset captions-gpu
task3-evaluate --run runs/task3/captions-gpu --n 3000

[ -e "${DIFFUSION_DATA:-data}/emoji" ] || prepare-emoji --size 64
preset emoji64
task3-evaluate --run runs/task3/emoji64 --split train # found among 100 pictures of the training
task3-evaluate --run runs/task3/emoji64 --split test  # and among those held out

preset cifar10
task3-sample --run runs/task3/cifar10 --out samples/cifar10 --n 100
