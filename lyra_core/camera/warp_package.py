"""NVIDIA Warp, loaded when it is needed and without its banner."""

from __future__ import annotations

from typing import Any

from lyra_core.errors import BackendUnavailable


def load_warp(purpose: str) -> Any:
    """Return the warp package.

    Raises:
        BackendUnavailable: it is not installed.
    """
    try:
        import warp as wp
    except ImportError as error:
        raise BackendUnavailable(purpose, reason=str(error), install="pip install warp-lang") from error
    # Before the first kernel: Warp prints its banner to stdout when it starts, which would spoil JSON output.
    if hasattr(wp, "LOG_ERROR"):
        wp.config.log_level = wp.LOG_ERROR
    else:
        wp.config.quiet = True
    return wp
