"""What `petlesion segment` does with its studies: read, compute and write, two studies at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from petlesion.cli.batch import Failures, try_overlapped
from petlesion.cli.console import progress, say, step

if TYPE_CHECKING:
    from petlesion.inference.predict import OnTile, PreparedStudy
    from petlesion.intake import SourceImages, StudySource
    from petlesion.outputs import OutputSettings, RunFacts
    from petlesion.pipeline import Segmentation, SegmentationSettings
    from petlesion.records import SourceMark
    from petlesion.volume import Study


@dataclass(frozen=True)
class Models:
    """The model that was given for all studies, or those in the box, each loaded when first needed."""

    path: Path | None
    folds: list[str] | None
    device: str
    precision: str
    settings: SegmentationSettings
    outputs: OutputSettings
    loaded: dict[bool, RunFacts] = field(default_factory=dict)

    def facts(self, *, has_ct: bool) -> RunFacts:
        """What decides the files of a study with or without CT."""
        in_box = self.path is None
        kind = has_ct and in_box
        if kind not in self.loaded:
            self.loaded[kind] = self._load(self.path) if self.path else self._load_from_box(has_ct=has_ct)
        return self.loaded[kind]

    def finished(self, record: dict[str, Any], folder: Path, mark: SourceMark, *, has_ct: bool) -> bool:
        """Whether a record tells that all was done as it would be done now.

        A model is loaded only where all else is as it was.
        """
        from petlesion.records import is_finished

        if not is_finished(record, folder, mark):
            return False
        return is_finished(record, folder, mark, run=self.facts(has_ct=has_ct).as_json())

    def _load(self, path: Path) -> RunFacts:
        from petlesion.inference.predict import load_model
        from petlesion.outputs import RunFacts

        model = load_model(path, self.folds, self.device, self.precision)
        return RunFacts(model, self.settings.for_model(model), self.outputs)

    def _load_from_box(self, *, has_ct: bool) -> RunFacts:
        from petlesion.model.boxed import LIMITS, boxed_bundle, kind_of

        facts = self._load(boxed_bundle(has_ct=has_ct))
        kind, name = kind_of(has_ct=has_ct), facts.model.name
        say(f"No --model: studies of {kind} go to the model in the box, {name}. For research use only.")
        say(f"It {LIMITS}; petlesion model info has the figures.")
        return facts


@dataclass(frozen=True)
class SegmentationJob:
    """What is done with each study; `records` gathers what was written.

    `shows_steps` is for a study alone, whose steps follow one another.
    """

    models: Models
    output: Path
    shows_steps: bool
    records: list[dict[str, Any]] = field(default_factory=list)

    def run(self, sources: Sequence[StudySource]) -> Failures:
        """Write each study's folder while the next one is read, except for what an earlier run has done."""
        from petlesion.io.atomic import remove_unfinished

        named = [(source.name, source) for source in sources]
        try:
            return try_overlapped("segmenting", named, self._prepare, self._compute)
        except KeyboardInterrupt:
            remove_unfinished(self.output, [source.name for source in sources])
            raise

    def _prepare(self, source: StudySource) -> _Ready:
        from petlesion.inference.predict import prepare_study
        from petlesion.intake import read_source, to_study
        from petlesion.outputs import RECORD
        from petlesion.records import earlier_record, mark_of
        from petlesion.report.html import require_volume

        if source.problem is not None:
            raise source.problem
        folder, mark = self.output / source.name, mark_of(source)
        record = earlier_record(folder, RECORD, source)
        if record is not None and self.models.finished(record, folder, mark, has_ct=_has_ct(source)):
            return _Ready(folder, mark, record)
        with self._step("reading"):
            images = read_source(source)
            study = to_study(images)
        require_volume(study)
        facts = self.models.facts(has_ct=study.ct is not None)
        with self._step("resampling"):
            prepared = prepare_study(study, facts.model, facts.settings.prediction)
        # The CT on its own grid, half a gigabyte of it, is of no use from here on.
        kept = replace(images, ct=None, reference=None)
        return _Ready(folder, mark, inputs=_Inputs(kept, study, prepared, facts))

    def _compute(self, source: StudySource, ready: _Ready) -> Callable[[], None]:
        from petlesion.inference.predict import predict_prepared
        from petlesion.pipeline import segmentation_of

        if ready.inputs is None:
            return partial(self._keep, source, ready)
        inputs = ready.inputs
        with ExitStack() as displays:
            on_tile = _tile_display(displays) if self.shows_steps else _ignore_tile
            prediction = predict_prepared(
                inputs.prepared, on_tile, with_uncertainty=inputs.facts.with_uncertainty
            )
        settings, calibration = inputs.facts.settings, inputs.facts.calibration
        with self._step("measuring"):
            segmentation = segmentation_of(inputs.study, prediction, settings, calibration)
        result = _Result(inputs.images, segmentation, inputs.facts)
        return partial(self._write, source, replace(ready, inputs=None), result)

    def _write(self, source: StudySource, ready: _Ready, result: _Result) -> None:
        from petlesion.io.atomic import atomic_folder
        from petlesion.outputs import flag_of, write_outputs

        with self._step("writing"), atomic_folder(ready.folder) as temporary:
            record = write_outputs(temporary, result.segmentation, result.images, result.facts, ready.mark)
        flag = flag_of(record["doubts"])
        for warning in [*record["warnings"], *([flag] if flag else [])]:
            say(f"{source.name}: {warning}")
        self._note(source, ready, record, _in_words(record["lesions"]))

    def _step(self, what: str) -> AbstractContextManager[None]:
        return step(what) if self.shows_steps else nullcontext()

    def _keep(self, source: StudySource, ready: _Ready) -> None:
        assert ready.record is not None
        self._note(source, ready, ready.record, f"done before, {_in_words(ready.record['lesions'])}")

    def _note(self, source: StudySource, ready: _Ready, record: dict[str, Any], words: str) -> None:
        say(f"{source.name}: {words}")
        self.records.append({"study": source.name, "folder": str(ready.folder), **record})


@dataclass(frozen=True)
class _Inputs:
    """A study as read and as prepared for the networks, and what decides its files."""

    images: SourceImages
    study: Study
    prepared: PreparedStudy
    facts: RunFacts


@dataclass(frozen=True)
class _Result:
    """What is written of a study; what its networks took is free again by then."""

    images: SourceImages
    segmentation: Segmentation
    facts: RunFacts


@dataclass(frozen=True)
class _Ready:
    """A study's folder and mark, with the record of an earlier run, or with what the network needs."""

    folder: Path
    mark: SourceMark
    record: dict[str, Any] | None = None
    inputs: _Inputs | None = None


def _has_ct(source: StudySource) -> bool:
    """Whether a study comes with a CT, as its files' names or DICOM headers tell."""
    from petlesion.dicom.study import ct_series_of

    in_files = {"CT", "CTres"} & set(source.files)
    return bool(in_files or ct_series_of(source.series))


def _tile_display(displays: ExitStack) -> OnTile:
    """A bar over the tiles, whose number is known when the first one is done."""
    advance = None

    def on_tile(done: int, total: int) -> None:
        nonlocal advance
        if advance is None:
            advance = displays.enter_context(progress("segmenting", total))
        advance()

    return on_tile


def _ignore_tile(done: int, total: int) -> None:
    pass


def _in_words(totals: dict[str, Any]) -> str:
    if totals["count"] == 0:
        return "no lesion found"
    noun = "lesion" if totals["count"] == 1 else "lesions"
    volume, glycolysis = totals["metabolic_tumour_volume_ml"], totals["total_lesion_glycolysis"]
    return f"{totals['count']} {noun}, {volume:.1f} mL, total lesion glycolysis {glycolysis:.0f}"
