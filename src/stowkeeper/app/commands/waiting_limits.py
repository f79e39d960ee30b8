"""The times of commands that wait for jobs, each with its reason."""

COMMAND_LOOK_SECONDS = 0.2
"""How often such a command looks whether there is news, and for jobs of its own: a person sees no delay."""

COMMAND_STOP_SECONDS = 5.0
"""How long the jobs that a command runs get to give way when it ends; their rows wait for the next server."""

WAIT_SECONDS = 60.0
"""How long a command waits without any news: checking some hundred instances takes a provider no longer."""

WAIT_SECONDS_MAX = 30 * 86_400.0
"""Longest time that can be given: nobody leaves a terminal open for longer."""

INSTANCES_SHOWN_MAX = 20
"""Instances of a transaction that are named one by one; --json names all."""
