"""A gateway's watch over the certificates: new files go to its gRPC door, and what is wrong with them to health, metrics and the log.
HAProxy gets them from who looks after it (services/wiring/serve_app.py); here is seen what it presents."""

from __future__ import annotations

import asyncio

import structlog
from cryptography import x509

from models.errors import Malformed
from models.metrics import Meter
from models.ports import Clock
from models.settings.tls import Tls
from services.ingest.doors.grpc.door import GrpcDoor
from services.machine.tls import LOOK_S, SOON_DAYS, Watch, days_left, expiry_notice, server_context

log = structlog.get_logger()

#: HAProxy has new files a few seconds after they are good. When it still presents others, it does not take them.
BEHIND_S = 30.0
#: How often the log says again that a certificate is about to expire.
REMIND_S = 86400.0


class CertificateWatch:
    """look() every LOOK_S, by run(). Raises Malformed when the files can't be used at the start."""

    def __init__(self, tls: Tls, grpc: GrpcDoor | None, clock: Clock, meter: Meter) -> None:
        self._grpc = grpc
        self._clock = clock
        self._meter = meter
        self._watch = Watch(tls, clock.now())
        self._fault = ""
        #: What HAProxy presents, as DER, and since when it is not what the files hold.
        self._presented = b""
        self._behind_since: float | None = None
        self._reminded_at: float | None = None
        if grpc is not None:
            grpc.tls = server_context(tls, self._watch.loaded)

    async def run(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Take files that changed, and say what is wrong with them."""
        now = self._clock.now()
        loaded = await asyncio.to_thread(self._watch.look, now)
        if loaded is not None:
            try:
                if self._grpc is not None:
                    self._grpc.tls = server_context(self._watch.tls, loaded)
                self._reminded_at = None
                log.info("certificates changed", days=int(days_left(loaded.until, now)))
            except Malformed as error:
                self._watch.again()
                self._watch.fault = str(error)
        if self._watch.fault != self._fault:
            self._fault = self._watch.fault
            if self._fault:
                log.error("new certificates can't be used; those before stay", why=self._fault)
        self._compare()
        self._tell(now)

    def presented(self, certificate: bytes) -> None:
        """What HAProxy presents at the front port (DER)."""
        self._presented = certificate

    def why_degraded(self) -> str:
        """What people have to look at now; "" while all is well."""
        if self._fault:
            return f"new files are not used: {self._fault}"
        behind = self._behind_since
        if behind is not None and self._clock.monotonic() - behind > BEHIND_S:
            return "HAProxy does not present the certificate that is in server.tls.cert_file"
        left = min(self._until().values())
        now = self._clock.now()
        return expiry_notice(left, now) if days_left(left, now) <= 0 else ""

    def _compare(self) -> None:
        if not self._presented or self._presented == self._watch.loaded.certificate:
            self._behind_since = None
        elif self._behind_since is None:
            self._behind_since = self._clock.monotonic()

    def _until(self) -> dict[str, float]:
        """When the certificate of each door expires."""
        http = self._watch.loaded.until
        if self._presented:
            http = x509.load_der_x509_certificate(self._presented).not_valid_after_utc.timestamp()
        found = {"http": http}
        if self._grpc is not None:
            found["grpc"] = self._watch.loaded.until
        return found

    def _tell(self, now: float) -> None:
        until = self._until()
        for door, moment in until.items():
            self._meter.set("llm_im_certificate_days", round(days_left(moment, now), 2), door=door)
        soonest = min(until.values())
        if days_left(soonest, now) >= SOON_DAYS:
            return
        if self._reminded_at is None or now - self._reminded_at >= REMIND_S:
            self._reminded_at = now
            log.warning("the certificate has to be renewed", why=expiry_notice(soonest, now))
