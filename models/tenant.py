"""Whose data it is. There is one tenant; every frame and every message names it all the same."""

from __future__ import annotations

TENANT = "default"
