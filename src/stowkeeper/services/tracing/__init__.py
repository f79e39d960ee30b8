"""Traces: what was written of each association, its requests and what followed, told to a collector of OpenTelemetry."""
