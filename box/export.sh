#!/bin/sh
# Exports the trained models into the package, scored and calibrated: box/export.sh BIN DATA WORK.
#
# The scores that go along are those of the real studies, each by the networks that have not seen its patient.
# The shift of the logits of lesions was chosen on held-out studies: docs/results.md.
set -eu
bin=$1 data=$2 work=$3
boxed=src/petlesion/model/boxed

# export_run EXPERIMENT NAME OUT OPTIONS...
export_run() {
    experiment=$1 name=$2 out=$3
    shift 3
    rm -rf "$out"
    "$bin/petlesion" model export "$work/results/Dataset011_Box/${experiment}__nnUNetPlans__3d_fullres" -o "$out" \
        --no-mirror --half --logit-shift -1.5 --name "petlesion box, $name" --licence "Apache-2.0; for research use only" \
        --training-data "980 simulated studies, and 34 real FDG PET/CT of soft-tissue sarcomas (IBSI validation set, \
CC BY 3.0, made from TCIA Soft-tissue-Sarcoma, DOI 10.7937/K9/TCIA.2015.7GO2GSKS)" "$@"
}

# ship EXPERIMENT FOLDER NAME
ship() {
    unscored=$work/unscored/$2
    export_run "$1" "$3" "$unscored"
    "$bin/python" benchmarks/accuracy.py "$unscored" --studies "$data/sts" --simulated 0 -o "$unscored-scores"
    export_run "$1" "$3" "$work/scored/$2" --scores "$unscored-scores/scores.json"
    "$bin/petlesion" model calibrate "$work/scored/$2" "$work/Dataset011_Box" -o "$work/evidence/$2"
    copy=$boxed/.partial-$2
    rm -rf "$copy"
    cp -r "$work/scored/$2" "$copy"
    rm -rf "${boxed:?}/$2"
    mv "$copy" "$boxed/$2"
}

ship box ct-pet "PET/CT"
ship box-pet pet "PET without CT"
