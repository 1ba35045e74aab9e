"""What a row of ACTIONS says (services/actions/table.py): how a responder gets an action out of its settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from models.ports import Action


@dataclass(frozen=True, slots=True)
class ActionKind:
    """One way to respond.

    `open` makes the action in a responder's process, out of what the sections of the settings give responders (`for_process`),
    secrets included; None when they ask for no such action. It connects to nothing yet. `take` hands an open action the same
    after settings were changed while it runs; what holds a secret is missing then.
    """

    open: Callable[[Mapping[str, Any]], Action | None]
    take: Callable[[Any, Mapping[str, Any]], None] | None = None
