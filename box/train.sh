#!/bin/sh
# Trains the models in the box: box/train.sh BIN DATA WORK. Goes on where an earlier run stopped.
#
# Simulated bodies first, in small patches and then in larger ones; then each fold, with the real studies. The
# network for PET alone starts from what that for PET/CT has learnt in the first part.
set -eu
bin=$1 data=$2 work=$3
bodies=$work/Dataset010_Simulated
both=$work/Dataset011_Box

weights() { echo "$work/$1/Dataset010_Simulated/$2__nnUNetPlans__3d_fullres/fold_0/checkpoint_final.pth"; }

train() { "$bin/petlesion" train "$@" --preprocessed "$work/preprocessed"; }

"$bin/python" box/cohort.py --studies "$data/sts" --organs "$data/organs" -o "$work"
train "$bodies" -e box -f 0 -o "$work/small-patches" \
    --set epochs=75 --set patch_size=48x40x40 --set learning_rate=0.001
for experiment in box box-pet; do
    train "$bodies" -e $experiment -f 0 -o "$work/large-patches" \
        --set epochs=20 --set "initial_weights=$(weights small-patches box)"
done
train "$both" -e box -o "$work/results" --set "initial_weights=$(weights large-patches box)"
train "$both" -e box-pet -f 0,1,2 -o "$work/results" --set "initial_weights=$(weights large-patches box-pet)"
