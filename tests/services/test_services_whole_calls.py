"""A call in a thread is over before whoever awaited it goes on, cancelled or not."""

import asyncio
import threading
from concurrent.futures import Future

import pytest

from stowkeeper.jobs.threads import Threads
from stowkeeper.services.whole_calls import await_whole

SECONDS_MAX = 20


def unexpected() -> None:
    pytest.fail("nobody was cancelled")


async def cancelled_while_it_runs(times: int, error: Exception | None) -> None:
    began, may_end, over = threading.Event(), threading.Event(), threading.Event()
    given_up: list[None] = []

    def call() -> None:
        began.set()
        assert may_end.wait(SECONDS_MAX)
        over.set()
        if error is not None:
            raise error

    running = Threads("test", 1).submit(call)
    task = asyncio.create_task(await_whole(running, lambda: given_up.append(None)))
    await asyncio.sleep(0)  # a task that has not begun is cancelled at once
    await asyncio.to_thread(began.wait, SECONDS_MAX)
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not task.done()
    assert given_up == [None]
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, SECONDS_MAX)
    assert over.is_set()


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("error", [None, OSError("the disk is gone")])
def test_who_is_cancelled_waits_for_the_end(times: int, error: Exception | None) -> None:
    asyncio.run(cancelled_while_it_runs(times, error))


def test_it_returns_and_raises_what_the_call_does() -> None:
    done: Future[int] = Future()
    done.set_result(3)
    failed: Future[int] = Future()
    failed.set_exception(ZeroDivisionError())
    assert asyncio.run(await_whole(done, unexpected)) == 3
    with pytest.raises(ZeroDivisionError):
        asyncio.run(await_whole(failed, unexpected))
