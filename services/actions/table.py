"""All actions by name, ours and those that other packages add. Used by services/wiring/bootstrap.py.

A package adds one by an entry point of group GROUP: an ActionKind, under the name that Act.action bears.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog

from models.ports import Action
from services.actions import webhook
from services.actions.kind import ActionKind
from services.wiring.extensions import extended

log = structlog.get_logger()

GROUP = "llm_incident_manager.actions"
ACTIONS: dict[str, ActionKind] = {"webhook": webhook.ACTION}


class Actions:
    """The actions of one responder, by name: those that the settings it is `given` ask for."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        """One of ours that can't be opened is a bug, and is raised; another package's is named in the log and skipped."""
        self.by_name: dict[str, Action] = {}
        self._kinds = extended(GROUP, ActionKind, ACTIONS)
        for name, kind in self._kinds.items():
            try:
                action = kind.open(given)
            except Exception as error:
                if name in ACTIONS:
                    raise
                # The text may hold a secret.
                log.error("action can't be set up, skipped", name=name, why=type(error).__name__)
                continue
            if action is not None:
                self.by_name[name] = action

    def take(self, given: Mapping[str, Any]) -> None:
        """Use the changed settings."""
        for name, action in self.by_name.items():
            take = self._kinds[name].take
            if take is not None:
                take(action, given)
