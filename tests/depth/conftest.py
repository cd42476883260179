"""The analytic furnished room, rendered once."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from analytic_room import render_room


@pytest.fixture(scope="session")
def room() -> SimpleNamespace:
    return render_room()
