"""What the archive holds, counted series by series: the current versions, and the bytes of their files."""

from sqlalchemy import Subquery, func, select

from stowkeeper.database.schema import instances, versions


def current_by_series() -> Subquery:
    """Return a query for `series_key` (null outside of studies), `instances` and `bytes` of what is current."""
    return (
        select(
            versions.c.series_key,
            func.count().label("instances"),
            func.sum(versions.c.file_size).label("bytes"),
        )
        .join(
            instances,
            (instances.c.instance_key == versions.c.instance_key)
            & (instances.c.current_version_key == versions.c.version_key),
        )
        .group_by(versions.c.series_key)
        .subquery()
    )
