"""A run on disk: the folder of one experiment on one cohort, which stock nnU-Net reads as a trained model.

<results>/DatasetNNN_Name/<experiment>__<plans>__<configuration>/
  plans.json, dataset.json      of the network: its patch, its stages, its input channels
  experiment.json               the resolved experiment, where its values come from, versions and seed
  fold_<k>/                     checkpoints, progress.jsonl, and split.json: what it learns from
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from petlesion._version import __version__
from petlesion.cohort.layout import Fold
from petlesion.errors import CohortError, ExperimentError
from petlesion.experiments import Experiment, sources_of
from petlesion.io.atomic import write_text
from petlesion.model.training_cases import read_split
from petlesion.training.jsonfile import Json, read_json, write_json
from petlesion.training.nnunet import CONFIGURATION, PLANS_NAME
from petlesion.volume import LPS

EXPERIMENT_NAME = "experiment.json"
PROGRESS_NAME = "progress.jsonl"
_PACKAGES = ("torch", "nnunetv2", "batchgeneratorsv2", "dynamic_network_architectures", "numpy")


@dataclass(frozen=True)
class Run:
    """The folder of an experiment on a cohort, with the plan and dataset.json that its network follows."""

    folder: Path
    experiment: Experiment
    plan: Json
    dataset_json: Json

    @contextmanager
    def lock(self, number: int) -> Iterator[None]:
        """Keep other processes from training a fold. Raises CohortError if one does already."""
        folder = fold_folder(self.folder, number)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(folder / ".lock", timeout=0):
                yield
        except Timeout:
            raise CohortError(f"{folder}: another process is training this fold; let it end") from None

    def write(self) -> None:
        """Write what describes the run. Raises ExperimentError if another experiment or plan stands there."""
        check_same_experiment(self.folder, self.experiment)
        for name, content in (("plans.json", self.plan), ("dataset.json", self.dataset_json)):
            path = self.folder / name
            if path.exists() and read_json(path) != content:
                raise CohortError(
                    f"{path}: differs from what the cohort gives now; train into another results folder"
                )
            write_json(path, content)
        if not (self.folder / EXPERIMENT_NAME).exists():
            write_json(self.folder / EXPERIMENT_NAME, self._description())

    def _description(self) -> Json:
        configuration = self.plan["configurations"][CONFIGURATION]
        network = configuration["architecture"]["arch_kwargs"]
        return {
            "experiment": self.experiment.as_dict(),
            "sources": sources_of(self.experiment),
            "network": {
                "patch_size": configuration["patch_size"],
                "batch_size": configuration["batch_size"],
                "strides": network["strides"],
                "features_per_stage": network["features_per_stage"],
            },
            "orientation": LPS,
            "seeds": {"run": self.experiment.seed, "batch": "(seed, fold, number of the batch in the run)"},
            "versions": {
                "petlesion": __version__,
                "python": platform.python_version(),
                **{package: version(package) for package in _PACKAGES},
            },
        }


def run_folder(results: Path, dataset_name: str, experiment: Experiment) -> Path:
    """Where the run of an experiment on a dataset stands in a results folder."""
    return results / dataset_name / f"{experiment.name}__{PLANS_NAME}__{CONFIGURATION}"


def fold_folder(run: Path, fold: int) -> Path:
    """Where the checkpoints of a run's fold are."""
    return run / f"fold_{fold}"


def check_same_experiment(run: Path, experiment: Experiment) -> None:
    """Raise ExperimentError if a run was begun with other settings."""
    path = run / EXPERIMENT_NAME
    if not path.exists():
        return
    stored = Experiment.from_dict(read_json(path)["experiment"]).as_dict()
    wanted = experiment.as_dict()
    changed = [f"{key} {stored[key]}, now {wanted[key]}" for key in wanted if stored[key] != wanted[key]]
    if changed:
        raise ExperimentError(
            f"{path}: this run was begun with other settings ({'; '.join(changed)}); "
            "give them again, or train into another results folder"
        )


def check_split(folder: Path, fold: Fold) -> None:
    """Raise CohortError if a fold's folder was begun with another split; without one it cannot be checked."""
    begun = read_split(folder)
    if begun is not None and set(begun.train) != set(fold.train):
        raise CohortError(
            f"{folder}: this fold was begun with another split of the cohort; "
            "restore that split, or train into another results folder"
        )


class ProgressFile:
    """progress.jsonl: one line per finished epoch."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def rewrite(self, records: list[dict[str, Any]]) -> None:
        """Make these its lines: those of the epochs that are in a checkpoint."""
        write_text(self.path, "".join(json.dumps(record) + "\n" for record in records))

    def append(self, record: dict[str, Any]) -> None:
        """Add a line."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
