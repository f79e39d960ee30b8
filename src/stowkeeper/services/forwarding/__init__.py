"""Forwarding: rules choose what is sent on, and jobs send it (decision 16)."""
