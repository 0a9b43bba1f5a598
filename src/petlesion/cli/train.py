"""petlesion train: an experiment on a cohort, fold by fold."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from petlesion.cli.console import progress, say
from petlesion.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from petlesion.training.trainer import EpochReport

_SECONDS_BETWEEN_LINES = 10.0


def train(
    cohort: Path = typer.Argument(..., help="Folder of the cohort."),
    experiment: str = typer.Option(..., "-e", "--experiment", help="A name of petlesion experiment list."),
    output: Path = typer.Option(..., "-o", "--output", help="Folder for the results."),
    folds: str = typer.Option("all", "-f", "--folds", help="Folds to train, such as 0 or 0,1,2."),
    changes: list[str] = typer.Option(
        [], "--set", metavar="KEY=VALUE", help="Change a setting for this run; may be repeated."
    ),
    device: str = typer.Option("auto", help="auto, cpu or cuda."),
    precision: str = typer.Option("", help="auto, float32 or bfloat16; the same as --set precision=NAME."),
    preprocessed: Path | None = typer.Option(
        None, help="Folder for what is preprocessed.  [default: OUTPUT/preprocessed]"
    ),
    processes: int | None = typer.Option(
        None, min=1, help="Processes that preprocess.  [default: one per core]"
    ),
) -> None:
    """Train an experiment on a cohort; the same command goes on where a killed one stopped."""
    from petlesion.cohort.layout import Cohort
    from petlesion.experiments import find_experiment, with_settings

    settings = [*changes, *([f"precision={precision}"] if precision else [])]
    if precision and any(change.partition("=")[0].strip() == "precision" for change in changes):
        raise UsageError("give either --precision or --set precision=, not both")
    wanted = with_settings(find_experiment(experiment), settings)
    opened = Cohort.open(cohort)
    numbers = parse_folds(folds, len(opened.folds))
    try:
        from petlesion.training.trainer import TrainingOptions
        from petlesion.training.trainer import train as train_fold
    except ModuleNotFoundError as error:
        raise MissingExtraError("training", "train") from error

    for fold in numbers:
        with epoch_display(f"{wanted.name}, fold {fold}", wanted.epochs) as show:
            options = TrainingOptions(
                device, preprocessed, processes, on_epoch=show, say=say, progress=progress
            )
            folder = train_fold(opened, wanted, fold, output, options)
        say(f"fold {fold} is trained: {folder}")


def parse_folds(text: str, count: int) -> list[int]:
    """The folds of a list such as 0,1,2, or all. Raises UsageError for anything else and for absent ones."""
    if text == "all":
        return list(range(count))
    try:
        numbers = [int(number) for number in text.split(",")]
    except ValueError:
        raise UsageError(f"{text!r} is no list of folds; write such as 0, 0,1,2 or all") from None
    for number in numbers:
        if number not in range(count):
            raise UsageError(f"there is no fold {number}; choose of 0 to {count - 1}")
    return numbers


@contextmanager
def epoch_display(title: str, epochs: int) -> Iterator[Callable[[EpochReport], None]]:
    """Yield a function that shows an epoch: a bar on a terminal, a line every ten seconds elsewhere."""
    if not sys.stderr.isatty():
        yield _epoch_lines(title)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    facts = TextColumn("{task.fields[facts]}")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), facts)
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=epochs, facts="")
        yield lambda report: bar.update(task, completed=report.epoch + 1, facts=describe(report))


def _epoch_lines(title: str) -> Callable[[EpochReport], None]:
    last_line = -_SECONDS_BETWEEN_LINES

    def show(report: EpochReport) -> None:
        nonlocal last_line
        is_last = report.epoch + 1 == report.epochs
        if is_last or time.monotonic() - last_line >= _SECONDS_BETWEEN_LINES:
            last_line = time.monotonic()
            say(f"{title}: epoch {report.epoch + 1} of {report.epochs}, {describe(report)}")

    return show


def describe(report: EpochReport) -> str:
    """What an epoch brought, in one line."""
    dice = "undefined" if report.pseudo_dice is None else f"{report.pseudo_dice:.3f}"
    left = time.strftime("%H:%M:%S", time.gmtime(report.seconds_left % 86400))
    days = f"{int(report.seconds_left // 86400)} d " if report.seconds_left >= 86400 else ""
    return (
        f"loss {report.train_loss:.3f}, validation {report.val_loss:.3f}, Dice {dice}, "
        f"{report.seconds:.1f} s, {report.waited:.0%} waited, {days}{left} left"
    )
