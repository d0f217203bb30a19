"""A process pool that works from a script, a test, a thread and a command alike."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")

#: Numerical libraries must not thread inside the workers: two workers with threads of their own
#: take three times as long as two without.
SINGLE_THREADED = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}


def run_tasks(
    function: Callable[[Task], Result], tasks: Iterable[Task], workers: int
) -> Iterator[tuple[int, Result]]:
    """Run `function` over `tasks`, yielding (index, result) as they finish.

    With one worker everything runs in this process, in order.
    """
    numbered = list(tasks)
    if workers <= 1 or len(numbered) <= 1:
        for index, task in enumerate(numbered):
            yield index, function(task)
        return
    # A fork is quick to start but unsafe where other threads may hold locks.
    method = "fork" if threading.active_count() == 1 else "spawn"
    context = multiprocessing.get_context(method)
    pool = ProcessPoolExecutor(
        min(workers, len(numbered)),
        mp_context=context,
        initializer=_end_with_parent,
        initargs=(os.getpid(),),
    )
    with pool:
        futures = {pool.submit(function, task): index for index, task in enumerate(numbered)}
        for future in as_completed(futures):
            yield futures[future], future.result()


_PR_SET_PDEATHSIG = 1


def _end_with_parent(parent: int) -> None:
    """In a worker: end when the pool's process is killed; nobody else would ever tell it to."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
