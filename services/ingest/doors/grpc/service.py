"""What a service of the protocol is (services/proto/llm/incident/v1/incident.proto): its name, who may call it, and a handler for each
method. Used by door.py; a new one is a file beside this, added to the door before it starts (GrpcDoor.add).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from typing import ClassVar

from services.ingest.doors.grpc.call import Call

#: Serves one call: reads its messages, writes the answers, returns when it is over. What it raises of models/errors.py becomes the
#: call's status.
Handler = Callable[[Call], Awaitable[None]]


class Service(ABC):
    """One per gateway."""

    #: As in the protocol, with its package.
    name: ClassVar[str]
    #: The format whose scope `ingest:<scope>` a caller needs. "": anybody may call.
    scope: ClassVar[str] = ""

    @abstractmethod
    def methods(self) -> Mapping[str, Handler]:
        """The handler of each method, by its name in the protocol."""

    def stop(self) -> None:  # noqa: B027 - most learn it from their calls
        """The door takes no further calls, and those that are under way are told to end."""
