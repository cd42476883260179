"""Navigation metrics of Anderson et al. 2018 (arXiv 1807.06757) and Datta et al. 2020, as Habitat computes them."""

from __future__ import annotations


def spl(success: bool, shortest: float, length: float) -> float:
    """Return success weighted by path length, S l / max(p, l); lengths in metres."""
    return float(success) * shortest / max(length, shortest)


def soft_spl(distance: float, shortest: float, length: float) -> float:
    """Return SPL with the progress max(0, 1 - d / l) in place of success: max(0, 1 - d / l) l / max(p, l)."""
    return max(0.0, 1.0 - distance / shortest) * shortest / max(length, shortest)
