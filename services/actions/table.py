"""All actions by name, ours and those that other packages add. Used by services/wiring/bootstrap.py.

A package adds one by an entry point of group GROUP: an ActionKind, under the name that Act.action bears.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog

from models.ports import Action
from models.settings.config import Settings
from services.actions import webhook
from services.actions.kind import ActionKind
from services.wiring.extensions import extended

log = structlog.get_logger()

GROUP = "llm_incident_manager.actions"
ACTIONS: dict[str, ActionKind] = {"webhook": webhook.ACTION}


def action_configs(settings: Settings) -> dict[str, dict[str, Any]]:
    """What the actions that these settings ask for need in a responder's process, by name. Holds secrets."""
    configs = {}
    for name, kind in extended(GROUP, ActionKind, ACTIONS).items():
        try:
            config = kind.config(settings)
        except Exception as error:  # noqa: BLE001  # of a stranger; ours is raised again
            _skip(name, error)
            continue
        if config is not None:
            configs[name] = config
    return configs


class Actions:
    """The actions of one responder, opened by what action_configs() made, by name."""

    def __init__(self, configs: Mapping[str, dict[str, Any]]) -> None:
        self.by_name: dict[str, Action] = {}
        self._kinds = extended(GROUP, ActionKind, ACTIONS)
        for name, config in configs.items():
            try:
                self.by_name[name] = self._kinds[name].open(config)
            except Exception as error:  # noqa: BLE001  # of a stranger; ours is raised again
                _skip(name, error)

    def take(self, settings: Settings) -> None:
        """Settings were changed while it runs. `settings` holds no secrets."""
        for name, action in self.by_name.items():
            take = self._kinds[name].take
            if take is not None:
                take(action, settings)


def _skip(name: str, error: Exception) -> None:
    """One of ours that fails is a bug, and must not be started without; another package's must not cost ours their start."""
    if name in ACTIONS:
        raise error
    # The text may hold a secret.
    log.error("action can't be set up, skipped", name=name, why=type(error).__name__)
