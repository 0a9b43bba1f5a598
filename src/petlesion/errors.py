"""Every error that petlesion raises on purpose.

Each message is one sentence that names the file or value, what is wrong with it and what to do::

    PetlesionError
    ├── UsageError            an option, a name or a value that cannot be
    │   └── ExperimentError   an experiment or a setting of one that does not exist
    ├── InputError            a file or folder that cannot be used
    │   ├── FormatError       unreadable, truncated or of an unknown kind
    │   ├── GeometryError     an affine or a grid that cannot be, or grids that do not match
    │   ├── ValueRangeError   voxel values that cannot be: SUV, HU, labels, not finite
    │   ├── SeriesError       a DICOM series with gaps, duplicates or a mixture
    │   ├── SuvError          headers from which no trustworthy SUV can be computed
    │   ├── StudyError        images that do not make one PET/CT study
    │   └── CohortError       a cohort or a run folder that is not in order
    ├── OutputError           a file or folder that cannot be written
    ├── ModelError            a bundle or checkpoint that is broken or does not fit
    └── MissingExtraError     an optional dependency that is not installed
"""

from __future__ import annotations


class PetlesionError(Exception):
    """Any error that petlesion raises on purpose."""


class UsageError(PetlesionError):
    """An option, a name or a value that cannot be."""


class ExperimentError(UsageError):
    """An experiment, or a setting of one, that does not exist or cannot be."""


class InputError(PetlesionError):
    """A file or folder that cannot be used."""


class FormatError(InputError):
    """A file that is unreadable, truncated or of an unknown kind."""


class GeometryError(InputError):
    """An affine or a grid that cannot be, or grids that do not match."""


class ValueRangeError(InputError):
    """Voxel values that cannot be what they are said to be."""


class SeriesError(InputError):
    """A DICOM series with gaps, duplicates or a mixture of series."""


class SuvError(InputError):
    """DICOM headers from which no trustworthy SUV can be computed."""


class StudyError(InputError):
    """Images that do not make one PET/CT study."""


class CohortError(InputError):
    """A cohort or a run folder that is not in order."""


class OutputError(PetlesionError):
    """A file or folder that cannot be written."""


class ModelError(PetlesionError):
    """A bundle or checkpoint that is broken or does not fit."""


class MissingExtraError(PetlesionError):
    """An optional dependency that is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs the extra [{extra}]: run pip install 'petlesion[{extra}]'")
