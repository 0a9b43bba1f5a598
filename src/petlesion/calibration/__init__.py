"""From raw probabilities to ones that keep their word, for voxels, lesions and studies."""
