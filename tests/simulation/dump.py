"""A shard's state written out so that two of them can be compared: live, replayed, loaded. Used by the replay tests too.

Left out on purpose: `now` (a step without events moves it, and no decision depends on how far), how look-ups are
ordered, and a group's incident that is neither open nor can be reopened: nothing asks for it.
"""

from __future__ import annotations

import math
import re
from typing import Any

import msgspec

from models.alerts.room import said_bytes
from models.alerts.series import FIRING, FREE
from models.incidents.filters import IncidentFilter, Sort, place_of
from models.incidents.incident import Incident, IncidentState
from models.shard.edge_outbox import EdgeOutbox
from models.shard.heartbeats import HeartbeatsOfShard
from models.shard.inhibitors import Inhibitors
from models.shard.known_playbooks import KnownPlaybooks
from models.shard.known_silences import KnownSilences
from models.shard.lifecycle import may_reopen
from models.shard.mutes import Mutes
from models.shard.notifications import Notifications
from models.shard.relations import Relations
from models.shard.runs import Runs
from models.shard.schedules import is_scheduled
from models.shard.shard import Shard
from models.shard.sharing import Sharing, has_room_to_say
from models.shard.state import CALL_BUCKET_S, CALL_WINDOW_S
from models.shard.verification import Verification

#: How a title of several alerts ends: "(3 pods)".
_COUNTED = re.compile(r" \((\d+) [^()]+\)\Z")

EVERYTHING = IncidentFilter()


def dump(shard: Shard, now: float) -> dict[str, Any]:
    """Everything that may decide what comes next, as of `now`."""
    table = shard.state.series
    series = {
        number: (
            table.keys[number],
            table.bodies[number],
            _id(table.incidents[number]),
            table.status[number],
            table.how[number],
            table.starts[number],
            table.opened[number],
            table.ends[number],
            table.seen[number],
            table.repeats[number],
            [(n.decision, n.count, n.first_at, n.last_at, n.sender) for n in table.notes.get(number, [])],
            table.openers[number],
            table.senders[number],
        )
        for number in range(table.used)
        if table.status[number] != FREE
    }
    oldest = int((now - CALL_WINDOW_S) / CALL_BUCKET_S)
    return {
        "series": series,
        "next number": table.free_number(),
        "firing": dict(table.firing),
        "by_series": dict(table.by_series.items()),
        "old keys": table.old_keys,
        "held": (table.room.held, dict(table.room.by_sender)),
        # All its fields, thirty times faster than repr().
        "incidents": {key: _encode(incident) for key, incident in shard.state.incidents.items()},
        "members": {key: sorted(numbers) for key, numbers in shard.state.members.items()},
        "by_group": {
            key: incident.id
            for key, incident in shard.state.by_group.items()
            if incident.is_open or may_reopen(shard, incident, now)
        },
        "by_label": {key: set(found) for key, found in shard.state.by_label.items()},
        "loose": set(shard.state.loose),
        "other groupings": dict(shard.state.other_groupings),
        "given up": set(shard.of(Notifications).given_up),
        "order": list(shard.state.order),
        "open": shard.state.open_count,
        "muted": {key: dict(shard.of(Mutes).muted.of(key)) for key in shard.of(Mutes).muted},
        "relations": {key: _encode(each) for key, each in shard.of(Relations).kept.items()},
        "heartbeats": {key: _encode(each) for key, each in shard.of(HeartbeatsOfShard).pulses.items()},
        "heartbeats listened": shard.of(HeartbeatsOfShard).listened_at,
        "playbooks heard": dict(shard.of(KnownPlaybooks).heard),
        "runs": {key: _encode(mine) for key, mine in shard.of(Runs).store.by_incident.items()},
        "playbooks of runs": dict(shard.of(Runs).store.bodies),
        "captured": {key: _encode(each) for key, each in shard.of(Runs).store.captures.items()},
        "active runs": set(shard.of(Runs).store.active),
        "watches": {key: _encode(each) for key, each in shard.of(Verification).store.watches.items()},
        "edge agents": {key: _encode(each) for key, each in shard.of(EdgeOutbox).store.agents.items()},
        "edge work": {key: dict(each) for key, each in shard.of(EdgeOutbox).store.work.items()},
        "edge actions": shard.of(EdgeOutbox).store.size,
        "watched": set(shard.state.watched),
        "repaired": {key: _encode(each) for key, each in shard.of(Verification).store.repaired.items()},
        "planned": set(shard.of(Runs).store.planned),
        "silences": {**shard.of(KnownSilences).all, "version": shard.of(KnownSilences).version},
        "inhibitors": {key: dict(found) for key, found in shard.of(Inhibitors).others.items()},
        "heard inhibitors": dict(shard.of(Inhibitors).heard),
        "no_expiry_before": shard.state.no_expiry_before,
        "forgotten_before": shard.state.forgotten_before,
        "calls": {
            (bucket, call): shard.state.calls[call]
            for bucket, calls in shard.state.call_buckets.items()
            if bucket >= oldest
            for call in calls
        },
    }


def difference(one: dict[str, Any], other: dict[str, Any]) -> str:
    """Where two dumps differ first, in words; empty when they do not."""
    for part in one:
        if one[part] == other[part]:
            continue
        if isinstance(one[part], dict):
            for key in {**one[part], **other[part]}:
                if one[part].get(key) != other[part].get(key):
                    shown = [_shown(part, dumped.get(key)) for dumped in (one[part], other[part])]
                    return f"{part}[{key!r}]: {shown[0]!r} is not {shown[1]!r}"
        return f"{part}: {one[part]!r} is not {other[part]!r}"
    return ""


def unsound(shard: Shard, *, is_of_now: bool = True) -> str:
    """What in a shard's derived state contradicts the rest, in words; empty when nothing does. `is_of_now` False: its
    incidents come from a log of 0.2.0 or older, which gave them the labels of their first alert."""
    table = shard.state.series
    waiting: dict[int, set[int]] = {second: set(numbers) for second, numbers in table._wheel.items()}
    for number in range(table.used):
        key, status = table.keys[number], table.status[number]
        if (status == FREE) != (number in table.free):
            return f"series {number}: free or not?"
        if status == FREE:
            continue
        if (table.firing.get(key) == number) != (status == FIRING):
            return f"series {number} has status {status}, and the firing table says {table.firing.get(key)}"
        if status == FIRING and not math.isinf(table.ends[number]):
            armed = table.armed[number]
            if armed > int(table.ends[number]) + 1 or number not in waiting.get(int(armed), ()):
                return f"series {number} ends at {table.ends[number]} and is armed for {armed}"
    if len(table.firing) != sum(1 for status in table.status if status == FIRING):
        return "the firing table has entries of no series"
    muted = shard.of(Mutes).muted
    for identity in muted:
        for number in muted.of(identity):
            if table.status[number] != FIRING or _id(table.incidents[number]) != identity:
                return f"series {number} is muted in {identity.hex()} and does not fire there"
    shard.watch()
    telling = shard.of(Notifications).telling
    watched = (telling.ready, telling.asked, telling.held)
    groups: dict[tuple[str, str], bytes] = {}
    by_hand = 0
    for identity, incident in shard.state.incidents.items():
        firing = sum(1 for number in shard.state.members[identity] if table.status[number] == FIRING)
        if firing != incident.firing:
            return f"incident {identity.hex()} counts {incident.firing} firing series and has {firing}"
        if (
            is_of_now
            and incident.state is not IncidentState.CLOSED
            and (why := _misdescribed(shard, incident))
        ):
            return f"incident {identity.hex()}: {why}"
        # A person may reopen what does not fire, a child may keep its parent open, and a run by the clock has no alerts.
        touched = incident.handling is not None or any(line.actor != "system" for line in incident.timeline)
        if incident.is_open and not firing and not touched and not is_scheduled(incident):
            return f"incident {identity.hex()} is open and nothing of it fires"
        if (
            not shard.timers.at(identity)
            and (owed := {name for name, each in incident.notifications.items() if each.reason is not None})
            and not owed <= {name for each in watched for key, name in each if key == identity}
        ):
            return f"incident {identity.hex()} is owed a notification that nobody will ask for"
        if (due_at := shard.next_at(incident)) and shard.timers.at(identity) != due_at:
            return f"incident {identity.hex()} is due at {due_at}, and nobody watches"
        if incident.is_open and incident.is_by_hand:
            by_hand += 1
        elif incident.is_open:
            group = (incident.tenant, incident.group_key)
            if group in groups:
                return f"group {group} is open twice: {identity.hex()} and {groups[group].hex()}"
            groups[group] = identity
            if shard.state.by_group.get(group) is not incident:
                return f"group {group} does not lead to its open incident"
    if shard.state.open_count != len(groups) + by_hand:
        return f"{shard.state.open_count} incidents are counted as open, {len(groups) + by_hand} are"
    for sort in Sort:
        places = sorted(
            (place_of(each, sort) for each in shard.state.incidents.values()), reverse=sort.goes_down
        )
        walked = [*shard.state.placed().walk(sort, EVERYTHING, None)]
        if walked != [identity for *_, identity in places]:
            return f"a list by {sort} has {len(walked)} incidents in another order than the {len(places)} there are"
    return ""


def _misdescribed(shard: Shard, incident: Incident) -> str:
    """What an incident says of its alerts and is not true of all that fire, in words; looked up without models/shard/sharing.py."""
    table, members = shard.state.series, shard.state.members[incident.id]
    firing = [table.content(number) for number in members if table.status[number] == FIRING]
    if not firing:
        return ""
    by_people = (incident.handling.labels if incident.handling is not None else None) or {}
    shared = set.intersection(*(set(each.labels.items()) for each in firing))
    wanted = {name: value for name, value in shared if name not in by_people}
    wanted |= {name: value for name, value in by_people.items() if value is not None}
    notes = dict(set.intersection(*(set(each.annotations.items()) for each in firing)))
    known = shard.of(Sharing).known(incident)
    if known is not None and known != (dict(shared), notes):
        return f"its firing alerts are taken to share {known}, they do {shared} and {notes}"
    left_out = said_bytes("", notes.get("description", ""), wanted, notes) - said_bytes(
        "", incident.description, incident.labels, incident.annotations
    )
    if left_out > 0 and not has_room_to_say(shard, incident, left_out):
        # Of what there is no room for it says less, and nothing else.
        wanted = {name: value for name, value in wanted.items() if name in incident.labels}
        notes = {name: value for name, value in notes.items() if name in incident.annotations}
    if incident.labels != wanted:
        return f"has labels {incident.labels}, its alerts share {wanted}"
    if incident.annotations != notes:
        return f"has annotations {incident.annotations}, its alerts share {notes}"
    given = incident.overflow is not None or (incident.handling is not None and incident.handling.title)
    said = _COUNTED.search(incident.title)
    # A title that counts wrong is to be counted anew, and then unsound() looks whether somebody watches.
    is_right = bool(said) == (len(firing) > 1) and (
        not said or int(said[1]) in (len(firing), incident.counted)
    )
    if not given and not is_right:
        return f"{len(firing)} alerts fire, and its title is {incident.title!r}"
    return ""


def _shown(part: str, value: Any) -> Any:
    return msgspec.msgpack.decode(value, type=Incident) if part == "incidents" and value else value


_encode = msgspec.msgpack.Encoder().encode


def _id(incident: Any) -> bytes | None:
    return None if incident is None else incident.id
