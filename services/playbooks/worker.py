"""Answers what runs of playbooks ask for (models/playbook/work.py): conditions and loops, and the actions, which are rendered,
checked against the house rules and policy, and done. Stateless but for what is under way and the last answers.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import structlog

from models.durations import duration_s
from models.errors import IncidentManagerError, Malformed, Refused
from models.playbook import template
from models.playbook.catalog import is_template
from models.playbook.parameters import TIMEOUT, Params, convert, names_of
from models.playbook.policy import (
    HouseRules,
    PolicyContext,
    PolicyEvalRequest,
    RemediationAction,
    constrained,
)
from models.playbook.work import (
    APPROVAL,
    FAILED,
    REFUSED,
    SKIPPED,
    SUCCEEDED,
    Check,
    Choose,
    Context,
    Do,
    Done,
    Enter,
    ToCheck,
    Work,
    decode_done,
    encode_done,
)
from services.actions.outbound import CallFailed
from services.playbooks.approving import digest_of, in_words
from services.playbooks.bounds import Bounds
from services.playbooks.calls import NotCalled
from services.playbooks.kind import Asked, PlaybookAction, failed
from services.playbooks.quoting import quoted
from services.playbooks.tools import Tools
from services.policy.decisions import Decision, Decisions
from services.times import timestamp

log = structlog.get_logger()

#: Turns of a loop: what a person would still read the outcome of.
ITEMS_MAX = 1000
#: Answers to actions that are kept, so that a question that comes again after a lost answer is not done again.
REMEMBERED_MAX = 10_000
#: Bytes of all of them together: one with captures has up to 300 KiB.
REMEMBERED_MAX_BYTES = 64 * 1024 * 1024
#: An action may last no longer, whatever a playbook says: the responder holds a place for it. What takes longer is a `wait`
#: and a check after it.
TIMEOUT_MAX_S = 600.0
#: Asked for anew, this is why.
CHANGED = "it is not what was approved: it has changed since, and must be approved again"


@dataclass(frozen=True, slots=True)
class _Plan:
    """An action whose parameters are known."""

    work: Do
    kind: PlaybookAction
    rendered: Mapping[str, Any]
    params: Params
    timeout_s: float
    seen: Mapping[str, Any]

    @property
    def changes(self) -> bool:
        return self.work.action.changes or self.kind.spec.changes_with(self.rendered)

    @property
    def is_another(self) -> bool:
        """Whether it is not what was approved. Of what waited when digests were not kept yet nobody knows."""
        work = self.work
        return bool(work.approved_by) and not work.dry and self.digest != work.approved_digest

    @property
    def service(self) -> str:
        """What it is done to."""
        return str(self.rendered.get("service") or self.seen["incident"].get("service") or "")

    @property
    def digest(self) -> str:
        """Of what would be done."""
        return digest_of(self.work.action.type, self.service, self.params)

    @property
    def names(self) -> list[str]:
        """All that it is called by who allows actions."""
        own = [self.work.action.type, self.kind.spec.plan_name]
        return [
            name
            for name in (*own, *(str(self.rendered.get(key) or "") for key in ("stands_for", "script")))
            if name
        ]


@dataclass(frozen=True, slots=True)
class Judged:
    """What the house rules and the policy say of an action. `request` is what the policy was asked, `refused` why the house rules forbid
    it, `approval` why they want it approved; "" where they do not."""

    request: PolicyEvalRequest
    decision: Decision
    refused: str
    approval: str


class PlaybookWorker:
    """Port Worker."""

    def __init__(
        self,
        kinds: Mapping[str, PlaybookAction],
        tools: Tools,
        decisions: Decisions,
        *,
        rules: HouseRules | None = None,
        environment: str = "",
        bounds: Bounds | None = None,
    ) -> None:
        """`kinds` by the name that an action's `type` bears. Owns `tools` and `decisions`."""
        self._kinds = kinds
        self._tools = tools
        self._decisions = decisions
        self._rules = rules or HouseRules()
        self._environment = environment
        self._bounds = bounds or Bounds()
        self._under_way: dict[str, asyncio.Task[Done]] = {}
        self._answered: OrderedDict[str, bytes] = OrderedDict()
        self._answered_bytes = 0

    async def work(self, work: Work, trace: str | None = None) -> Done:
        task = self._under_way.get(work.key)
        if task is None:
            if (known := self._answered.get(work.key)) is not None:
                return decode_done(known)
            task = asyncio.create_task(self._answer(work, trace))
            self._under_way[work.key] = task
            task.add_done_callback(lambda _: self._under_way.pop(work.key, None))
        # Two may wait for one act, and neither may cancel it for the other.
        return await asyncio.shield(task)

    async def judge(self, work: Do) -> Judged:
        """What would be said of an action, which is not done. Raises Malformed for one that there is not, or that can't be read."""
        kind = self._kinds.get(work.action.type)
        if kind is None:
            raise Malformed(
                f"there is no action {work.action.type!r} (known: {', '.join(sorted(self._kinds))})"
            )
        try:
            plan = _planned(work, kind)
        except ValueError as error:
            raise Malformed(f"{work.action.type}: {error}") from None
        request = self._request(plan)
        return Judged(
            request,
            await self._decisions.decide(request),
            self._rules.why_not(plan.names),
            self._rules.why_approval(plan.names),
        )

    def take(self, given: Mapping[str, Any]) -> None:
        """Use the changed settings, for calls from now on."""
        self._tools.outbound.take(given)

    async def close(self) -> None:
        for task in [*self._under_way.values()]:
            task.cancel()
        await asyncio.gather(*self._under_way.values(), return_exceptions=True)
        await self._decisions.close()
        await self._tools.close()

    async def _answer(self, work: Work, trace: str | None) -> Done:
        try:
            match work:
                case Enter():
                    done = _enter(work)
                case Choose():
                    done = _choose(work)
                case Check():
                    done = await self._check(work, trace)
                case Do():
                    done = await self._do(work, trace)
        except Exception as error:  # noqa: BLE001  # a bug of ours or of a package's; the text may hold a secret
            log.error("action failed with a bug", key=work.key, why=type(error).__name__)
            done = failed(f"failed with {type(error).__name__}, which is a bug")
        done = self._bounds.applied(done)
        if (
            isinstance(work, Do)
            and not work.dry
            and (done.status == SUCCEEDED or (done.status == FAILED and done.reached))
        ):
            self._remember(work.key, done)
        return done

    # -- an action -------------------------------------------------------------------------------------------

    async def _do(self, work: Do, trace: str | None) -> Done:
        kind = self._kinds.get(work.action.type)
        if kind is None:
            known = ", ".join(sorted(self._kinds))
            return failed(
                f"there is no action {work.action.type!r} here (known: {known})", final=True, reached=False
            )
        try:
            plan = _planned(work, kind)
        except (Refused, ValueError) as error:
            return failed(f"{work.action.type}: {error}", final=True, reached=False)

        decided = ""
        if plan.changes:
            if (refused := self._against_the_rules(plan)) is not None:
                return refused
            decision = await self._decisions.decide(self._request(plan))
            plan_or_done = self._as_decided(plan, decision)
            if isinstance(plan_or_done, _Plan) and plan_or_done.is_another:
                decision, plan_or_done = await self._asked_anew(plan, plan_or_done)
            decided = decision.text
            if isinstance(plan_or_done, Done):
                return msgspec.structs.replace(plan_or_done, decided=decided)
            plan = plan_or_done
            log.info(
                "action allowed", action=work.action.type, key=work.key, decided=decided, dry=work.dry,
            )  # fmt: skip

        done = await self._perform(plan, trace)
        if done.status == FAILED and not done.final and (why := self._why_last(plan)):
            # Known now, so that nobody waits for a try that is refused, and the detail stays what really failed.
            done = msgspec.structs.replace(done, final=True, detail=f"{done.detail} (no further try: {why})")
        if decided:
            done = msgspec.structs.replace(done, decided=decided)
        return done

    async def _check(self, work: Check, trace: str | None) -> Done:
        found = await asyncio.gather(*(self._why_not(work, each, trace) for each in work.actions))
        reasons = dict.fromkeys(why for why in found if why)
        return Done(REFUSED, "; ".join(reasons), final=True, reached=False) if reasons else Done(SUCCEEDED)

    async def _why_not(self, work: Check, each: ToCheck, trace: str | None) -> str:
        """Why an action of a run that has not begun would not be done, "" when nothing is known against it."""
        kind = self._kinds.get(each.action.type)
        if kind is None:
            return f"there is no action {each.action.type!r} here"
        context = msgspec.structs.replace(
            work.context, variables={**work.context.variables, **each.variables}
        )
        key = f"{work.key}.{each.step}.{each.number}"
        try:
            if each.condition and not template.holds(each.condition, _seen(context)):
                return ""
            plan = _planned(Do(key, each.step, each.number, 0, each.action, context, dry=True), kind)
        except (Refused, ValueError):
            # What it needs may be found out by a step before it. If not, it fails when its turn comes.
            return ""
        if not plan.changes:
            return ""
        if (refused := self._against_the_rules(plan)) is not None:
            return refused.detail
        plan_or_done = self._as_decided(plan, await self._decisions.decide(self._request(plan)))
        if isinstance(plan_or_done, Done):
            # A policy that can't be asked now is asked again, with the action's retries.
            return plan_or_done.detail if plan_or_done.status == REFUSED else ""
        done = await self._perform(plan_or_done, trace)
        return "" if done.status == SUCCEEDED else done.detail

    def _against_the_rules(self, plan: _Plan) -> Done | None:
        if why := self._rules.why_not(plan.names):
            return Done(
                REFUSED,
                f"{plan.work.action.type}: {why}",
                final=True,
                reached=False,
                decided=f"settings: denied: {why}",
            )
        if 0 <= self._rules.retries < plan.work.attempt:
            return failed(
                f"{plan.work.action.type}: not tried again: retry_limit is {self._rules.retries}",
                final=True,
                reached=False,
            )
        return None

    def _why_last(self, plan: _Plan) -> str:
        """Why a try that failed is the last that is allowed, "" if it is not."""
        most = int(getattr(plan.params, "max_attempts", 0))
        if 0 < most <= plan.work.attempt + 1:
            return f"max_attempts is {most}"
        if plan.changes and 0 <= self._rules.retries <= plan.work.attempt:
            return f"retry_limit is {self._rules.retries}"
        return ""

    def _as_decided(self, plan: _Plan, decision: Decision) -> _Plan | Done:
        """The action as it may be done, or why not."""
        type_, response = plan.work.action.type, decision.response
        if not response.allowed:
            detail = f"{type_}: not allowed by {decision.text}"
            if decision.asked:
                return Done(REFUSED, detail, final=True, reached=False)
            # The policy may be back at the next try; nothing was done.
            return failed(detail, reached=False)
        try:
            rendered, changed = constrained(
                {**msgspec.to_builtins(plan.params), **plan.rendered, TIMEOUT: plan.timeout_s},
                response.constraints,
                names_of(plan.kind.spec.params) | {TIMEOUT},
            )
            if changed:
                params, timeout_s = _typed(rendered, plan)
                plan = _Plan(plan.work, plan.kind, rendered, params, timeout_s, plan.seen)
        except ValueError as error:
            return Done(REFUSED, f"{type_}: {error}", final=True, reached=False)
        why = (
            (response.reason or "policy requires approval")
            if response.require_approval
            else self._rules.why_approval(plan.names)
        )
        if why and not plan.work.approved_by and not plan.work.dry:
            return _approval(plan, f"{type_}: {why}", response.approvers)
        return plan

    async def _asked_anew(self, plan: _Plan, wanted: _Plan) -> tuple[Decision, _Plan | Done]:
        """What was approved is not what would be done now (`wanted`): as if nobody had approved it."""
        work = plan.work
        unapproved = replace(plan, work=msgspec.structs.replace(work, approved_by=(), approved_digest=""))
        decision = await self._decisions.decide(self._request(unapproved))
        found = self._as_decided(unapproved, decision)
        if isinstance(found, Done) and found.status == APPROVAL:
            if work.again and work.action.once:
                # With a new approval it would have a new key, by which nobody could tell.
                return decision, failed(
                    f"{work.action.type}: it may have been done before, and what was approved has changed since; "
                    "it is marked once: not repeated",
                    final=True,
                )
            found = _approval(wanted, f"{work.action.type}: {CHANGED}", found.approvers)
        return decision, found

    def _request(self, plan: _Plan) -> PolicyEvalRequest:
        work, incident = plan.work, plan.seen["incident"]
        run = work.context.run
        labels = incident.get("labels") or {}
        now = math.floor(self._tools.clock.now() / 60.0) * 60.0
        return PolicyEvalRequest(
            incident=dict(incident),
            proposed_action=RemediationAction(
                incident_id=str(incident.get("id") or ""),
                type=str(plan.rendered.get("stands_for") or "")
                or plan.kind.spec.plan_name
                or work.action.type,
                kind=work.action.type,
                target_service=plan.service,
                parameters=dict(plan.rendered),
                timeout_seconds=math.ceil(plan.timeout_s),
            ),
            context=PolicyContext(
                user=work.approved_by[0] if work.approved_by else (run.get("by") or None),
                environment=self._environment or str(labels.get("environment") or labels.get("env") or ""),
                time=timestamp(now),
                affected_resources=tuple(map(str, incident.get("affected_resources") or ())),
                approved_by=work.approved_by,
                playbook=str(run.get("name") or ""),
                playbook_version=str(run.get("version") or ""),
                dry=work.dry,
            ),
        )

    async def _perform(self, plan: _Plan, trace: str | None) -> Done:
        work, kind = plan.work, plan.kind
        timeout_s = plan.timeout_s
        if plan.changes and self._rules.timeout_s > 0:
            timeout_s = min(timeout_s, self._rules.timeout_s)
        asked = Asked(work.key, work.action.type, plan.seen, timeout_s, work.attempt, work.again, trace)
        try:
            if kind.check is not None and (why := kind.check(self._tools, asked, plan.params)):
                return failed(f"{work.action.type}: {why}", final=True, reached=False)
            if work.dry:
                target = kind.calls(self._tools, asked, plan.params) if kind.calls is not None else ""
                if target and (why := self._tools.why_broken(target)):
                    return failed(f"{work.action.type}: {target}: {why}", reached=False)
                return Done(SUCCEEDED, f"{work.action.type}: would be done (dry run)", reached=False)
            if work.again and work.action.once and plan.changes and not kind.asks:
                return failed(
                    f"{work.action.type}: it may have been done before, nobody can tell, and it is marked once: not repeated",
                    final=True,
                )
            async with asyncio.timeout(timeout_s):
                return await kind.do(self._tools, asked, plan.params)
        except TimeoutError:
            return failed(f"{work.action.type}: not done within {timeout_s:g} s")
        except CallFailed as error:
            wait_s = error.retry_after_s if isinstance(error, NotCalled) else 0.0
            return failed(f"{work.action.type}: {error}", reached=error.reached, retry_after_s=wait_s)
        except Refused as error:
            return failed(f"{work.action.type}: {error}", final=True, reached=False)
        except IncidentManagerError as error:
            return failed(f"{work.action.type}: {error}")

    def _remember(self, key: str, done: Done) -> None:
        encoded = encode_done(done)
        self._answered_bytes += len(encoded) - len(self._answered.pop(key, b""))
        self._answered[key] = encoded
        while len(self._answered) > REMEMBERED_MAX or self._answered_bytes > REMEMBERED_MAX_BYTES:
            self._answered_bytes -= len(self._answered.popitem(last=False)[1])


def _planned(work: Do, kind: PlaybookAction) -> _Plan:
    """Raises Refused for a template, ValueError for a parameter."""
    seen = _seen(work.context)
    written = work.action.params
    rendered: dict[str, Any] = {}
    for name, value in written.items():
        if not is_template(value):
            rendered[name] = value
            continue
        view = quoted(seen) if name in kind.spec.queries else seen
        try:
            rendered[name] = template.render_value(value, view)
        except Refused as error:
            raise type(error)(f"{name}: {error}") from None
    plan = _Plan(work, kind, rendered, Params(), 0.0, seen)
    params, timeout_s = _typed(rendered, plan)
    return _Plan(work, kind, rendered, params, timeout_s, seen)


def _approval(plan: _Plan, why: str, approvers: tuple[str, ...]) -> Done:
    said = in_words(plan.service, plan.params)
    detail = f"{why} ({said})" if said else why
    return Done(APPROVAL, detail, approvers=approvers, reached=False, digest=plan.digest)


def _typed(rendered: Mapping[str, Any], plan: _Plan) -> tuple[Params, float]:
    """The parameters by their types, and how long it may take."""
    given = dict(rendered)
    timeout = given.pop(TIMEOUT, plan.work.action.timeout_s)
    try:
        seconds = float(str(duration_s(timeout)))
    except ValueError as error:
        raise ValueError(f"{TIMEOUT}: {error}") from None
    if not 0.0 < seconds < math.inf:
        raise ValueError(f"{TIMEOUT}: expected more than 0 s, not {timeout}")
    return convert(plan.kind.spec.params, given), min(seconds, TIMEOUT_MAX_S)


# -- conditions ------------------------------------------------------------------------------------------------


def _enter(work: Enter) -> Done:
    """Whether a step is entered, and over what."""
    try:
        seen = _seen(work.context)
        if work.condition and not template.holds(work.condition, seen):
            return Done(SKIPPED, "its condition does not hold")
        if not work.for_each:
            return Done(SUCCEEDED)
        items = template.evaluate(work.for_each, seen)
    except Refused as error:
        return failed(f"{work.step}: {error}", final=True, reached=False)
    if not isinstance(items, list | tuple):
        return failed(
            f"{work.step}: for_each: expected a list, not {type(items).__name__}", final=True, reached=False
        )
    if len(items) > ITEMS_MAX:
        return failed(
            f"{work.step}: for_each: expected at most {ITEMS_MAX} items, not {len(items)}",
            final=True,
            reached=False,
        )
    return Done(SUCCEEDED, items=tuple(items))


def _choose(work: Choose) -> Done:
    held: list[int] = []
    faults: list[str] = []
    try:
        seen = _seen(work.context)
    except Refused as error:
        return Done(SUCCEEDED, f"variables: {error}")
    for place, expression in enumerate(work.expressions):
        try:
            if template.holds(expression, seen):
                held.append(place)
        except Refused as error:
            faults.append(f"expression {place}: {error}")
    return Done(SUCCEEDED, "; ".join(faults), items=tuple(held))


def _seen(context: Context) -> dict[str, Any]:
    """What templates see. Variables may be templates themselves, of what there is beside them."""
    seen: dict[str, Any] = {
        "incident": context.incident,
        "variables": context.variables,
        "steps": context.steps,
        "run": context.run,
        "item": context.item,
        "index": context.index,
    }
    if is_template(context.variables):
        seen["variables"] = template.render_value(context.variables, seen)
    return seen
