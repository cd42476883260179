"""The one door to OpenUSD's Python: a clear error where it is not installed."""

from __future__ import annotations

import importlib.util

from lyra_core.errors import BackendUnavailable


def require_pxr() -> None:
    """Raise where OpenUSD cannot be imported. Inside Isaac Sim, Kit brings its own copy.

    Raises:
        BackendUnavailable: pxr is missing; names the extra that brings it.
    """
    if importlib.util.find_spec("pxr") is None:
        raise BackendUnavailable("usd", reason="pxr (OpenUSD) is not installed", install="pip install 'lyra-worlds[standalone]'")
