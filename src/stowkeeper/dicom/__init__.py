"""The vocabulary and the encodings of the DICOM standard, without I/O."""
