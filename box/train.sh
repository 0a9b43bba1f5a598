#!/bin/sh
# Trains the model in the box: box/train.sh BIN DATA WORK. Goes on where an earlier run stopped.
#
# Simulated bodies first, near and then far; then each fold, with the real studies. See box/README.md.
set -eu
bin=$1 data=$2 work=$3
bodies=$work/Dataset010_Simulated
both=$work/Dataset011_Box

weights() { echo "$work/$1/Dataset010_Simulated/box__nnUNetPlans__3d_fullres/fold_0/checkpoint_final.pth"; }

train() { "$bin/petlesion" train "$@" --preprocessed "$work/preprocessed"; }

"$bin/python" box/cohort.py --studies "$data/sts" --organs "$data/organs" -o "$work"
train "$bodies" -e box -f 0 -o "$work/near" --set epochs=75 --set oversampled_cases=all
train "$bodies" -e box -f 0 -o "$work/far" --set epochs=38 --set iterations=50 --set batch_size=4 \
    --set oversampling=0.25 --set patch_size=64x48x48 --set "initial_weights=$(weights near)"
train "$both" -e box -o "$work/results" --set "initial_weights=$(weights far)"
