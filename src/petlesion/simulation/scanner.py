"""What a scanner makes of a body: the PET and the CT of a PET/CT."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from petlesion.resample import cell_means
from petlesion.simulation.outline import cavity_distance, slices_between
from petlesion.simulation.shapes import Floats
from petlesion.simulation.uptake import Phantom
from petlesion.volume import Volume

_FWHM_PER_SIGMA = 2.3548
_DIAPHRAGM_Z, _MOVING_MM = 395.0, 75.0
_SCATTER_SIGMA_MM = 45.0
_LIVER_SUV = 2.2
_AIR_SUV = 0.008
_OUTSIDE_CT_HU = -1024.0


@dataclass(frozen=True)
class Scanner:
    """How a study was taken.

    `resolution_mm` is the PET's FWHM, `liver_noise` the coefficient of variation in the liver and
    `noise_grain_mm` the FWHM of its grain, `scatter` the share of counts left in the wrong place. The
    diaphragm moved over `breathing_mm` during PET and stood `inspiration_mm` lower in CT. `ct_noise_hu` is
    the CT's noise, `contrast` whether an agent was given, `ct_field_mm` the width of the CT's own field.
    """

    resolution_mm: float
    liver_noise: float
    noise_grain_mm: float
    scatter: float
    breathing_mm: float
    inspiration_mm: float
    ct_noise_hu: float
    contrast: bool
    ct_field_mm: float


def draw_scanner(rng: np.random.Generator) -> Scanner:
    """Draw a scanner and a protocol."""
    contrast = bool(rng.random() < 0.6)
    return Scanner(
        resolution_mm=float(rng.uniform(4.0, 7.0)),
        liver_noise=float(np.clip(rng.lognormal(np.log(0.10), 0.3), 0.04, 0.22)),
        noise_grain_mm=float(rng.uniform(4.0, 7.0)),
        scatter=float(rng.uniform(0.01, 0.05)),
        breathing_mm=float(rng.uniform(3, 12)),
        inspiration_mm=float(np.clip(rng.normal(5, 8), -12, 24)),
        ct_noise_hu=float(rng.uniform(6, 14) if contrast else rng.uniform(10, 28)),
        contrast=contrast,
        ct_field_mm=500.0 if rng.random() < 0.5 else 780.0,
    )


def scan_pet(phantom: Phantom, scanner: Scanner, rng: np.random.Generator) -> Floats:
    """PET image in SUV [z, y, x]: breathing, resolution, scatter, correlated noise."""
    spacing = phantom.canvas.spacing_mm
    image = _breathe(phantom, scanner.breathing_mm)
    image = blur(image, scanner.resolution_mm, spacing)
    if scanner.scatter > 0:
        tails = _scattered(image, spacing)
        image *= np.float32(1 - scanner.scatter)
        image += np.float32(scanner.scatter) * tails
    noise = correlated_noise(rng, image.shape, scanner.noise_grain_mm, spacing)
    # Iterative reconstruction leaves noise that grows somewhat slower than the activity.
    noise *= np.float32(scanner.liver_noise * _LIVER_SUV) * np.power(
        np.maximum(image, 0) / np.float32(_LIVER_SUV), np.float32(0.75)
    )
    image += noise
    result: Floats = np.maximum(image, 0, out=image)
    return result


def scan_ct(phantom: Phantom, scanner: Scanner, rng: np.random.Generator) -> Floats:
    """CT image in HU [z, y, x]: another state of breathing, finite resolution, noise."""
    image = _inspire(phantom, scanner.inspiration_mm)
    image = blur(image, 2.5, phantom.canvas.spacing_mm)
    noise = correlated_noise(rng, image.shape, 2.5, phantom.canvas.spacing_mm)
    noise *= np.float32(scanner.ct_noise_hu) * _path_noise(phantom)[:, None, None]
    image += noise
    result: Floats = np.clip(image, -1024, 3071, out=image)
    return result


def pet_surroundings(shape: tuple[int, int, int], rng: np.random.Generator) -> Floats:
    """PET noise in SUV where there is no body, an image of that shape (z, y, x)."""
    noise = rng.standard_normal(shape, dtype=np.float32)
    np.abs(noise, out=noise)
    noise *= np.float32(_AIR_SUV)
    return noise


def ct_surroundings(ct: Volume, tissue: Volume, scanner: Scanner, rng: np.random.Generator) -> Volume:
    """The CT in HU with noisy air and the table around the body, and nothing outside the CT's own field.

    `tissue` has the CT's voxels, 0 where there is no body.
    """
    outside = tissue.array == 0
    air = rng.standard_normal(ct.shape, dtype=np.float32)
    air *= np.float32(6)
    air += _table(ct, tissue)
    result = np.where(outside, air, ct.array)
    y, x = (np.arange(n) * step for n, step in zip(ct.shape[1:], ct.spacing_mm[1:], strict=True))
    radius_mm = scanner.ct_field_mm / 2
    beyond = (x[None, :] - x.mean()) ** 2 + (y[:, None] - y.mean()) ** 2 > radius_mm**2
    result[:, beyond] = _OUTSIDE_CT_HU
    return ct.with_array(result)


def _table(ct: Volume, tissue: Volume) -> Floats:
    """HU [y, x] of air and, behind the body, of a table: a shell of carbon fibre around foam."""
    _, step_y, step_x = ct.spacing_mm
    rows = np.flatnonzero((tissue.array > 0).any(axis=(0, 2)))
    back_mm = (int(rows[-1]) if rows.size else ct.shape[1] // 2) * step_y + 7
    x = (np.arange(ct.shape[2]) - (ct.shape[2] - 1) / 2) * step_x
    depth = np.arange(ct.shape[1])[:, None] * step_y - (back_mm - 22 * (x / 200)[None, :] ** 2)
    thick_mm = 42 * np.clip(1 - (x / 205)[None, :] ** 4, 0, None)
    inside = np.minimum(depth, thick_mm - depth)
    hu = np.where(inside > 0, np.where(inside < 4, -420.0, -940.0), -1000.0)
    return hu.astype(np.float32)


def blur(image: Floats, fwhm_mm: float, spacing_mm: tuple[float, float, float]) -> Floats:
    """Convolve an image [z, y, x] with a Gaussian of that full width at half maximum; the sum stays."""
    sigma = [fwhm_mm / _FWHM_PER_SIGMA / step for step in spacing_mm]
    result: Floats = ndimage.gaussian_filter(image, sigma, mode="nearest", truncate=3.5)
    return result


def correlated_noise(
    rng: np.random.Generator, shape: tuple[int, ...], fwhm_mm: float, spacing_mm: tuple[float, float, float]
) -> Floats:
    """Noise of that shape (z, y, x) and standard deviation 1, correlated over `fwhm_mm`."""
    noise = blur(rng.standard_normal(shape, dtype=np.float32), fwhm_mm, spacing_mm)
    noise /= np.float32(noise.std())
    return noise


def _scattered(image: Floats, spacing: tuple[float, float, float]) -> Floats:
    """The image spread so broadly that a coarse grid will do."""
    step = [max(1, round(12.0 / s)) for s in spacing]
    padded = np.pad(image, [(0, -size % n) for n, size in zip(step, image.shape, strict=True)])
    sigma = [_SCATTER_SIGMA_MM / (s * n) for s, n in zip(spacing, step, strict=True)]
    tail = ndimage.gaussian_filter(cell_means(padded, step), sigma, mode="constant", truncate=3)
    for axis, (n, size) in enumerate(zip(step, image.shape, strict=True)):
        tail = np.repeat(tail, n, axis=axis).take(range(size), axis=axis)
    result: Floats = tail
    return result


def _moving(phantom: Phantom) -> tuple[slice, Floats] | None:
    """The slices around the diaphragm, and how much each voxel there takes part in breathing, 0 to 1."""
    window = slices_between(phantom.canvas, _DIAPHRAGM_Z - 2 * _MOVING_MM, _DIAPHRAGM_Z + 2 * _MOVING_MM)
    if window is None:
        return None
    depth = np.clip(-cavity_distance(phantom.canvas, window) / np.float32(15), 0, 1)
    near = np.exp(-(((phantom.canvas.z[window] - np.float32(_DIAPHRAGM_Z)) / np.float32(_MOVING_MM)) ** 2))
    share: Floats = depth * near
    return window[0], share


def _breathe(phantom: Phantom, travel_mm: float) -> Floats:
    """Smear what moves with the diaphragm along the body."""
    image = phantom.suv.copy()
    moving = _moving(phantom)
    if moving is not None and travel_mm > 0:
        slices, share = moving
        sigma = travel_mm / 3 / phantom.canvas.spacing_mm[0]
        smeared = ndimage.gaussian_filter1d(image[slices], sigma, axis=0, mode="nearest")
        image[slices] += share * (smeared - image[slices])
    return image


def _inspire(phantom: Phantom, down_mm: float) -> Floats:
    """Move what lies around the diaphragm down (positive) or up along the body."""
    image = phantom.hu.copy()
    moving = _moving(phantom)
    if moving is None:
        return image
    slices, share = moving
    block = image[slices]
    count = block.shape[0]
    step = share * np.float32(down_mm / phantom.canvas.spacing_mm[0])
    step += np.arange(count, dtype=np.float32)[:, None, None]
    np.clip(step, 0, count - 1, out=step)
    lower = step.astype(np.intp)
    upper = np.minimum(lower + 1, count - 1)
    step -= lower
    below, above = np.take_along_axis(block, lower, 0), np.take_along_axis(block, upper, 0)
    image[slices] = below + step * (above - below)
    return image


def _path_noise(phantom: Phantom) -> Floats:
    """Noise of each slice against the mean: photons starve across shoulders and hips."""
    dense = phantom.hu > -500
    width_mm = dense.sum(axis=2).max(axis=1) * phantom.canvas.spacing_mm[2]
    factor: Floats = np.exp((width_mm - 380) / 350).clip(0.5, 2.5).astype(np.float32)
    return factor
