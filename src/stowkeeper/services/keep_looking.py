"""The loop of a desk: it looks at the archive's rows again and again, through whatever the database does."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from stowkeeper.database.engine import DatabaseUnavailable


async def keep_looking(
    look: Callable[[], bool],
    log: Any,  # noqa: ANN401 - structlog's loggers have no type of their own
    *,
    what: str,
    seconds: float,
    retry_seconds: float,
    rest: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Look until it is cancelled: at once where `look` says that there is more, else after `seconds`.

    `look` blocks, and is called in a thread. What fails is tried again after `retry_seconds`, in which nothing wakes it; the log of the
    desk says so, of a database that is away once. `what` says in words what cannot be done meanwhile. `rest` waits between two looks
    that went well.
    """
    is_failing = False
    while True:
        try:
            goes_on = await asyncio.to_thread(look)
        except DatabaseUnavailable as error:
            if not is_failing:
                log.error("error", what=f"{what} for now", reason=str(error))
            is_failing = True
            await asyncio.sleep(retry_seconds)
        except Exception:
            log.exception("error", what=f"{what}, it is tried again")
            await asyncio.sleep(retry_seconds)
        else:
            is_failing = False
            await rest(0.0 if goes_on else seconds)
