"""Actions that tell people: `slack`, `email`, `pagerduty` and the other types of receivers. Which receiver: the one that `receiver`
names, or `service` or `channel` when a receiver of that type bears that name; else the only one of that type.
"""

from __future__ import annotations

from uuid import UUID

from actors.targets import receiver_target
from models.incidents.incident import Severity
from models.incidents.notification import Note
from models.playbook.catalog import CATALOG
from models.playbook.parameters import Say
from models.playbook.work import TOLD, Done, IncidentEffect
from models.ports import ActionResult
from services.playbooks.kind import Asked, PlaybookAction, failed, succeeded
from services.playbooks.tools import Receiver, Tools
from services.playbooks.words import severity_of

#: Action types that say something at a receiver of another name's type.
_TYPES = {"slack_notification": "slack", "pagerduty_escalate": "pagerduty"}


def type_of(action: str) -> str:
    """The type of receiver that an action speaks to."""
    return _TYPES.get(action, action)


def receiver_for(tools: Tools, type_: str, *wanted: str) -> Receiver | str:
    """The receiver of this type that the first of the names given means, else the only one; or why there is none. The first of
    `wanted` is what a playbook calls `receiver`, and must exist if it is given."""
    named, *hints = wanted
    there = tools.receivers_of(type_)
    if named:
        if named in there:
            return there[named]
        names = ", ".join(sorted(there)) or "none"
        return f"receiver: there is no {type_} receiver {named[:100]!r} (there are: {names})"
    for hint in hints:
        if hint in there:
            return there[hint]
    if len(there) == 1:
        return next(iter(there.values()))
    if not there:
        return f'no receiver of type {type_}: add one with type = "{type_}" in [notify.receivers]'
    return f"receiver: expected one of {', '.join(sorted(there))}, because there are several of type {type_}"


def done_of(result: ActionResult, receiver: Receiver, *, opens: bool = True) -> Done:
    """`opens`: it says that something begins, which is open at a receiver that has such things until it is told of the end."""
    if result.ok:
        is_open = opens and getattr(receiver.channel, "opens", False)
        return succeeded(
            f"{receiver.name}: {result.detail}",
            {"ref": result.ref, "receiver": receiver.name},
            effects=(IncidentEffect(TOLD, receiver.name, ref=result.ref),) if is_open else (),
        )
    return failed(
        f"{receiver.name}: {result.detail}",
        final=result.final,
        reached=result.reached,
        retry_after_s=result.retry_after_s,
    )


def incident_id_of(asked: Asked) -> bytes:
    try:
        return UUID(str(asked.incident.get("id"))).bytes
    except ValueError:
        return b""


def severity_for(asked: Asked, given: str) -> Severity:
    found = severity_of(given) if given else severity_of(str(asked.incident.get("severity") or ""))
    return Severity.P2 if found is None else found


def _receiver(tools: Tools, asked: Asked, params: Say) -> Receiver | str:
    return receiver_for(tools, type_of(asked.type), params.receiver, params.service, params.channel)


def _check(tools: Tools, asked: Asked, params: Say) -> str:
    if params.severity and severity_of(params.severity) is None:
        return f"severity: expected P0 to P4 or critical, error, warning, info, not {params.severity[:40]!r}"
    found = _receiver(tools, asked, params)
    return found if isinstance(found, str) else ""


def _target(tools: Tools, asked: Asked, params: Say) -> str:
    found = _receiver(tools, asked, params)
    return "" if isinstance(found, str) else receiver_target(found.name)


async def _say(tools: Tools, asked: Asked, params: Say) -> Done:
    receiver = _receiver(tools, asked, params)
    assert isinstance(receiver, Receiver)
    text = params.message or params.template or params.text or str(asked.incident.get("title") or "")
    note = Note(
        text=text.strip(),
        title=params.title or str(asked.incident.get("title") or ""),
        severity=severity_for(asked, params.severity),
        channel=params.to or params.channel,
        mention=params.mention,
        incident_id=incident_id_of(asked),
        resolves=params.resolves,
    )
    said = await tools.say(receiver, asked.key, note, asked.trace)
    return done_of(said, receiver, opens=not params.resolves)


def tells(name: str) -> PlaybookAction:
    return PlaybookAction(CATALOG[name], _say, _check, calls=_target)
