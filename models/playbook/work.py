"""What a shard asks of whoever does the actions of its runs, and what comes back. The shard decides what is next; conditions,
templates, policy and the act itself happen outside, in a responder (port Worker), so that no expression of a playbook ever runs
where alerts wait.

Each question can be asked again, after a crash or a lost answer: `key` is the same then, and an action that may have been done is
asked about by its key (`again`) before it is done.
"""

from __future__ import annotations

from typing import Any

import msgspec

from models.playbook.playbook import PlannedAction

SUCCEEDED, FAILED, SKIPPED, REFUSED, APPROVAL, WAIT = (
    "succeeded", "failed", "skipped", "refused", "approval", "wait",
)  # fmt: skip
#: What an answer may be.
STATUSES = (SUCCEEDED, FAILED, SKIPPED, REFUSED, APPROVAL, WAIT)
#: Bytes of outputs (JSON) that an answer may bring; longer ones are cut with a note.
OUTPUTS_MAX = 64 * 1024
#: Levels of lists and objects within outputs and items. Deeper ones could end the reading of a log or snapshot, which nest them further.
DEPTH_MAX = 64
#: Bytes of what an action captured for people (metrics, logs): kept with the incident, compressed.
CAPTURE_MAX = 256 * 1024


class Context(msgspec.Struct, frozen=True):
    """What expressions and templates see: `incident`, `variables`, `steps` (by id: status, outputs), `run`, and in a loop `item` and
    `index`. The incident is as the API shows it, with `metadata` = annotations, enrichment, labels, the first that has a name."""

    incident: dict[str, Any]
    variables: dict[str, Any] = {}
    steps: dict[str, Any] = {}
    run: dict[str, Any] = {}
    item: Any = None
    index: int = 0


class Enter(msgspec.Struct, frozen=True, tag=True):
    """Whether a step is to be done (`condition`), and over what (`for_each`). Answered with SUCCEEDED (`items` for a loop), SKIPPED,
    or FAILED when an expression can't be evaluated. Changes nothing."""

    key: str
    step: str
    condition: str
    for_each: str
    context: Context


class Do(msgspec.Struct, frozen=True, tag=True):
    """Do an action. `attempt` counts from 0. `again`: an earlier request with this key may have been carried out. `approved_by`: who
    approved it, when the answer before was APPROVAL, and `approved_digest` the digest in that answer: they approved nothing else.
    `dry`: everything but the act itself. `undo`: it is a rollback."""

    key: str
    step: str
    number: int
    attempt: int
    action: PlannedAction
    context: Context
    again: bool = False
    approved_by: tuple[str, ...] = ()
    dry: bool = False
    undo: bool = False
    approved_digest: str = ""


class Choose(msgspec.Struct, frozen=True, tag=True):
    """Which of these expressions hold for an incident. Answered with SUCCEEDED and `items`: the positions that do. One that can't be
    evaluated does not hold, and `detail` says so."""

    key: str
    expressions: tuple[str, ...]
    context: Context


class ToCheck(msgspec.Struct, frozen=True):
    """An action that is to be checked before a run begins, with the condition and the variables of its step."""

    step: str
    number: int
    condition: str
    action: PlannedAction
    variables: dict[str, Any] = {}


class Check(msgspec.Struct, frozen=True, tag=True):
    """Whether these actions may be done: permission, known target, closed breaker. Answered with SUCCEEDED, or REFUSED and why in
    `detail`. What can't be known yet, since it depends on what other steps find out, is left out. Changes nothing."""

    key: str
    actions: tuple[ToCheck, ...]
    context: Context


Work = Enter | Do | Choose | Check


class Capture(msgspec.Struct, frozen=True):
    """What an action recorded for people: kept with the incident. `text` is at most CAPTURE_MAX; `cut` says that there was more."""

    name: str
    media_type: str
    text: str
    cut: bool = False


class Done(msgspec.Struct, frozen=True):
    """The answer to one Work. `detail` is for people and holds no secret. `final` with FAILED: another try would end the same.
    `reached` with FAILED: it may have had its effect all the same. `wait_s` with WAIT: do nothing for so long, then go on as after
    SUCCEEDED. `approvers`, `needed` with APPROVAL: who may agree, to what is in `detail` and has this `digest`. `decided`: what policy said, "" if it was not asked.
    `effects` are changes of the incident that the action stands for, done by the shard itself: severity, assignees, resolved ...
    """

    status: str
    detail: str = ""
    outputs: dict[str, Any] = {}
    items: tuple[Any, ...] = ()
    captures: tuple[Capture, ...] = ()
    final: bool = False
    reached: bool = True
    retry_after_s: float = 0.0
    wait_s: float = 0.0
    approvers: tuple[str, ...] = ()
    needed: int = 1
    decided: str = ""
    effects: tuple[IncidentEffect, ...] = ()
    digest: str = ""


#: The effect of an action that opened something at a receiver.
TOLD = "told"


class IncidentEffect(msgspec.Struct, frozen=True):
    """`what`: severity (to `value`, "P0"), assign (names in `value`, by comma), resolve (notes in `value`), comment, task (a
    post-incident task, due at `due_at`), link (a URL, as of a war room), told (receiver `value` opened something for the incident, which
    it calls `ref`: it is owed the end)."""

    what: str
    value: str = ""
    due_at: float = 0.0
    ref: str = ""


def is_plain(value: object) -> bool:
    """Whether a value from outside can be kept: not nested too deep, and no number or text that MessagePack does not have."""
    waiting = [(value, 0)]
    while waiting:
        at, depth = waiting.pop()
        if isinstance(at, int) and not -(2**63) <= at < 2**64:
            return False
        if isinstance(at, str) and not at.isascii():
            try:
                at.encode()
            except UnicodeEncodeError:
                return False
        if isinstance(at, dict | list | tuple):
            if depth >= DEPTH_MAX:
                return False
            within = (*at.keys(), *at.values()) if isinstance(at, dict) else at
            waiting.extend((each, depth + 1) for each in within)
    return True


encode_work = msgspec.msgpack.Encoder().encode
decode_work = msgspec.msgpack.Decoder(Work).decode
encode_done = msgspec.msgpack.Encoder().encode
decode_done = msgspec.msgpack.Decoder(Done).decode
