"""Durable files: slots, links, folder syncs, and the seam where tests put faults."""
