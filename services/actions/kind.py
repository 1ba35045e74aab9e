"""What a row of ACTIONS says (services/actions/table.py): how an action comes from the settings into a responder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from models.ports import Action
from models.settings.config import Settings


@dataclass(frozen=True, slots=True)
class ActionKind:
    """One way to respond.

    `config` picks what the action needs out of the settings, as plain data that fits MessagePack: it travels to the
    responder's process, secrets included. None: the settings ask for no such action. `open` makes the action of it there,
    and connects to nothing yet.

    `live` names the settings that may change while it runs; `take` hands an open action the settings after such a change,
    in which secrets are missing. Both are for actions that have such settings.
    """

    config: Callable[[Settings], dict[str, Any] | None]
    open: Callable[[dict[str, Any]], Action]
    live: tuple[str, ...] = ()
    take: Callable[[Any, Settings], None] | None = None
