#!/usr/bin/env bash
# The experiments of stage 2: short trainings, one thread each, two at a time. `bash task2_latent/results/experiments.sh`
# from the repository's folder; runs that are there already are left alone. `compare` makes the tables of README.md.
set -euo pipefail
export OMP_NUM_THREADS=1
AE=runs/task2-autoencoder

autoencoder() { # name, options: a third of the preset's length
    name=$1 && shift
    [ -e "$AE/$name" ] && return
    task2-train-autoencoder --loss.kl 1e-6 --train.steps 1000 --train.sample-every 1000 --run.name "$name" "$@" >/dev/null 2>&1
    task2-evaluate --run "$AE/$name" >/dev/null
}

diffusion() { # name, autoencoder, options: two fifths of the preset's length
    name=$1 autoencoder=$2 && shift 2
    [ -e "runs/task2/$name" ] && return
    task2-train --latents.autoencoder "$AE/$autoencoder" --train.steps 1400 --train.sample-every 1400 \
        --run.name "$name" "$@" >/dev/null 2>&1
    task2-evaluate --run "runs/task2/$name" >/dev/null
}

queue() { # lines of commands, two at a time
    export -f autoencoder diffusion
    export AE
    xargs -P 2 -I {} bash -euo pipefail -c '{}'
}

queue <<'LIST'
autoencoder base
autoencoder base-1 --train.seed 1
autoencoder base-2 --train.seed 2
autoencoder kl-1e-3 --loss.kl 1e-3
autoencoder kl-1e-2 --loss.kl 1e-2
autoencoder channels-1 --autoencoder.latent-channels 1
autoencoder channels-4 --autoencoder.latent-channels 4
autoencoder half --autoencoder.multipliers [1] --autoencoder.attention [none]
autoencoder vq --autoencoder.bottleneck vq --loss.codebook 8
autoencoder perceptual --loss.perceptual st_lpips --loss.perceptual-size 28 --loss.perceptual-weight 0.1
autoencoder adversarial --loss.adversarial 0.5 --loss.adversarial-start 500 --discriminator.width 16 --discriminator.layers 2
autoencoder transposed --autoencoder.up transposed
LIST

queue <<'LIST'
diffusion base base
diffusion base-1 base --train.seed 1
diffusion base-2 base --train.seed 2
diffusion fixed base --latents.scale 0.18215
diffusion kl-1e-3 kl-1e-3
diffusion kl-1e-2 kl-1e-2
diffusion channels-4 channels-4
diffusion vq vq
diffusion adversarial adversarial
LIST
