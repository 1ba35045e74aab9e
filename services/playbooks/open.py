"""Makes the Worker of a responder from its settings. Called by services/wiring/bootstrap.py and `llm-im policy test`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import msgspec

from models.playbook.policy import HouseRules
from models.ports import Channel, Clock
from services.actions.outbound import Outbound
from services.playbooks.bounds import Bounds
from services.playbooks.given import ScriptGiven, ServiceGiven, Services, SourceGiven, WarRoomGiven
from services.playbooks.means.hook import HookMeans
from services.playbooks.means.kubernetes import KubernetesMeans
from services.playbooks.means.kubernetes_api import KubernetesApi, KubernetesGiven
from services.playbooks.table import all_actions
from services.playbooks.tools import Receiver, Tools
from services.playbooks.worker import PlaybookWorker
from services.policy.choice import open_decisions, with_token

T = TypeVar("T")


def open_worker(
    given: Mapping[str, Any], channels: Mapping[str, tuple[str, Channel]], clock: Clock
) -> PlaybookWorker:
    """`given` is what the sections of the settings give responders, secrets as plain text; `channels` are the receivers by name, each
    with its type. Connects to nothing yet. Raises Malformed for policies that can't be read."""
    targets, outbound = given["playbook_targets"], Outbound.of(given)
    governance = with_token(given["governance"])
    tools = Tools(
        outbound,
        clock,
        receivers={name: Receiver(name, type_, channel) for name, (type_, channel) in channels.items()},
        services=Services(_table(targets["services"], ServiceGiven)),
        means={
            "kubernetes": KubernetesMeans(KubernetesApi(_one(targets["kubernetes"], KubernetesGiven)), clock),
            "http": HookMeans(outbound),
        },
        prometheus=_one(targets["prometheus"], SourceGiven),
        loki=_one(targets["loki"], SourceGiven),
        scripts=_table(targets["scripts"], ScriptGiven),
        war_room=_one(targets["war_room"], WarRoomGiven),
    )
    return PlaybookWorker(
        all_actions(),
        tools,
        open_decisions(governance, targets["policy"], outbound, clock),
        rules=msgspec.convert(given["house_rules"], HouseRules),
        environment=targets["environment"],
        bounds=Bounds(_secrets(targets, governance)),
    )


def _one(given: Mapping[str, Any], kind: type[T]) -> T:
    return msgspec.convert(given, kind)


def _table(given: Mapping[str, Any], kind: type[T]) -> dict[str, T]:
    return {name: msgspec.convert(each, kind) for name, each in given.items()}


def _secrets(targets: Mapping[str, Any], governance: Mapping[str, Any]) -> Iterator[str]:
    """What must not leave a responder: tokens, and URLs that hold one."""
    found = [
        table["token"]
        for table in (targets["prometheus"], targets["loki"], targets["kubernetes"], governance)
    ]
    found.append(targets["war_room"]["slack_token"])
    for service in targets["services"].values():
        found += [service["token"], service["url"], service["status_url"]]
    for script in targets["scripts"].values():
        found += script["secrets"].values()
    yield from (each for each in found if each)
