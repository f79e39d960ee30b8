"""Stowkeeper: a DICOM storage server whose Success means kept."""

__version__ = "0.1.0"
