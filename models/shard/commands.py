"""What people want done to an incident: checked here for what applies to every verb, then given to the component that
owns the verb (models/shard/assembly.py). A refused verb makes no event, and says what to do instead. A verb that
changes nothing makes no event either and is not an error: two people who acknowledge at the same time both succeed.
"""

from __future__ import annotations

from models.alerts.alert import content_digest
from models.errors import Conflict, Malformed, NotFound, Refused, Stale, TooLarge
from models.incidents.incident import Incident, id_text
from models.incidents.verbs import (
    NAME_MAX,
    REASON_MAX,
    Comment,
    Create,
    Label,
    Link,
    Unlink,
)
from models.incidents.verbs import encode as encode_verb
from models.shard.component import Component
from models.shard.events import CallAnswered
from models.shard.messages import Command, CommandDone, Failed, Reply, decode_reply, encode

#: What may be done to an incident that is a child of another; everything else is done to its parent.
_OF_A_CHILD = Comment | Label | Link | Unlink


class Commands(Component):
    name = "commands"

    def _command(self, command: Command, now: float) -> Reply:
        """Answered once, however often it is asked."""
        shard = self.shard
        answered = self.state.calls.get(command.call_id)
        if answered is not None:
            return decode_reply(answered)
        content = command.content or content_digest(
            command.incident_id, encode_verb(command.verb), command.reason.encode()
        )
        if command.delivered_before is not None:
            before = decode_reply(command.delivered_before)
            if not isinstance(before, CommandDone) or before.content != content:
                return Failed("Refused", "this Idempotency-Key was used before for another request")
            return before
        try:
            about = self._decide(command, now)
        except Refused as refused:
            return Failed(type(refused).__name__, str(refused))
        reply = CommandDone(about.id, about.version, content, bool(shard.events))
        shard.do(CallAnswered(command.call_id, encode(reply), command.delivery_id), now)
        return reply

    def _decide(self, command: Command, now: float) -> Incident:
        """Do what a person requests, or raise Refused: NotFound, Conflict, Stale, Malformed, TooLarge. Returns the
        incident it was about; for Create and Split the new one."""
        check_name("actor", command.actor)
        check_text("reason", command.reason, REASON_MAX)
        verb = command.verb
        if isinstance(verb, Create):
            return self.shard.decide(None, command, now)
        incident = self.state.incidents.get(command.incident_id)
        if incident is None or incident.tenant != command.tenant:
            raise NotFound("there is no such incident, or it is archived")
        if command.if_version is not None and command.if_version != incident.version:
            raise Stale(
                f"it has version {incident.version} and not {command.if_version}: somebody changed it in the meantime"
            )
        if incident.merged_into and not isinstance(verb, _OF_A_CHILD):
            parent = id_text(incident.merged_into)
            raise Conflict(f"it was merged into incident {parent}: do it there, or unmerge it first")
        return self.shard.decide(incident, command, now)

    messages = {Command: _command}


def must_be_open(incident: Incident, what: str) -> None:
    if not incident.is_open:
        raise Conflict(f"it is {incident.state} and can't be {what}: reopen it first")


def check_text(field: str, text: str, longest: int) -> None:
    if len(text) > longest:
        raise TooLarge(f"{field}: expected at most {longest} characters, not {len(text)}")


def check_name(field: str, name: str) -> None:
    if not name.strip():
        raise Malformed(f"{field}: expected a name, not an empty one")
    if len(name) > NAME_MAX:
        raise TooLarge(f"{field}: expected a name of at most {NAME_MAX} characters, not {len(name)}")
    if not name.isprintable():
        raise Malformed(f"{field}: expected a name of printable characters")
