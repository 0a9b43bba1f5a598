"""Where lesions grow, and what they look like: lymphoma, melanoma, lung cancer and soft-tissue sarcoma."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from petlesion.simulation.body import Canvas, Tissue, Window, one_of
from petlesion.simulation.burden import Burden
from petlesion.simulation.diseases import DISEASES, SITES, Site
from petlesion.simulation.random_fields import smooth_field
from petlesion.simulation.scanner import Scanner
from petlesion.simulation.shapes import Floats, both_sides
from petlesion.simulation.uptake import Phantom

_GAS = (Tissue.AIR, Tissue.AIRWAY, Tissue.BOWEL_GAS)
_BONY = (Tissue.RED_MARROW, Tissue.BONE)
_FIELD_SHARE = 0.7  # a lesion's surface varies over this share of its radius
_CONTRAST = 1.6  # a lesion is at least this much hotter than what it grows in
_LEAST_SUV = 2.2
_MOST_GAIN = 6.0
_GROWTH_TRIES = 5
_TOUCHING = ndimage.generate_binary_structure(3, 2)  # 18 neighbours, as components are counted


@dataclass(frozen=True)
class _Look:
    """What a lesion is made of: density in HU, or None where it leaves the tissue's own."""

    suv: float
    hu: float | None
    texture: float
    necrotic: bool


def add_lesions(
    phantom: Phantom, burden: Burden, scanner: Scanner, rng: np.random.Generator
) -> npt.NDArray[np.bool_]:
    """Grow a study's lesions into its phantom, the largest first; return where they are [z, y, x].

    No two touch, so that each is one component. One that finds no room is left out.
    """
    truth = np.zeros(phantom.canvas.tissue.shape, dtype=bool)
    if not burden.volumes_ml:
        return truth
    names = list(DISEASES)
    shares = np.array([DISEASES[name].share for name in names])
    disease = DISEASES[names[int(rng.choice(len(names), p=shares / shares.sum()))]]
    host = _Host(phantom, truth, ~one_of(phantom.canvas.tissue, _GAS), scanner, rng)
    # A disease keeps to some of the places where it may spread.
    favoured = {site: weight * rng.lognormal(0, 1.0) for site, weight in disease.others.items()}
    for number, (volume_ml, suv) in enumerate(zip(burden.volumes_ml, burden.suvs, strict=True)):
        weights = disease.largest if number == 0 else favoured
        necrotic = volume_ml > 12 and rng.random() < disease.necrosis
        host.plant(weights, volume_ml, suv, necrotic=bool(necrotic))
    return truth


class _Host:
    """A phantom in which lesions grow one after another, each where there is still room."""

    def __init__(
        self,
        phantom: Phantom,
        truth: npt.NDArray[np.bool_],
        free: npt.NDArray[np.bool_],
        scanner: Scanner,
        rng: np.random.Generator,
    ) -> None:
        self._phantom, self._truth, self._free = phantom, truth, free
        self._resolution_mm, self._contrast, self._rng = scanner.resolution_mm, scanner.contrast, rng
        self._places: dict[str, npt.NDArray[np.intp]] = {}

    def plant(self, weights: Mapping[str, float], volume_ml: float, suv: float, *, necrotic: bool) -> None:
        """Grow one lesion at a site drawn by weight; sites without room are tried in turn."""
        sites = list(weights)
        shares = np.array([weights[site] for site in sites])
        for index in self._rng.choice(len(sites), len(sites), replace=False, p=shares / shares.sum()):
            site = sites[int(index)]
            centre = self._find_room(site)
            if centre is not None:
                self._grow(SITES[site], centre, volume_ml, self._look(site, suv, necrotic))
                return

    def _find_room(self, site: str) -> tuple[int, int, int] | None:
        if site not in self._places:
            self._places[site] = _places(self._phantom.canvas, SITES[site])
        places = self._places[site]
        for _ in range(20 if places.size else 0):
            place = int(places[self._rng.integers(places.size)])
            z, y, x = (int(i) for i in np.unravel_index(place, self._free.shape))
            if self._free[z, y, x]:
                return z, y, x
        return None

    def _look(self, site: str, suv: float, necrotic: bool) -> _Look:
        soft = float(self._rng.normal(44, 11)) + (float(self._rng.normal(26, 9)) if self._contrast else 0.0)
        hu: float | None = soft
        kind = self._rng.random()
        if site == "bone":
            hu = soft if kind < 0.25 else None if kind < 0.7 else float(self._rng.uniform(350, 800))
        elif site == "lung" and kind < 0.35:
            hu = float(self._rng.uniform(-550, -100))
        return _Look(suv, hu, float(self._rng.uniform(0.1, 0.3)), necrotic)

    def _grow(self, site: Site, centre: tuple[int, int, int], volume_ml: float, look: _Look) -> None:
        canvas = self._phantom.canvas
        count = max(1, round(volume_ml / canvas.voxel_volume_ml))
        radius_mm = (3 * volume_ml * 1000 / (4 * np.pi)) ** (1 / 3)
        window = _around(centre, 2.4 * radius_mm + 9, canvas)
        score = self._score(site, centre, window, radius_mm)
        where = _grown(score, count, tuple(c - w.start for c, w in zip(centre, window, strict=True)))
        if not where.any():
            return
        self._fill(window, where, score, radius_mm, look)
        self._truth[window] |= where
        wide = tuple(slice(max(w.start - 1, 0), w.stop + 1) for w in window)
        self._free[wide] &= ~ndimage.binary_dilation(self._truth[wide], np.ones((3, 3, 3), bool))

    def _score(self, site: Site, centre: tuple[int, int, int], window: Window, radius_mm: float) -> Floats:
        """How late a growing lesion reaches each voxel: far ones, bumpy, and those of other tissues later."""
        canvas, rng = self._phantom.canvas, self._rng
        offsets = [
            (np.arange(w.start, w.stop) - c) * step
            for w, c, step in zip(window, centre, canvas.spacing_mm, strict=True)
        ]
        score = _skewed_distance(offsets, rng)
        bumps = smooth_field(rng, score.shape, canvas.spacing_mm, max(_FIELD_SHARE * radius_mm, 5.0))
        score *= np.exp(np.float32(0.28) * bumps)
        tissue = canvas.tissue[window]
        foreign = ~one_of(tissue, site.tissues)
        score += foreign * np.float32(0.6 * radius_mm + 2)
        hard = one_of(tissue, (*_BONY, Tissue.BLOOD, Tissue.MYOCARDIUM, Tissue.GREY_MATTER))
        score += (foreign & hard) * np.float32(0.6 * radius_mm + 4)
        score[~self._free[window]] = np.inf
        return score

    def _fill(
        self, window: Window, where: npt.NDArray[np.bool_], score: Floats, radius_mm: float, look: _Look
    ) -> None:
        phantom, rng = self._phantom, self._rng
        suv, hu = phantom.suv[window], phantom.hu[window]
        background = float(np.median(suv[where]))
        apparent = max(look.suv, _CONTRAST * background, _LEAST_SUV)
        # What is smaller than the scanner resolves needs more activity to be seen as hot.
        recovery = 1 - np.exp(-((radius_mm / (0.75 * self._resolution_mm)) ** 1.5))
        true = background + (apparent - background) * min(1 / recovery, _MOST_GAIN)
        texture = smooth_field(rng, where.shape, phantom.canvas.spacing_mm, 9.0)
        suv[where] = (true * np.exp(look.texture * texture))[where]
        if look.hu is not None:
            hu[where] = (look.hu + 7 * texture)[where]
        if look.necrotic:
            core = where & (score < np.quantile(score[where], rng.uniform(0.15, 0.45)))
            suv[core] = rng.uniform(1.1, 2.2)
            hu[core] = rng.normal(18, 6)


def _places(canvas: Canvas, site: Site) -> npt.NDArray[np.intp]:
    """Flat indices of the voxels where a site's lesions may begin."""
    if site.path is None:
        return np.flatnonzero(one_of(canvas.tissue, site.tissues))
    allowed = np.zeros(canvas.tissue.shape, dtype=bool)
    for path in both_sides(site.path):
        found = canvas.inside(path)
        if found is not None:
            window, distance = found
            allowed[window] |= (distance < 0) & one_of(canvas.tissue[window], site.tissues)
    return np.flatnonzero(allowed)


def _around(centre: tuple[int, int, int], reach_mm: float, canvas: Canvas) -> Window:
    slices = []
    for c, step, size in zip(centre, canvas.spacing_mm, canvas.tissue.shape, strict=True):
        reach = int(np.ceil(reach_mm / step))
        slices.append(slice(max(c - reach, 0), min(c + reach + 1, size)))
    return slices[0], slices[1], slices[2]


def _skewed_distance(offsets: list[npt.NDArray[np.floating]], rng: np.random.Generator) -> Floats:
    """Distance in mm from the centre, stretched at random along three random axes."""
    axes, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    stretch = rng.lognormal(0, 0.22, 3)
    stretch /= np.prod(stretch) ** (1 / 3)
    z, y, x = np.ix_(*(offset.astype(np.float32) for offset in offsets))
    squared: Floats = np.zeros(np.broadcast_shapes(z.shape, y.shape, x.shape), np.float32)
    for axis in (axes / stretch).T.astype(np.float32):
        squared += np.square(axis[0] * z + axis[1] * y + axis[2] * x)
    distance: Floats = np.sqrt(squared)
    return distance


def _grown(score: Floats, count: int, seed: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """About `count` voxels of low finite score that hang together with the seed.

    Bumps cut islands off; as many voxels more are taken until what is left is large enough.
    """
    ranked = np.sort(score[np.isfinite(score)])
    where = np.zeros(score.shape, dtype=bool)
    taken = count
    for _ in range(_GROWTH_TRIES):
        taken = min(taken, ranked.size)
        if taken == 0:
            break
        labels, _ = ndimage.label(score <= ranked[taken - 1], _TOUCHING)
        where = labels == labels[seed] if labels[seed] else np.zeros(score.shape, dtype=bool)
        missing = count - int(where.sum())
        if missing <= 0.01 * count or taken == ranked.size:
            break
        taken += missing
    return where
