#!/usr/bin/env bash
# The experiments of stage 4 on 2 cores: `bash task4_dit/results/experiments.sh` from the repository's folder. About half
# an hour. What came of it is in README.md.
set -euo pipefail

trained() { # name, options: a training of 1,000 steps, measured
    name=$1 && shift
    [ -e "runs/task4/$name" ] || task4-train --run.name "$name" --train.steps 1000 --train.sample_every 0 "$@"
    task4-evaluate --run "runs/task4/$name" --n 500
}

# how time and condition enter
for way in adaln_zero adaln cross_attention in_context; do
    trained "$way" --network.conditioning "$way"
done
# what is predicted, where a token lies, how large it is
trained velocity --diffusion.predict velocity
trained rotary --network.positions rotary --network.qk_norm true
trained patch-7 --network.patch 7
