"""DICOM message exchange (PS3.7), both roles, without I/O: PDVs in, messages out, and back."""
