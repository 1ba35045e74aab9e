"""Alerts come in: each is decided in turn, and becomes a series of an incident. Repeats of what already fires are
decided for the whole request at once, and must stay cheap: no other component is called there.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from typing import cast

import msgspec

from models.alerts.alert import (
    OLD_KEY_BYTES,
    SERIES_ID_BYTES,
    Content,
    alert_key,
    key_digest,
    old_series_id,
    same_labels,
    service_of,
)
from models.alerts.grouping import group_of, signal_of
from models.alerts.room import INCIDENT_BYTES, INCIDENT_TIMES, SERIES_BYTES
from models.alerts.series import BLOCK_SHIFT, FIRING
from models.errors import Broken
from models.incidents.incident import Incident
from models.shard import clock, lifecycle
from models.shard.changes import (
    AlertDue,
    SeriesEnded,
    SeriesFires,
    SeriesOver,
    SeriesSaysElse,
    Signalled,
)
from models.shard.component import Component, on
from models.shard.core import Core, Whose
from models.shard.events import (
    AlertsObserved,
    AlertsSetAside,
    CallAnswered,
    SeriesChanged,
    SeriesOpened,
    SeriesRefired,
    SeriesResolved,
)
from models.shard.messages import (
    AlertsArrived,
    AlertsReply,
    Claim,
    Decision,
    Failed,
    Reply,
    Tick,
    decode_reply,
    encode,
)
from models.shard.openings import SIGNALS_MAX, incident_for
from models.shard.state import MOVING, STATIC, starts_of, starts_of_all

#: Series ended by their time in one step: about 5 ms, so that an outage's end does not hold up a batch.
EXPIRE_MAX = 1000
#: Group keys remembered; making one costs 2.5 us, finding it 0.3 us. Longer ones are made each time: 40 MB at most.
GROUPS_REMEMBERED = 16_384
GROUP_CHARS_REMEMBERED = 512

_content_encoder = msgspec.msgpack.Encoder()
_content_decoder = msgspec.msgpack.Decoder(Content)
#: Decisions about alerts that were not stored; their sender is told so.
_REFUSED = frozenset({Decision.UNREADABLE, Decision.COLLIDED, Decision.SENDER_FULL, Decision.SHARD_FULL})
#: Decisions of which the log holds nothing.
_NOT_KEPT = frozenset({Decision.BODY_WANTED, Decision.UNREADABLE, Decision.SENDER_FULL, Decision.SHARD_FULL})
_ALL_REPEATED = AlertsReply(bytes([Decision.REPEATED]))
_ALL_DUPLICATE = AlertsReply(bytes([Decision.DUPLICATE]))
_ALL_WANTED = AlertsReply(bytes([Decision.BODY_WANTED]))


def _hear(incident: Incident, signal: str) -> None:
    if signal:
        incident.signals.append(signal)
        if incident.signals_asked < len(incident.signals):
            incident.classify_owed = True


class Intake(Component):
    name = "intake"

    def __init__(self, shard: Core) -> None:
        super().__init__(shard)
        #: The clock of the gateway that read what is being decided.
        self._received_at = 0.0
        self._groups: dict[tuple[str | None, ...], tuple[str, dict[str, str]]] = {}
        self._repeat_numbers: list[int] = []
        self._repeat_ends: list[float] = []

    def tick(self, tick: Tick, now: float) -> None:
        """Series whose time is over end, unless nobody could have said that they still fire."""
        if not tick.in_gap and now >= self.state.no_expiry_before:
            for number in self.state.series.due(self.shard.clock, EXPIRE_MAX):
                self._resolve_series(number, self.state.series.ends[number], True, b"", b"", now)

    def _alerts_arrived(self, message: AlertsArrived, now: float) -> Reply:
        answered = self.state.calls.get(message.call_id)
        if answered is not None:
            return decode_reply(answered)
        content, delivery_id = b"", message.delivery_id
        if delivery_id is not None:
            # Without what the sender wrote, its result is used.
            content = message.content or key_digest(
                b"".join(message.keys) + array("d", message.ends).tobytes()
            )
        before = None if message.delivered_before is None else decode_reply(message.delivered_before)
        # What 0.2.0 and older accepted has a shorter digest, which can't be compared with today's: such alerts are
        # decided again, which loses none, and most will be repeats.
        if before is not None and not (
            isinstance(before, AlertsReply) and len(before.content) < len(content)
        ):
            if not isinstance(before, AlertsReply) or before.content != content:
                return Failed("Refused", "this delivery id was accepted before with other alerts or ends")
            self.state.decided[Decision.DUPLICATE] += len(message.keys)
            return AlertsReply(_ALL_DUPLICATE.decisions, before.incident_ids)
        keys, ends = message.keys, message.ends
        if not len(keys) == len(ends) == len(message.bodies) or len(message.said) not in (0, len(keys)):
            return Failed("Malformed", "AlertsArrived: keys, ends, bodies and said must be of one length")
        # The earlier of the two clocks: nothing has ended that is still in the future for one of them.
        self._received_at = min(message.received_at or self.shard.clock, self.shard.clock)
        known = [*map(self.state.series.firing.get, keys)]
        if (
            keys
            and None not in known
            and min(ends) > self._received_at
            and not message.said
            and (not any(message.bodies) or self._are_of(cast(list[int], known), message.bodies))
        ):
            # Every alert repeats what is firing already: nine of ten requests in an outage end here.
            self._observe(cast(list[int], known), ends, now)
            self.state.decided[Decision.REPEATED] += len(keys)
            reply = _ALL_REPEATED
        elif delivery_id is not None and not all(message.bodies):
            # A delivery is remembered with its answer, so all of it is decided at once, or nothing.
            self.state.decided[Decision.BODY_WANTED] += len(keys)
            return _ALL_WANTED
        else:
            decisions = bytearray()
            said = message.said or bytes(len(keys))
            for key, end, body, word in zip(keys, ends, message.bodies, said, strict=True):
                decisions.append(self._alert(message.tenant, key, end, body, word, now))
            self._flush_repeats(now)
            for decision in set(decisions):
                self.state.decided[decision] += decisions.count(decision)
            if not _REFUSED.isdisjoint(decisions):
                # If it is sent again it must be decided again: what was refused may then be accepted.
                content, delivery_id = b"", None
            alike = len(set(decisions)) <= 1
            reply = AlertsReply(bytes(decisions[:1] if alike else decisions))
            if decisions and not self.shard.events and _NOT_KEPT.issuperset(decisions):
                return reply
        if message.want_ids or content:
            ids = [self._incident_of(key) for key in keys] if message.want_ids else []
            reply = AlertsReply(reply.decisions, ids, content)
        self.shard.do(CallAnswered(message.call_id, encode(reply), delivery_id), now)
        return reply

    def _alert(self, tenant: str, key: bytes, ends: float, body: bytes, said: int, now: float) -> Decision:
        """Decide about one alert, the most common case first."""
        series = self.state.series
        fires = not said and (ends > self._received_at or self._goes_on(key, ends, now))
        number = series.firing.get(key)
        if number is not None and fires and (not body or self._are_of((number,), (body,))):
            self._repeat_numbers.append(number)
            self._repeat_ends.append(ends)
            return Decision.REPEATED
        if self._repeat_numbers:
            self._flush_repeats(now)
        identity = key[:SERIES_ID_BYTES]
        number = series.by_series.parts[identity[-1]].get(identity)
        if not body and (number is None or fires or series.keys[number] != key):
            return Decision.BODY_WANTED
        content: Content | None = None
        if body:
            # Read before anything is decided: one bad body must not end the shard, nor cost its neighbours.
            try:
                content = _content_decoder.decode(body)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                return Decision.UNREADABLE
            if number is not None and not same_labels(body, series.bodies[number]):
                return self._set_aside(Decision.COLLIDED, key, ends, body, now)
            if number is None and series.old_keys:
                number = self._with_old_key(tenant, content)
        if number is None:
            if not fires:
                return self._set_aside(Decision.UNKNOWN_RESOLVE, key, ends, body, now)
            return self._open_series(tenant, key, ends, body, content, now)
        same = key == series.keys[number] or (series.old_keys > 0 and self._is_renamed(tenant, number, key))
        if series.status[number] == FIRING:
            if fires and same:
                # Only its key is another: it began before keys were what they are.
                self.shard.do(SeriesChanged(number, key, ends, series.bodies[number], self.shard.sender), now)
                return Decision.REPEATED
            if fires and (full := self._full_for(number, body)) is not None:
                # It keeps firing with its old content: there is no room for the new one.
                self._repeat_numbers.append(number)
                self._repeat_ends.append(ends)
                return full
            if fires:
                self._change(number, key, ends, body, content, now)
                return Decision.CHANGED
            if content is not None and self._is_of_before(number, content.starts_at, ends, said):
                return self._set_aside(Decision.LATE, key, ends, body, now)
            if same or self._full_for(number, body) is not None:
                # A resolve is always accepted; without its content if there is no room for that.
                key, body = b"", b""
            self._resolve_series(number, min(ends, self._received_at), False, key, body, now)
            return Decision.RESOLVED
        if not fires:
            if same and ends == series.ends[number]:
                return Decision.REPEATED
            return self._set_aside(Decision.UNKNOWN_RESOLVE, key, ends, body, now)
        incident = series.incidents[number]
        if incident is None or self.state.by_group.get((incident.tenant, incident.group_key)) is not incident:
            return self._open_series(tenant, key, ends, body, content, now)
        going_on = incident.is_open or lifecycle.may_reopen(self.shard, incident, now)
        if going_on and (full := self._full_for(number, body)) is not None:
            return full
        if incident.is_open:
            self._refire(number, incident, key, ends, body, content, Decision.REFIRED, now)
            return Decision.REFIRED
        if lifecycle.may_reopen(self.shard, incident, now):
            lifecycle.reopen(self.shard, incident, now, self.shard.actor)
            self._refire(number, incident, key, ends, body, content, Decision.REOPENED, now)
            return Decision.REOPENED
        return self._open_series(tenant, key, ends, body, content, now)

    def _change(
        self, number: int, key: bytes, ends: float, body: bytes, content: Content | None, now: float
    ) -> None:
        incident = self.state.series.incidents[number]
        if content is None or incident is None:
            raise Broken(f"series {number} can't change without a body, or outside any incident")
        before = self.state.series.bodies[number]
        signal = self._new_signal(incident, content)
        self.shard.do(SeriesChanged(number, key, ends, body, self.shard.sender, signal), now)
        if signal:
            self.shard.report(Signalled(incident), now)
        self.shard.report(SeriesSaysElse(incident, number, before, content), now)

    def _new_signal(self, incident: Incident, content: Content) -> str:
        """The severity word of an alert, "" when its incident has heard it, or as many as it may."""
        signals = incident.signals
        if len(signals) >= SIGNALS_MAX:
            return ""
        signal = signal_of(content.labels, content.annotations)
        return "" if signal in signals else signal

    def _refire(
        self,
        number: int,
        incident: Incident,
        key: bytes,
        ends: float,
        body: bytes,
        content: Content | None,
        decision: Decision,
        now: float,
    ) -> None:
        signal = "" if content is None else self._new_signal(incident, content)
        self.shard.do(SeriesRefired(number, key, ends, body, decision, self.shard.sender, signal), now)
        if signal:
            self.shard.report(Signalled(incident), now)
        self.shard.report(SeriesFires(incident, number, again=True, content=content), now)

    def _full_for(self, number: int, body: bytes) -> Decision | None:
        """Why there is no room for another body of a series, None when there is. One that is no longer than the one
        before always fits."""
        table = self.state.series
        grows = len(body) - len(table.bodies[number])
        if grows <= 0:
            return None
        is_own = table.senders[number] == self.shard.sender
        return self._full(grows, grows if is_own else SERIES_BYTES + len(body))

    def _full(self, size: int, of_sender: int) -> Decision | None:
        """Why there is no room for `size` bytes more, of which the sender is charged `of_sender`; None when there is."""
        room, settings = self.state.series.room, self.shard.settings
        if settings.sender_bytes < settings.max_bytes and self.shard.sender:
            # Without a name it was stored by an older version: it counts for no sender.
            if room.by_sender.get(self.shard.sender, 0) + of_sender > settings.sender_bytes:
                return Decision.SENDER_FULL
        return Decision.SHARD_FULL if room.held + size > settings.max_bytes else None

    def _are_of(self, numbers: Sequence[int], bodies: Sequence[bytes]) -> bool:
        """Whether these bodies, where there are any, have the labels of these series: a key alone does not prove it."""
        stored = self.state.series.bodies
        try:
            return all(
                not body or same_labels(body, stored[number])
                for number, body in zip(numbers, bodies, strict=True)
            )
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return False

    def _with_old_key(self, tenant: str, content: Content) -> int | None:
        """The series with these labels that still has a key as 0.2.0 and older made it. Those can collide."""
        number = self.state.series.by_series.get(old_series_id(tenant, content.labels))
        if number is None or self.state.series.content(number).labels != content.labels:
            return None
        return number

    def _is_renamed(self, tenant: str, number: int, key: bytes) -> bool:
        """Whether a series with an old key says what this key of today stands for."""
        if len(self.state.series.keys[number]) != OLD_KEY_BYTES:
            return False
        content = self.state.series.content(number)
        # It is unknown whether its sender gave a start.
        return key in (alert_key(tenant, content, 0.0), alert_key(tenant, content, content.starts_at))

    def _goes_on(self, key: bytes, ends: float, now: float) -> bool:
        """Whether an end that has passed by our clock does not count. While nothing may expire, our clock may be the
        one that is ahead: a sender that extends an end, as it does with every repeat, says that the alert fires. To
        resolve an alert, senders move its end back by minutes."""
        if now >= self.state.no_expiry_before:
            return False
        number = self.state.series.by_series.get(key[:16])
        if number is None or self.state.series.status[number] != FIRING:
            return False
        # A sender that repeats itself each second ends its alerts in a few: half of that, then, and not minutes, is far.
        ahead_s = self.state.series.ends[number] - self.state.series.seen[number]
        near_s = min(clock.ON_ITS_WAY_S, ahead_s / 2) if ahead_s > 0 else clock.ON_ITS_WAY_S
        return ends > self.state.series.ends[number] - near_s

    def _is_of_before(self, number: int, starts: float, ends: float, said: int) -> bool:
        """Whether an end belongs to an earlier run of the series. Only times given by its senders are compared: an end
        belongs to the current run unless its own start and end are both earlier."""
        began = self.state.series.starts[number]
        return (
            said != Claim.RESOLVED_NOW
            and 0.0 < starts < began
            and ends < began
            and starts_of(self.state.series.bodies[number]) > 0.0
        )

    def _open_series(
        self, tenant: str, key: bytes, ends: float, body: bytes, content: Content | None, now: float
    ) -> Decision:
        if content is None:
            raise Broken("a series can't be opened without its body")
        # As if it opened an incident: whether it does is decided below.
        size = SERIES_BYTES + INCIDENT_BYTES + (1 + INCIDENT_TIMES) * len(body)
        if (full := self._full(size, size)) is not None:
            return full
        service = service_of(content.labels, self.shard.settings.service_labels)
        group = self._group_of(content.labels, service)
        number = self.state.series.free_number()
        incident, decision = incident_for(self.shard, tenant, service, group, content, number, now)
        signal = self._new_signal(incident, content)
        is_news = decision is Decision.JOINED and incident.is_known_of
        event = SeriesOpened(
            number, key, incident.id, ends, body, decision, signal, self.shard.sender, is_news
        )
        self.shard.do(event, now)
        opens = decision is Decision.OPENED
        if signal and not opens:
            # An incident that opens is classified anyway.
            self.shard.report(Signalled(incident), now)
        self.shard.report(SeriesFires(incident, number, False, opens, content), now)
        return decision

    def _group_of(self, labels: dict[str, str], service: str) -> tuple[str, dict[str, str]]:
        """group_of(), remembered: in a flood of new series few groups are new."""
        values = (service, *map(labels.get, self.shard.settings.group_by))
        found = self._groups.get(values)
        if found is None:
            found = group_of(labels, service, self.shard.settings.group_by)
            if len(found[0]) > GROUP_CHARS_REMEMBERED:
                return found
            if len(self._groups) >= GROUPS_REMEMBERED:
                self._groups.clear()
            self._groups[values] = found
        return found

    def _resolve_series(
        self, number: int, ended_at: float, expired: bool, key: bytes, body: bytes, now: float
    ) -> None:
        incident = self.state.series.incidents[number]
        if incident is None:
            raise Broken(f"series {number} fires outside any incident")
        self.shard.do(SeriesResolved(number, ended_at, expired, key, body, self.shard.sender), now)
        self.shard.report(SeriesEnded(incident, number), now)
        lifecycle.ended(
            self.shard, incident, "all its alerts expired" if expired else "all its alerts ended", now
        )

    def _set_aside(self, decision: Decision, key: bytes, ends: float, body: bytes, now: float) -> Decision:
        self.shard.do(AlertsSetAside(bytes([decision]), [key], [ends], [body], self.shard.sender), now)
        return decision

    def _incident_of(self, key: bytes) -> bytes:
        identity = key[:SERIES_ID_BYTES]
        number = self.state.series.by_series.parts[identity[-1]].get(identity)
        incident = None if number is None else self.state.series.incidents[number]
        return b"" if incident is None else incident.id

    def _observe(self, numbers: Sequence[int], ends: Sequence[float], now: float) -> None:
        first = ends[0]
        same = all([end == first for end in ends])
        packed = array("d", [first] if same else ends).tobytes()
        self.shard.do(AlertsObserved(array("I", numbers).tobytes(), packed), now)

    def _flush_repeats(self, now: float) -> None:
        # Before anything else happens in this message, so that the log has the order in which it was decided.
        if self._repeat_numbers:
            numbers, self._repeat_numbers = self._repeat_numbers, []
            ends, self._repeat_ends = self._repeat_ends, []
            self._observe(numbers, ends, now)

    # -- alerts of our own ----------------------------------------------------------------------------------

    def _own_fires(self, change: AlertDue, now: float) -> None:
        self._received_at = now
        body = _content_encoder.encode(change.content)
        decision = self._alert(change.tenant, change.key, math.inf, body, 0, now)
        self._flush_repeats(now)
        self.state.decided[decision] += 1

    def _own_over(self, change: SeriesOver, now: float) -> None:
        self._resolve_series(change.number, now, False, b"", b"", now)
        self.state.decided[Decision.RESOLVED] += 1

    # -- live and in replay ----------------------------------------------------------------------------------

    def _fold_observed(self, event: AlertsObserved, now: float) -> None:
        numbers = array("I", event.numbers)
        ends = array("d", event.ends)
        if len(ends) == 1:
            ends = ends * len(numbers)
        self.state.checkpoint.touch_all(MOVING, [number >> BLOCK_SHIFT for number in numbers])
        self.state.series.repeat(numbers, ends, now)

    def _fold_call(self, event: CallAnswered, now: float) -> None:
        self.state.answer_call(event.call_id, event.reply, now)

    def _fold_set_aside(self, event: AlertsSetAside, now: float) -> None:
        """Kept in the log alone."""

    def _fold_series_opened(self, event: SeriesOpened, now: float) -> None:
        self.state.touch_series(event.number)
        incident = self.state.changing(event.incident_id)
        starts = starts_of(event.body) or now
        self.state.series.open(
            event.number,
            event.key,
            incident,
            starts,
            event.ends_at,
            event.body,
            event.decision,
            now,
            event.sender,
        )
        self.state.members[incident.id].append(event.number)
        incident.firing += 1
        incident.series_seen += 1
        incident.joined += event.is_news
        _hear(incident, event.signal)

    def _fold_run_opened(self, run: Sequence[SeriesOpened], now: float) -> None:
        """_fold_series_opened() of each: in a recovery these are most of the work."""
        state, series = self.state, self.state.series
        first = run[0].number
        numbers = range(first, first + len(run))
        if series.used > first or [event.number for event in run] != [*numbers]:
            for event in run:
                self._fold_series_opened(event, now)
            return
        incidents, members = state.changing_all([event.incident_id for event in run]), state.members
        for event, incident in zip(run, incidents, strict=True):
            members[event.incident_id].append(event.number)
            incident.firing += 1
            incident.series_seen += 1
            if event.is_news:
                incident.joined += 1
            if event.signal:
                _hear(incident, event.signal)
        blocks = range(first >> BLOCK_SHIFT, (numbers[-1] >> BLOCK_SHIFT) + 1)
        state.checkpoint.touch_all(STATIC, blocks)
        state.checkpoint.touch_all(MOVING, blocks)
        bodies = [event.body for event in run]
        series.open_run(
            first,
            [event.key for event in run],
            incidents,
            starts_of_all(bodies, now),
            [event.ends_at for event in run],
            bodies,
            bytes([event.decision for event in run]),
            now,
            [event.sender for event in run],
        )

    def _fold_series_changed(self, event: SeriesChanged, now: float) -> None:
        self.state.touch_series(event.number)
        series = self.state.series
        # As in Alertmanager, a continuing run began at its first start.
        began = series.starts[event.number]
        starts = min(began, starts_of(event.body) or began)
        only_renamed = event.body == series.bodies[event.number]
        series.change(event.number, event.key, starts, event.ends_at, event.body, now, event.sender)
        if only_renamed:
            series.repeats[event.number] += 1
        else:
            series.note(event.number, Decision.CHANGED, now, event.sender)
        if event.signal:
            _hear(self.state.incident_at(event.number), event.signal)

    def _fold_series_resolved(self, event: SeriesResolved, now: float) -> None:
        self.state.checkpoint.touch(MOVING, event.number >> BLOCK_SHIFT)
        if event.key:
            self.state.checkpoint.touch(STATIC, event.number >> BLOCK_SHIFT)
        incident = self.state.incident_at(event.number)
        series = self.state.series
        series.end(event.number, event.ended_at, now, event.key, event.body, event.sender)
        series.note(event.number, Decision.RESOLVED, now, event.sender)
        incident.firing -= 1

    def _fold_series_refired(self, event: SeriesRefired, now: float) -> None:
        self.state.touch_series(event.number)
        incident = self.state.incident_at(event.number)
        starts = starts_of(event.body) or now
        series = self.state.series
        series.refire(event.number, event.key, starts, event.ends_at, event.body, now, event.sender)
        series.note(event.number, event.decision, now, event.sender)
        incident.firing += 1
        _hear(incident, event.signal)

    messages = {AlertsArrived: _alerts_arrived}
    reactions = {AlertDue: _own_fires, SeriesOver: _own_over}
    events = (
        on(AlertsObserved, _fold_observed, whose=Whose.REQUEST),
        on(CallAnswered, _fold_call, whose=Whose.REQUEST),
        on(AlertsSetAside, _fold_set_aside, whose=Whose.REQUEST),
        on(SeriesOpened, _fold_series_opened, fold_run=_fold_run_opened),
        on(SeriesChanged, _fold_series_changed, whose=Whose.SERIES),
        on(SeriesResolved, _fold_series_resolved, whose=Whose.SERIES),
        on(SeriesRefired, _fold_series_refired, whose=Whose.SERIES),
    )
