"""Whom playbooks act upon and tell, played by local servers that check each request against what is documented: the receivers of
tests/receivers, Loki, and services that are changed by a hook. Used by test_playbooks.py and tests/soak."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any

from aiohttp import web

from tests.receivers.api import SECRET, Api, Call, said, serving

#: Lines of a service's log, one a second, up to now.
LINES = 40
NS = 1_000_000_000
#: A start of a few local servers.
START_TIMEOUT_S = 20.0


class Played:
    """Serves each on a port of its own, in a thread of its own; `place` of each is its host:port."""

    def __init__(self, **apis: Api) -> None:
        self.apis = apis
        self.place: dict[str, str] = {}
        self._loop = asyncio.new_event_loop()
        self._ready, self._end = threading.Event(), asyncio.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Played:
        self._thread.start()
        assert self._ready.wait(START_TIMEOUT_S)
        return self

    def __exit__(self, *_error: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(START_TIMEOUT_S)

    def wrong(self) -> dict[str, list[str]]:
        """What requests did against the documentation."""
        return {name: api.wrong for name, api in self.apis.items() if api.wrong}

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        async with AsyncExitStack() as stack:
            for name, api in self.apis.items():
                self.place[name] = await stack.enter_async_context(serving(api.handle))
            self._ready.set()
            await self._end.wait()


def keys_of(api: Api) -> Counter[str]:
    """The idempotency keys of what changed something there, each with how often it came."""
    return Counter(call.headers.get("Idempotency-Key", "") for call in api.changes)


class LokiApi(Api):
    """GET /loki/api/v1/query_range, as documented at grafana.com/docs/loki."""

    async def answer(self, call: Call) -> web.Response:
        self.expect(
            (call.method, call.path) == ("GET", "/loki/api/v1/query_range"), f"{call.method} {call.path}"
        )
        query = call.query
        self.expect(query.get("query", "").startswith("{"), "a log query begins with a selector")
        self.expect(query.get("direction") == "backward", "the newest first")
        start, end, limit = int(query["start"]), int(query["end"]), int(query["limit"])
        if limit > 5000:
            return web.Response(
                status=400, text=f"max entries limit per query exceeded, limit > 5000 ({limit})"
            )
        self.expect(start < end, "start before end")
        now = time.time_ns()
        lines = [(now - second * NS, f"line {second}") for second in range(1, LINES + 1)]
        values = [[str(at), text] for at, text in lines if start <= at < end][:limit]
        stream = [{"stream": {"job": "llm"}, "values": values}] if values else []
        return said({"status": "success", "data": {"resultType": "streams", "result": stream, "stats": {}}})


class ServicesApi(Api):
    """Services by name: each answers its health check with 200 or 503, and is changed by POST /ACTION/SERVICE (docs/actions.md)."""

    #: What a change is asked for with.
    TOKEN = SECRET
    FIELDS = frozenset({"action", "service", "incident_id", "key", "parameters", "timeout_seconds"})

    def __init__(self, well: Mapping[str, bool], mended_by_restart: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.well = dict(well)
        self.mended_by_restart = mended_by_restart

    async def answer(self, call: Call) -> web.Response:
        what, name = call.path.strip("/").split("/")
        if call.method == "GET" and what == "health":
            return said({"well": self.well.get(name)}, 200 if self.well.get(name) else 503)
        self.expect(call.method == "POST", f"{call.method} {call.path}")
        self.expect(call.headers.get("Authorization") == f"Bearer {self.TOKEN}", "the bearer token")
        asked: dict[str, Any] = call.json
        self.expect(set(asked) == self.FIELDS, f"fields {sorted(asked)}")
        self.expect((asked.get("action"), asked.get("service")) == (what, name), "what the URL says")
        self.expect(asked.get("key") == call.headers.get("Idempotency-Key"), "one key")
        if name not in self.mended_by_restart:
            return said({"error": "no capacity"}, 500)
        self.well[name] = True
        return said({"status": "succeeded"})

    def changed(self, name: str) -> list[Call]:
        return [call for call in list(self.changes) if call.path.endswith(f"/{name}")]


class CounterApi(Api):
    """Takes anything at POST /ACTION/SERVICE; `keys` has how often each key came there."""

    #: What is asked takes so long: some is under way whenever something is killed.
    TAKES_S = 0.1

    def __init__(self) -> None:
        super().__init__()
        self.keys: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)

    async def answer(self, call: Call) -> web.Response:
        what, name = call.path.strip("/").split("/")
        key = call.headers.get("Idempotency-Key", "")
        self.expect(call.method == "POST" and key, f"{call.method} {call.path} with key {key!r}")
        self.keys[what, name][key] += 1
        await asyncio.sleep(self.TAKES_S)
        return said({})
