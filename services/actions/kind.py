"""What a row of ACTIONS says (services/actions/table.py): how a responder makes an action from its settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from models.ports import Action


@dataclass(frozen=True, slots=True)
class ActionKind:
    """One way to respond.

    `open` makes the action in a responder's process, from what the sections of the settings give responders
    (`for_process`), secrets included; None if they do not want such an action. It connects to nothing yet. `take` gives
    an open action the same after settings changed; values that hold a secret are missing then.
    """

    open: Callable[[Mapping[str, Any]], Action | None]
    take: Callable[[Any, Mapping[str, Any]], None] | None = None
