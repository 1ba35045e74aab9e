"""What /health/ready says, for `up` (which waits for it) and `status` (which tells it)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from services.cli.shared.client import Client
from services.cli.shared.exits import Failure
from services.cli.shared.where import trust_of

State = Literal["ready", "degraded", "starting", "unavailable", "silent", "foreign"]

#: A gateway asks its shards before it answers; one that is away costs it a second or two.
TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Readiness:
    """How the system says it is. `silent`: nothing answers; `foreign`: what answers is not ours. `why`: in words.
    `notifications`: "on", or "off" and why; "" when it does not say."""

    state: State
    why: str = ""
    degraded: list[str] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)
    notifications: str = ""


def ask(url: str) -> Readiness:
    """How it is now. Never raises for what the server does."""
    try:
        reply = Client(url, TIMEOUT_S, trust=trust_of(None)).get("/health/ready")
    except Failure as failure:
        return Readiness("silent", str(failure))
    body = reply.json()
    if not isinstance(body, dict) or "status" not in body or "degraded" not in body:
        if (
            reply.status >= 500
        ):  # HAProxy without a replica behind it, or a server with a fault: not up, but not a stranger
            return Readiness("starting", f"{url} answers {reply.status}: {reply.problem}")
        return Readiness("foreign", f"something answers at {url}, but it is not LLM-Incident-Manager")
    degraded = [str(name) for name in body["degraded"]]
    reasons = {str(name): str(why) for name, why in (body.get("reasons") or {}).items()}
    notifications = str(body.get("notifications") or "")
    match body["status"]:
        case "ready":
            return Readiness("ready", notifications=notifications)
        case "degraded":
            return Readiness(
                "degraded", f"not answering: {', '.join(degraded)}", degraded, reasons, notifications
            )
        case "unavailable":
            return Readiness("unavailable", "no shard answers", degraded, reasons)
        case _:
            why = reasons.get("start", "")
            return Readiness(
                "starting", f"the first start is not complete{why and ': '}{why}", degraded, reasons
            )
