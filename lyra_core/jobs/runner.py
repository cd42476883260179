"""The one job runner: run a function in a thread or a worker process, watch it, stop it, get its result.

Resuming is submitting again: the stages of a job skip what the world folder already holds.
"""

from __future__ import annotations

import importlib
import inspect
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Literal

from lyra_core.errors import Cancelled, ConfigError, JobError
from lyra_core.jobs.progress import ProgressEvent, ProgressQueue

Status = Literal["running", "done", "failed", "cancelled"]
KEPT_EVENTS = 10_000
"""Events that nobody reads are dropped beyond this many, oldest first."""


class Job:
    """A running or finished job. Safe to use from several threads."""

    def __init__(self, target: str, *, on_event: Callable[[ProgressEvent], Any] | None = None) -> None:
        self.target = target
        self.latest: ProgressEvent | None = None
        """The newest event."""
        self._on_event = on_event
        self._events: deque[ProgressEvent] = deque(maxlen=KEPT_EVENTS)
        self._changed = threading.Condition()
        self._status: Status = "running"
        self._result: Any = None
        self._error: BaseException | None = None
        self._cancel = threading.Event()

    @property
    def status(self) -> Status:
        """'running', 'done', 'failed' or 'cancelled'."""
        return self._status

    def cancel(self) -> None:
        """Ask the job to stop at its next progress report. Returns at once."""
        self._cancel.set()

    def kill(self) -> None:
        """Stop the job as hard as its mode allows: a worker process is killed, a thread only asked."""
        self.cancel()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait up to timeout [s] for the end; return whether it has ended."""
        with self._changed:
            return self._changed.wait_for(lambda: self._status != "running", timeout)

    def result(self, timeout: float | None = None) -> Any:
        """Wait and return what the function returned.

        Raises:
            TimeoutError: not finished after timeout [s].
            Cancelled: the job was stopped.
            JobError: its worker process died.
            Exception: whatever the function raised.
        """
        error = self.exception(timeout)
        if error is not None:
            raise error
        return self._result

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait and return what ended the job, None if it returned."""
        if not self.wait(timeout):
            raise TimeoutError(f"job {self.target}: still running after {timeout} s")
        return self._error

    def events(self) -> Iterator[ProgressEvent]:
        """Yield events as they come, until the job has ended and all were read."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._events or self._status != "running")
                if not self._events:
                    return
                event = self._events.popleft()
            yield event

    def _put(self, event: ProgressEvent) -> None:
        with self._changed:
            self.latest = event
            self._events.append(event)
            self._changed.notify_all()
        if self._on_event is not None:
            self._on_event(event)

    def _end(self, result: Any, error: BaseException | None) -> None:
        with self._changed:
            self._result, self._error = result, error
            self._status = "done" if error is None else "cancelled" if isinstance(error, Cancelled) else "failed"
            self._changed.notify_all()


class JobThread(Job):
    """A job in a thread of this process."""

    def __init__(self, target: str, kwargs: dict[str, Any], *, on_event: Callable[[ProgressEvent], Any] | None = None) -> None:
        super().__init__(target, on_event=on_event)
        self._function = load_function(target)
        self._kwargs = kwargs
        threading.Thread(target=self._run, name=f"job {target}", daemon=True).start()

    def _run(self) -> None:
        try:
            progress = ProgressQueue(self._put, is_cancelled=self._cancel.is_set)
            result = self._function(**self._kwargs, progress=progress)
        # Whatever ends the function belongs to the one who asks for its result.
        except BaseException as error:
            self._end(None, error)
        else:
            self._end(result, None)


def submit(
    target: str,
    kwargs: dict[str, Any],
    *,
    mode: Literal["thread", "process"] = "thread",
    on_event: Callable[[ProgressEvent], Any] | None = None,
) -> Job:
    """Start ``target``, a 'module:function' that takes kwargs and ``progress`` (a Progress), and return its Job.

    Args:
        mode: 'thread' runs here; 'process' runs in a fresh interpreter that a crash or kill cannot take this one down with.
            Arguments and result must then be picklable, and a script that submits needs ``if __name__ == "__main__":``.
        on_event: called with every ProgressEvent, in a thread of the runner.

    Raises:
        ConfigError: the target cannot be imported, or the mode is unknown.
    """
    load_function(target)
    if mode == "thread":
        return JobThread(target, kwargs, on_event=on_event)
    if mode == "process":
        from lyra_core.jobs.process import JobProcess

        return JobProcess(target, kwargs, on_event=on_event)
    raise ConfigError(f"job mode: got {mode!r}, expected 'thread' or 'process'")


def load_function(target: str) -> Callable[..., Any]:
    """Return the function behind 'module:function'.

    Raises:
        ConfigError: it cannot be imported, or takes no ``progress``.
    """
    module, _, name = target.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
        parameters = inspect.signature(function).parameters
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ConfigError(f"job target: got {target!r}, expected 'module:function' that can be imported: {error}") from error
    if "progress" not in parameters and not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        raise ConfigError(f"job target {target!r}: got parameters {', '.join(parameters) or 'none'}, expected one named progress")
    return function


def died(target: str, exit_code: int | None, stage: str) -> JobError:
    """Return the error of a worker process that ended without an answer."""
    how = f"killed by signal {-exit_code}" if exit_code is not None and exit_code < 0 else f"exit code {exit_code}"
    where = f" in stage {stage!r}" if stage else ""
    return JobError(f"job {target}: the worker process died{where} ({how}); starting again resumes")
