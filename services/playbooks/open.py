"""Makes the Worker of a responder from its settings. Called by services/wiring/bootstrap.py and `llm-im policy test`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import msgspec

from actors.targets import Targets
from models.playbook.policy import HouseRules
from models.ports import Channel, Clock
from services.actions.outbound import Outbound
from services.edge.shards import EdgeShards
from services.playbooks.bounds import Bounds
from services.playbooks.calls import Calls
from services.playbooks.given import ScriptGiven, ServiceGiven, Services, SourceGiven, WarRoomGiven
from services.playbooks.means.edge import EdgeMeans
from services.playbooks.means.hook import HookMeans
from services.playbooks.means.kubernetes import KubernetesMeans
from services.playbooks.means.kubernetes_api import KubernetesApi, KubernetesGiven
from services.playbooks.table import all_actions
from services.playbooks.tools import Tools
from services.playbooks.worker import PlaybookWorker
from services.policy.choice import open_decisions, with_token

T = TypeVar("T")


def open_worker(
    given: Mapping[str, Any],
    channels: Mapping[str, tuple[str, Channel]],
    clock: Clock,
    targets: Targets | None = None,
    *,
    edge: EdgeShards | None = None,
    strict: bool = False,
) -> PlaybookWorker:
    """`given` is what the sections of the settings give responders, secrets as plain text; `channels` are the receivers by name, each
    with its type, and may change while it runs. `targets` bound its calls; None: nothing does. `edge` is asked for what edge agents do; None: they do nothing. Connects to nothing yet. With `strict`, raises Malformed
    for policies that can't be read; without, they allow nothing."""
    about, outbound = given["playbook_targets"], Calls(Outbound.of(given), targets)
    governance = with_token(given["governance"])
    tools = Tools(
        outbound,
        clock,
        channels=channels,
        targets=targets,
        services=Services(_table(about["services"], ServiceGiven)),
        means={
            "kubernetes": KubernetesMeans(
                KubernetesApi(_one(about["kubernetes"], KubernetesGiven), targets), clock
            ),
            "http": HookMeans(outbound),
            "edge": EdgeMeans(edge, targets),
        },
        prometheus=_one(about["prometheus"], SourceGiven),
        loki=_one(about["loki"], SourceGiven),
        scripts=_table(about["scripts"], ScriptGiven),
        war_room=_one(about["war_room"], WarRoomGiven),
    )
    return PlaybookWorker(
        all_actions(),
        tools,
        open_decisions(governance, about["policy"], outbound, clock, strict=strict),
        rules=msgspec.convert(given["house_rules"], HouseRules),
        environment=about["environment"],
        bounds=Bounds(_secrets(about, governance)),
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
