"""Settings, wiring, lifecycle and the command line."""
