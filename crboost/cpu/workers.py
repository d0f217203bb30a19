"""A process pool that works from a script, a test, a thread and a command alike."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TypeVar

from crboost.process import end_with

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
        # Nobody else would ever tell a worker that the pool's process was killed.
        initializer=end_with,
        initargs=(os.getpid(), signal.SIGKILL),
    )
    with pool:
        futures = {pool.submit(function, task): index for index, task in enumerate(numbered)}
        for future in as_completed(futures):
            yield futures[future], future.result()
