"""Studies with blobs that a made-up model is more or less sure of."""

import numpy as np
from scipy.special import expit

from petlesion.inference.predict import Prediction
from petlesion.inference.uncertainty import PassSums
from petlesion.volume import Study, Volume

SHAPE = (16, 24, 24)
AFFINE = np.diag([5.0, 5.0, 5.0, 1.0])


def make_case(seed: int) -> tuple[Study, Prediction]:
    """Six lesions of logit about 3, one in ten of them missed, and six false ones of about 1; two passes."""
    rng = np.random.default_rng(seed)
    reference, logits = np.zeros(SHAPE, dtype=bool), np.full(SHAPE, -6.0)
    for number in range(12):
        z, y, x = 1 + 4 * (number % 4), 2 + 8 * (number // 4), rng.integers(2, 18)
        place = (slice(z, z + 2), slice(y, y + 3), slice(x, x + 3))
        real = number % 2 == 0
        reference[place] = real
        logits[place] = rng.normal(3 if real else 1, 1) if not real or rng.random() > 0.1 else -1
    pet = np.where(reference, 8, 1.2) * rng.uniform(0.9, 1.1, SHAPE)
    ct = rng.normal(40, 5, SHAPE)
    sums, passes = PassSums(Volume(logits, AFFINE).grid), []
    for _ in range(2):
        passes.append(expit(logits + rng.normal(0, 0.5)).astype(np.float32))
        sums.add(passes[-1])
    probability = Volume(np.mean(passes, axis=0, dtype=np.float32), AFFINE)
    study = Study(
        f"case{seed}",
        Volume(pet.astype(np.float32), AFFINE),
        Volume(ct.astype(np.float32), AFFINE),
        Volume(reference, AFFINE),
    )
    return study, Prediction(probability, sums.uncertainty())
