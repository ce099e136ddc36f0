#!/usr/bin/env bash
# The figures of stage 4 that need a GPU, one run each: `bash task4_dit/results/gpu.sh` from the repository's folder.
# Not run yet: see README.md. DIFFUSION_DATA names the folder that holds MNIST and cifar-10-batches-py.
set -euo pipefail
CONFIGS=task4_dit/configs

python benchmarks/task4.py --size B --patch 2 --batch 256 --compile # model FLOP use

preset() { # name, config, options
    name=$1 config=$2 && shift 2
    [ -e "runs/task4/$name" ] || task4-train --config "$CONFIGS/$config.yaml" --run.name "$name" "$@"
}

preset mnist mnist
task4-evaluate --run runs/task4/mnist --n 5000
[ -e runs/task2-autoencoder/mnist ] ||
    task2-train-autoencoder --data.name mnist --train.steps 5000 --train.batch 256 --run.name mnist
preset mnist-latents mnist --latents.autoencoder runs/task2-autoencoder/mnist --sampling.clamp false --network.patch 1
task4-evaluate --run runs/task4/mnist-latents --n 5000

preset cifar10 cifar10
task4-sample --run runs/task4/cifar10 --n 100 --out samples/cifar10-dit
[ -e runs/task2-autoencoder/cifar10 ] ||
    task2-train-autoencoder --data.name cifar10 --train.steps 20000 --train.batch 256 --run.name cifar10
preset cifar10-latents cifar10 --latents.autoencoder runs/task2-autoencoder/cifar10 --sampling.clamp false \
    --network.patch 1

# does adaLN-Zero < adaLN < cross-attention < in-context hold? and patch 2 < 4 < 8? MNIST padded to 32×32
for way in adaln_zero adaln cross_attention in_context; do
    preset "way-$way" mnist --network.conditioning "$way" --train.steps 3000
    task4-evaluate --run "runs/task4/way-$way" --n 5000 --scale 1
done
for patch in 2 4 8; do
    preset "patch-$patch" mnist --data.size 32 --network.patch "$patch" --train.steps 3000
    task4-evaluate --run "runs/task4/patch-$patch" --n 5000 --scale 1
done

preset captions captions
task4-sample --run runs/task4/captions --text "a red three above a blue seven" --n 64 --out samples/captions-dit
