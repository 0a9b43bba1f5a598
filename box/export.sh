#!/bin/sh
# Exports the trained models into the package: box/export.sh BIN WORK.
set -eu
bin=$1 work=$2
boxed=src/petlesion/model/boxed

# export_run EXPERIMENT FOLDER NAME
export_run() {
    rm -rf "${boxed:?}/$2"
    "$bin/petlesion" model export "$work/results/Dataset011_Box/$1__nnUNetPlans__3d_fullres" -o "$boxed/$2" \
        --no-mirror --half --name "petlesion box, $3" --licence "Apache-2.0; for research use only" \
        --training-data "500 simulated studies, and 34 real FDG PET/CT of soft-tissue sarcomas (IBSI validation set, \
CC BY 3.0, made from TCIA Soft-tissue-Sarcoma, DOI 10.7937/K9/TCIA.2015.7GO2GSKS)"
}

export_run box ct-pet "PET/CT"
export_run box-pet pet "PET without CT"
