"""The curl commands of docs/http-api.md, sent to a gateway: what a reader copies works, and every verb has an example."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
import pytest_asyncio

from services.api.v1.verb_table import VERBS
from tests.api.for_verbs import ready_for
from tests.api.gateway_in_process import Reply, System, system

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "http-api.md"
BLOCK = re.compile(r"```sh\n(.*?)```", flags=re.DOTALL)


def commands() -> list[str]:
    """Every curl command, with its continued lines joined."""
    blocks = "".join(BLOCK.findall(DOCUMENT.read_text("utf-8"))).replace("\\\n", " ")
    return [line for line in blocks.splitlines() if line.startswith("curl ")]


#: A stream does not end, a first token is an admin's, a run needs a playbook, an edge agent its stream, and a model a training: they
#: have tests of their own.
COMMANDS = [
    each
    for each in commands()
    if not any(path in each for path in ("/v1/stream", "/v1/tokens", "/runs", "/v1/edge", "/v1/models"))
]
#: They need a setting that is off by default.
CORRELATION = [each for each in COMMANDS if "/v1/topology" in each or "/v1/situations" in each]
#: Nobody listens there: what is to be told to it is owed, and that is answered.
NOTIFY = {
    "webhook": {"url": "http://127.0.0.1:9/hook"},
    "receivers": {
        "mail": {
            "type": "email",
            "host": "127.0.0.1",
            "port": 9,
            "tls": "none",
            "sender": "im@example.org",
            "to": ["ops@example.org"],
        }
    },
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def telling() -> AsyncIterator[System]:
    """A system with receivers."""
    async with system(notify=NOTIFY) as started:
        yield started


async def run(ours: System, command: str) -> Reply:
    """What curl would send. An option that is not known here fails."""
    words = iter(shlex.split(command)[1:])
    method, body, headers, query, url = "", b"", {}, [], ""
    for word in words:
        match word:
            case "-sS" | "-i":
                pass
            case "--json":
                body, headers["content-type"] = next(words).encode(), "application/json"
            case "-H":
                name, _, value = next(words).partition(": ")
                headers[name.lower()] = value
            case "-G":
                method = "GET"
            case "-X":
                method = next(words)
            case "-d" | "--data-urlencode":
                given = next(words)
                if method == "GET":
                    name, _, value = given.partition("=")
                    query.append(f"{name}={quote(value, safe='')}")
                else:
                    body = given.encode()
            case _:
                assert word.startswith("http://127.0.0.1:8080/"), word
                url = word
    split = urlsplit(url)
    path = split.path + (f"?{'&'.join([split.query, *query]).strip('&')}" if split.query or query else "")
    return await ours.request(
        method or ("POST" if body else "GET"),
        path,
        [body],
        [(name.encode(), value.encode()) for name, value in headers.items()],
    )


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("command", [each for each in COMMANDS if each not in CORRELATION])
async def test_what_the_document_tells_to_type_is_taken(telling: System, command: str) -> None:
    found = re.search(r'"\$INCIDENT/(\w+)"', command)
    one, other, name = await ready_for(telling, found[1] if found else "")
    written = command.replace("$INCIDENT", f"http://127.0.0.1:8080/v1/incidents/{one}")

    answer = await run(telling, written.replace("$OTHER", other).replace("$ALERT", name))

    # One example shows an alert without labels beside a good one.
    assert answer.status in ((207,) if '"labels": {}' in command else (200, 201, 202)), answer


@pytest.mark.asyncio
async def test_what_it_tells_of_correlation_is_taken() -> None:
    async with system(correlation={"enabled": True}) as ours:
        answers = [await run(ours, command) for command in CORRELATION]

    assert [answer.status for answer in answers] == [200] * len(CORRELATION)
    assert CORRELATION


def test_every_verb_has_an_example() -> None:
    shown = set(re.findall(r'"\$INCIDENT/(\w+)"', "\n".join(COMMANDS)))

    assert shown == {verb.name for verb in VERBS}


def test_the_example_of_an_incident_has_every_field_that_is_shown() -> None:
    text = DOCUMENT.read_text("utf-8").partition("## GET /v1/incidents/{incident_id}\n")[2]
    example = json.loads(re.search(r"```json\n(.*?)```", text, flags=re.DOTALL)[1])  # type: ignore[index]

    from dataclasses import fields

    from services.api.v1.bodies import IncidentBody

    assert list(example) == [field.name for field in fields(IncidentBody)]
