"""What all that we poll or connect to has in common: one process at a time does it, what fails is tried again, and what was got
is given to the intake until it is stored.

A new one is a subclass of Fetcher beside this, and a Fetchers that makes one for each server of the settings.
"""

from __future__ import annotations

import asyncio
import secrets
from abc import ABC, abstractmethod
from collections.abc import Sequence

import structlog

from actors.runtime.ending import end
from models.errors import Busy, Conflict, IncidentManagerError, Unavailable
from services.ingest.arrival import Arrival, Sender
from services.ingest.formats.answers import error_of, status_of
from services.ingest.formats.format import Request
from services.ingest.formats.reading import Reading
from services.ingest.sources.lease import LEASE_S, Lease
from services.ingest.sources.source import Source, SourceNeeds
from services.ingest.submit import Receipt

log = structlog.get_logger()

#: Longest pause between two tries; a longer Retry-After is kept to.
RETRY_MAX_S = 300.0
#: Between two tries to store what was got. A shard that was killed is back in seconds.
STORE_RETRY_S = 0.5
STORE_RETRY_MAX_S = 10.0
#: What cannot be stored now, by HTTP's status: a retry fixes it.
TRY_AGAIN = (429, 503)


class Later(Unavailable):
    """The server asks us to wait for `retry_after_s`."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Fetcher(ABC):
    """One server. fetch() is called again and again as long as its lease is held."""

    def __init__(self, needs: SourceNeeds, name: str, *, pause_s: float, lease_s: float = LEASE_S) -> None:
        """`pause_s` between the end of one fetch and the next."""
        self.name = name
        #: Why nothing can be fetched, "" when it can, or when another process does it.
        self.why_away = "not reached yet"
        #: Which process fetches instead, "" for this one.
        self.elsewhere = ""
        self._needs = needs
        self._pause_s = pause_s
        #: The first pause after a failure.
        self.retry_s = pause_s
        self.retry_max_s = RETRY_MAX_S
        self._sender = Sender(name)
        self._faults = 0
        self._was_away = False
        self._task: asyncio.Task[None] | None = None
        self.lease = Lease(needs, name, lease_s)

    @abstractmethod
    async def fetch(self) -> None:
        """Poll once; or connect, and take what comes until the connection ends. Raises Unavailable when the server is away or
        says what can't be understood. May be cancelled at any time, also because the lease was lost."""

    def begin(self) -> None:  # noqa: B027 - not all remember anything
        """The lease was just taken: somebody else may have fetched until now."""

    async def close(self) -> None:  # noqa: B027 - not all hold anything open
        """Give up connections. Called after each failure, and at the end."""

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._live())

    async def stop(self) -> None:
        if self._task is not None:
            await end([self._task])
            self._task = None
        await self.close()
        await self.lease.release()

    async def give(
        self,
        format_name: str,
        body: bytes,
        *,
        content_type: str = "",
        delivery_id: str | None = None,
        want_ids: bool = False,
    ) -> tuple[Reading, Receipt]:
        """Store what a body holds: returns when it is durable, or can never be (the receipt says which). Waits out what a retry
        fixes. Raises Malformed and TooLarge when nothing of it can be read, Conflict when the lease is lost by now."""
        needs, form = self._needs, self._needs.formats[format_name]
        wait_s = STORE_RETRY_S
        while True:
            await needs.intake.admitted(self._sender)
            if not self.lease.is_held:
                # This process stood still: what it read then may be over, and whoever polls now has said so.
                raise Conflict(f"the lease of {self.name} ran out before what was read could be stored")
            now = needs.clock.now()
            request = Request(
                form.path, body, now, content_type=content_type or form.content_types[0], sender=self._sender
            )
            arrival = Arrival(needs.intake.tenant, form.name, self._sender, now, want_ids, delivery_id)
            why: IncidentManagerError
            with needs.tracer.span(f"FETCH {self.name}", None, {}, kind="client") as span:
                try:
                    reading, receipt = await needs.intake.take(form, request, arrival, span)
                except (Busy, Unavailable) as error:
                    why = error
                else:
                    failed = error_of(receipt)
                    if failed is None or status_of(failed) not in TRY_AGAIN:
                        return reading, receipt
                    why = failed
            self._away(f"what came can't be stored yet: {why}")
            await asyncio.sleep(max(wait_s, why.retry_after_s if isinstance(why, Busy) else 0.0))
            wait_s = min(2 * wait_s, STORE_RETRY_MAX_S)

    def reached(self) -> None:
        """The server answers."""
        self._faults = 0
        self.why_away = ""
        if self._was_away:
            self._was_away = False
            log.info("alerts are fetched again", source=self.name)

    # -- the loop --

    async def _live(self) -> None:
        while True:
            try:
                await self.lease.take()
                self.elsewhere = ""
                self.begin()
            except Conflict as error:
                self._is_elsewhere(error)
            except IncidentManagerError as error:
                self._away(str(error))
            except Exception as error:  # noqa: BLE001 - a bug: told, and tried again
                self._tell_bug(error)
            else:
                await self._while_held()
                continue
            await asyncio.sleep(self.lease.lease_s / 4)

    async def _while_held(self) -> None:
        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(self.lease.keep()), loop.create_task(self._work())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end(tasks)
        self.lease.forget()
        await self.close()

    async def _work(self) -> None:
        """Returns when the lease turns out to be lost."""
        while True:
            wait_s = self._pause_s
            try:
                await self.fetch()
                self.reached()
            except Conflict as error:
                self._is_elsewhere(error)
                return
            except IncidentManagerError as error:
                wait_s = self._wait_after(error)
                self._away(str(error))
                await self.close()
            except Exception as error:  # noqa: BLE001 - likewise
                wait_s = self._wait_after(error)
                self._tell_bug(error)
                await self.close()
            await asyncio.sleep(wait_s)

    def _wait_after(self, error: Exception) -> float:
        self._faults += 1
        # Up to a half more, by chance: those who lost the same server do not come back at once together.
        spread = 1.0 + secrets.randbelow(500) / 1000
        wait_s = min(
            self.retry_s * 2.0 ** min(self._faults - 1, 16) * spread, max(self.retry_max_s, self.retry_s)
        )
        return max(wait_s, error.retry_after_s) if isinstance(error, Later) else wait_s

    def _tell_bug(self, error: Exception) -> None:
        """It is tried again like all else."""
        if not self._was_away:
            log.exception("bug: fetching alerts failed, retrying", source=self.name)
        self._was_away, self.why_away = True, f"a bug: {type(error).__name__}"

    def _is_elsewhere(self, error: Conflict) -> None:
        if not self.elsewhere:
            log.info("another process fetches alerts, waiting", source=self.name, why=str(error))
        self.elsewhere, self.why_away, self._was_away = str(error), "", False

    def _away(self, why: str) -> None:
        self.why_away = why
        if not self._was_away:
            self._was_away = True
            log.warning("can't fetch alerts, retrying", source=self.name, why=why)


class Fetchers(Source):
    """All servers of one kind."""

    def __init__(self, needs: SourceNeeds) -> None:
        self._meter = needs.meter
        self.fetchers: Sequence[Fetcher] = self.open(needs)

    @abstractmethod
    def open(self, needs: SourceNeeds) -> Sequence[Fetcher]:
        """Those that the settings name, not started yet."""

    async def start(self) -> None:
        for each in self.fetchers:
            each.start()

    async def stop(self) -> None:
        await asyncio.gather(*(each.stop() for each in self.fetchers))

    @property
    def why_away(self) -> str:
        return "; ".join(f"{each.name}: {each.why_away}" for each in self.fetchers if each.why_away)

    def measure(self) -> None:
        for each in self.fetchers:
            if each.elsewhere:
                self._meter.forget("llm_im_source_up", source=each.name)
            else:
                self._meter.set("llm_im_source_up", 0 if each.why_away else 1, source=each.name)
