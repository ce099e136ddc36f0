#!/usr/bin/env bash
# The experiments of this stage: five short trainings, each measured; then the committed model, asked in several ways.
# From the root of the repository; about 35 minutes on 2 cores.
set -euo pipefail
out=${1:-runs/experiments5}
short=(--train.steps 250 --train.save-every 250 --run.folder "$out")
measure=(--n 40)

try() {  # NAME OPTIONS...
    local name=$1
    shift
    task5-train "${short[@]}" --run.name "$name" "$@"
    task5-evaluate --run "$out/task5/$name" "${measure[@]}" --out "$out/$name"
}

try base
try scratch --inflate.weights false
try full --temporal.attention full
try joint4 --joint-images 4
try joint8 --joint-images 8

# To go on from four frames of held-out clips: told, replaced, guided; and what lies between two.
for method in conditional replacement; do
    task5-evaluate --given data --method "$method" "${measure[@]}" --out "$out/given-$method"
done
for weight in 2 10; do
    task5-evaluate --given data --method reconstruction --weight "$weight" "${measure[@]}" --out "$out/given-$weight"
done
task5-evaluate --given data --between true "${measure[@]}" --out "$out/between"
task5-evaluate --loop true "${measure[@]}" --out "$out/loop"
task5-evaluate --length 100 --n 16 --out "$out/drift"
