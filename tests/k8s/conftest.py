"""Renders once for all tests, outside of the time limit of the first one."""

from __future__ import annotations

import pytest

from tests.k8s.rendering import rendered


@pytest.fixture(scope="session", autouse=True)
def _rendered() -> None:
    rendered()
