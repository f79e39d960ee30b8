"""The archive: the one path of an instance in, what is kept, and the proof that it is kept."""
