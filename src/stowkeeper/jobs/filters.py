"""A filter for jobs as conditions of a query, said so that the indexes of the table serve them."""

from sqlalchemy import ColumnElement, func

from stowkeeper.database.schema import jobs
from stowkeeper.jobs.job import JobFilter


def conditions(wanted: JobFilter) -> list[ColumnElement[bool]]:
    """Return what a row must satisfy; `limit` is not among it."""
    found: list[ColumnElement[bool]] = []
    if wanted.kind:
        found.append(jobs.c.kind == wanted.kind)
    if wanted.state:
        found.append(jobs.c.state.in_([state.value for state in wanted.state]))
    # The indexes of both leave empty ones out, and have to be told that none is wanted.
    if wanted.peer:
        found += [jobs.c.peer != "", jobs.c.peer == wanted.peer]
    if wanted.subject:
        found += [jobs.c.subject != "", jobs.c.subject == wanted.subject]
    if wanted.created_from:
        found.append(jobs.c.created_at >= wanted.created_from)
    if wanted.created_to:
        found.append(jobs.c.created_at < wanted.created_to)
    if wanted.without_argument:
        # A row that somebody wrote by hand may hold no JSON, which would end the whole statement.
        value = func.json_extract(jobs.c.arguments, f'$."{wanted.without_argument}"')
        found.append(func.coalesce(func.iif(func.json_valid(jobs.c.arguments), value, 0), 0) == 0)
    if wanted.before_key is not None:
        found.append(jobs.c.job_key < wanted.before_key)
    return found
