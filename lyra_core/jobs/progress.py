"""What a running stage tells the outside: stage, fraction, message; and how it hears that it should stop."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Protocol, TextIO

from lyra_core.errors import Cancelled


@dataclass(frozen=True)
class ProgressEvent:
    """One step of a job."""

    stage: str
    fraction: float
    """Of this stage, in [0, 1]."""
    message: str = ""


class Progress(Protocol):
    """Reports to whoever watches. Both methods raise Cancelled once the job was asked to stop."""

    def stage(self, name: str, total: int) -> None:
        """Begin a stage of ``total`` steps (0: a single step of unknown length)."""
        ...

    def update(self, n: int = 1, message: str = "") -> None:
        """Count n finished steps of the stage."""
        ...


class ProgressQueue:
    """Hand events to a callable (a queue's put, a pipe's send). The base of all others."""

    def __init__(self, put: Callable[[ProgressEvent], Any], *, is_cancelled: Callable[[], bool] = lambda: False) -> None:
        self._put, self._is_cancelled = put, is_cancelled
        self._name, self._total, self._done = "", 1, 0
        self._lock = threading.Lock()

    def stage(self, name: str, total: int) -> None:
        """Begin a stage."""
        self._name, self._total, self._done = name, total, 0
        self.update(0)

    def update(self, n: int = 1, message: str = "") -> None:
        """Count n steps and report.

        Raises:
            Cancelled: the job was asked to stop.
        """
        if self._is_cancelled():
            raise Cancelled(f"stopped on request in stage {self._name!r}; starting again resumes")
        # Stages may report from several threads, and a pipe takes one message at a time.
        with self._lock:
            self._done += n
            fraction = self._done / self._total if self._total > 0 else float(self._done > 0)
            self._put(ProgressEvent(self._name, min(max(fraction, 0.0), 1.0), message))


class ProgressNull(ProgressQueue):
    """Report to nobody."""

    def __init__(self, *, is_cancelled: Callable[[], bool] = lambda: False) -> None:
        super().__init__(lambda event: None, is_cancelled=is_cancelled)


class ProgressJson(ProgressQueue):
    """Write one JSON object per line and event."""

    def __init__(self, stream: TextIO | None = None, *, is_cancelled: Callable[[], bool] = lambda: False) -> None:
        self._stream = stream
        super().__init__(self.show, is_cancelled=is_cancelled)

    def show(self, event: ProgressEvent) -> None:
        """Write an event of a job that runs elsewhere."""
        print(json.dumps(asdict(event)), file=self._stream or sys.stdout, flush=True)


class ProgressRich(ProgressQueue):
    """Draw one bar per stage on stderr. A context manager: the terminal is given back on exit."""

    def __init__(self, *, stream: TextIO | None = None, is_cancelled: Callable[[], bool] = lambda: False) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self._bars = Progress(
            SpinnerColumn(), TextColumn("{task.description:<14}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(), TextColumn("{task.fields[message]}"), console=Console(file=stream or sys.stderr),
        )
        self._task: Any = None
        self._shown = ""
        super().__init__(self.show, is_cancelled=is_cancelled)

    def __enter__(self) -> ProgressRich:
        self._bars.start()
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is None:
            self._finish()
        self._bars.stop()

    def show(self, event: ProgressEvent) -> None:
        """Draw an event of a job that runs elsewhere; an event of another stage begins a new bar."""
        if self._task is None or event.stage != self._shown:
            self._finish()
            self._task, self._shown = self._bars.add_task(event.stage, total=1.0, message=""), event.stage
        self._bars.update(self._task, completed=event.fraction, message=event.message)

    def _finish(self) -> None:
        if self._task is not None:
            self._bars.update(self._task, completed=1.0)
