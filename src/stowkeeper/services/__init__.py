"""What the network asks for, answered by the archive."""
