"""A playbook as it was read and checked: plain data, in which every step and every name that is referred to exists. Made by
models/playbook/reading.py, kept by the control partition, and by each shard that runs it.

Parameters, conditions and variables stay as they were written: templates are rendered when an action is about to be done
(services/playbooks), with what is known then.
"""

from __future__ import annotations

from typing import Any

import msgspec

from models.alerts.matchers import MatcherTuple
from models.incidents.incident import IncidentType, Severity

#: What `on_success` and `on_failure` may say beside the id of a step. NEXT goes on with the action after this one; DONE ends the step
#: with success, FAIL ends it as failed; ABORT ends the run.
NEXT, DONE, FAIL, ABORT = "next_action", "done", "fail", "abort"


class Retry(msgspec.Struct, frozen=True):
    """`most` further tries after the first one failed, the first after `first_s`, then as `backoff` says ("constant", "linear",
    "exponential"), at most `max_s` apart, with jitter (notification.retry_at)."""

    most: int = 0
    backoff: str = "exponential"
    first_s: float = 1.0
    max_s: float = 60.0


class PlannedAction(msgspec.Struct, frozen=True):
    """One action of a step. `params` is what was written for it, beside what stands in the other fields.

    `on_success` and `on_failure` are NEXT, DONE, FAIL, ABORT or the id of a step; the reading has filled in what was not written.
    `changes`: it changes something outside, and so is subject to policy and approval. `once`: it must not be done twice even if
    nobody knows whether it was done. `rollback` is done, in the reverse order of what was done, when the step fails.
    """

    type: str
    params: dict[str, Any] = {}
    on_success: str = NEXT
    on_failure: str = FAIL
    timeout_s: float = 60.0
    retry: Retry = Retry()
    changes: bool = False
    once: bool = False
    rollback: PlannedAction | None = None
    output: str = ""
    #: A check that guards the action right after it: that is done only if the check failed.
    guards: bool = False


class Approval(msgspec.Struct, frozen=True):
    """What a step of type `approval` waits for: `needed` of `who` (names, or roles as policy names them; empty: anybody who may
    respond), within `within_s`. `otherwise` is what becomes of it then: "fail", "approve", or the id of a step."""

    who: tuple[str, ...] = ()
    needed: int = 1
    within_s: float = 900.0
    otherwise: str = "fail"
    message: str = ""


class Step(msgspec.Struct, frozen=True):
    """`needs` are the steps that must be over before it starts; the reading has filled in the order that was written. `condition`
    and `for_each` are expressions, "" for none. `parallel`: its actions are done at the same time. `tolerates`: it starts although
    one that it needs failed, because its kind or its condition says so. `playbook` is the name of a sub-playbook, for type
    `playbook`."""

    id: str
    type: str
    actions: tuple[PlannedAction, ...] = ()
    needs: tuple[str, ...] = ()
    condition: str = ""
    for_each: str = ""
    parallel: bool = False
    tolerates: bool = False
    timeout_s: float = 0.0
    retry: Retry = Retry()
    approval: Approval | None = None
    playbook: str = ""
    variables: dict[str, Any] = {}


class Trigger(msgspec.Struct, frozen=True):
    """When it is chosen; empty means any. All that is given must hold. `expression` is evaluated where templates are."""

    severities: tuple[Severity, ...] = ()
    types: tuple[IncidentType, ...] = ()
    sources: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    matchers: tuple[MatcherTuple, ...] = ()
    expression: str = ""
    #: A cron expression: it runs by the clock and without an incident that chose it.
    schedule: str = ""


class Playbook(msgspec.Struct, frozen=True):
    """`name` and `version` are its identity, and `digest` is of what was written: one version never has two digests. `final` are
    the steps that run at the end, however it ended (`finally`). `shadow`: it decides and is logged, and does nothing."""

    name: str
    version: str
    digest: str
    trigger: Trigger
    steps: tuple[Step, ...]
    final: tuple[Step, ...] = ()
    variables: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    shadow: bool = False
    #: Of several that match, the greater goes first; then the more specific trigger; then the name.
    priority: int = 0


encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Playbook).decode
