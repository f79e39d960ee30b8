"""The wire formats of the Store transaction of DICOMweb (PS3.18 §10.5), without I/O."""
