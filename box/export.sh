#!/bin/sh
# Exports the trained model into the package: box/export.sh BIN WORK.
set -eu
bin=$1 work=$2
box=src/petlesion/model/boxed/ct-pet

rm -rf "$box"
"$bin/petlesion" model export "$work/results/Dataset011_Box/box__nnUNetPlans__3d_fullres" -o "$box" --no-mirror --half \
    --name "petlesion box, PET/CT" --licence "Apache-2.0; for research use only" \
    --training-data "360 simulated studies, and 34 real FDG PET/CT of soft-tissue sarcomas (IBSI validation set, CC BY 3.0, \
made from TCIA Soft-tissue-Sarcoma, DOI 10.7937/K9/TCIA.2015.7GO2GSKS)"
