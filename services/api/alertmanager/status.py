"""What GET /api/v2/status answers: version, start, and our settings as an Alertmanager configuration."""

from __future__ import annotations

import platform

import msgspec
import yaml

from models import VERSION
from models.alerts.alert import PLAIN_NAME
from models.settings.all import Settings
from services.machine.front import authority
from services.times import timestamp

#: The version whose answers these are. Clients choose their decoder by it; our own follows as build metadata.
SPEAKS = "0.34.0"
#: The one receiver there is: the first response.
RECEIVER = "llm-im"


class Peer(msgspec.Struct, frozen=True):
    """One member of the cluster."""

    name: str
    address: str


class Cluster(msgspec.Struct, frozen=True):
    """The cluster, as far as Alertmanager's clients know one. `name` is the member that answers."""

    name: str
    peers: list[Peer]
    status: str


class Config(msgspec.Struct, frozen=True):
    """The configuration as YAML."""

    original: str


class VersionInfo(msgspec.Struct, frozen=True, rename="camel"):
    """What was built, when and from what. All six are required."""

    branch: str
    build_date: str
    build_user: str
    go_version: str
    revision: str
    version: str


class Status(msgspec.Struct, frozen=True, rename="camel"):
    """The answer of GET /status. `uptime` is the time of start, as in the original."""

    cluster: Cluster
    config: Config
    uptime: str
    version_info: VersionInfo


def status_of(settings: Settings, started_at: float) -> Status:
    # The gateways of one system answer as one: clients need not know which of them they asked.
    peer = Peer(RECEIVER, authority(settings.server.http_host, settings.server.http_port))
    return Status(
        cluster=Cluster(RECEIVER, [peer], "ready"),
        config=Config(config_yaml(settings)),
        uptime=timestamp(started_at),
        version_info=VersionInfo(
            branch="llm-incident-manager",
            build_date="",
            build_user="",
            go_version=f"none (Python {platform.python_version()})",
            revision=VERSION,
            version=f"{SPEAKS}+llm-im.{VERSION}",
        ),
    )


def _duration(seconds: float) -> str:
    """As Prometheus writes it: whole numbers of the largest unit that fits."""
    milliseconds = round(seconds * 1000)
    for unit, size in (("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if milliseconds and milliseconds % size == 0:
            return f"{milliseconds // size}{unit}"
    return f"{milliseconds}ms" if milliseconds else "0s"


def config_yaml(settings: Settings) -> str:
    """Our settings as an Alertmanager configuration that amtool takes: what clients read group labels and
    waits from.

    The receiver shows no URL: a webhook's may hold a secret.
    """
    names = ["service", *settings.grouping.group_by]
    wait = settings.notify.wait
    document = {
        "global": {"resolve_timeout": _duration(settings.lifecycle.resolve_timeout)},
        "route": {
            "receiver": RECEIVER,
            # Alertmanager refuses repeats, and before 0.28 other names than these: amtool would read nothing at all.
            "group_by": list(dict.fromkeys(name for name in names if PLAIN_NAME.match(name))),
            "group_wait": _duration(wait.P2),
        },
        "receivers": [{"name": RECEIVER}],
        "templates": [],
    }
    waits = " ".join(f"{name}={_duration(getattr(wait, name))}" for name in ("P0", "P1", "P2", "P3", "P4"))
    # As JSON, so that no label name can end the comment.
    fallbacks = msgspec.json.encode(settings.grouping.service_labels).decode("ascii", "replace")
    all_names = msgspec.json.encode(names).decode("ascii", "replace")
    return (
        f"# LLM-Incident-Manager {VERSION}, its settings as Alertmanager would write them.\n"
        f"# First notification by severity: {waits}. The service is the first label present of {fallbacks}.\n"
        f"# Grouped by {all_names}.\n" + yaml.safe_dump(document, sort_keys=False)
    )
