"""The Store transaction as user agent (PS3.18 §10.5): files to a DICOMweb server, until each has its outcome."""
