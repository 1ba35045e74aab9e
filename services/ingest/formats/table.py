"""The formats there are: who posts to which path. A new one is a file beside this and a line here (format.py).

What a package of somebody else brings counts too: an entry point of the group EXTENSIONS that names a Format.
"""

from __future__ import annotations

import re
from functools import cache
from inspect import isabstract

import structlog

from models.control.tokens import FORMAT_PATTERN
from models.errors import Broken
from services.ingest.formats.alertmanager import AlertmanagerFormat
from services.ingest.formats.alertmanager_webhook import AlertmanagerWebhookFormat
from services.ingest.formats.azure_monitor import AzureMonitorFormat
from services.ingest.formats.checkmk import CheckmkFormat
from services.ingest.formats.cloudevents import CloudEventsFormat
from services.ingest.formats.datadog import DatadogFormat
from services.ingest.formats.dynatrace import DynatraceFormat
from services.ingest.formats.events import EventsFormat
from services.ingest.formats.falco import FalcoFormat
from services.ingest.formats.format import Format, Shared
from services.ingest.formats.gcp_monitoring import GcpMonitoringFormat
from services.ingest.formats.github import GitHubFormat
from services.ingest.formats.grafana import GrafanaFormat
from services.ingest.formats.heartbeat import HeartbeatFormat
from services.ingest.formats.llm_edge_agent import LlmEdgeAgentFormat
from services.ingest.formats.llm_governance import LlmGovernanceFormat
from services.ingest.formats.llm_sentinel import LlmSentinelFormat
from services.ingest.formats.llm_shield import LlmShieldFormat
from services.ingest.formats.mail import EmailFormat
from services.ingest.formats.mapped import MappedFormat
from services.ingest.formats.newrelic import NewRelicFormat
from services.ingest.formats.opsgenie import OpsgenieFormat
from services.ingest.formats.opsgenie_webhook import OpsgenieWebhookFormat
from services.ingest.formats.otlp_logs import OtlpLogsFormat
from services.ingest.formats.pagerduty import PagerDutyFormat
from services.ingest.formats.pagerduty_change import PagerDutyChangeFormat
from services.ingest.formats.pagerduty_v1 import PagerDutyV1Format
from services.ingest.formats.pagerduty_webhook import PagerDutyWebhookFormat
from services.ingest.formats.paths import paths_of
from services.ingest.formats.sentry import SentryFormat
from services.ingest.formats.sns import SnsFormat
from services.ingest.formats.splunk import SplunkFormat
from services.ingest.formats.stix import StixFormat
from services.ingest.formats.taxii import TaxiiFormat
from services.ingest.formats.uptime_kuma import UptimeKumaFormat
from services.ingest.formats.v1 import V1Format
from services.ingest.formats.zabbix import ZabbixFormat
from services.wiring.extensions import extended

log = structlog.get_logger()

FORMATS: tuple[type[Format], ...] = (
    AlertmanagerFormat,
    V1Format,
    AlertmanagerWebhookFormat,
    GrafanaFormat,
    PagerDutyFormat,
    PagerDutyChangeFormat,
    PagerDutyV1Format,
    OpsgenieFormat,
    CloudEventsFormat,
    LlmSentinelFormat,
    LlmShieldFormat,
    LlmEdgeAgentFormat,
    LlmGovernanceFormat,
    StixFormat,
    TaxiiFormat,
    OtlpLogsFormat,
    PagerDutyWebhookFormat,
    OpsgenieWebhookFormat,
    DatadogFormat,
    NewRelicFormat,
    SnsFormat,
    AzureMonitorFormat,
    GcpMonitoringFormat,
    SentryFormat,
    ZabbixFormat,
    UptimeKumaFormat,
    CheckmkFormat,
    FalcoFormat,
    GitHubFormat,
    SplunkFormat,
    DynatraceFormat,
    EmailFormat,
    MappedFormat,
    EventsFormat,
    HeartbeatFormat,
)
EXTENSIONS = "llm_incident_manager.formats"
#: A name becomes a scope, and a path a rule of HAProxy's.
NAME = re.compile(FORMAT_PATTERN)
PATH = re.compile(r"(/[A-Za-z0-9_.-]+)+")
MORE_PATH = re.compile(r"(/([A-Za-z0-9_.-]+|\{[a-z_]+\}))+")


def all_formats() -> dict[str, type[Format]]:
    """Every format by its name, ours first. Raises Broken for one of ours that can't be used; a bad extension is logged
    and left out, since one bad package must not keep everybody from sending."""
    found: dict[str, type[Format]] = {}
    paths: dict[str, str] = {}
    for kind in FORMATS:
        if why := _unusable(kind) or _taken(kind, found, paths):
            raise Broken(f"the format {kind.name!r}: {why}")
        found[kind.name] = kind
        paths |= dict.fromkeys(paths_of(kind), kind.name)
    return {**found, **_third_parties(FORMATS)}


def open_formats(shared: Shared) -> dict[str, Format]:
    """One of each, by its name, for one gateway."""
    for name, kind in all_formats().items():
        shared.formats[name] = kind(shared)
    return shared.formats


@cache
def _third_parties(ours: tuple[type[Format], ...]) -> dict[str, type[Format]]:
    """Loaded once a process: an import has effects, and its error is worth one line."""
    built_in = {kind.name: kind for kind in ours}
    paths = {path: kind.name for kind in ours for path in paths_of(kind)}
    found: dict[str, type[Format]] = {}
    for name, kind in extended(EXTENSIONS, type, built_in).items():
        if name in built_in:
            continue
        about = {"group": EXTENSIONS, "name": name}
        if not issubclass(kind, Format) or getattr(kind, "name", "") != name:
            why = f"expected a subclass of Format with the name {name!r}, got {kind.__name__}"
            log.error("extension can't be loaded, skipped", **about, why=why)
        elif why := _unusable(kind):
            log.error("extension can't be loaded, skipped", **about, why=why)
        elif why := _taken(kind, found, paths):
            log.error("extension refused: its name or path is taken", **about, why=why)
        else:
            found[name] = kind
            paths |= dict.fromkeys(paths_of(kind), name)
    return found


def _unusable(kind: type[Format]) -> str:
    """Why a format can't be served, "" if it can."""
    if isabstract(kind):
        return f"it lacks {', '.join(sorted(kind.__abstractmethods__))}"
    if not NAME.fullmatch(kind.name):
        return f"its name must match {FORMAT_PATTERN}"
    path = getattr(kind, "path", "")
    if not PATH.fullmatch(path):
        return f"its path must match {PATH.pattern}, not {path!r}"
    wrong = next((more for more in kind.more_paths if not MORE_PATH.fullmatch(more)), None)
    return "" if wrong is None else f"its paths must match {MORE_PATH.pattern}, not {wrong!r}"


def _taken(kind: type[Format], found: dict[str, type[Format]], paths: dict[str, str]) -> str:
    """What is wrong when another format has its name or its path, "" when none has."""
    if kind.name in found:
        return "there are two of this name"
    taken = next((path for path in paths_of(kind) if path in paths), None)
    return "" if taken is None else f"{taken} is the path of {paths[taken]!r}"
