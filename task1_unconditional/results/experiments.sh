#!/usr/bin/env bash
# The experiments of this stage: short trainings on the embedded digits, each measured; then the committed model, asked
# in several ways. From the root of the repository; about an hour on 2 cores. It goes on where it was stopped.
set -euo pipefail
out=${1:-runs/experiments1}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} # two of these side by side are faster than one with two threads

try() { # NAME OPTIONS...: train
    local name=$1
    shift
    [ -e "$out/task1/$name" ] && return
    task1-train --config task1_unconditional/configs/experiment.yaml --run.folder "$out" --run.name "$name" "$@"
}

measure() { # NAME OPTIONS...
    local name=$1
    shift
    [ -e "$out/measured/$name" ] && return
    task1-evaluate --out "$out/measured/$name" "$@"
}

# What the network predicts; three seeds, whose spread judges every ordering.
for seed in 0 1 2; do
    for predict in eps x0 v; do
        try $predict-$seed --diffusion.predict $predict --train.seed $seed
        measure $predict-$seed --run "$out/task1/$predict-$seed"
    done
done

# The schedule of the noise. v-0 has the cosine.
try linear --schedule.name linear
try sigmoid --schedule.name sigmoid_alpha_bar
for name in linear sigmoid; do measure $name --run "$out/task1/$name"; done

# L_simple, the bound, and both. eps-0 has L_simple.
try vlb --diffusion.predict eps --bound.objective vlb
try hybrid --diffusion.predict eps --bound.variance learned --bound.objective hybrid
try learned-vlb --diffusion.predict eps --bound.variance learned --bound.objective vlb --bound.loss-aware
measure vlb --run "$out/task1/vlb"
for name in hybrid learned-vlb; do
    measure $name --run "$out/task1/$name" --sampler ddpm_learned
    measure $name-ddpm --run "$out/task1/$name" --sampler ddpm
done
for name in eps-0 vlb hybrid learned-vlb; do
    measure bits-$name --run "$out/task1/$name" --samples false --bits-per-dim --ode
done
measure bits-committed --samples false --bits-per-dim --ode
measure bits-committed-large --samples false --bits-per-dim --variance large
measure bits-eps-0-large --run "$out/task1/eps-0" --samples false --bits-per-dim --variance large
measure bits-vlb-large --run "$out/task1/vlb" --samples false --bits-per-dim --variance large

# Averages of the weights.
try averages --averages.more [0.9,0.99] --averages.swa-start 1000 --averages.swa-every 20 \
    --averages.profiles [0.05,0.1] --averages.snapshot-every 50
measure averages --run "$out/task1/averages" --also [all,post-hoc-0.02,post-hoc-0.15,post-hoc-0.2]

# The committed model: steps against eta, the shape of DDIM's table 1; steps against sampler; there and back.
for steps in 5 10 20 50 200; do
    for eta in 0 0.2 0.5 1; do measure ddim-$eta-$steps --n 500 --sampler ddim --eta $eta --steps $steps; done
    measure ddpm_large-$steps --n 500 --sampler ddpm_large --steps $steps
done
for steps in 5 10 20 50; do
    for sampler in heun dpm_solver_pp; do measure $sampler-$steps --n 500 --sampler $sampler --steps $steps; done
done
measure reconstruct --samples false --reconstruct [10,20,50,100,200,500] --real 200
measure reconstruct-v --run "$out/task1/v-0" --samples false --reconstruct [10,20,50,100,200,500] --real 200

python task1_unconditional/results/tables.py "$out" task1_unconditional/results
