"""Settings that are each valid, but with which nothing is started."""

from __future__ import annotations

import os
import time
from importlib.util import find_spec

from models.control.tokens import every_scope
from models.durations import duration_text
from models.errors import Malformed, Refused
from models.settings.all import Settings
from models.settings.dialled import Dialled
from models.settings.keys import KEYS
from services.ingest.formats.mapped import wrong_mappings
from services.ingest.formats.table import all_formats
from services.settings.load import DEFAULT, Loaded
from services.settings.mistakes import shown
from services.stores import choice

#: What reads each queue: the module, and the package that has it.
CLIENTS = {
    "kafka": ("confluent_kafka", "confluent-kafka"),
    "nats": ("nats", "nats-py"),
    "rabbitmq": ("aio_pika", "aio-pika"),
}


def unusable(settings: Settings) -> list[str]:
    """Settings that can't be used together, though each value alone is valid. `llm-im up` then starts nothing."""
    found = []
    for place in (choice.place_of, choice.feed_of):
        try:
            place(settings)
        except Malformed as error:
            found.append(str(error))
    found += wrong_mappings(settings.formats.mappings)
    if settings.ingest.relabel or settings.ingest.filters:
        # Imported here: it brings every format along.
        from services.ingest.formats.table import all_formats
        from services.ingest.rules import wrong_rules

        found += wrong_rules(settings, all_formats())
    return found


def refusals(settings: Settings, has_tokens: bool | None = None, first_token: str = "") -> list[str]:
    """Settings that can't be used, features that are on but not built, and an address that is open to everyone: `llm-im up`
    then starts nothing. `has_tokens` None: unknown, so the address is not checked. `first_token`: the command that makes one."""
    found = unusable(settings) + _open_door(settings, has_tokens, first_token)
    if settings.deployment.mode != "standalone":
        found.append(f'deployment.mode = "{settings.deployment.mode}": only "standalone" is built')
    for name, why in (
        ("coordination.backend", "no coordination store is built"),
        ("coordination.cluster_nodes", "no coordination store is built"),
    ):
        if value := KEYS[name].of(settings):
            found.append(f"{name} = {shown(value)}: {why}")
    found += _queue(settings)
    recovery = settings.disaster_recovery
    if recovery.backup_interval is not None and recovery.backup_target is None:
        found.append(
            f'disaster_recovery.backup_interval = "{duration_text(recovery.backup_interval)}": needs'
            " disaster_recovery.backup_target"
        )
    policy = settings.playbooks.policy
    if policy.files:
        # Imported here: it brings the client for policy servers along.
        from services.policy.choice import wrong_policies

        if wrong := wrong_policies(policy.files, policy.rule):
            found.append(f"playbooks.policy.files: {wrong}")
    found += _dialled(settings) + _tls(settings)
    governance = settings.integrations.llm_governance_core
    if (variable := governance.auth_token_env) and governance.is_asked and not os.environ.get(variable):
        found.append(
            f'integrations.llm_governance_core.auth_token_env = "{variable}": the environment has no such variable'
        )
    found += [
        f"{key.name} = true: not built yet"
        for key in KEYS.values()
        if key.is_later and key.path[-1] == "enabled" and key.of(settings)
    ]
    return found


def _tls(settings: Settings) -> list[str]:
    """Files of the front door's TLS that can't be used."""
    tls = settings.server.tls
    found = [f"server.tls.{at}: {wrong}" for at, wrong in tls.mistakes()]
    if found or not tls.is_on:
        return found
    from services.machine.tls import load

    try:
        load(tls, time.time())
    except Malformed as error:
        found.append(str(error))
    if tls.clients and settings.auth.required is False:
        found.append("server.tls.clients: auth.required = false lets everyone in: remove one of them")
    known = every_scope(all_formats())
    for place, client in enumerate(tls.clients):
        if unknown := [scope for scope in client.scopes if scope not in known]:
            found.append(
                f"server.tls.clients.{place}.scopes: there is no {unknown[0]!r}; expected one or more of {', '.join(known)}"
            )
    return found


def tls_notices(settings: Settings) -> list[str]:
    """What is to be said of the front door's certificate, though it can be used."""
    if not settings.server.tls.is_on:
        return []
    from services.machine.tls import notices

    return notices(settings.server.tls, time.time())


def _dialled(settings: Settings) -> list[str]:
    """What is wrong with where we are to connect to."""
    integrations, found = settings.integrations, []
    for name in ("llm_sentinel", "llm_shield", "llm_edge_agent"):
        section: Dialled = getattr(integrations, name)
        if (section.tls_cert is None) != (section.tls_key is None):
            found.append(f"integrations.{name}.tls_cert: expected tls_cert and tls_key together")
        variable = section.auth_token_env
        if section.is_dialled and variable and section.auth_token is None and not os.environ.get(variable):
            found.append(
                f'integrations.{name}.auth_token_env = "{variable}": the environment has no such variable'
            )
    edge = integrations.llm_edge_agent
    if edge.enabled and edge.discovery_mode not in (None, "static"):
        found.append(
            f'integrations.llm_edge_agent.discovery_mode = "{edge.discovery_mode}": only "static" is built, with endpoints'
        )
    return found


def _queue(settings: Settings) -> list[str]:
    """A queue that can't be read with these settings, or on this machine."""
    messaging = settings.messaging
    if messaging.backend is None:
        named = KEYS["messaging.brokers"].of(settings)
        return [f"messaging.brokers = {shown(named)}: needs messaging.backend"] if named else []
    if not messaging.brokers:
        return [f'messaging.backend = "{messaging.backend}": needs messaging.brokers']
    module, package = CLIENTS[messaging.backend]
    if find_spec(module) is None:
        return [
            f'messaging.backend = "{messaging.backend}": needs {package}: '
            f"install llm-incident-manager[{messaging.backend}]"
        ]
    if messaging.format and messaging.format.partition("/")[0] not in all_formats():
        known = ", ".join(sorted(all_formats()))
        return [f'messaging.format = "{messaging.format}": expected one of {known}']
    return []


def _open_door(settings: Settings, has_tokens: bool | None, first_token: str) -> list[str]:
    """An address that other machines can reach while no token is required."""
    required, host = settings.auth.required, settings.server.http_host
    if settings.server.is_loopback or required:
        return []
    if required is False:
        return [
            f"server.http_host {host} can be reached from other machines, and auth.required = false lets everyone in: "
            "listen on 127.0.0.1, or remove auth.required"
        ]
    if has_tokens is False:
        return [
            f"server.http_host {host} can be reached from other machines, and no API token exists yet. Create the first: {first_token}"
        ]
    return []


def refuse(loaded: Loaded, has_tokens: bool | None = None, first_token: str = "") -> None:
    """Raises Refused, listing refusals() with the source of each."""
    found = refusals(loaded.settings, has_tokens, first_token)
    if found:
        said = [f"{loaded.sources.get(each.split(' ')[0].rstrip(':'), DEFAULT)}: {each}" for each in found]
        raise Refused(
            "\n  ".join(
                ["nothing was started, because these settings can't be used or are not built yet:", *said]
            )
        )
