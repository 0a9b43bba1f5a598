"""Whether a model's probabilities keep their word, on studies that had no part in its calibration.

    python benchmarks/confidence.py MODEL COHORT -o DIR [--held-out] [--mirror | --no-mirror]

Without --held-out, a calibrated model predicts the cohort's test set by all its folds, and its own
calibration is scored. With it, each training study is predicted by the fold that did not see it, and judged
by a calibration of other patients. Prints tables in Markdown, for all studies and for each source, and
writes the figures of each, and what each study tells, to DIR.

The confidence that is held against size 10 on the test set is picked with --held-out, which keeps it in DIR
and scores nothing by it: no study is scored by a threshold that it had a part in.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from machine import describe

from petlesion.calibration.cross_fit import Judged, cross_fitted
from petlesion.calibration.stored import calibration_of
from petlesion.calibration.typical import what_is_unusual
from petlesion.cli.calibrate import EvidenceFolder, gather
from petlesion.cli.predict import Task, check_unseen, held_out_tasks
from petlesion.cohort.layout import Cohort
from petlesion.errors import UsageError
from petlesion.evaluation.confidence import dice_pairs, sweep_by_confidence, sweep_by_size
from petlesion.evaluation.confidence_figures import (
    dice_figure,
    reliability_figure,
    risk_coverage_figure,
    sweep_figure,
)
from petlesion.evaluation.confidence_tables import confidence_table, sweep_of_confidence_table
from petlesion.evaluation.figures import write_figure
from petlesion.evaluation.summary import Summary
from petlesion.evaluation.tables import render
from petlesion.inference.predict import Model, PredictionSettings, load_model
from petlesion.io.atomic import write_text

Sweeps = tuple[Mapping[int, Summary], Mapping[float, Summary]]

SIZES = (0, 5, 10, 20, 40, 80)
CONFIDENCES = (0, 0.01, 0.02, 0.03, 0.05, 0.07, *(round(0.1 * n, 1) for n in range(1, 10)), 0.95)


def main() -> None:
    options = parse(__doc__)
    cohort, model = Cohort.open(options.cohort), load_model(options.model, device=options.device)
    patients = {case.case_id: case.patient_id for case in cohort.cases}
    studies = judge(cohort, model, options, patients)
    print(f"{describe()}\n\n{model.name} on {cohort.name}\n")
    for title, part in by_source(studies, cohort).items():
        print(f"{title}\n")
        sweeps = sweep_by_size(part, SIZES, patients), sweep_by_confidence(part, CONFIDENCES, patients)
        figures = options.output / "figures" / part_of(options) / title.replace(" ", "-")
        report(part, patients, sweeps, figures)
        picked = options.output / f"picked_{title.replace(' ', '-')}.json"
        if options.held_out:
            write_text(picked, json.dumps(pick_confidence(*sweeps)) + "\n")
        elif picked.is_file():
            print(tell_of_size_10(*sweeps, json.loads(picked.read_text())))


def parse(description: str | None) -> argparse.Namespace:
    """The command line of what measures a calibrated model."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("cohort", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--held-out", action="store_true")
    parser.add_argument("--mirror", action=argparse.BooleanOptionalAction)
    parser.add_argument("--device", default="auto")
    return parser.parse_args()


def part_of(options: argparse.Namespace) -> str:
    """Which studies are looked at, as a folder's name."""
    return "held_out" if options.held_out else "test"


def by_source(studies: list[Judged], cohort: Cohort) -> dict[str, list[Judged]]:
    """All studies, and where they come from several sources, those of each."""
    parts: dict[str, list[Judged]] = {}
    for study in studies:
        case = cohort.find(study.evidence.case_id)
        assert case is not None
        parts.setdefault(case.source, []).append(study)
    return parts if len(parts) == 1 else {"all sources": studies, **dict(sorted(parts.items()))}


def report(studies: list[Judged], patients: Mapping[str, str], sweeps: Sweeps, folder: Path) -> None:
    """Print the tables of some studies, and draw their figures into a folder."""
    by_size, by_confidence = sweeps
    print(render(confidence_table(studies, patients), "markdown"))
    print(render(sweep_of_confidence_table(by_size, by_confidence), "markdown"))
    print(tell_of_dice_and_flags(studies))
    for name, figure in {
        "reliability": reliability_figure(studies),
        "risk_coverage": risk_coverage_figure(studies),
        "expected_dice": dice_figure(studies),
        "sweep": sweep_figure(by_size, by_confidence),
    }.items():
        write_figure(folder / f"{name}.svg", figure)


def judge(
    cohort: Cohort, model: Model, options: argparse.Namespace, patients: Mapping[str, str]
) -> list[Judged]:
    """The studies' evidence, each with a calibration that it had no part in."""
    calibration = calibration_of(model)
    if not options.held_out and calibration is None:
        raise UsageError(
            f"{options.model} is not calibrated; run petlesion model calibrate, or give --held-out"
        )
    tasks = (
        list(held_out_tasks(cohort, model))
        if options.held_out
        else [Task(case.case_id, model) for case in cohort.test_cases]
    )
    check_unseen(cohort, model, tasks)
    settings = PredictionSettings(mirror=options.mirror)
    folder = options.output / part_of(options)
    if options.held_out or calibration is None:
        return cross_fitted(gather(EvidenceFolder(folder, cohort, model, settings), tasks), patients)
    target = EvidenceFolder(folder, cohort, model, settings, calibration.needs_uncertainty)
    evidence = gather(target, tasks)
    return [Judged(study, calibration) for study in evidence]


def pick_confidence(by_size: Mapping[int, Summary], by_confidence: Mapping[float, Summary]) -> float:
    """The highest confidence that leaves no more false-negative volume than size 10 does."""
    allowed = false_volumes_ml(by_size[10])[1]
    return max(c for c, summary in by_confidence.items() if false_volumes_ml(summary)[1] <= allowed or c == 0)


def tell_of_size_10(
    by_size: Mapping[int, Summary], by_confidence: Mapping[float, Summary], picked: float
) -> str:
    """False volumes by the confidence that was picked elsewhere, beside those of size 10."""
    (false_positive, false_negative), (of_size_10, missed_by_size_10) = (
        false_volumes_ml(summary) for summary in (by_confidence[picked], by_size[10])
    )
    return (
        f"Confidence {picked:g}, picked on held-out studies, leaves {false_positive:.3f} mL of "
        f"false-positive and {false_negative:.3f} mL of false-negative volume; "
        f"size 10 leaves {of_size_10:.3f} and {missed_by_size_10:.3f} mL.\n"
    )


def false_volumes_ml(summary: Summary) -> tuple[float, float]:
    """Mean false-positive and false-negative volume; 0 where no study has one."""
    return summary.false_positive_volume_ml.value or 0.0, summary.false_negative_volume_ml.value or 0.0


def tell_of_dice_and_flags(studies: list[Judged]) -> str:
    """How expected and achieved Dice go together, and how many studies are flagged."""
    pairs = dice_pairs(studies)
    flagged = sum(
        bool(what_is_unusual(study.evidence.statistics, study.calibration.ranges)) for study in studies
    )
    lines = [f"{flagged} of {len(studies)} studies are flagged as unlike the training data.\n"]
    if len(pairs) > 2:
        related = np.corrcoef([p.expected for p in pairs], [p.achieved for p in pairs])[0, 1]
        lines.append(f"Expected and achieved Dice of {len(pairs)} studies: correlation {related:.3f}.\n")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
