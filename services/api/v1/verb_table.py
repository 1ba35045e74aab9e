"""Every verb of /v1/incidents/{id}/VERB: its name, what it takes, and an example. Its body is in verb_bodies.py; what a shard
makes of it is a matter of the component that owns the verb."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import msgspec

from models.alerts.alert import SERIES_ID_BYTES, fingerprint, series_id
from models.errors import NotFound
from models.incidents import verbs
from models.incidents.query import PAGE_MAX
from services.api.reads import Reads
from services.api.v1 import verb_bodies
from services.api.v1.commands import Commands
from services.api.v1.requests import Origin
from services.api.v1.verb_bodies import Body

_OTHER = "01a20993-901b-7483-ab53-7cb8d1609881"


@dataclass(frozen=True, slots=True)
class Asked:
    """What a verb is asked of, for what must be looked up before a shard is told."""

    reads: Reads
    commands: Commands
    origin: Origin
    incident_id: bytes
    body: Body


@dataclass(frozen=True, slots=True)
class VerbRoute:
    """One verb. `prepare` looks up what its body only names. `makes_another`: the answer is a new incident, 201.
    `asks_child`: its child must agree. `in_bulk`: it makes sense for many incidents at once."""

    name: str
    body: type[Body]
    example: dict[str, object]
    prepare: Callable[[Asked, verbs.AnyVerb], Awaitable[verbs.AnyVerb]] | None = None
    makes_another: bool = False
    asks_child: bool = False
    in_bulk: bool = True
    conflicts: str = "Its state does not allow it, or it is archived; the problem says what to do instead."
    more: dict[str, str] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        """What it is for, in a sentence."""
        return (self.body.__doc__ or "").strip()


async def _other_is_alive(asked: Asked, verb: verbs.AnyVerb) -> verbs.AnyVerb:
    assert isinstance(asked.body, verb_bodies.LinkBody | verb_bodies.MergeBody)
    await asked.commands.must_be_alive(asked.body.incident.bytes, "incident")
    return verb


async def _find_series(asked: Asked, verb: verbs.AnyVerb) -> verbs.AnyVerb:
    """The series that a split's fingerprints name."""
    assert isinstance(asked.body, verb_bodies.SplitBody) and isinstance(verb, verbs.Split)
    await asked.commands.must_be_alive(asked.incident_id)
    found = await _series_of(asked, frozenset(asked.body.alerts))
    for place, name in enumerate(asked.body.alerts):
        if name in found:
            continue
        if asked.origin.delivery_id is None or found:
            raise NotFound(f"alerts.{place}: the incident itself has no alert {name}")
        # Perhaps a repeat, and they have left already. Whether it knows this key only the shard can say; else it has no
        # series of this name.
        return msgspec.structs.replace(verb, series=[bytes.fromhex(name).ljust(SERIES_ID_BYTES, b"\0")])
    return msgspec.structs.replace(verb, series=[*found.values()])


async def _series_of(asked: Asked, wanted: frozenset[str]) -> dict[str, bytes]:
    """The series ids of an incident's own alerts, those of its children left out, by fingerprint."""
    found: dict[str, bytes] = {}
    cursor: str | None = None
    while len(found) < len(wanted):
        page = await asked.reads.incident_alerts(asked.incident_id, limit=PAGE_MAX, cursor=cursor)
        own = [] if page is None else [one for one in page.items if one.incident_id == asked.incident_id]
        for alert in own:
            if (name := fingerprint(alert.labels)) in wanted:
                found[name] = series_id(asked.reads.asking.tenant, alert.labels)
        if page is None or page.next is None or not own:
            break
        cursor = page.next
        # A fingerprint takes 13 us, and an incident may hold thousands of alerts.
        await asyncio.sleep(0)
    return found


_MISSING = {"404": "No incident has this id, or the body names an incident that does not exist."}

VERBS: tuple[VerbRoute, ...] = (
    VerbRoute("acknowledge", verb_bodies.AcknowledgeBody, {"for": "4h", "reason": "on it"}),
    VerbRoute("unacknowledge", verb_bodies.UnacknowledgeBody, {"reason": "shift ends"}),
    VerbRoute(
        "assign",
        verb_bodies.AssignBody,
        {"add": ["ana"], "roles": {"commander": "ana"}, "reason": "knows the gateway"},
    ),
    VerbRoute("comment", verb_bodies.CommentBody, {"text": "The new model's replicas run out of memory."}),
    VerbRoute(
        "label", verb_bodies.LabelBody, {"set": {"team": "inference"}, "remove": ["pod"], "reason": "theirs"}
    ),
    VerbRoute(
        "reclassify",
        verb_bodies.ReclassifyBody,
        {"severity": "P1", "incident_type": "Performance", "reason": "customers notice"},
    ),
    VerbRoute(
        "link",
        verb_bodies.LinkBody,
        {"incident": _OTHER, "reason": "same rollout"},
        prepare=_other_is_alive,
        more=_MISSING,
    ),
    VerbRoute("unlink", verb_bodies.UnlinkBody, {"incident": _OTHER, "reason": "another cause"}),
    VerbRoute(
        "merge",
        verb_bodies.MergeBody,
        {"incident": _OTHER, "reason": "same cause"},
        prepare=_other_is_alive,
        asks_child=True,
        in_bulk=False,
        conflicts="One of the two can't be merged, or the other refused; the problem says why.",
        more=_MISSING,
    ),
    VerbRoute(
        "unmerge",
        verb_bodies.UnmergeBody,
        {"incident": _OTHER, "reason": "another cause after all"},
        asks_child=True,
        in_bulk=False,
    ),
    VerbRoute(
        "split",
        verb_bodies.SplitBody,
        {"alerts": ["2327b1eec6158b0d"], "title": "Latency of the embedding model"},
        prepare=_find_series,
        makes_another=True,
        in_bulk=False,
        more=_MISSING,
    ),
    VerbRoute(
        "resolve",
        verb_bodies.ResolveBody,
        {
            "root_cause": "a batch size too large",
            "notes": "Rolled back to 41; raise the limit first next time.",
        },
    ),
    VerbRoute("close", verb_bodies.CloseBody, {"reason": "reviewed"}),
    VerbRoute("reopen", verb_bodies.ReopenBody, {"reason": "it is back"}),
    VerbRoute(
        "resend",
        verb_bodies.ResendBody,
        {"receiver": "pager", "reason": "the phone was off"},
        conflicts="It is over, muted, discarded or a child of another, or notifications are off; the problem says which.",
    ),
    VerbRoute(
        "update",
        verb_bodies.UpdateBody,
        {"audience": "customers", "text": "Answers are slow; we are on it.", "next_due_in": "30m"},
    ),
)

BULK_VERBS = {verb.name: verb for verb in VERBS if verb.in_bulk}
