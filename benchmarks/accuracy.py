"""How well a model finds real tumours that it has not seen, and simulated ones, beside fixed thresholds.

    python benchmarks/accuracy.py BUNDLE --studies $PETLESION_DATA/sts -o OUT [--peer BUNDLE] [--simulated 40]

Real studies: each is segmented by those networks of the bundle alone that did not train on it (the folds of a
cross-validation), as it is and cut anew at random with three seeds: 0 to 50 mm off each side, which the
training never saw either. Beside it thresholds and an ellipsoid drawn without a look at the image.
Simulated studies, of seeds that no training used, are segmented by all networks together: these figures are
in-domain and no model's accuracy. --peer sets another bundle beside the first. Writes a metrics.csv for each
set and method, and prints the tables in Markdown.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from baselines import METHODS
from machine import describe

from petlesion.cohort.recut import recut
from petlesion.evaluation.metrics import write_metrics
from petlesion.evaluation.summary import summarize
from petlesion.evaluation.tables import render, summary_table
from petlesion.inference.predict import Model, load_model
from petlesion.intake import find_studies, read_source, to_study
from petlesion.overlap import StudyMetrics, evaluate_masks
from petlesion.pipeline import segment
from petlesion.simulation import SimulationSettings, simulate
from petlesion.simulation.study import study_seed
from petlesion.volume import Study, Volume

RECUT_SEEDS = (101, 102, 103)
SIMULATION_SEED = 7
SPACING_MM = (4.0, 4.0, 4.0)
IN_THE_WHOLE_BODY = ("suv-2.5", "suv-4", "41-percent")

Draw = Callable[[Study], Volume]
Rows = dict[str, list[StudyMetrics]]


def real_sets(studies: Path) -> dict[str, list[Study]]:
    """The real studies as they are, and cut anew."""
    as_they_are = [to_study(read_source(source)) for source in find_studies([studies])]
    cut_anew = [
        replace(recut(study, np.random.default_rng((seed, number))), name=f"{study.name}-recut-{seed}")
        for seed in RECUT_SEEDS
        for number, study in enumerate(as_they_are)
    ]
    return {"as they are": as_they_are, "cut anew": cut_anew}


def simulated(count: int) -> Iterator[Study]:
    settings = SimulationSettings(SPACING_MM)
    return (simulate(study_seed(SIMULATION_SEED, number), settings) for number in range(count))


def patient_of(study: Study) -> str:
    return study.name.split("-recut-")[0]


def by_unseen_fold(bundle: Path) -> Draw:
    """Segments each study with the networks that have not trained on its patient."""
    folds = [fold for member in load_model(bundle).members for fold in member.networks]
    models = [load_model(bundle, [fold]) for fold in sorted(set(folds))]

    def draw(study: Study) -> Volume:
        unseen = [model for model in models if not model.has_seen([patient_of(study)])]
        if len(unseen) != 1:
            raise SystemExit(
                f"{bundle}: {len(unseen)} networks did not train on {patient_of(study)}, not one"
            )
        return segment(study, unseen[0]).mask

    return draw


def by_all(model: Model) -> Draw:
    return lambda study: segment(study, model).mask


def by_method(name: str) -> Draw:
    return lambda study: study.pet.with_array(METHODS[name](study).astype(np.uint8))


def score(studies: Iterator[Study] | Sequence[Study], methods: Mapping[str, Draw]) -> Rows:
    rows: Rows = {name: [] for name in methods}
    for study in studies:
        assert study.reference is not None
        for name, draw in methods.items():
            rows[name].append(evaluate_masks(draw(study), study.reference, study.name))
    return rows


def report(title: str, rows: Rows, out: Path, patients: Mapping[str, str] | None = None) -> None:
    for name, metrics in rows.items():
        write_metrics(out / title.replace(" ", "-") / f"{name}.csv", metrics)
    summaries = {name: summarize(metrics, patients) for name, metrics in rows.items()}
    print(f"\n{title}\n\n{render(summary_table(summaries, 'method'), 'markdown')}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--peer", type=Path, help="another bundle, set beside the first")
    parser.add_argument("--studies", type=Path, help="the real studies")
    parser.add_argument("--simulated", type=int, default=40, metavar="N")
    parser.add_argument("-o", "--out", type=Path, required=True)
    arguments = parser.parse_args()
    bundles = {"petlesion": arguments.bundle} | ({"peer": arguments.peer} if arguments.peer else {})

    print(describe())
    if arguments.studies:
        drawers = {name: by_unseen_fold(bundle) for name, bundle in bundles.items()}
        drawers |= {name: by_method(name) for name in METHODS}
        for title, studies in real_sets(arguments.studies).items():
            patients = {study.name: patient_of(study) for study in studies}
            report(title, score(studies, drawers), arguments.out, patients)
    if arguments.simulated:
        drawers = {name: by_all(load_model(bundle)) for name, bundle in bundles.items()}
        drawers |= {name: by_method(name) for name in IN_THE_WHOLE_BODY}
        rows = score(simulated(arguments.simulated), drawers)
        report("simulated", rows, arguments.out)
        without = {name: [row for row in metrics if not row.has_lesions] for name, metrics in rows.items()}
        report("simulated without lesions", without, arguments.out)


if __name__ == "__main__":
    main()
