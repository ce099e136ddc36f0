#!/usr/bin/env bash
# The figures of stage 1 that need a GPU: `bash task1_unconditional/results/gpu.sh` from the repository's folder.
# Not run yet: see README.md. DIFFUSION_DATA names the folder that holds MNIST and cifar-10-batches-py.
# A training that was stopped (SIGTERM is enough: it saves) goes on where the script is called again.
set -euo pipefail
CONFIGS=task1_unconditional/configs
RESULTS=task1_unconditional/results

preset() { # config, options
    name=$1 && shift
    if [ -e "runs/task1/$name" ]; then
        task1-train --resume "runs/task1/$name"
    else
        task1-train --config "$CONFIGS/$name.yaml" --run.name "$name" "$@"
    fi
}

export_run() { # run, file: in bfloat16, for sampling only
    python -m task1_unconditional.export "runs/task1/$1" "$2"
    # what a stage commits is 8 MB at most
    [ "$(wc -c < "$2")" -le 8000000 ] || { echo "$2 is too large to be committed" >&2 && exit 1; }
}

python benchmarks/memory.py "$CONFIGS/mnist.yaml" "$CONFIGS/cifar10.yaml" # at batch 1, for memory.md

preset mnist
task1-evaluate --run runs/task1/mnist --n 10000 --out runs/mnist
task1-evaluate --run runs/task1/mnist --samples false --bits-per-dim true --reconstruct "[10,20,50,100]"
task1-sample --run runs/task1/mnist --out samples/mnist
export_run mnist runs/mnist.safetensors # 6.5 MB
# It replaces digits.safetensors, which task1-sample takes by default, only if it is better by the digit judge: more
# samples that the judge is sure of, and a smaller distance. Both measured alike:
task1-evaluate --run runs/mnist.safetensors --n 10000 --seed 1 --out runs/mnist-exported
task1-evaluate --run $RESULTS/digits.safetensors --n 10000 --seed 1 --out runs/digits-committed

preset cifar10
# 50,000 samples against the 50,000 of the training part. The Inception weights come from torch's cache, or are
# downloaded; --inception PATH names a file. Where there are none the command says so, and the other figures stand.
task1-evaluate --run runs/task1/cifar10 --fid true --n 50000
task1-evaluate --run runs/task1/cifar10 --samples false --bits-per-dim true --reconstruct "[10,20,50,100]"
task1-sample --run runs/task1/cifar10 --n 100 --out samples/cifar10
# Its 29.5 million weights are 59 MB in bfloat16: they are not committed.
