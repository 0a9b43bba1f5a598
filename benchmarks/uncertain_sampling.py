"""Whether drawing patches where an earlier run was unsure or wrong helps, at the same number of iterations.

    python benchmarks/uncertain_sampling.py COHORT --earlier-run RUN -o DIR
        [--seeds 3] [--folds 0,1,2] [--set KEY=VALUE] [--test OTHER] [--no-mirror] [--device cpu]

For each seed the earlier run's own experiment, with what --set changes, is trained twice: with sampling=cases
and with sampling=uncertain. Both predict and score what their folds held out, and the cohort's test set where
it has one, or in its place that of another cohort (--test). Prints tables in Markdown: the averages, and the
difference of each seed and of their mean, paired by study, with its interval over resampled patients. Started
again, it goes on where it was.

The earlier run needs held-out probabilities of all folds that are trained on, so of all of the cohort's:
petlesion predict RUN COHORT --held-out --probabilities -o RUN/cross_validation/predictions
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
from machine import describe

from petlesion.cohort.layout import Cohort
from petlesion.evaluation.compare import SCORINGS, compare_rows, metrics_path, read_experiment
from petlesion.evaluation.metrics import read_metrics
from petlesion.evaluation.summary import summarize
from petlesion.evaluation.tables import SCORING_TITLES, differences_table, render, summary_table
from petlesion.experiments import Experiment, with_settings
from petlesion.inference.backends.openvino import choose_precision
from petlesion.overlap import StudyMetrics
from petlesion.training.run import run_folder
from petlesion.training.trainer import TrainingOptions, train

ARMS = ("cases", "uncertain")
Scores = Mapping[str, list[StudyMetrics]]


def main() -> None:
    options = parse()
    cohort = Cohort.open(options.cohort)
    options.test = Cohort.open(options.test or options.cohort)
    scores: dict[str, list[Scores]] = {arm: [] for arm in ARMS}
    for seed in range(options.seeds):
        for arm in ARMS:
            scores[arm].append(score(cohort, arm, seed, options))
    print(f"{describe()}\n\n{cohort.name}, folds {options.folds}, seeds of each: {options.seeds}\n")
    patients = {case.case_id: case.patient_id for case in cohort.cases}
    patients |= {case.case_id: case.patient_id for case in options.test.cases}
    for scoring in SCORINGS if options.test.test_cases else SCORINGS[:1]:
        tell(scoring, {arm: [one[scoring] for one in scores[arm]] for arm in ARMS}, patients)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cohort", type=Path)
    parser.add_argument("--earlier-run", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folds", default="0,1,2")
    parser.add_argument("--set", dest="changes", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--test", type=Path, metavar="OTHER", help="cohort with the test set")
    parser.add_argument(
        "--mirror", action=argparse.BooleanOptionalAction, help="in prediction, if not as trained"
    )
    parser.add_argument("--step", type=float, default=0.5, help="of the tiles in prediction, in patches")
    parser.add_argument("--device", default="auto")
    return parser.parse_args()


def score(cohort: Cohort, arm: str, seed: int, options: argparse.Namespace) -> Scores:
    """Train an arm with a seed; return its metrics of the held-out studies and of a test set."""
    experiment = experiment_of(arm, seed, options)
    results = options.output / arm / f"seed_{seed}"
    training = TrainingOptions(options.device, preprocessed=options.output / "preprocessed", say=say)
    for fold in options.folds.split(","):
        say(f"{arm}, seed {seed}, fold {fold}")
        train(cohort, experiment, int(fold), results, training)
    run = run_folder(results, cohort.name, experiment)
    choice = ["--device", options.device, "--precision", choose_precision("auto")]
    choice += ["--step", str(options.step)]
    if options.mirror is not None:
        choice.append("--mirror" if options.mirror else "--no-mirror")
    scores = {SCORINGS[0]: predict(run, cohort, SCORINGS[0], "--held-out", *choice)}
    if options.test.test_cases:
        scores[SCORINGS[1]] = predict(run, options.test, SCORINGS[1], *choice)
    return scores


def experiment_of(arm: str, seed: int, options: argparse.Namespace) -> Experiment:
    """The earlier run's experiment with the changes, the seed and the arm's sampling of any case."""
    earlier = replace(
        read_experiment(options.earlier_run), sampling="cases", earlier_run=None, oversampled_cases="all"
    )
    changed = with_settings(earlier, options.changes)
    taken = str(options.earlier_run) if arm == "uncertain" else None
    return replace(changed, seed=seed, sampling=arm, earlier_run=taken)


def predict(run: Path, cohort: Cohort, scoring: str, *choice: str) -> list[StudyMetrics]:
    """Predict and evaluate what is not there yet, and read the metrics."""
    predictions, metrics = run / scoring / "predictions", metrics_path(run, scoring)
    petlesion("predict", run, cohort.folder, *choice, "-o", predictions)
    petlesion("evaluate", predictions, cohort.folder, "-o", metrics)
    return read_metrics(metrics)


def petlesion(*arguments: str | Path) -> None:
    subprocess.run([sys.executable, "-m", "petlesion", *map(str, arguments)], stdout=sys.stderr, check=True)


def tell(scoring: str, scores: Mapping[str, list[list[StudyMetrics]]], patients: Mapping[str, str]) -> None:
    """Print the averages of a scoring, and the differences of each seed and of the seeds' mean."""
    means = {arm: mean_of_seeds(rows) for arm, rows in scores.items()}
    averages = {f"{SCORING_TITLES[scoring]}, {arm}": summarize(rows, patients) for arm, rows in means.items()}
    print(render(summary_table(averages, "mean of seeds"), "markdown"))
    pairs = {f"seed {seed}": pair for seed, pair in enumerate(zip(*scores.values(), strict=True))}
    pairs["mean of seeds"] = tuple(means.values())
    differences = [
        difference
        for name, (plain, uncertain) in pairs.items()
        for difference in compare_rows(("cases", f"{name}: uncertain"), scoring, (plain, uncertain), patients)
    ]
    print(render(differences_table(differences), "markdown"))


def mean_of_seeds(runs: Sequence[Sequence[StudyMetrics]]) -> list[StudyMetrics]:
    """Each study's metrics, averaged over the seeds; a value that a seed lacks is left undefined."""
    by_case = [{row.case_id: row for row in rows} for rows in runs]
    return [mean_row([rows[case_id] for rows in by_case]) for case_id in by_case[0]]


def mean_row(rows: Sequence[StudyMetrics]) -> StudyMetrics:
    means = {}
    for field in fields(StudyMetrics)[1:]:
        values = [getattr(row, field.name) for row in rows]
        means[field.name] = None if None in values else float(np.mean(values))
    return replace(rows[0], **means)


def say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
