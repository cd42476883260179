"""Jobs in both modes: events, result, errors, cancel, crash, kill, resume."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lyra_core.errors import BackendUnavailable, Cancelled, ConfigError, JobError
from lyra_core.jobs.progress import ProgressEvent, ProgressJson, ProgressNull, ProgressQueue, ProgressRich
from lyra_core.jobs.runner import submit

HERE = "job_functions"
MODES = pytest.mark.parametrize("mode", ["thread", "process"])


@MODES
def test_events_and_result(mode):
    seen = []
    job = submit(f"{HERE}:count", {"n": 4}, mode=mode, on_event=seen.append)
    events = list(job.events())
    result = job.result(20)
    assert result["sum"] == 6 and job.status == "done" and job.exception() is None
    assert (result["pid"] == os.getpid()) is (mode == "thread")
    assert [e.fraction for e in events] == [0, 0.25, 0.5, 0.75, 1] and events == seen
    assert events[-1] == job.latest == ProgressEvent("counting", 1.0, "step 3")


@MODES
def test_cancel(mode):
    job = submit(f"{HERE}:endless", {}, mode=mode)
    assert next(job.events()).stage == "endless"
    job.cancel()
    with pytest.raises(Cancelled, match="stage 'endless'"):
        job.result(20)
    assert job.status == "cancelled"
    job.cancel()


@MODES
def test_errors_arrive_as_themselves(mode):
    job = submit(f"{HERE}:unavailable", {}, mode=mode)
    with pytest.raises(BackendUnavailable, match="no torch") as caught:
        job.result(20)
    assert caught.value.install == "pip install lyra-worlds[lyra2]" and job.status == "failed"
    if mode == "process":
        assert "in unavailable" in caught.value.__notes__[0]


@pytest.mark.parametrize(("name", "kwargs", "how"), [("die", {"code": 3}, "in stage 'dying' .exit code 3"),
                                                     ("abort", {}, "killed by signal 6|exit code 3")])
def test_a_crash_is_told(name, kwargs, how):
    job = submit(f"{HERE}:{name}", kwargs, mode="process")
    with pytest.raises(JobError, match=f"worker process died.*{how}"):
        job.result(20)
    assert job.status == "failed"


@pytest.mark.parametrize("name", ["unpicklable_error", "unpicklable_result"])
def test_what_cannot_travel_is_told(name):
    with pytest.raises((JobError, TypeError), match=r"pickle|Unpicklable"):
        submit(f"{HERE}:{name}", {}, mode="process").result(20)


def alive(pid: int) -> bool:
    """Return whether a process runs (one that has ended but was not collected by its parent does not count)."""
    status = Path(f"/proc/{pid}/stat")
    if status.parent.parent.joinpath("self").exists():
        return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def pid_in(folder: Path) -> int:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        text = (folder / "pid").read_text() if (folder / "pid").exists() else ""
        if text:
            return int(text)
        time.sleep(0.01)
    raise AssertionError("the worker did not start")


def test_kill_leaves_nothing(tmp_path):
    job = submit(f"{HERE}:deaf", {"folder": str(tmp_path)}, mode="process")
    pid = pid_in(tmp_path)
    job.kill()
    with pytest.raises(Cancelled, match="killed on request"):
        job.result(1)
    assert not alive(pid) and not [t for t in threading.enumerate() if "deaf" in t.name and t.is_alive() and not t.join(5)]


@pytest.mark.skipif(os.name == "nt", reason="sends SIGKILL")
def test_the_worker_ends_when_its_owner_is_killed(tmp_path):
    script = tmp_path / "owner.py"
    script.write_text(
        "import time\nfrom lyra_core.jobs.runner import submit\n"
        "if __name__ == '__main__':\n"
        f"    job = submit('{HERE}:deaf', dict(folder={str(tmp_path)!r}), mode='process')\n    time.sleep(60)\n"
    )
    root = Path(__file__).resolve().parents[2]
    path = os.pathsep.join([str(root), str(Path(__file__).parent)])
    owner = subprocess.Popen([sys.executable, str(script)], env={**os.environ, "PYTHONPATH": path})
    try:
        pid = pid_in(tmp_path)
    finally:
        owner.kill()
        owner.wait()
    deadline = time.monotonic() + 10
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not alive(pid)


def test_a_thread_left_behind_does_not_hold_the_job(monkeypatch):
    monkeypatch.setattr("lyra_core.jobs.process.JOIN_SECONDS", 0.3)
    assert submit(f"{HERE}:leaves_a_thread", {}, mode="process").result(20) == "done"


def test_submitting_again_resumes(tmp_path):
    kwargs = {"folder": str(tmp_path)}
    with pytest.raises(JobError, match="stage 'stage 1'"):
        submit(f"{HERE}:staged", {**kwargs, "fail_at": 1}, mode="process").result(20)
    assert submit(f"{HERE}:staged", kwargs).result(20) == [1, 2]


def test_a_failing_callback_ends_the_job():
    def boom(event):
        raise RuntimeError("callback")

    for mode in ("thread", "process"):
        with pytest.raises(RuntimeError, match="callback"):
            submit(f"{HERE}:count", {"n": 3}, mode=mode, on_event=boom).result(20)


def test_timeout_and_wrong_targets():
    job = submit(f"{HERE}:endless", {})
    with pytest.raises(TimeoutError, match="still running"):
        job.result(0.02)
    job.cancel()
    assert job.wait(5)
    with pytest.raises(ConfigError, match="expected 'module:function'"):
        submit("nowhere.module:f", {})
    with pytest.raises(ConfigError, match="got parameters n, expected one named progress"):
        submit(f"{HERE}:no_progress", {"n": 1})
    with pytest.raises(ConfigError, match="got 'fork'"):
        submit(f"{HERE}:count", {"n": 1}, mode="fork")


def test_unread_events_do_not_pile_up(monkeypatch):
    monkeypatch.setattr("lyra_core.jobs.runner.KEPT_EVENTS", 10)
    job = submit(f"{HERE}:count", {"n": 500})
    job.result(20)
    assert len(job._events) == 10 and job.latest.message == "step 499"


def test_progress_writers():
    stream = io.StringIO()
    progress = ProgressJson(stream)
    progress.stage("read", 2)
    progress.update(message="a")
    progress.update(5)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert lines == [{"stage": "read", "fraction": f, "message": m} for f, m in ((0, ""), (0.5, "a"), (1, ""))]
    terminal = io.StringIO()
    with ProgressRich(stream=terminal) as bars:
        bars.stage("generate", 3)
        bars.update(message="chunk 0")
        bars.stage("lift", 1)
    assert "generate" in terminal.getvalue() and "lift" in terminal.getvalue() and "100 %" in terminal.getvalue()
    with pytest.raises(Cancelled):
        ProgressNull(is_cancelled=lambda: True).update()
    events = []
    ProgressQueue(events.append).stage("unknown length", 0)
    assert events == [ProgressEvent("unknown length", 0.0)]


def test_imports_are_light():
    code = "import sys, lyra_core.jobs.runner, lyra_core.jobs.progress; print('rich' in sys.modules, 'numpy' in sys.modules)"
    root = str(Path(__file__).resolve().parents[2])
    env = {**os.environ, "PYTHONPATH": root}
    out = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["False", "False"]
