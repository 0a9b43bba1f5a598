"""How well a model finds real tumours that it has not seen, and simulated ones, beside fixed thresholds.

    python benchmarks/accuracy.py BUNDLE --studies $PETLESION_DATA/sts -o OUT [--simulated 40]
    python benchmarks/accuracy.py BUNDLE --studies $PETLESION_DATA/sts -o OUT --peer BUNDLE --fold 1

Real studies: each is segmented by those networks of the bundle alone that did not train on it (the folds of a
cross-validation), as it is and cut anew at random with three seeds: 0 to 50 mm off each side, which the
training never saw either. Beside it thresholds and an ellipsoid drawn without a look at the image.
Simulated studies, of seeds that no training used, are segmented by all networks together, or by those of one
fold alone (--fold): these figures are in-domain and no model's accuracy. --peer sets another bundle beside
the first; where it has an unseen network for some of the real studies only (one that was trained on a single
fold), a table of its own compares all methods on those. Writes a metrics.csv for each set and method, and
OUT/scores.json with the first bundle's averages over the real studies, for petlesion model export --scores;
prints the tables in Markdown.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from baselines import METHODS
from machine import describe
from unseen import UnseenNetworks

from petlesion.cohort.recut import recut
from petlesion.evaluation.metrics import write_metrics
from petlesion.evaluation.summary import Summary, summarize
from petlesion.evaluation.tables import render, summary_table
from petlesion.inference.predict import Model, load_model
from petlesion.intake import find_studies, read_source, to_study
from petlesion.io.atomic import write_text
from petlesion.model.bundle import Bundle
from petlesion.overlap import StudyMetrics, evaluate_masks
from petlesion.pipeline import segment
from petlesion.simulation import SimulationSettings, simulate
from petlesion.simulation.study import study_seed
from petlesion.volume import Study, Volume

RECUT_SEEDS = (101, 102, 103)
SIMULATION_SEED = 7
SPACING_MM = (4.0, 4.0, 4.0)
IN_THE_WHOLE_BODY = ("suv-2.5", "suv-4", "41-percent")

Draw = Callable[[Study], Volume | None]
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


def patient_of(case_id: str) -> str:
    """Whose study a real one is, be it cut anew or not."""
    return case_id.split("-recut-")[0]


def by_unseen_networks(bundle: Path) -> Draw:
    """Segments each study with the networks that have not trained on its patient; none where all have."""
    networks = UnseenNetworks(bundle)

    def draw(study: Study) -> Volume | None:
        patient = patient_of(study.name)
        return segment(study, networks.model(patient)).mask if networks.folds(patient) else None

    return draw


def by_all(model: Model) -> Draw:
    """Segments each study with all networks; ends the program for a study that one of them trained on."""

    def draw(study: Study) -> Volume:
        if model.has_seen([study.name]):
            raise SystemExit(f"{model.name} has trained on {study.name}; change SIMULATION_SEED")
        return segment(study, model).mask

    return draw


def networks_of(bundle: Path) -> str:
    count = sum(1 for _ in Bundle.open(bundle).network_paths())
    return "1 network" if count == 1 else f"{count} networks"


def by_method(name: str) -> Draw:
    return lambda study: study.pet.with_array(METHODS[name](study).astype(np.uint8))


def score(studies: Iterable[Study], methods: Mapping[str, Draw]) -> Rows:
    """Each method's scores, of the studies that it has a mask for."""
    rows: Rows = {name: [] for name in methods}
    for study in studies:
        assert study.reference is not None
        for name, draw in methods.items():
            mask = draw(study)
            if mask is not None:
                rows[name].append(evaluate_masks(mask, study.reference, study.name))
    return rows


def parted(rows: Rows) -> tuple[Rows, Rows]:
    """What scored every study; and all methods on the studies that each has scored, if some scored fewer."""
    studies = {name: {row.case_id for row in metrics} for name, metrics in rows.items()}
    every, shared = set.union(*studies.values()), set.intersection(*studies.values())
    whole = {name: metrics for name, metrics in rows.items() if studies[name] == every}
    if shared == every or not shared:
        return whole, {}
    return whole, {name: [row for row in metrics if row.case_id in shared] for name, metrics in rows.items()}


def report(title: str, rows: Rows, patients: Mapping[str, str] | None = None) -> None:
    """Print the averages of some studies, each method's in a row; a method that scored none has no row."""
    summaries = {name: summarize(metrics, patients) for name, metrics in rows.items() if metrics}
    print(f"\n{title}\n\n{render(summary_table(summaries, 'method'), 'markdown')}", flush=True)


def report_real(title: str, rows: Rows, patients: Mapping[str, str]) -> None:
    """Print the averages of real studies, and of those that every bundle has an unseen network for."""
    whole, shared = parted(rows)
    report(f"real studies, {title}: {_count(whole, patients)}", whole, patients)
    if shared:
        count = _count(shared, patients)
        report(f"real studies, {title}: {count} that each bundle has an unseen network for", shared, patients)


def _count(rows: Rows, patients: Mapping[str, str]) -> str:
    cases = {row.case_id for metrics in rows.values() for row in metrics}
    return f"{len(cases)} cases of {len({patients[case] for case in cases})} patients"


def write(out: Path, rows: Rows) -> None:
    """Write each method's metrics.csv."""
    for name, metrics in rows.items():
        write_metrics(out / f"{name}.csv", metrics)


def write_scores(out: Path, summaries: Mapping[str, Summary]) -> None:
    """Write scores.json, the averages of sets of real studies, for `petlesion model export --scores`."""
    scores = {f"real studies held out, {title}": summary.as_json() for title, summary in summaries.items()}
    write_text(out / "scores.json", json.dumps(scores, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--peer", type=Path, help="another bundle, set beside the first")
    parser.add_argument("--studies", type=Path, help="the real studies")
    parser.add_argument("--simulated", type=int, default=40, metavar="N")
    parser.add_argument("--fold", help="each bundle's network for simulated studies, alone")
    parser.add_argument("-o", "--out", type=Path, required=True)
    arguments = parser.parse_args()
    bundles = {"petlesion": arguments.bundle} | ({"peer": arguments.peer} if arguments.peer else {})

    print(describe())
    for name, bundle in bundles.items():
        print(f"{name}: {Bundle.open(bundle).card.name}, {networks_of(bundle)}")
    if arguments.studies:
        drawers = {name: by_unseen_networks(bundle) for name, bundle in bundles.items()}
        drawers |= {name: by_method(name) for name in METHODS}
        summaries = {}
        for title, studies in real_sets(arguments.studies).items():
            rows = score(studies, drawers)
            write(arguments.out / title.replace(" ", "-"), rows)
            patients = {study.name: patient_of(study.name) for study in studies}
            report_real(title, rows, patients)
            if rows["petlesion"]:
                summaries[title] = summarize(rows["petlesion"], patients)
        write_scores(arguments.out, summaries)
    if arguments.simulated:
        folds = None if arguments.fold is None else (arguments.fold,)
        drawers = {name: by_all(load_model(bundle, folds=folds)) for name, bundle in bundles.items()}
        drawers |= {name: by_method(name) for name in IN_THE_WHOLE_BODY}
        rows = score(simulated(arguments.simulated), drawers)
        write(arguments.out / "simulated", rows)
        report("simulated studies (in-domain: no model's accuracy)", rows)
        without = {name: [row for row in metrics if not row.has_lesions] for name, metrics in rows.items()}
        report("those of them without lesions (in-domain)", without)


if __name__ == "__main__":
    main()
