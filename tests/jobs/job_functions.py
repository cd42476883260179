"""Functions that the job tests run, also in a worker process."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from lyra_core.errors import BackendUnavailable


class Unpicklable(Exception):
    """Cannot be rebuilt elsewhere."""

    def __init__(self, lock):
        super().__init__(lock)


def count(n: int, *, progress, seconds: float = 0.0):
    progress.stage("counting", n)
    for i in range(n):
        time.sleep(seconds)
        progress.update(message=f"step {i}")
    return {"sum": sum(range(n)), "pid": os.getpid()}


def endless(*, progress):
    progress.stage("endless", 0)
    while True:
        time.sleep(0.005)
        progress.update()


def deaf(folder: str, *, progress):
    progress.stage("deaf", 1)
    (Path(folder) / "pid").write_text(str(os.getpid()))
    time.sleep(60)


def die(code: int, *, progress):
    progress.stage("dying", 2)
    progress.update()
    os._exit(code)


def abort(*, progress):
    progress.stage("aborting", 1)
    os.abort()


def unavailable(*, progress):
    raise BackendUnavailable("generator 'x'", reason="no torch", install="pip install lyra-worlds[lyra2]")


def unpicklable_error(*, progress):
    raise Unpicklable(threading.Lock())


def unpicklable_result(*, progress):
    return threading.Lock()


def leaves_a_thread(*, progress):
    threading.Thread(target=time.sleep, args=(60,)).start()
    return "done"


def staged(folder: str, *, progress, fail_at: int = -1):
    """Three stages that leave a file each and are skipped where it exists: how resuming works."""
    ran = []
    for i in range(3):
        progress.stage(f"stage {i}", 1)
        path = Path(folder) / f"{i}.txt"
        if not path.exists():
            if i == fail_at:
                os._exit(9)
            path.write_text("x")
            ran.append(i)
        progress.update()
    return ran


def no_progress(n: int):
    return n
