"""A call in a thread is over before whoever awaited it goes on, cancelled or not."""

import asyncio
import threading

import pytest

from stowkeeper.services.whole_calls import call_to_its_end

SECONDS_MAX = 20


async def cancelled_while_it_runs(times: int, error: Exception | None) -> None:
    began, may_end, over = threading.Event(), threading.Event(), threading.Event()

    def call() -> None:
        began.set()
        assert may_end.wait(SECONDS_MAX)
        over.set()
        if error is not None:
            raise error

    task = asyncio.create_task(call_to_its_end(call))
    await asyncio.to_thread(began.wait, SECONDS_MAX)
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not task.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, SECONDS_MAX)
    assert over.is_set()


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("error", [None, OSError("the disk is gone")])
def test_who_is_cancelled_waits_for_the_end(times: int, error: Exception | None) -> None:
    asyncio.run(cancelled_while_it_runs(times, error))


def test_it_returns_and_raises_what_the_call_does() -> None:
    assert asyncio.run(call_to_its_end(divmod, 7, 2)) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        asyncio.run(call_to_its_end(divmod, 7, 0))
