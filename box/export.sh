#!/bin/sh
# Exports the trained models into the package, scored and calibrated: box/export.sh BIN DATA WORK.
#
# The scores that go along are those of the real studies, each by the networks that have not seen its patient.
# The shift of the logits of lesions was chosen on held-out studies: docs/results.md.
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

# ship FOLDER RUN BODIES NAME
ship() {
    folder=$1
    shift
    unscored=$work/unscored/$folder
    scored=$work/scored/$folder
    export_run "$@" "$unscored"
    "$bin/python" benchmarks/accuracy.py "$unscored" --studies "$data/sts" --simulated 0 -o "$unscored-scores"
    export_run "$@" "$scored" --scores "$unscored-scores/scores.json"
    "$bin/petlesion" model calibrate "$scored" "$work/Dataset011_Box" -o "$work/evidence/$folder"
    copy=$boxed/.partial-$folder
    rm -rf "$copy"
    cp -r "$scored" "$copy"
    rm -rf "${boxed:?}/$folder"
    mv "$copy" "$boxed/$folder"
}

ship ct-pet Dataset011_Box/box 980 "PET/CT"
ship pet Dataset015_More/box-pet 1,440 "PET without CT"
