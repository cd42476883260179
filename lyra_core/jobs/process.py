"""Jobs in a worker process: a spawned interpreter and two one-way pipes. No fork, no sockets, so it works on Windows too."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from lyra_core.errors import Cancelled, JobError
from lyra_core.jobs.progress import ProgressEvent, ProgressQueue
from lyra_core.jobs.runner import Job, died, load_function

JOIN_SECONDS = 5.0
"""How long a worker may take to end after its answer [s]."""


class JobProcess(Job):
    """A job in its own process. The worker ends when its owner does, however that one ends."""

    def __init__(self, target: str, kwargs: dict[str, Any], *, on_event: Callable[[ProgressEvent], Any] | None = None) -> None:
        super().__init__(target, on_event=on_event)
        context = multiprocessing.get_context("spawn")
        self._answers, answers = context.Pipe(duplex=False)
        orders, self._orders = context.Pipe(duplex=False)
        self._killed = False
        self._process = context.Process(target=_work, args=(target, kwargs, answers, orders), name=f"job {target}", daemon=True)
        try:
            self._process.start()
        finally:
            # Only the worker may hold its ends: that is how each side notices the other's death.
            answers.close()
            orders.close()
        threading.Thread(target=self._listen, name=f"job {target}", daemon=True).start()

    def cancel(self) -> None:
        """Ask the worker to stop at its next progress report."""
        super().cancel()
        try:
            self._orders.send("cancel")
        except OSError:
            # The worker has ended; the listener tells how.
            return

    def kill(self) -> None:
        """Kill the worker process; the job ends as cancelled."""
        self._killed = True
        self._process.kill()
        self.wait()

    def _listen(self) -> None:
        outcome: tuple[Any, BaseException | None] | None = None
        try:
            while outcome is None:
                kind, value = self._answers.recv()
                if kind == "event":
                    self._put(value)
                elif kind == "result":
                    outcome = (value, None)
                else:
                    outcome = (None, _rebuilt(value))
        except (EOFError, OSError):
            outcome = None
        # A callback or an answer that cannot be read must not leave a waiting caller behind.
        except Exception as error:
            outcome = (None, error)
            self._process.kill()
        # A function may leave threads behind that keep its process alive; with the answer here they are not waited for.
        self._process.join(JOIN_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._orders.close()
        self._answers.close()
        if outcome is None:
            stage = self.latest.stage if self.latest else ""
            killed = Cancelled(f"job {self.target}: killed on request; starting again resumes")
            outcome = (None, killed if self._killed else died(self.target, self._process.exitcode, stage))
        self._end(*outcome)


def _work(target: str, kwargs: dict[str, Any], answers: Connection, orders: Connection) -> None:
    """Run in the worker: call the function, send events and at last one result or error."""
    cancelled = threading.Event()

    def obey() -> None:
        try:
            while orders.recv() == "cancel":
                cancelled.set()
        except (EOFError, OSError):
            # The owner is gone or has its answer: nobody is left to work for.
            os._exit(1)

    threading.Thread(target=obey, daemon=True).start()
    try:
        progress = ProgressQueue(lambda event: answers.send(("event", event)), is_cancelled=cancelled.is_set)
        answer = ("result", load_function(target)(**kwargs, progress=progress))
        pickle.dumps(answer)
    # Everything goes to the owner, which raises it where the result is asked for.
    except BaseException as error:
        answer = ("error", _packed(target, error))
    answers.send(answer)
    answers.close()


def _packed(target: str, error: BaseException) -> tuple[type[BaseException], tuple[Any, ...], dict[str, Any]]:
    """Take an exception apart. Its own pickling would call __init__, which not every class allows."""
    text = "".join(traceback.format_exception(error))
    state = {key: value for key, value in vars(error).items() if key != "__notes__"} | {"__notes__": [f"In the worker:\n{text}"]}
    parts = (type(error), error.args, state)
    try:
        _rebuilt(pickle.loads(pickle.dumps(parts)))
    # A class or an argument of the caller's that cannot travel: its text can.
    except Exception:
        return JobError, (f"job {target}: {type(error).__name__}: {error}",), {"__notes__": state["__notes__"]}
    return parts


def _rebuilt(parts: tuple[type[BaseException], tuple[Any, ...], dict[str, Any]]) -> BaseException:
    kind, arguments, state = parts
    error = kind.__new__(kind, *arguments)
    error.__dict__.update(state)
    return error
