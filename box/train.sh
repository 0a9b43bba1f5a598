#!/bin/sh
# Trains the models in the box: box/train.sh BIN DATA WORK. Goes on where an earlier run stopped.
set -eu
bin=$1 data=$2 work=$3
results=$work/results

"$bin/python" box/cohort.py --studies "$data/sts" --organs "$data/organs" -o "$work"
for experiment in box box-pet; do
    "$bin/petlesion" train "$work/Dataset010_Simulated" -e $experiment -f 0 --set epochs=60 -o "$results"
    start=$results/Dataset010_Simulated/${experiment}__nnUNetPlans__3d_fullres/fold_0/checkpoint_final.pth
    "$bin/petlesion" train "$work/Dataset011_Box" -e $experiment --set "initial_weights=$start" -o "$results"
done
