#!/bin/sh
# Exports the trained models into the package, scored and calibrated: box/export.sh BIN DATA WORK.
#
# The scores that go along are those of the real studies, each by the networks that have not seen its patient;
# where there is one for each fold, with the shift of the logits of lesions chosen on the other folds' patients.
# The shift that is exported was chosen on held-out studies: docs/results.md.
set -eu
bin=$1 data=$2 work=$3
boxed=src/petlesion/model/boxed

# export_run RUN BODIES NAME OUT OPTIONS...: BODIES is the number of simulated studies behind it.
export_run() {
    run=$1 bodies=$2 name=$3 out=$4
    shift 4
    rm -rf "$out"
    "$bin/petlesion" model export "$work/results/${run}__nnUNetPlans__3d_fullres" -o "$out" \
        --no-mirror --half --logit-shift -1.5 --name "petlesion box, $name" --licence "Apache-2.0; for research use only" \
        --training-data "$bodies simulated studies, and 34 real FDG PET/CT of soft-tissue sarcomas (IBSI validation set, \
CC BY 3.0, made from TCIA Soft-tissue-Sarcoma, DOI 10.7937/K9/TCIA.2015.7GO2GSKS)" "$@"
}

# score_folds BUNDLE, score_alone BUNDLE: write BUNDLE-scores/scores.json.
score_folds() { "$bin/python" benchmarks/logit_shift.py "$1" --studies "$data/sts" -o "$1-scores"; }
score_alone() { "$bin/python" benchmarks/accuracy.py "$1" --studies "$data/sts" --simulated 0 -o "$1-scores"; }

# ship SCORE FOLDER RUN BODIES NAME
ship() {
    score=$1 folder=$2
    shift 2
    unscored=$work/unscored/$folder
    scored=$work/scored/$folder
    export_run "$@" "$unscored"
    "$score" "$unscored"
    export_run "$@" "$scored" --scores "$unscored-scores/scores.json"
    "$bin/petlesion" model calibrate "$scored" "$work/Dataset011_Box" -o "$work/evidence/$folder"
    copy=$boxed/.partial-$folder
    rm -rf "$copy"
    cp -r "$scored" "$copy"
    rm -rf "${boxed:?}/$folder"
    mv "$copy" "$boxed/$folder"
}

ship score_folds ct-pet Dataset011_Box/box 980 "PET/CT"
ship score_alone pet Dataset015_More/box-pet 1,440 "PET without CT"
