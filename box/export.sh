#!/bin/sh
# Exports the trained models into the package: box/export.sh BIN WORK.
set -eu
bin=$1 work=$2
box=src/petlesion/model/boxed
data="120 simulated studies, 34 real FDG PET/CT of soft-tissue sarcoma (IBSI validation set, CC BY 3.0, from TCIA \
Soft-tissue-Sarcoma, DOI 10.7937/K9/TCIA.2015.7GO2GSKS); begun on 240 other simulated studies"

export_model() {
    rm -rf "${box:?}/$2"
    "$bin/petlesion" model export "$work/results/Dataset011_Box/$1__nnUNetPlans__3d_fullres" -o "$box/$2" \
        --no-mirror --name "$3" --licence "Apache-2.0; research use only" --training-data "$data"
}

export_model box ct-pet "petlesion box, PET/CT"
export_model box-pet pet "petlesion box, PET"
