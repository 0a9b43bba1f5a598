"""Measure what goes beyond the paper: ensembles of inputs, loss, confidence, flag, uncertain sampling.

    python benchmarks/beyond.py [PART...] --work DIR --cohort DatasetNNN [--initial MEMBER=CHECKPOINT]

The cohort has patients of the sources "real" and "simulated", as box/cohort.py makes it. All members are
trained as the experiment `box`, changed by --set, for the same number of iterations on the same folds. Parts,
in their order, all unless some are named:
  members      train each member, and predict and score its held-out studies and the simulated test set
  ensemble     every combination of ct-pet, pet, ct and large, chosen in inner folds; then on the test set
               (--members leaves some out)
  loss         generalised Dice beside plain: false volumes and number of components
  confidence   calibrate ct-pet, and all together; their confidence on held-out studies and the test set
  flag         the same models' flag on right studies, and on those made wrong on purpose
  uncertain    ct-pet trained on for a third of its epochs, with patches drawn where it was unsure or wrong
               beside patches drawn anywhere
The test set is simulated from seeds that nothing was trained on. A checkpoint for ct-pet serves the other
members too, unless they have one of their own, and is widened for large; studies of the cohort that it was
trained on are replaced by as many simulated ones, in DIR/Dataset084_Fresh. --every takes a part of the
cohort, into DIR/Dataset085_Thinned. Tables are printed in Markdown, and kept as DIR/tables/PART.md.
Everything goes on where it stopped; a part that fails is told at the end, and the others go on.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from fresh import Simulated
from machine import describe
from widened import widened_checkpoint

from petlesion.cli.ensemble import by_source, choose_among, show_ensembles
from petlesion.cohort.layout import Cohort
from petlesion.errors import PetlesionError
from petlesion.evaluation.compare import SCORINGS, compare_rows, metrics_path
from petlesion.evaluation.ensembles import HeldOutStudy, Selection, overlaps_with
from petlesion.evaluation.metrics import read_metrics
from petlesion.evaluation.summary import summarize
from petlesion.evaluation.tables import differences_table, render, summary_table
from petlesion.experiments import Experiment, find_experiment, with_settings
from petlesion.inference.backends.openvino import choose_precision
from petlesion.io.atomic import atomic_folder, write_text
from petlesion.io.nifti import read_mask, read_volume
from petlesion.overlap import StudyMetrics
from petlesion.training.run import run_folder
from petlesion.training.trainer import TrainingOptions, train

BENCHMARKS = Path(__file__).parent
# About what Table 2's rows d and e are to the others: 1.5 and 1.6.
LARGER_PATCH, MORE_FEATURES = 1.4, 1.6
STEP = 16  # what a patch must be a multiple of
ENSEMBLE = ("ct-pet", "pet", "ct", "large")
PLAIN, GENERALISED = "ct-pet", "generalised-dice"
HELD_OUT, TESTED = SCORINGS
TEST_TITLE = "simulated test set"


@dataclass(frozen=True)
class Work:
    """Where everything lies, what is trained, and on which folds; the answers to the command line."""

    folder: Path
    whole: Cohort
    every: int
    base: Experiment
    folds: str
    members: tuple[str, ...]
    initial: Mapping[str, str]
    test_studies: int
    simulated: Simulated
    seeds: int
    mirror: str
    step: float

    @property
    def results(self) -> Path:
        return self.folder / "results"

    def experiment(self, name: str) -> Experiment:
        """The experiment of a member."""
        changed = replace(self.base, name=name, **changes_of(name, self.base))
        start = self.initial.get(name) or self.initial.get(PLAIN)
        if name == "large" and start and name not in self.initial:
            start = str(widened_checkpoint(Path(start), changed, self.folder / "widened"))
        return replace(changed, initial_weights=start)

    @cached_property
    def cohort(self) -> Cohort:
        """The cohort that was given, or a part of it, without what initial weights have seen."""
        cohort, starts = self.whole, set(self.initial.values())
        if self.every > 1:
            cohort = self.simulated.thinned(self.folder / "Dataset085_Thinned", cohort, self.every)
        return self.simulated.without_seen(self.folder / "Dataset084_Fresh", cohort, starts)

    @cached_property
    def test_cohort(self) -> Cohort:
        """The simulated test set, made if it is not there."""
        return self.simulated.test_set(self.folder / "Dataset083_Unseen", self.test_studies)


def changes_of(name: str, base: Experiment) -> dict[str, object]:
    """What a member changes of the base."""
    if name == "large":
        assert base.patch_size is not None
        patch = tuple(round(LARGER_PATCH * size / STEP) * STEP for size in base.patch_size)
        return {"patch_size": patch, "max_features": round(MORE_FEATURES * base.max_features)}
    return {"loss": "generalised_dice_ce"} if name == GENERALISED else {"input": name}


# Members: trained, predicted and scored.


def make_members(work: Work) -> None:
    """Make all members, and print how each scores by itself."""
    runs = {name: make_member(work, name) for name in (*work.members, GENERALISED)}
    for title, cases in parts_of(work).items():
        summaries = {name: summarize(rows_of(run, cases), cases) for name, run in runs.items()}
        print(f"{title}\n\n{render(summary_table(summaries, 'member'), 'markdown')}")


def make_member(work: Work, name: str) -> Path:
    """The run of a member, with probabilities and metrics of held-out studies and of the test set."""
    experiment = work.experiment(name)
    train_folds(work, experiment, work.results, work.folds)
    run = run_folder(work.results, work.cohort.name, experiment)
    predict(work, run, work.cohort, HELD_OUT, "--held-out")
    predict(work, run, work.test_cohort, TESTED)
    return run


def train_folds(work: Work, experiment: Experiment, results: Path, folds: str) -> None:
    options = TrainingOptions(preprocessed=work.folder / "preprocessed", say=say)
    for fold in folds.split(","):
        say(f"training {experiment.name}, fold {fold}")
        train(work.cohort, experiment, int(fold), results, options)


def predict(work: Work, run: Path, cohort: Cohort, scoring: str, *choice: str) -> None:
    predictions = run / scoring / "predictions"
    choice = (*choice, "--precision", choose_precision("auto"), work.mirror, "--step", str(work.step))
    petlesion("predict", run, cohort.folder, *choice, "--probabilities", "-o", predictions)
    petlesion("evaluate", predictions, cohort.folder, "-o", metrics_path(run, scoring))


def parts_of(work: Work) -> dict[str, dict[str, str]]:
    """Patient by case id of what is reported on: held-out studies by source, and the test set."""
    parts: dict[str, dict[str, str]] = {}
    for case in work.cohort.cases:
        parts.setdefault(f"held out, {case.source}", {})[case.case_id] = case.patient_id
    return {
        **dict(sorted(parts.items())),
        TEST_TITLE: {case.case_id: case.patient_id for case in work.test_cohort.cases},
    }


def rows_of(run: Path, cases: Mapping[str, str]) -> list[StudyMetrics]:
    """A run's metrics of some cases, held out or of the test set."""
    rows = [row for scoring in SCORINGS for row in read_metrics(metrics_path(run, scoring))]
    return [row for row in rows if row.case_id in cases]


# Ensemble: what is chosen on held-out studies, reported on each source and on the test set.


def measure_ensemble(work: Work) -> None:
    runs = [make_member(work, name) for name in work.members]
    _, selection = choose_among(runs, work.cohort)
    for title, part in by_source(selection, work.cohort).items():
        show_ensembles(part, "markdown", f"held out, {title}")
    show_ensembles(on_test_set(work, runs, selection), "markdown", TEST_TITLE)


def on_test_set(work: Work, runs: Sequence[Path], selection: Selection) -> Selection:
    """What was chosen, on the test set."""
    test = work.test_cohort
    chosen = [line.chosen for line in selection.lines]
    studies = []
    for case in test.test_cases:
        name = f"{case.case_id}.nii.gz"
        members = [read_volume(run / TESTED / "predictions" / "probabilities" / name) for run in runs]
        overlaps = overlaps_with(members, read_mask(test.label_path(case.case_id)), chosen)
        studies.append(HeldOutStudy(case.case_id, case.patient_id, overlaps))
    return selection.applied_to(studies)


# Loss: generalised Dice beside plain.


def measure_loss(work: Work) -> None:
    runs = {name: make_member(work, name) for name in (PLAIN, GENERALISED)}
    for title, cases in parts_of(work).items():
        scoring = TESTED if title == TEST_TITLE else HELD_OUT
        rows = {name: rows_of(run, cases) for name, run in runs.items()}
        summaries = {name: summarize(own, cases) for name, own in rows.items()}
        differences = compare_rows((PLAIN, GENERALISED), scoring, (rows[PLAIN], rows[GENERALISED]), cases)
        print(f"{title}\n\n{render(summary_table(summaries, 'loss of'), 'markdown')}")
        print(render(differences_table(differences), "markdown"))


# Confidence and flag: of one member, and of all together.


def measure_confidence(work: Work) -> None:
    for name, bundle in calibrated_models(work).items():
        evidence = evidence_folder(work, name)
        benchmark("confidence", bundle, work.cohort.folder, "--held-out", work.mirror, "-o", evidence)
        benchmark("confidence", bundle, work.test_cohort.folder, work.mirror, "-o", evidence)


def measure_flag(work: Work) -> None:
    for name, bundle in calibrated_models(work).items():
        evidence = evidence_folder(work, name)
        benchmark("flag", bundle, work.cohort.folder, "--held-out", work.mirror, "-o", evidence)
        benchmark("flag", bundle, work.test_cohort.folder, work.mirror, "-o", evidence)


def calibrated_models(work: Work) -> dict[str, Path]:
    """Bundles of one member and of all, calibrated on their held-out studies."""
    bundles = {}
    for name, members in {PLAIN: (PLAIN,), "together": work.members}.items():
        runs = [make_member(work, member) for member in members]
        bundle = bundles[name] = work.folder / "bundles" / name
        if not bundle.exists():
            petlesion("model", "export", *runs, "-o", bundle, "--folds", work.folds, "--name", name)
        held_out = evidence_folder(work, name) / "held_out"
        petlesion("model", "calibrate", bundle, work.cohort.folder, work.mirror, "-o", held_out)
    return bundles


def evidence_folder(work: Work, name: str) -> Path:
    """Where confidence.py keeps what each study tells of a model, and its figures."""
    return work.folder / "confidence" / name


# Uncertain sampling.


def measure_uncertain(work: Work) -> None:
    earlier = earlier_run(work)
    places = ("--earlier-run", earlier, "--test", work.test_cohort.folder, "-o", work.folder / "uncertain")
    size = ("--seeds", work.seeds, "--folds", work.folds, work.mirror, "--step", work.step)
    budget = ("--set", f"epochs={max(1, work.base.epochs // 3)}", "--set", f"initial_weights={earlier}")
    benchmark("uncertain_sampling", work.cohort.folder, *places, *size, *budget)


def earlier_run(work: Work) -> Path:
    """The run of ct-pet with the folds that it lacks: a fold's training looks at what all others held out."""
    experiment = work.experiment(PLAIN)
    results = work.folder / "earlier"
    run = run_folder(results, work.cohort.name, experiment)
    if not run.exists():
        trained = make_member(work, PLAIN)
        with atomic_folder(run) as copy:
            shutil.copytree(trained, copy, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*SCORINGS))
    train_folds(work, experiment, results, ",".join(map(str, range(len(work.cohort.folds)))))
    predict(work, run, work.cohort, HELD_OUT, "--held-out")
    return run


PARTS: Mapping[str, Callable[[Work], None]] = {
    "members": make_members,
    "ensemble": measure_ensemble,
    "loss": measure_loss,
    "confidence": measure_confidence,
    "flag": measure_flag,
    "uncertain": measure_uncertain,
}


def petlesion(*arguments: object) -> None:
    """Run a command of petlesion; what it prints goes where progress goes."""
    command = [sys.executable, "-m", "petlesion", *map(str, arguments)]
    say(f"$ petlesion {shlex.join(command[3:])}")
    subprocess.run(command, stdout=sys.stderr, check=True)


def benchmark(name: str, *arguments: object) -> None:
    """Run another benchmark and print what it prints."""
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), *map(str, arguments)]
    say(f"$ {shlex.join(command[1:])}")
    print(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


def measure(part: str, work: Work) -> bool:
    """Print a part's tables and keep them; whether it came to its end."""
    told = io.StringIO()
    try:
        with contextlib.redirect_stdout(told):
            PARTS[part](work)
    except (PetlesionError, subprocess.CalledProcessError) as error:
        say(f"{part} failed: {error}")
        return False
    write_text(work.folder / "tables" / f"{part}.md", told.getvalue())
    print(f"## {part}\n\n{told.getvalue()}", flush=True)
    return True


def parse() -> tuple[list[str], Work]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help="; ".join(PARTS))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--cohort", type=Path, required=True)
    parser.add_argument(
        "--every", type=int, default=1, metavar="N", help="take every Nth case of each source"
    )
    parser.add_argument("--initial", action="append", default=[], metavar="MEMBER=CHECKPOINT")
    parser.add_argument("--set", dest="changes", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--epochs", type=int, default=10, help="of each member")
    parser.add_argument("--iterations", type=int, default=60, help="in an epoch")
    parser.add_argument("--folds", default="0,1,2")
    parser.add_argument("--members", default=",".join(ENSEMBLE), help="of the ensemble, ct-pet among them")
    parser.add_argument("--test-studies", type=int, default=40, metavar="N")
    parser.add_argument("--spacing", type=float, default=4.0, help="of what is simulated here, in mm")
    parser.add_argument("--seeds", type=int, default=3, help="of either sampling")
    parser.add_argument("--mirror", action="store_true", help="average over mirrored passes too")
    parser.add_argument(
        "--step", type=float, default=0.5, help="of the tiles, where members are predicted, in patches"
    )
    given = parser.parse_args()
    unknown = set(given.parts) - set(PARTS)
    if unknown:
        parser.error(f"there is no part {', '.join(sorted(unknown))}; choose of {', '.join(PARTS)}")
    members = tuple(given.members.split(","))
    if not {PLAIN} <= set(members) <= set(ENSEMBLE):
        parser.error(f"--members are {PLAIN} and others of {', '.join(ENSEMBLE)}, not {given.members}")
    budget = [f"epochs={given.epochs}", f"iterations={given.iterations}"]
    work = Work(
        folder=given.work,
        whole=Cohort.open(given.cohort),
        every=given.every,
        base=with_settings(find_experiment("box"), [*budget, *given.changes]),
        folds=given.folds,
        members=members,
        initial=dict(entry.split("=", 1) for entry in given.initial),
        test_studies=given.test_studies,
        simulated=Simulated(given.spacing),
        seeds=given.seeds,
        mirror="--mirror" if given.mirror else "--no-mirror",
        step=given.step,
    )
    return given.parts or list(PARTS), work


def main() -> None:
    parts, work = parse()
    print(describe())
    failed = [part for part in parts if not measure(part, work)]
    if failed:
        sys.exit(f"not measured: {', '.join(failed)}; start again to go on")


if __name__ == "__main__":
    main()
