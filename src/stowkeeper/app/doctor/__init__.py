"""The doctor: what could keep a server from receiving and keeping, looked at one by one, each with the command that mends it."""
