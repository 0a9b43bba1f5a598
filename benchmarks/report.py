"""A whole-body study's report, beside nilearn's HTML viewer: time, memory, size, and time to open.

    python benchmarks/report.py [--seed 10] [--repeats 3]

A simulated 400 × 400 × 326 study with 20 balls for lesions is written as a page, each way in a process of its
own: ours with projections, lesions and measures, nilearn's `view_img` with the CT under the PET. Where
Chromium and Playwright are there, our page is opened from disk in a browser without a graphics card.
Projections are also counted beside `scipy.ndimage.rotate` at the same resolution.
"""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from machine import describe, peak_memory_gb

from petlesion.volume import Study, Volume

LESIONS = 20
CHROMIUM_FLAGS = ["--headless", "--no-sandbox", "--disable-gpu"]


def simulate_to(path: Path, seed: int) -> None:
    from petlesion.simulation.study import SimulationSettings, simulate

    study = simulate(seed, SimulationSettings(slices=326))
    np.savez(
        path,
        pet=study.pet.array,
        ct=study.ct.array,
        reference=balls_in_body(study),
        affine=study.pet.affine,
    )


def balls_in_body(study: Study) -> np.ndarray:
    """A mask of balls of 5 to 15 mm radius at random places in the body."""
    rng = np.random.default_rng(0)
    spacing = np.array(study.pet.spacing_mm)
    body = np.argwhere(study.ct.array[::4, ::4, ::4] > -200) * 4
    mask = np.zeros(study.pet.shape, dtype=bool)
    for centre in rng.choice(body, LESIONS, replace=False):
        radius = rng.uniform(5, 15)
        low = np.maximum(centre - np.ceil(radius / spacing).astype(int), 0)
        high = centre + np.ceil(radius / spacing).astype(int) + 1
        part = mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
        offset = (np.indices(part.shape).reshape(3, -1).T + low - centre) * spacing
        part |= (np.linalg.norm(offset, axis=1) <= radius).reshape(part.shape)
    return mask


def load(path: Path) -> Study:
    with np.load(path) as arrays:
        volumes = {name: Volume(arrays[name], arrays["affine"]) for name in ("pet", "ct", "reference")}
    return Study("simulated", **volumes)


def ours(study: Study, page: Path) -> str:
    from petlesion.lesions import measure_lesions
    from petlesion.report.html import ReportFacts, write_report

    table = measure_lesions(study.reference, study.pet)
    write_report(page, study, study.reference, table, ReportFacts(created="2026-01-01T00:00:00+00:00"))
    return f"{table.count} lesions"


def nilearns(study: Study, page: Path) -> str:
    import nibabel
    from nilearn.plotting import view_img

    pet, ct = (nibabel.Nifti1Image(v.array.T, v.affine) for v in (study.pet, study.ct))
    options = {"vmin": 0, "vmax": 10, "symmetric_cmap": False, "resampling_interpolation": "nearest"}
    view_img(pet, bg_img=ct, **options).save_as_html(page)
    return ""


WAYS = {"petlesion": ours, "nilearn": nilearns}


def best_of(repeats: int, work: Callable[[], object]) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def measure(way: str, data: Path, page: Path, repeats: int) -> tuple[float, float, str]:
    """Seconds, the process's peak memory in GB with the study in it, and a note."""
    study = load(data)
    note = WAYS[way](study, page)
    seconds = best_of(repeats, lambda: WAYS[way](study, page))
    return seconds, peak_memory_gb(), note


def measure_projections(data: Path, repeats: int) -> tuple[float, float, int]:
    """Seconds for our projections, for half as many by scipy from the same cubes, and their number."""
    from scipy import ndimage

    from petlesion.report.body import body_box, cropped
    from petlesion.report.projections import ANGLES, PIXEL_MM, maximum_projections

    study = load(data)
    box = body_box(study, study.reference.array)
    pet, lesions = cropped(study.pet, box), cropped(study.reference, box)
    steps = [s / PIXEL_MM for s in pet.spacing_mm]

    def by_rotation() -> None:
        cubes = ndimage.zoom(pet.array, steps, order=1)
        for index in range(ANGLES // 2):
            ndimage.rotate(cubes, 360 * index / ANGLES, axes=(1, 2), reshape=False, order=1).max(axis=1)

    return best_of(repeats, lambda: maximum_projections(pet, lesions)), best_of(1, by_rotation), ANGLES


def seconds_to_open(page: Path, repeats: int) -> float | None:
    """Seconds from the address of our page to one that can be used; None where there is no browser."""
    program = shutil.which("chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return None
    if program is None:
        return None

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=CHROMIUM_FLAGS)

        def open_once() -> None:
            tab = browser.new_page(viewport={"width": 1280, "height": 720})
            tab.goto(page.as_uri())
            tab.wait_for_selector("body[data-ready]")
            tab.close()

        seconds = best_of(repeats, open_once)
        browser.close()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=10, help="of the simulated study")
    parser.add_argument("--repeats", type=int, default=3, help="the best of so many counts")
    arguments = parser.parse_args()
    fresh = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as name:
        data = Path(name) / "study.npz"
        simulate_to(data, arguments.seed)
        pages = {way: Path(name) / f"{way}.html" for way in WAYS}
        found = {}
        for way, page in pages.items():
            with fresh.Pool(1) as pool:
                found[way] = pool.apply(measure, (way, data, page, arguments.repeats))
        with fresh.Pool(1) as pool:
            turning, rotating, frames = pool.apply(measure_projections, (data, arguments.repeats))
        opened = seconds_to_open(pages["petlesion"], arguments.repeats)
        sizes = {way: page.stat().st_size / 1e6 for way, page in pages.items()}
    print(f"{describe()}; best of {arguments.repeats}; seed {arguments.seed}")
    for way, (seconds, gigabytes, note) in found.items():
        size = f"{sizes[way]:6.2f} MB"
        print(f"{way:10} {seconds:6.2f} s   peak {gigabytes:.2f} GB   {size}   {note}")
    print(f"nilearn / petlesion: {found['nilearn'][0] / found['petlesion'][0]:.1f}")
    print("petlesion's page " + (f"opens in {opened:.2f} s" if opened else "was not opened: no browser"))
    ratio = rotating / turning
    print(f"{frames} projections {turning:.2f} s; half as many by scipy {rotating:.2f} s: {ratio:.1f}")


if __name__ == "__main__":
    main()
