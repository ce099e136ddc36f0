#!/usr/bin/env bash
# The experiments of stage 3: short trainings, one thread each, two at a time. `bash task3_conditional/results/experiments.sh`
# from the repository's folder; what is there already is left alone. The preset's run must be there: see README.md.
# `compare RUN --all true --against guidance` and the like make the tables of README.md.
set -euo pipefail
export OMP_NUM_THREADS=1 RUNS=runs/task3

train() { # name, options: two fifths of the preset's length, in a network with attention at its lower level
    name=$1 && shift
    [ -e "$RUNS/$name" ] && return
    task3-train --network.attention [none,full] --train.steps 2000 --train.sample-every 2000 --run.name "$name" "$@" >/dev/null 2>&1
    for scale in 1 2; do task3-evaluate --run "$RUNS/$name" --scale $scale --n 500 >/dev/null; done
}

evaluate() { # options for the preset's run
    task3-evaluate --run $RUNS/preset --n 500 "$@" >/dev/null
}

queue() { # lines of commands, two at a time, or JOBS
    export -f train evaluate
    xargs -P "${JOBS:-2}" -I {} bash -euo pipefail -c '{}'
}

# Kinds of condition at equal budget, and the number of tokens.
queue <<'LIST'
train vanilla --condition.label vanilla
train adaptive --condition.label adaptive
train token-4 --condition.label token --condition.tokens 4
train cross-4 --condition.label cross_attention --condition.tokens 4
train cross-1 --condition.label cross_attention --condition.tokens 1
LIST

# The scale; interval and rescale at one where they could help; other guidance. The preset keeps its first checkpoint.
if [ ! -e $RUNS/preset/evaluations-done ]; then
    task3-train-classifier --config task3_conditional/configs/classifier.yaml --run.name preset >/dev/null 2>&1
    weak=$RUNS/preset/checkpoints/step-00001000.safetensors
    queue <<LIST
evaluate --scale 0
evaluate --scale 0.5
evaluate --scale 1
evaluate --scale 2
evaluate --scale 4
evaluate --scale 8
evaluate --scale 4 --interval [0,0.5]
evaluate --scale 4 --interval [0.5,1]
evaluate --scale 4 --rescale 1
evaluate --scale 2 --weak $weak
evaluate --scale 1 --classifier runs/task3-classifier/preset
evaluate --scale 4 --classifier runs/task3-classifier/preset
LIST
    touch $RUNS/preset/evaluations-done
fi
