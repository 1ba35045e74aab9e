"""`llm-im` against a real gateway in this process: real shards, real stores, and what people do to an incident from page to
close."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from tests.api.gateway_in_process import FIRST_SHARD_SERVICE, SECOND_SHARD_SERVICE, System, system
from tests.command_line import CommandLine

ROOT = Path(__file__).resolve().parents[2]


def typed_by_alice(port: int, home: Path) -> CommandLine:
    return CommandLine(f"http://127.0.0.1:{port}", LOGNAME="alice", XDG_CONFIG_HOME=str(home))


async def two_incidents(ours: System, run: CommandLine) -> tuple[str, str]:
    """One in each shard, judged; their ids."""
    for service in (FIRST_SHARD_SERVICE, SECOND_SHARD_SERVICE):
        for host in ("a", "b"):
            await run("send", "alertname=Slow", f"service={service}", f"host={host}", "severity=critical")
    async with asyncio.timeout(20):
        while len(found := (await run("incidents", "list", "-o", "id", "state=Triaged")).split()) < 2:
            await asyncio.sleep(0.1)
    first = (await run("incidents", "list", f"service={FIRST_SHARD_SERVICE}", "-o", "id")).strip()
    (second,) = set(found) - {first}
    return first, second


@pytest.mark.asyncio
@pytest.mark.timeout(240)
async def test_an_incident_from_page_to_close(tmp_path: Path) -> None:
    async with system() as ours:
        run = typed_by_alice(await ours.listen(), tmp_path)
        one, two = await two_incidents(ours, run)

        assert (await run.json("incidents", "ack", one[-12:], "--for", "2h"))["acknowledged"]["by"] == "alice"
        assert (await run.json("incidents", "assign", one, "--to", "bob", "--role", "commander=bob"))["roles"]
        await run("incidents", "comment", one, "-F", "-", stdin="two\nlines")
        labelled = await run.json("incidents", "label", one, "team=inference", "host-")
        assert labelled["labels"]["team"] == "inference"
        said = await run.json(
            "incidents", "severity", one, "P0", "--type", "data", "--impact", "all of it", "-r", "seen"
        )
        assert (said["severity"], said["incident_type"], said["impact"]) == ("P0", "Data", "all of it")
        assert (await run.json("incidents", "severity", one, "--clear", "type"))["incident_type"] != "Data"
        await run("incidents", "update", one, "-a", "customers", "-m", "soon", "--next", "30m")
        assert two in (await run.json("incidents", "link", one, two))["related_incidents"]
        await run("incidents", "unlink", one, two)
        made = await run.json(
            "incidents", "create", "-s", "by-hand", "-t", "Odd answers", "--severity", "P3", "-l", "a=b"
        )
        assert (made["created_by"], made["labels"]) == ("alice", {"a": "b"})

        assert one in (
            await run("incidents", "list", "team=inference", "assignee=bob", "--since", "1h", "-o", "id")
        )
        assert (await run("incidents", "list", "--text", "ODD", "-o", "id")).strip() == made["id"]
        shown = await run("incidents", "show", one)
        assert "by alice" in shown and "commander bob" in shown and "to customers" in shown
        assert "two lines" in await run("incidents", "timeline", one)
        assert (await run("stats", "--window", "7d")).startswith("open ")
        assert len((await run.json("alerts", "list", f"service={FIRST_SHARD_SERVICE}"))["items"]) == 2

        refused = await run("incidents", "close", one, code=6)
        assert f"try: llm-im incidents resolve {one}" in refused
        await run("incidents", "resolve", one, two, "-c", "rollout", "-m", "rolled back")
        await run("incidents", "reopen", two, "-r", "again")
        refused = await run("incidents", "close", one, code=6)
        assert f"try: llm-im incidents alerts {one}" in refused
        refused = await run("incidents", "ack", one, code=6)
        assert f"try: llm-im incidents reopen {one}" in refused
        for host in ("a", "b"):
            await run(
                "send",
                "alertname=Slow",
                f"service={FIRST_SHARD_SERVICE}",
                f"host={host}",
                "severity=critical",
                "--resolved",
            )
        await run("incidents", "close", one, "-r", "reviewed")
        states = {
            each["id"]: each["state"] for each in (await run.json("incidents", "list", "--all"))["items"]
        }
        assert (states[one], states[two] in ("Triaged", "Investigating")) == ("Closed", True)


@pytest.mark.asyncio
@pytest.mark.timeout(240)
async def test_incidents_are_merged_split_and_taken_apart(tmp_path: Path) -> None:
    async with system() as ours:
        run = typed_by_alice(await ours.listen(), tmp_path)
        one, two = await two_incidents(ours, run)

        await run("incidents", "merge", one, two, "-r", "one cause")
        assert two not in await run("incidents", "list", "-o", "id")
        assert two in await run("incidents", "list", "--merged", "-o", "id")
        assert f"child         {two}" in await run("incidents", "show", one)
        await run("incidents", "unmerge", one, two[-12:])
        assert two in await run("incidents", "list", "-o", "id")

        fingerprints = (await run("incidents", "alerts", one, "-o", "id")).split()
        made = await run.json("incidents", "split", one, fingerprints[0], "--title", "Only one")
        assert (made["title"], made["split_from"]) == ("Only one", one)


@pytest.mark.asyncio
@pytest.mark.timeout(240)
async def test_many_at_once_and_a_version_that_is_gone(tmp_path: Path) -> None:
    async with system() as ours:
        run = typed_by_alice(await ours.listen(), tmp_path)
        one, two = await two_incidents(ours, run)
        version = (await run.json("incidents", "show", one))["incident"]["version"]

        assert "would be acknowledged" in await run(
            "incidents", "ack", "--where", "state=Triaged", "--dry-run"
        )
        done = await run.json("incidents", "ack", "--where", "state=Triaged", "--yes")
        assert {each["incident"]: each["status"] for each in done["items"]} == {one: 200, two: 200}
        ids = await run("incidents", "list", "-o", "id")
        refused = await run("incidents", "close", "-", stdin=ids, code=1)
        assert refused.count("try: llm-im incidents resolve") == 2

        refused = await run("incidents", "comment", one, "-m", "x", "--if-version", str(version), code=6)
        assert "last alice" in refused


@pytest.mark.asyncio
@pytest.mark.timeout(240)
async def test_what_happens_is_watched(tmp_path: Path) -> None:
    async with system() as ours:
        port = await ours.listen()
        run = typed_by_alice(port, tmp_path)
        watching = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "services.cli", "incidents", "watch", f"service={FIRST_SHARD_SERVICE}",
            "--kind", "Created", "-n", "1", "--json", "--url", f"http://127.0.0.1:{port}",
            cwd=ROOT, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        while watching.returncode is None:
            # It may not listen yet: another one opens, until one was heard of.
            await run(
                "send",
                f"alertname=Slow{os.urandom(4).hex()}",
                f"service={FIRST_SHARD_SERVICE}",
                "severity=critical",
            )

        out, _ = await watching.communicate()
        assert watching.returncode == 0
        event = json.loads(out)
        assert (event["kind"], event["incident"]["service"]) == ("Created", FIRST_SHARD_SERVICE)
        behind = await run("incidents", "watch", "--after", event["cursor"], "-n", "1", "--json")
        assert json.loads(behind)["cursor"] != event["cursor"]
