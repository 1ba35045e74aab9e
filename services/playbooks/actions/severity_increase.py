"""Action severity_increase: the incident becomes more severe, never less. With `from` only if that is its severity."""

from __future__ import annotations

from models.incidents.incident import Severity
from models.playbook.catalog import CATALOG
from models.playbook.parameters import SeverityIncrease
from models.playbook.work import Done, IncidentEffect
from services.playbooks.kind import Asked, PlaybookAction, failed, succeeded
from services.playbooks.tools import Tools
from services.playbooks.words import severity_of


async def _increase(tools: Tools, asked: Asked, params: SeverityIncrease) -> Done:
    has = severity_of(str(asked.incident.get("severity") or ""))
    try:
        from_, to = _given("from", params.from_), _given("to", params.to)
    except ValueError as error:
        return failed(str(error), final=True, reached=False)
    if to is None:
        # One up from what it has; an incident that is not judged yet counts as P1.
        to = Severity(max((has if has is not None else Severity.P1) - 1, 0))
    if has is not None and has <= to:
        return succeeded(f"severity is {has.name} already", {"severity": has.name})
    if from_ is not None and has is not None and has != from_:
        return succeeded(f"severity stays {has.name}: not {from_.name}", {"severity": has.name})
    return succeeded(
        f"severity to {to.name}", {"severity": to.name}, effects=(IncidentEffect("severity", to.name),)
    )


def _given(name: str, text: str) -> Severity | None:
    if not text:
        return None
    found = severity_of(text)
    if found is None:
        raise ValueError(f"{name}: expected P0 to P4, not {text[:40]!r}")
    return found


ACTION = PlaybookAction(CATALOG["severity_increase"], _increase)
