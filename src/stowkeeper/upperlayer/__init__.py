"""The DICOM Upper Layer protocol (PS3.8), both roles, without I/O: bytes in, events out, bytes out."""
