"""Instances built of metadata and bulk data, as a store request may bring them apart (PS3.18 §10.5.2)."""
