"""Settings that can each be read, and with which nothing is started all the same."""

from __future__ import annotations

from models.errors import Malformed, Refused
from models.settings.all import Settings
from models.settings.keys import KEYS
from models.settings.values import duration_text
from services.settings.load import DEFAULT, Loaded
from services.settings.mistakes import shown
from services.stores import choice


def unusable(settings: Settings) -> list[str]:
    """What can't be used as it is written, though each value alone can. `llm-im up` starts nothing then."""
    found = []
    for place in (choice.place_of, choice.feed_of):
        try:
            place(settings)
        except Malformed as error:
            found.append(str(error))
    return found


def refusals(settings: Settings, has_tokens: bool | None = None, first_token: str = "") -> list[str]:
    """What can't be used, what is switched on but is not there, and a door that is open to everybody. `llm-im up` starts
    nothing then. `has_tokens` None: nobody knows, and the door is not judged by it; `first_token` makes one."""
    found = unusable(settings) + _open_door(settings, has_tokens, first_token)
    if settings.deployment.mode != "standalone":
        found.append(f'deployment.mode = "{settings.deployment.mode}": only standalone is built')
    for name, why in (
        ("coordination.backend", "no coordination store is built"),
        ("coordination.cluster_nodes", "no coordination store is built"),
        ("messaging.backend", "no queue is built as a door"),
        ("messaging.brokers", "no queue is built as a door"),
    ):
        if value := KEYS[name].of(settings):
            found.append(f"{name} = {shown(value)}: {why}")
    recovery = settings.disaster_recovery
    if recovery.backup_interval is not None and recovery.backup_target is None:
        found.append(
            f'disaster_recovery.backup_interval = "{duration_text(recovery.backup_interval)}": say where to in'
            " disaster_recovery.backup_target"
        )
    server = settings.server
    if server.grpc:
        found.append("server.grpc = true: the gRPC door is not built")
    found += [
        f"{key.name} = true: this is not built"
        for key in KEYS.values()
        if key.is_later and key.path[-1] == "enabled" and key.of(settings)
    ]
    return found


def _open_door(settings: Settings, has_tokens: bool | None, first_token: str) -> list[str]:
    """An address that others reach, where nothing asks them who they are."""
    required, host = settings.auth.required, settings.server.http_host
    if settings.server.is_loopback or required:
        return []
    if required is False:
        return [
            f"server.http_host {host} is reached from elsewhere, and auth.required = false lets everybody in: "
            "listen on 127.0.0.1, or leave auth.required out"
        ]
    if has_tokens is False:
        return [
            f"server.http_host {host} is reached from elsewhere, and there is no API token yet. Make the first: {first_token}"
        ]
    return []


def refuse(loaded: Loaded, has_tokens: bool | None = None, first_token: str = "") -> None:
    """Raises Refused that names each of refusals(), with where it was said."""
    found = refusals(loaded.settings, has_tokens, first_token)
    if found:
        said = [f"{loaded.sources.get(each.split(' ')[0].rstrip(':'), DEFAULT)}: {each}" for each in found]
        raise Refused("\n  ".join(["this can't be used, or is not built yet, so nothing is started:", *said]))
