"""`llm-im status`: who runs here, whether every shard answers, how much is open."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from services.cli.shared import readiness, terminal, which_store
from services.cli.shared.client import Client
from services.cli.shared.exits import ExitCode, Failure
from services.cli.shared.readiness import Readiness
from services.cli.shared.where import (
    URL_VARIABLE,
    AsJson,
    Config,
    Data,
    TokenFile,
    Url,
    command_name,
    http_url,
    options,
    place_here,
    ray_address,
    started_url,
    token_of,
)

if TYPE_CHECKING:
    from models.settings.all import Settings

OPEN_INCIDENTS, OPEN_SERIES = "llm_im_open_incidents", "llm_im_open_series"
#: How health names a shard.
SHARD = "shard/"
SKEW = "llm_im_sender_clock_skew_seconds"
LETTERS_KEPT, LETTERS_LOST = "llm_im_dead_letters_kept", "llm_im_dead_letters_lost_total"
RATE_LIMIT, RATE_LIMITED = "llm_im_rate_limit", "llm_im_rate_limited_total"
_LIMIT = re.compile(r'limit="(\w+)",token="((?:[^"\\]|\\.)*)"')
_SOURCE = re.compile(r'source="((?:[^"\\]|\\.)*)"')


def status(
    config: Config = None,
    data: Data = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Show what is running, whether it is ready, and how many incidents are open.

    Exit code 0: ready; 3: nothing is running; 4: running, but not ready or some shards are down.
    """
    from services.machine import launch
    from services.machine.processes import described

    url = url or os.environ.get(URL_VARIABLE) or None
    is_asked_by_url = url is not None or bool(ray_address())
    settings = place_here(config, data)
    folder = Path(settings.state.path)
    # Asked by its URL it may be anywhere; what runs on this machine's folder is then beside the point.
    instance = None if url else launch.running(folder)
    place = instance or settings.server
    left = None if instance or is_asked_by_url else started_url(folder)
    url = url or left or http_url(place.http_host, place.http_port)
    found = readiness.ask(url)
    ours = described(instance) if instance else []
    if instance is None and not is_asked_by_url:
        found = Readiness("silent", _why_nothing(folder, left, found, url, config))
    metrics = _metrics(url, token_file) if found.state in ("ready", "degraded") else []
    counts, clocks, limits = _counts(metrics), _clocks(metrics), _limits(metrics)
    letters = _letters(metrics)
    # What else is degraded counts nothing.
    uncounted = [name for name in found.degraded if name.startswith(SHARD)]
    if counts and uncounted:
        counts["counts_complete"] = False
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
            "notifications": found.notifications,
            "instance": instance and {
                "id": instance.instance_id,
                "version": instance.version,
                "pid": instance.pid,
                "started_at": instance.started_at,
                "data": settings.state.path,
                "processes": [{"what": each.what, "pid": each.pid, "memory_bytes": each.memory_bytes} for each in ours],
            },
            **counts,
            "sender_clocks": clocks,
            "rate_limits": limits,
            "dead_letters": letters,
        }  # fmt: skip
        typer.echo(json.dumps(body))
        raise typer.Exit(code)
    if code is ExitCode.NOT_RUNNING and instance is None:
        raise Failure(found.why, code)
    lines = [("state", found.state + (f": {found.why}" if found.why else "")), ("url", url)]
    lines += [(shard, terminal.plain(why)) for shard, why in found.reasons.items()]
    if instance:
        age = terminal.duration(time.time() - instance.started_at)
        lines += [
            (
                "instance",
                f"{instance.instance_id}, version {instance.version}, up {age}, Ray's head is pid {instance.pid}",
            ),
            ("data", settings.state.path),
            ("store", _store(settings)),
            ("log", str(Path(settings.state.path) / "log" / "llm-im.log")),
        ]
    if found.notifications:
        lines.append(("notifications", terminal.plain(found.notifications)))
    if counts:
        said = f"{counts['open_incidents']:,} incidents, {counts['open_alerts']:,} alerts"
        if uncounted:
            said = f"at least {said}, without those of {', '.join(map(terminal.plain, uncounted))}"
        lines.append(("open", said))
    if letters and any(letters.values()):
        lost = f", {letters['lost']:,} lost" if letters["lost"] else ""
        lines.append(("dead letters", f"{letters['kept']:,}{lost}; see {command_name()} dead-letters list"))
    for source, skew_s in clocks.items():
        way = "ahead" if skew_s > 0 else "behind, or it sends late: its alerts may count as ended"
        lines.append(("clock", f"{terminal.plain(source)}: {terminal.duration(abs(skew_s))} {way}"))
    for limit in limits:
        who = terminal.plain(str(limit["sender"] or "all senders together"))
        refused = f", {limit['refused']:,} requests refused" if limit["refused"] else ""
        lines.append(("limit", f"{who}: {limit['alerts_per_second']:,g} alerts a second{refused}"))
    if ours:
        memory = sum(each.memory_bytes for each in ours)
        lines.append(("processes", f"{len(ours)}, {memory / 1e6:,.0f} MB"))
        lines += [("", f"{each.pid:>7}  {each.memory_bytes / 1e6:>5,.0f} MB  {each.what}") for each in ours]
    width = max(len(name) for name, _ in lines) + 2
    for name, text in lines:
        typer.echo(f"{name:<{width}}{text}")
    raise typer.Exit(code)


def _store(settings: Settings) -> str:
    """Where what runs here keeps its state, and whether the settings say so."""
    found = which_store.which(settings)
    if found.is_another:
        return f"{found.running}, but the settings name another one: {found.store}"
    return found.running or f"{found.store}, according to the settings"


def _why_nothing(folder: Path, left: str | None, found: Readiness, url: str, config: Path | None) -> str:
    """Why nothing runs on a folder, and what to type: `up` only where something was started before, since elsewhere it
    would begin a second, empty system."""
    up = f"{command_name()} up{options(config, folder)}"
    if left and found.state == "silent":
        why = "it ended without `llm-im down`, or is just starting"
        return f"nothing answers at {url}: {why}. Nothing acknowledged is lost; try: {up}"
    if found.state != "silent":
        return (
            f"nothing runs on {folder}; what answers at {url} was not started from it: "
            f"{command_name()} status --url {url}"
        )
    if (folder / "store").is_dir() or (folder / "log").is_dir():
        return f"nothing runs on {folder}; start it: {up}"
    return (
        f"nothing was ever started on {folder}, and nothing answers at {url}. Name the data folder (--data), the "
        "settings (--config), or where it runs (--url)"
    )


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
    return {
        "open_incidents": int(sums[OPEN_INCIDENTS]),
        "open_alerts": int(sums[OPEN_SERIES]),
        "counts_complete": True,
    }


def _letters(metrics: list[str]) -> dict[str, int] | None:
    """How many dead letters there are, which each gateway says of all, and how many were lost; None when nobody says."""
    kept, lost = None, 0.0
    for line in metrics:
        name = line.partition("{")[0].partition(" ")[0]
        if name == LETTERS_KEPT:
            kept = max(kept or 0.0, float(line.rpartition(" ")[2]))
        elif name == LETTERS_LOST:
            lost += float(line.rpartition(" ")[2])
    return None if kept is None else {"kept": int(kept), "lost": int(lost)}


def _clocks(metrics: list[str]) -> dict[str, float]:
    """How far the clocks of senders are off, in seconds, by sender; of several gateways' words the worst."""
    found: dict[str, float] = {}
    for line in metrics:
        if line.startswith(SKEW + "{") and (named := _SOURCE.search(line)) is not None:
            skew_s = float(line.rpartition(" ")[2])
            if abs(skew_s) > abs(found.get(named[1], 0.0)):
                found[named[1]] = skew_s
    return found


def _limits(metrics: list[str]) -> list[dict[str, object]]:
    """The rate limits in force, and how many requests each has refused; `sender` None for that of all. A sender that has not sent yet
    is not known."""
    rates: dict[str | None, float] = {}
    refused: dict[str | None, int] = {}
    for line in metrics:
        name = line.partition("{")[0]
        if name in (RATE_LIMIT, RATE_LIMITED) and (said := _LIMIT.search(line)) is not None:
            sender = said[2] if said[1] == "sender" else None
            value = float(line.rpartition(" ")[2])
            if name == RATE_LIMIT:
                rates[sender] = max(value, rates.get(sender, 0.0))
            else:
                refused[sender] = refused.get(sender, 0) + int(value)
    return [
        {"sender": sender, "alerts_per_second": rate, "refused": refused.get(sender, 0)}
        for sender, rate in sorted(rates.items(), key=lambda entry: entry[0] or "")
        if rate
    ]
