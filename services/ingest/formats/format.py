"""What a format is: one sender's shape of alerts, from a request to the answer. Used by the doors, the gateway and services/api.

A new one is a file beside this and a line in table.py. All that depends on it derives from there: its path and methods,
405 and Allow, its scope `ingest:<name>`, its place in /openapi.json, and what HAProxy may send twice. Most formats are
a list of alerts: items.py has what these share.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass
from dataclasses import field as made
from typing import TYPE_CHECKING, ClassVar, TypeVar

import msgspec

from services.ingest.arrival import ANONYMOUS, Sender
from services.ingest.formats.answers import Answer, Refusal
from services.ingest.formats.known_bodies import KnownBodies
from services.ingest.formats.open_alerts import OpenAlerts
from services.ingest.formats.openapi import Description
from services.ingest.formats.reading import Reading
from services.ingest.formats.remembered import Remembered
from services.ingest.submit import Receipt

if TYPE_CHECKING:
    from models.settings.all import Settings
    from services.ingest.heartbeats import BeatLine

T = TypeVar("T")


class Request(msgspec.Struct, frozen=True):
    """A request as its format sees it.

    path          as the format names it
    query         what stands behind the "?", undecoded
    headers       names in lower case
    content_type  without its parameters, in lower case
    body          unpacked
    sender        who sends: a token, or whom `Format.verify` found
    received_at   seconds since the epoch
    place         where in its queue it is, "" for one of no queue: its dead letters say so
    is_letter     it is a dead letter that is read again: a request, or one item of it as its format wrote that for a letter
    """

    path: str
    body: bytes
    received_at: float
    method: str = "POST"
    query: bytes = b""
    headers: Mapping[bytes, bytes] = {}
    content_type: str = ""
    sender: Sender = ANONYMOUS
    place: str = ""
    is_letter: bool = False


@dataclass(slots=True)
class Shared:
    """What all formats of one gateway have in common. `settings` is replaced when they change while it runs. `bodies` are those that
    came before; `formats` are all of them by name, once they are open; `beats` is where beats of heartbeats go."""

    remembered: Remembered
    settings: Settings
    open_alerts: OpenAlerts = made(default_factory=OpenAlerts)
    bodies: KnownBodies = made(default_factory=KnownBodies)
    formats: dict[str, Format] = made(default_factory=dict)
    beats: BeatLine | None = None


class Format(ABC):
    """Reads requests of one tenant, and writes the answers. Keeps what it learned; not thread-safe.

    For each request, in this order: `verify` where `is_signed`, `handshake`, `prepare` where it `prepares`, `steps`, and
    `stored` once all is durable; or `refused`, if nothing of the request can be accepted.
    """

    #: What scopes, metrics, dead letters and the log call it.
    name: ClassVar[str]
    path: ClassVar[str]
    #: Methods accepted at its path. Other methods belong to a route of services/api, or get 405.
    methods: ClassVar[tuple[str, ...]] = ("POST",)
    #: Further paths and their methods. A segment in braces matches any one segment: `/v2/alerts/{id}/close`.
    more_paths: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    #: Content types of a body.
    content_types: ClassVar[tuple[str, ...]] = ("application/json",)
    #: Whether its answers name the incidents.
    wants_ids: ClassVar[bool] = False
    #: Whether `verify` identifies the sender. Then no token is required.
    is_signed: bool = False
    #: Whether `token_of` is asked if the Authorization header has no token; and whether it needs the body for that.
    finds_token: ClassVar[bool] = False
    token_in_body: ClassVar[bool] = False
    #: Whether `prepare` is awaited before a request is read.
    prepares: ClassVar[bool] = False

    #: What `stored` says when all is stored and there was nothing wrong, if that is always the same: such requests are answered
    #: at once (services/ingest/doors/hot.py).
    quiet: ClassVar[Answer | None] = None

    def __init__(self, shared: Shared) -> None:
        self.shared = shared

    @classmethod
    @abstractmethod
    def describe(cls) -> Description:
        """What /openapi.json says of it."""

    def takes_type(self, content_type: str, headers: Mapping[bytes, bytes]) -> bool:
        """Whether a body may be of this type. One that a web page can make a browser send anywhere (text/plain, a form, none)
        only with a header that no page can set."""
        return content_type in self.content_types

    def token_of(self, request: Request) -> str:
        """The token that a request bears elsewhere than in Authorization, "" for none. Without `token_in_body` it is asked
        before the body is there."""
        return ""

    def keeps_items(self, request: Request) -> bool:
        """Whether the bytes of one item, as a Fault has them, can be read again alone: then each has a dead letter of its own."""
        return False

    def rereads(self) -> Iterable[bytes]:
        """The headers that `steps` and `prepare` look at, in lower case; all that begin so for a name that ends in "-". A dead
        letter keeps them, so none that is secret."""
        return ()

    def verify(self, request: Request) -> Sender:
        """The sender, as the request's signature proves. The body is as it was sent, still compressed. Raises
        Unauthorized without proof. Compare in constant time (hmac.compare_digest)."""
        raise NotImplementedError

    def handshake(self, request: Request) -> Answer | None:
        """The answer to a request without alerts that only checks whether the endpoint exists. None: it has alerts."""
        return None

    async def prepare(self, request: Request) -> None:  # noqa: B027 - most need not
        """Find out what `steps` must know and the request does not say. Raises Malformed, Unauthorized, Busy, Unavailable."""

    @abstractmethod
    def steps(self, request: Request) -> Generator[None, None, Reading]:
        """The alerts of a request, in steps of a few milliseconds, so that a large body does not delay other requests.
        Raises Malformed if it can't be read at all, TooLarge if it has too many. A bad alert is a Fault, and never
        affects the others."""

    def read(self, request: Request) -> Reading:
        """steps() with no pause."""
        return at_once(self.steps(request))

    @abstractmethod
    def refused(self, refusal: Refusal) -> Answer:
        """The answer to a request that is refused as a whole."""

    @abstractmethod
    async def stored(self, reading: Reading, receipt: Receipt) -> Answer:
        """The answer to a request that was read: what is stored, what is refused, what could not be stored."""


def at_once(steps: Generator[None, None, T]) -> T:
    """What steps come to, with no pause."""
    while True:
        try:
            next(steps)
        except StopIteration as over:
            return over.value  # type: ignore[no-any-return]
