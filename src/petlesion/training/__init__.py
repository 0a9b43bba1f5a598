"""From a cohort to a trained run, through nnU-Net."""
