"""DICOM series in, DICOM objects out."""
