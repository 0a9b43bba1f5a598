"""petlesion finds and measures tumour lesions in whole-body FDG PET/CT."""

from petlesion._version import __version__

__all__ = ["__version__"]
