"""From a study to lesion probabilities."""
