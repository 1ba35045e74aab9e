"""`llm-im status`: who runs here, whether every shard answers, how much is open."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

import typer

from services.cli import look, readiness
from services.cli.client import Client
from services.cli.exits import ExitCode, Failure
from services.cli.where import (
    URL_VARIABLE,
    AsJson,
    Config,
    Data,
    TokenFile,
    Url,
    http_url,
    settings_of,
    started_url,
    token_of,
)

OPEN_INCIDENTS, OPEN_SERIES = "llm_im_open_incidents", "llm_im_open_series"
SKEW = "llm_im_sender_clock_skew_seconds"
_SOURCE = re.compile(r'source="((?:[^"\\]|\\.)*)"')


def status(
    config: Config = None,
    data: Data = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Say who runs, whether it is ready, and how much is open.

    Exit code 0: ready; 3: nothing runs; 4: it runs, but is not ready or some shards are away.
    """
    from services import launch

    url = url or os.environ.get(URL_VARIABLE)
    is_asked_by_url = url is not None or "RAY_ADDRESS" in os.environ
    settings = settings_of(config, data)
    # Asked by its URL it may be anywhere; what runs on this machine's folder is then beside the point.
    instance = None if url else launch.running(Path(settings.state.path))
    place = instance or settings.server
    left = None if instance or is_asked_by_url else started_url(Path(settings.state.path))
    url = url or left or http_url(place.http_host, place.http_port)
    found = readiness.ask(url)
    metrics = _metrics(url, token_file) if found.state in ("ready", "degraded") else []
    counts, clocks = _counts(metrics), _clocks(metrics)
    code = {"ready": ExitCode.OK, "foreign": ExitCode.NOT_RUNNING}.get(found.state, ExitCode.DEGRADED)
    if found.state == "silent" and instance is None:
        code = ExitCode.NOT_RUNNING
    if as_json:
        body = {
            "url": url,
            "state": found.state,
            "why": found.why,
            "degraded": found.degraded,
            "reasons": found.reasons,
            "instance": instance and {
                "id": instance.instance_id,
                "version": instance.version,
                "pid": instance.pid,
                "started_at": instance.started_at,
                "data": settings.state.path,
            },
            **counts,
            "sender_clocks": clocks,
        }  # fmt: skip
        typer.echo(json.dumps(body))
        raise typer.Exit(code)
    if code is ExitCode.NOT_RUNNING and left:
        why = "it ended without `llm-im down`, or is just starting"
        raise Failure(f"nothing answers at {url}: {why}. Nothing acknowledged is lost; try: llm-im up", code)
    if code is ExitCode.NOT_RUNNING and instance is None:
        raise Failure(found.why, code)
    lines = [("state", found.state + (f": {found.why}" if found.why else "")), ("url", url)]
    lines += [(shard, look.plain(why)) for shard, why in found.reasons.items()]
    if instance:
        age = look.duration(time.time() - instance.started_at)
        lines += [
            (
                "instance",
                f"{instance.instance_id}, version {instance.version}, up {age}, Ray's head is pid {instance.pid}",
            ),
            ("data", settings.state.path),
        ]
    elif code is ExitCode.OK and not is_asked_by_url:
        lines.append(("instance", f"not started from {settings.state.path}: what answers is another's"))
    if counts:
        lines.append(("open", f"{counts['open_incidents']:,} incidents, {counts['open_alerts']:,} alerts"))
    for source, skew_s in clocks.items():
        way = "ahead" if skew_s > 0 else "behind, or it sends late: what it sends may count as ended"
        lines.append(("clock", f"{look.plain(source)}: {look.duration(abs(skew_s))} {way}"))
    width = max(len(name) for name, _ in lines) + 2
    for name, text in lines:
        typer.echo(f"{name:<{width}}{text}")
    raise typer.Exit(code)


def _metrics(url: str, token_file: Path | None) -> list[str]:
    """The lines of /metrics; none when they are not told, or not to this caller."""
    try:
        reply = Client(url, readiness.TIMEOUT_S, token_of(token_file)).get("/metrics")
    except Failure:
        return []
    return reply.body.decode("utf-8", "replace").splitlines() if reply.status == 200 else []


def _counts(metrics: list[str]) -> dict[str, int]:
    """What the shards count as open, summed; nothing when they do not say."""
    if not metrics:
        return {}
    sums = {OPEN_INCIDENTS: 0.0, OPEN_SERIES: 0.0}
    for line in metrics:
        name = line.partition("{")[0].partition(" ")[0]
        if name in sums:
            sums[name] += float(line.rpartition(" ")[2])
    return {"open_incidents": int(sums[OPEN_INCIDENTS]), "open_alerts": int(sums[OPEN_SERIES])}


def _clocks(metrics: list[str]) -> dict[str, float]:
    """How far the clocks of senders are off, in seconds, by sender; of several gateways' words the worst."""
    found: dict[str, float] = {}
    for line in metrics:
        if line.startswith(SKEW + "{") and (named := _SOURCE.search(line)) is not None:
            skew_s = float(line.rpartition(" ")[2])
            if abs(skew_s) > abs(found.get(named[1], 0.0)):
                found[named[1]] = skew_s
    return found
