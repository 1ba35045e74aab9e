"""The sources there are, one row each. A new one is a file beside this and a row here (source.py)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from services.ingest.sources.source import Source, SourceNeeds

if TYPE_CHECKING:
    from models.settings.all import Settings


@dataclass(frozen=True, slots=True)
class SourceKind:
    """A row. `place` is "module:Class", imported only when the settings ask for it: most need a client library."""

    name: str
    is_wanted: Callable[[Settings], bool]
    place: str


def _queue(backend: str) -> Callable[[Settings], bool]:
    return lambda settings: settings.messaging.is_read and settings.messaging.backend == backend


SOURCES: tuple[SourceKind, ...] = (
    SourceKind("kafka", _queue("kafka"), "services.ingest.sources.kafka:KafkaSource"),
    SourceKind("nats", _queue("nats"), "services.ingest.sources.nats:NatsSource"),
    SourceKind("rabbitmq", _queue("rabbitmq"), "services.ingest.sources.rabbitmq:RabbitSource"),
    SourceKind(
        "alertmanager",
        lambda settings: bool(settings.pull.alertmanager),
        "services.ingest.sources.alertmanager:AlertmanagerPolls",
    ),
    SourceKind(
        "taxii", lambda settings: bool(settings.pull.taxii), "services.ingest.sources.taxii:TaxiiPolls"
    ),
    SourceKind(
        "llm-sentinel",
        lambda settings: settings.integrations.llm_sentinel.is_dialled,
        "services.ingest.sources.llm_sentinel:SentinelFeeds",
    ),
    SourceKind(
        "llm-shield",
        lambda settings: settings.integrations.llm_shield.is_dialled,
        "services.ingest.sources.llm_shield:ShieldPolls",
    ),
    SourceKind(
        "llm-edge-agent",
        lambda settings: settings.integrations.llm_edge_agent.is_dialled,
        "services.ingest.sources.llm_edge_agent:EdgeDials",
    ),
)


def wanted(settings: Settings) -> list[SourceKind]:
    """Those that the settings ask for."""
    return [row for row in SOURCES if row.is_wanted(settings)]


def open_sources(needs: SourceNeeds) -> dict[str, Source]:
    """Each of those by its name, not started yet."""
    found: dict[str, Source] = {}
    for row in wanted(needs.settings):
        module, _, name = row.place.partition(":")
        found[row.name] = getattr(import_module(module), name)(needs)
    return found
