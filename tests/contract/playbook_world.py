"""What tests of playbooks' actions share: servers that remember what they were asked, receivers that remember what they were told, and a
Worker that is made from settings as a responder's is.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from aiohttp import web

from actors.runtime.clock import SystemClock
from actors.targets import Targets
from models.incidents.notification import Facts, Note
from models.playbook.playbook import PlannedAction
from models.playbook.work import Context, Do, Done
from models.ports import ActionResult, Channel, Clock
from models.settings.integrations import Integrations
from models.settings.playbook_targets import PlaybookTargets
from models.settings.processes import RESPONDER
from models.settings.secrets import revealed
from services.playbooks.open import open_worker
from services.playbooks.worker import PlaybookWorker

POLICIES = Path(__file__).resolve().parents[1] / "data" / "policies"
INCIDENT: dict[str, Any] = {
    "id": "0199a0c0-0000-7000-8000-0000000000aa",
    "title": "llm-api is down",
    "description": "no replica answers",
    "service": "llm-api",
    "severity": "P1",
    "type": "Infrastructure",
    "state": "Triaged",
    "labels": {"service": "llm-api", "environment": "prod"},
    "annotations": {},
    "metadata": {},
    "assignees": ["alice"],
    "affected_resources": ["llm-api"],
}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Got:
    """One request that a server got."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(slots=True)
class Serving:
    url: str
    got: list[Got] = field(default_factory=list)


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[Serving]:
    """A server on loopback that answers by `handler` and remembers each request."""
    place = Serving("")

    async def remember(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        place.got.append(Got(request.method, request.path, dict(request.query), dict(request.headers), body))
        return await handler(request)

    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_route("*", "/{path:.*}", remember)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert runner.addresses
    place.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield place
    finally:
        await runner.cleanup()


def answering(status: int = 200, body: Any = None, **headers: str) -> Handler:
    """Always the same."""

    async def handler(_request: web.Request) -> web.StreamResponse:
        data = body if isinstance(body, bytes) else json.dumps({} if body is None else body).encode()
        return web.Response(status=status, body=data, headers={"Content-Type": "application/json", **headers})

    return handler


class Told:
    """Port Channel: keeps what it was told. The memory adapter of receivers. `opens` as in services/actions/channel.py."""

    opens = False

    def __init__(self, result: ActionResult | None = None) -> None:
        self.notes: list[tuple[str, Note]] = []
        self.result = result or ActionResult(ok=True, detail="taken", ref="m1")

    def render(self, facts: Facts) -> bytes:
        return b""

    async def act(self, key: str, facts: Facts, trace: str | None = None) -> ActionResult:
        return self.result

    async def say(self, key: str, note: Note, trace: str | None = None) -> ActionResult:
        self.notes.append((key, note))
        return self.result

    async def close(self) -> None:
        pass


class Desk:
    """A Worker and what it is asked."""

    def __init__(self, worker: PlaybookWorker) -> None:
        self.worker = worker
        self._keys = count(1)

    async def do(
        self,
        type_: str,
        *,
        incident: Mapping[str, Any] | None = None,
        variables: Mapping[str, Any] | None = None,
        run: Mapping[str, Any] | None = None,
        key: str = "",
        attempt: int = 0,
        again: bool = False,
        approved_by: tuple[str, ...] = (),
        approved_digest: str = "",
        dry: bool = False,
        once: bool = False,
        timeout_s: float = 10.0,
        params: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> Done:
        """`params` and `more` as a playbook writes them."""
        action = PlannedAction(type_, {**(params or {}), **more}, timeout_s=timeout_s, once=once)
        context = Context({**INCIDENT, **(incident or {})}, dict(variables or {}), run=dict(run or {"name": "repair", "version": "1"}))  # fmt: skip
        work = Do(
            key or f"key{next(self._keys)}-0", "repair", 0, attempt, action, context,
            again=again, approved_by=approved_by, dry=dry, approved_digest=approved_digest,
        )  # fmt: skip
        return await self.worker.work(work)


@asynccontextmanager
async def desk(
    targets: Mapping[str, Any] | None = None,
    integrations: Mapping[str, Any] | None = None,
    channels: Mapping[str, tuple[str, Channel]] | None = None,
    *,
    clock: Clock | None = None,
    allow: tuple[str, ...] = (),
    targets_of_calls: Targets | None = None,
) -> AsyncIterator[Desk]:
    """`targets` as [playbooks] has them, `integrations` as [integrations] has; `allow`: [outbound] allow."""
    given = revealed(
        {
            **PlaybookTargets.model_validate(targets or {}).given_to_responder(),
            **Integrations.model_validate(integrations or {}).for_process(RESPONDER, 1),
            "outbound_allow": list(allow),
            "outbound_ca_file": "",
        }
    )
    assert isinstance(given, dict)
    worker = open_worker(given, channels or {}, clock or SystemClock(), targets_of_calls)
    try:
        yield Desk(worker)
    finally:
        await worker.close()
