"""Compare simulated studies with the real figures at hand, as docs/simulation.md shows them.

    python benchmarks/simulation.py --studies 200 --spacing 4 [--data FOLDER] [--pictures docs/images]

Prints Markdown tables: share of studies with lesions, their number and volume, SUV and HU inside lesions, and
the SUV of organs. With --data, the real figures in that folder are held against those in the simulator.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from machine import peak_memory_gb
from scipy import ndimage

from petlesion.lesions import component_sizes, label_components
from petlesion.simulation import SimulationSettings
from petlesion.simulation.body import Tissue
from petlesion.simulation.burden import (
    COMPONENT_VOLUME_ML,
    COMPONENTS_PER_STUDY,
    PROBABILITIES,
    SHARE_WITH_LESIONS,
    TOTAL_VOLUME_ML,
)
from petlesion.simulation.study import Simulation, simulate_in_full, study_seed

Floats = npt.NDArray[np.float64]

# Inside lesions, each study weighing the same: the released nnU-Net fingerprint of the 919 autoPET studies.
REAL_SUV = {"mean": 5.721, "median": 4.119, "p0.5": 1.072, "p99.5": 31.37}
REAL_HU = {"mean": -5.005, "median": 52.097, "p0.5": -872.845, "p99.5": 601.373}
REAL_HU_STD = 233.0
# Between which SUVs an organ's median should lie, and what that was read from.
LITERATURE: dict[Tissue, tuple[float, float, str]] = {
    Tissue.LIVER: (1.5, 2.7, "1.87 ± 0.42 (Liu 2019); 2 to 2.5 in most readings"),
    Tissue.BLOOD: (1.3, 2.2, "1.55 ± 0.38 (Boktor 2013)"),
    Tissue.SPLEEN: (1.3, 2.5, "below the liver, below 2.5 (Wang 2007)"),
    Tissue.CEREBELLUM: (5.8, 10.2, "8.0 ± 2.2 (Wang 2007)"),
    Tissue.GREY_MATTER: (6.0, 12.0, "9.14 ± 1.83 after three hours (DOI 10.1967/s002449910902)"),
    Tissue.TONSIL: (2.0, 4.9, "3.45 ± 1.4 (Wang 2007)"),
    Tissue.TESTIS: (2.0, 3.2, "2.57 ± 0.56 (Wang 2007)"),
    Tissue.MYOCARDIUM: (2.0, 12.0, "none in 36 % (PMC7408629), else 2 to 12, few up to 16, by judgement"),
    Tissue.MUSCLE: (0.4, 1.0, "well below blood (Wang 2007: below 2.5)"),
    Tissue.LUNG: (0.3, 0.8, "well below blood (Wang 2007: below 2.5)"),
    Tissue.RED_MARROW: (0.9, 2.4, "between blood and liver, below 2.5 (Wang 2007)"),
}


@dataclass
class Collected:
    """What is gathered study by study."""

    seconds: list[float] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    volumes_ml: list[float] = field(default_factory=list)
    totals_ml: list[float] = field(default_factory=list)
    suv: list[Floats] = field(default_factory=list)
    hu: list[Floats] = field(default_factory=list)
    organs: dict[Tissue, list[float]] = field(default_factory=lambda: defaultdict(list))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=200, help="dozens at least, for quantiles")
    parser.add_argument(
        "--spacing", type=float, nargs="+", default=[4.0], help="of all axes, or of z, y and x, in mm"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, help="folder with autopet_lesions.json")
    parser.add_argument("--pictures", type=Path, help="folder for the coronal projections of ten studies")
    arguments = parser.parse_args()
    if len(arguments.spacing) not in (1, 3):
        parser.error("--spacing takes one number or three")
    z, y, x = arguments.spacing if len(arguments.spacing) == 3 else 3 * arguments.spacing
    settings = SimulationSettings((z, y, x))
    collected, shown = Collected(), []
    for number in range(arguments.studies):
        start = time.perf_counter()
        simulation = simulate_in_full(study_seed(arguments.seed, number), settings)
        collected.seconds.append(time.perf_counter() - start)
        gather(collected, simulation)
        if number < 10:
            shown.append(simulation)
    voxel_ml = z * y * x / 1000
    print(lesion_table(collected, voxel_ml))
    print(intensity_table(collected))
    print(organ_table(collected))
    print(f"Seconds a study: median {np.median(collected.seconds):.2f}, most {max(collected.seconds):.2f}.")
    print(f"Highest memory: {peak_memory_gb():.2f} GB.")
    if arguments.data:
        check_figures(arguments.data)
    if arguments.pictures:
        draw(shown, arguments.pictures)


def gather(collected: Collected, simulation: Simulation) -> None:
    study = simulation.study
    assert study.reference is not None and study.ct is not None
    mask = study.reference.array
    if mask.any():
        labels, count = label_components(mask)
        sizes = component_sizes(labels, count)
        collected.counts.append(count)
        collected.volumes_ml += (sizes * study.pet.voxel_volume_ml).tolist()
        collected.totals_ml.append(float(sizes.sum()) * study.pet.voxel_volume_ml)
        collected.suv.append(study.pet.array[mask].astype(float))
        collected.hu.append(study.ct.array[mask].astype(float))
    healthy = ~ndimage.binary_dilation(mask, iterations=2)
    for tissue in LITERATURE:
        organ = (simulation.tissue.array == tissue) & healthy
        core = ndimage.binary_erosion(organ)
        where = core if core.sum() >= 8 else organ
        if where.sum() >= 4:
            collected.organs[tissue].append(float(study.pet.array[where].mean()))


def distance_to_quantiles(sample: Sequence[float], quantiles: Sequence[float], least: float) -> float:
    """Kolmogorov–Smirnov distance on a log scale; values below `least` count as `least` on both sides.

    The real distribution is known by its quantiles: at a value that several of them share it jumps.
    """
    known = np.maximum(np.array(quantiles, float), least)
    values = np.maximum(np.sort(np.array(sample, float)), least)
    points = np.unique(np.concatenate([values, known]))
    worst = 0.0
    for point in points:
        ours = np.mean(values <= point * (1 + 1e-9))
        worst = max(worst, abs(ours - _known_share(point, known)))
    return worst


def _known_share(point: float, known: Floats) -> float:
    """Share of the real values up to a point: the upper end of a jump, log-linear between quantiles."""
    upper = int(np.searchsorted(known, point * (1 + 1e-9), side="right"))
    if upper == 0:
        return 0.0
    if upper == len(known):
        return 1.0
    low, high = np.log(known[upper - 1]), np.log(known[upper])
    share = (np.log(point) - low) / (high - low)
    return float(PROBABILITIES[upper - 1] + share * (PROBABILITIES[upper] - PROBABILITIES[upper - 1]))


def count_distance(counts: Sequence[int]) -> float:
    """Kolmogorov–Smirnov distance of whole numbers, taken where the real quantiles tell the share exactly."""
    known = np.array(COMPONENTS_PER_STUDY)
    worst = 0.0
    for value in np.unique(known)[:-1]:
        # The real share of studies with at most `value` lies between these two quantiles.
        last = int(np.flatnonzero(known == value)[-1])
        low, high = PROBABILITIES[last], PROBABILITIES[last + 1]
        ours = float(np.mean(np.array(counts) <= value))
        worst = max(worst, low - ours, ours - high)
    return worst


def lesion_table(collected: Collected, voxel_ml: float) -> str:
    studies = len(collected.seconds)
    counts, volumes, totals = collected.counts, collected.volumes_ml, collected.totals_ml
    volume_distance = distance_to_quantiles(volumes, COMPONENT_VOLUME_ML, voxel_ml)
    total_distance = distance_to_quantiles(totals, TOTAL_VOLUME_ML, voxel_ml)
    rows = [
        ("studies with lesions", f"{SHARE_WITH_LESIONS:.3f}", f"{len(counts) / studies:.3f}", ""),
        _row("lesions in such a study", COMPONENTS_PER_STUDY, counts, count_distance(counts)),
        _row("volume of a lesion, mL", COMPONENT_VOLUME_ML, volumes, volume_distance),
        _row("volume of all, mL", TOTAL_VOLUME_ML, totals, total_distance),
    ]
    header = "| | real (10, 50, 90 %) | simulated (10, 50, 90 %) | KS distance |\n| --- | --- | --- | --- |\n"
    return header + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _row(name: str, quantiles: Sequence[float], sample: Sequence[float], distance: float) -> tuple[str, ...]:
    real = [float(np.interp(p, PROBABILITIES, quantiles)) for p in (0.1, 0.5, 0.9)]
    ours = np.quantile(np.array(sample, float), (0.1, 0.5, 0.9))
    return name, _list(real), _list(ours), f"{distance:.3f}"


def _list(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.3g}" for value in values)


def intensity_table(collected: Collected) -> str:
    lines = ["| inside lesions | real | simulated | ratio |", "| --- | --- | --- | --- |"]
    for name, real, studies in (("SUV", REAL_SUV, collected.suv), ("HU", REAL_HU, collected.hu)):
        ours = weighted_figures(studies)
        for figure, value in real.items():
            lines.append(
                f"| {name} {figure} | {value:.4g} | {ours[figure]:.4g} | {ours[figure] / value:.2f} |"
            )
    shift = (weighted_figures(collected.hu)["mean"] - REAL_HU["mean"]) / REAL_HU_STD
    lines.append(
        f"\nThe mean HU differ by {shift:+.2f} standard deviations of the real HU ({REAL_HU_STD:.0f}).\n"
    )
    return "\n".join(lines)


def weighted_figures(studies: Sequence[Floats]) -> dict[str, float]:
    """Mean, median and percentiles with the same weight for each study, as nnU-Net's fingerprint samples."""
    values = np.concatenate(studies)
    weights = np.concatenate([np.full(len(study), 1 / len(study)) for study in studies])
    order = np.argsort(values)
    share = np.cumsum(weights[order]) / weights.sum()

    def at(p: float) -> float:
        return float(values[order][np.searchsorted(share, p)])

    mean = float(np.average(values, weights=weights))
    return {"mean": mean, "median": at(0.5), "p0.5": at(0.005), "p99.5": at(0.995)}


def organ_table(collected: Collected) -> str:
    lines = [
        "| organ | published SUV | median wanted | simulated median (10 to 90 %) |",
        "| --- | --- | --- | --- |",
    ]
    for tissue, (least, most, text) in LITERATURE.items():
        low, middle, high = np.quantile(collected.organs[tissue], (0.1, 0.5, 0.9))
        name = tissue.name.lower().replace("_", " ")
        missed = "" if least <= middle <= most else ", missed"
        lines.append(
            f"| {name} | {text} | {least:g} to {most:g}{missed} | {middle:.2f} ({low:.2f} to {high:.2f}) |"
        )
    return "\n".join(lines) + "\n"


def check_figures(data: Path) -> None:
    """Hold the figures in the simulator against the published ones."""
    real = json.loads((data / "autopet_lesions.json").read_text(encoding="utf-8"))
    assert tuple(real["components_per_positive_study"]) == COMPONENTS_PER_STUDY
    assert tuple(real["component_volume_ml"]) == COMPONENT_VOLUME_ML
    assert tuple(real["total_lesion_volume_ml_per_positive_study"]) == TOTAL_VOLUME_ML
    assert tuple(real["probabilities"]) == PROBABILITIES
    intensity = real["lesion_voxel_intensity"]
    assert all(intensity["SUV"][key] == value for key, value in REAL_SUV.items())
    assert all(intensity["CT_HU"][key] == value for key, value in REAL_HU.items())


def draw(simulations: Sequence[Simulation], folder: Path) -> None:
    """Coronal projections of the PET with the lesions' outline, and a coronal slice of the CT below."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, len(simulations), figsize=(1.5 * len(simulations), 7.2), squeeze=False)
    for column, simulation in zip(axes.T, simulations, strict=True):
        study = simulation.study
        assert study.reference is not None and study.ct is not None
        column[0].imshow(study.pet.array.max(axis=1)[::-1], cmap="gray_r", vmin=0, vmax=8)
        outline = study.reference.array.any(axis=1)[::-1]
        if outline.any():
            column[0].contour(outline, [0.5], colors="tab:red", linewidths=0.4)
        body = np.flatnonzero((simulation.tissue.array > 0).any(axis=(0, 2)))
        middle = int(body.mean())
        column[1].imshow(study.ct.array[::-1, middle], cmap="gray", vmin=-250, vmax=350)
        for axis in column:
            axis.axis("off")
    figure.subplots_adjust(0, 0, 1, 1, 0.02, 0.02)
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "simulated_studies.png", dpi=90)


if __name__ == "__main__":
    main()
