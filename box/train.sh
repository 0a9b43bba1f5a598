#!/bin/sh
# Trains the models in the box: box/train.sh BIN DATA WORK. Goes on where an earlier run stopped.
#
# Simulated bodies first, near, farther and wide, then others on another scale of PET; then each fold, with the
# real studies. See box/README.md.
set -eu
bin=$1 data=$2 work=$3
begun=Dataset010_Simulated
others=Dataset012_Bodies
both=$work/Dataset011_Box

# weights STEP COHORT: where a step's network is.
weights() { echo "$work/$1/$2/box__nnUNetPlans__3d_fullres/fold_0/checkpoint_final.pth"; }

train() { "$bin/petlesion" train "$@" --preprocessed "$work/preprocessed"; }

# begin STEP SETTINGS...: train on simulated bodies alone.
begin() {
    step=$1
    shift
    train "$work/$begun" -e box -f 0 -o "$work/$step" --set pet_normalization=cohort "$@"
}

"$bin/python" box/cohort.py --studies "$data/sts" --organs "$data/organs" -o "$work"
begin near --set epochs=75 --set iterations=100 --set patch_size=48x40x40 --set oversampled_cases=all
begin far --set epochs=38 --set iterations=50 --set batch_size=4 --set oversampling=0.25 \
    --set patch_size=64x48x48 --set "initial_weights=$(weights near $begun)"
begin wide --set epochs=52 --set iterations=50 --set "initial_weights=$(weights far $begun)"
train "$work/$others" -e box -f 0 -o "$work/bodies" --set epochs=20 --set iterations=200 \
    --set "initial_weights=$(weights wide $begun)"
train "$both" -e box -o "$work/results" --set "initial_weights=$(weights bodies $others)"
# Fold 1 holds out STS_001, of whom there is a whole body to score it on.
train "$both" -e box-pet -f 1 -o "$work/results" \
    --set "initial_weights=$work/results/Dataset011_Box/box__nnUNetPlans__3d_fullres"
train "$work/Dataset015_More" -e box-pet -f 1 -o "$work/results" --set epochs=40 \
    --set "initial_weights=$work/results/Dataset011_Box/box-pet__nnUNetPlans__3d_fullres"
