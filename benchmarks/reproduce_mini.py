"""The paper's experiments on a cohort that fits a laptop: Table 2, Table 3, Figure 1 from the commands.

    python benchmarks/reproduce_mini.py --work DIR -o docs/reproduction [--studies FOLDER]

FOLDER holds a folder per study with PET, CT and SEG; without it the cohort is simulated. Every row of Table 2
is scaled alike: a quarter of the patch, an eighth of the features, a five-hundredth of the epochs with 200
iterations in place of 250, and ten times the printed learning rate, since there are so few steps; five folds
for b and one for the others. The numbers show that the machinery works; they are not the paper's accuracy.
Started again, it goes on where it was.

The simulated studies are such that so few steps can teach something: most have one large lesion and at most
eight small ones, PET is scaled alike in all of them, where the paper's rows z-score it study by study, and
the learning rate is a hundred times the printed one, but at most 0.2.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from petlesion.cohort.layout import add_study, create_cohort, is_complete
from petlesion.experiments import EXPERIMENTS, PUBLISHED, Experiment
from petlesion.io.atomic import write_text
from petlesion.simulation import SimulationSettings, simulate
from petlesion.simulation.study import study_name

# The first seeds of at most nine planned lesions, the largest with 80 to 400 mL and SUV 4 or more.
SEEDS_WITH_ONE_LARGE_LESION = (
    11, 17, 35, 45, 51, 66, 84, 90, 100, 139, 155, 160, 166, 184, 200,
    215, 221, 239, 249, 255, 294, 304, 309, 310, 315, 333, 339, 359, 370, 388,
)  # fmt: skip
SEEDS_WITHOUT_LESION = (0, 2, 4, 5, 7, 10)
SPACING_MM = 6.0
TEST_SHARE = 0.2
ALL_FOLDS = "0,1,2,3,4"
PATCH_SCALE, FEATURE_SCALE, EPOCH_SCALE = 4, 8, 500
LEARNING_RATE_SCALE, SIMULATED_LEARNING_RATE_SCALE, HIGHEST_LEARNING_RATE = 10, 100, 0.2
ITERATIONS = 200


@dataclass(frozen=True)
class Places:
    """Where the cohort and the runs lie, where the tables go, and where the studies come from."""

    work: Path
    out: Path
    studies: Path | None

    @property
    def cohort(self) -> Path:
        return self.work / "Dataset900_Mini"

    def run(self, experiment: str) -> Path:
        return self.work / "results" / self.cohort.name / f"{experiment}__nnUNetPlans__3d_fullres"


def scaled(experiment: Experiment, *, simulated: bool) -> list[str]:
    """The settings that make a row small, as arguments of petlesion train."""
    assert experiment.patch_size is not None
    patch = "x".join(str(size // PATCH_SCALE) for size in experiment.patch_size)
    rate_scale = SIMULATED_LEARNING_RATE_SCALE if simulated else LEARNING_RATE_SCALE
    settings = {
        "epochs": round(experiment.epochs / EPOCH_SCALE),
        "iterations": ITERATIONS,
        "patch_size": patch,
        "base_features": experiment.base_features // FEATURE_SCALE,
        "max_features": experiment.max_features // FEATURE_SCALE,
        "learning_rate": min(rate_scale * PUBLISHED[experiment.name].learning_rate, HIGHEST_LEARNING_RATE),
        "pet_normalization": "cohort" if simulated else experiment.pet_normalization,
    }
    return [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]


def petlesion(*arguments: str | Path) -> str:
    """Run a command of petlesion and return what it prints; what it says goes to the terminal."""
    words = [str(argument) for argument in arguments]
    print(f"$ petlesion {shlex.join(words)}", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "petlesion", *words]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def make_cohort(places: Places) -> None:
    if (places.cohort / "splits_final.json").exists():
        return
    if places.studies is not None:
        petlesion("cohort", "build", places.studies, "-o", places.cohort)
    else:
        simulate_cohort(places.cohort)
    petlesion("cohort", "split", places.cohort, "--test-share", str(TEST_SHARE))


def simulate_cohort(folder: Path) -> None:
    """Make the studies of the seeds above into a cohort, or what of them is missing."""
    cohort = create_cohort(folder)
    for seed in (*SEEDS_WITH_ONE_LARGE_LESION, *SEEDS_WITHOUT_LESION):
        name = study_name(seed)
        if not is_complete(cohort, name):
            study = simulate(seed, SimulationSettings((SPACING_MM,) * 3))
            cohort = add_study(cohort, study, case_id=name, patient_id=name, source="simulated")
            print(f"simulated {name}", file=sys.stderr, flush=True)


def run_experiment(places: Places, name: str) -> None:
    """Train a row, export it, predict and score its held-out studies and the test set."""
    run, cohort = places.run(name), places.cohort
    folds = ALL_FOLDS if name == "b" else "0"
    results = places.work / "results"
    settings = scaled(EXPERIMENTS[name], simulated=places.studies is None)
    petlesion("train", cohort, "-e", name, "-f", folds, "-o", results, *settings)
    bundle = run / "bundle"
    if not bundle.exists():
        petlesion("model", "export", run, "-o", bundle)
    choices = {"cross_validation": ["--held-out"], "test": ["--fold-average", "probabilities"]}
    for part, choice in choices.items():
        predictions = run / part / "predictions"
        petlesion("predict", bundle, cohort, *choice, "-o", predictions)
        petlesion("evaluate", predictions, cohort, "-o", run / part / "metrics.csv")


def write_tables(places: Places, minutes: dict[str, float]) -> None:
    runs = [places.run(name) for name in PUBLISHED]
    b = places.run("b")
    predictions = b / "test" / "predictions"
    for style, ending in (("markdown", "md"), ("csv", "csv"), ("latex", "tex")):
        table_2 = petlesion("experiment", "compare", *runs, "--cases", places.cohort, "--format", style)
        write_text(places.out / f"table2.{ending}", table_2)
        table_3 = petlesion("sweep", predictions, places.cohort, "--cases", places.cohort, "--format", style)
        write_text(places.out / f"table3.{ending}", table_3)
    for ending in ("png", "svg"):
        figure = places.out / f"figure1.{ending}"
        petlesion("experiment", "figure", b / "cross_validation" / "predictions", places.cohort, "-o", figure)
    lines = ["| row | minutes |", "| --- | ---: |"]
    lines += [f"| {name} | {spent:.1f} |" for name, spent in minutes.items()]
    write_text(places.out / "times.md", "\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="folder for the cohort and the runs")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder for the tables and the figure")
    parser.add_argument("--studies", type=Path, help="folder of studies to take instead of simulating them")
    arguments = parser.parse_args()
    places = Places(arguments.work, arguments.out, arguments.studies)
    minutes = {}
    started = time.perf_counter()
    make_cohort(places)
    minutes["the cohort"] = (time.perf_counter() - started) / 60
    for name in PUBLISHED:
        started = time.perf_counter()
        run_experiment(places, name)
        minutes[name] = (time.perf_counter() - started) / 60
    write_tables(places, minutes)


if __name__ == "__main__":
    main()
