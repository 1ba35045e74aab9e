"""What an incident is and who works on it, in lines: the head of `llm-im incidents show`."""

from __future__ import annotations

from collections.abc import Iterator

from services.cli.shared import terminal
from services.cli.shared.output import Row

Line = tuple[str, object]


def write(incident: Row) -> None:
    """The title, and a line for everything that there is to say."""
    from rich.text import Text

    out = terminal.console()
    out.print(
        Text.assemble(
            terminal.severity(incident["severity"]), " ", (terminal.plain(incident["title"]), "bold")
        )
    )
    for name, text in (*_what(incident), *_who(incident), *_joined(incident), *_end(incident)):
        if text not in ("", None):
            out.print(f"  {name:<14}{terminal.plain(text)}")


def _what(incident: Row) -> Iterator[Line]:
    yield "id", incident["id"]
    yield "version", incident["version"]
    yield "state", incident["state"]
    yield "severity", incident["severity"] + _by(incident, "severity")
    yield "type", incident["incident_type"] + _by(incident, "incident_type")
    yield "impact", incident["impact"]
    yield "service", incident["service"]
    yield "group", terminal.pairs(incident["group_labels"])
    yield "labels", terminal.pairs(incident["labels"])
    yield "description", incident["description"]
    yield "opened", f"{incident['created_at']}  ({terminal.when(incident['created_at'])})"
    yield "changed", f"{incident['updated_at']}  ({terminal.when(incident['updated_at'])})"
    yield "alerts", f"{incident['alerts_firing']} firing of {incident['alerts']}"
    yield from _muted(incident)
    yield from _escalation(incident)
    yield from _related(incident)
    yield "reopened", f"{incident['reopened']} times" if incident["reopened"] else ""
    if overflow := incident["overflow"]:
        yield "overflow", f"stands for {overflow['count']} groups: {', '.join(overflow['members'])}"


def _muted(incident: Row) -> Iterator[Line]:
    """What mutes its alerts; nothing from a server that does not say."""
    muted = incident.get("muted")
    if not muted:
        return
    for each in muted["by"]:
        alerts = f"  ({each['alerts']} of {incident['alerts_firing']} alerts)"
        if each["rule"]:
            yield "inhibited", f"by {each['title']}, rule {each['rule']}{alerts}"
            continue
        who = ", ".join(part for part in (each["by"], each["comment"]) if part)
        until = f"until {each['until']} ({terminal.when(each['until'])}) " if each["until"] else ""
        yield "silenced", f"{until}by silence {each['silence']}" + (f" ({who})" if who else "") + alerts
    if muted["withheld"]:
        yield "withheld", f"{muted['withheld']}, until it is no longer muted"


def _escalation(incident: Row) -> Iterator[Line]:
    """Who of those on call was paged, and who is next; nothing from a server that does not say."""
    found = incident.get("escalation")
    if not found:
        return
    if found["next_at"]:
        then = f"level {found['level']} at {found['next_at']} ({terminal.when(found['next_at'])})"
    else:
        then = f"{found['status']}: {found['why']}"
    yield "escalation", f"{found['policy']}, {then}"
    yield "paged", ", ".join(found["told"])


def _related(incident: Row) -> Iterator[Line]:
    """What it belongs to, and what probably causes it; nothing from a server that does not say."""
    situation = incident.get("situation")
    if not situation:
        return
    others = situation["incidents"] - 1
    yield (
        "situation",
        f"{situation['id']}  ({situation['part']}, with {others} other {'incident' if others == 1 else 'incidents'})",
    )
    for place, cause in enumerate(incident["probable_causes"]):
        why = f": {'; '.join(cause['reasons'])}" if cause["reasons"] else ""
        own = f" [{terminal.short_id(cause['incident'])}]" if cause["incident"] else ""
        yield "" if place else "likely cause", f"{cause['score']:.2f} {cause['service']}{own}{why}"
    if until := situation["muted_until"]:
        yield "waits", f"as a symptom, at the latest until {until} ({terminal.until(until)})"


def _by(incident: Row, field: str) -> str:
    """Whose word it is."""
    if incident["said"][field] is not None:
        judged = incident["judged"][field]
        return (
            f"  (set by hand or a playbook; classified as {judged})"
            if judged != incident[field]
            else "  (set by hand or a playbook)"
        )
    if field != "severity":
        return ""
    if not incident["classified_by"]:
        return "  (not classified yet)"
    return f"  (by {incident['classified_by']}, confidence {incident['confidence']:.2f})"


def _who(incident: Row) -> Iterator[Line]:
    if mark := incident["acknowledged"]:
        until = f", until {mark['until']} ({terminal.when(mark['until'])})" if mark["until"] else ""
        yield "acknowledged", f"by {mark['by']} {terminal.when(mark['at'])}{until}"
    yield "assignees", ", ".join(incident["assignees"])
    yield "roles", ", ".join(f"{role} {person}" for role, person in sorted(incident["roles"].items()))
    for name, key in (("ack", "acknowledge_due_at"), ("resolve", "resolve_due_at")):
        if due := incident["due"][key]:
            yield f"{name} by", f"{due}  ({terminal.until(due)})"
    for word in incident["updates"][-1:]:
        yield "update", f"to {word['audience']}, {terminal.when(word['at'])} by {word['by']}: {word['text']}"
    if due := incident["update_due_at"]:
        yield "next update", f"{due}  ({terminal.until(due)})"


def _joined(incident: Row) -> Iterator[Line]:
    yield "parent", incident["merged_into"]
    for child in incident["parts"]:
        how = f", {child['pending']} pending" if child["pending"] else ""
        yield (
            "child",
            f"{child['incident']}  {child['severity']} {'open' if child['is_open'] else 'over'}{how}",
        )
    yield "split from", incident["split_from"]
    yield "linked", ", ".join(incident["related_incidents"])


def _end(incident: Row) -> Iterator[Line]:
    if end := incident["resolution"]:
        yield "resolved", f"{end['resolved_at']} by {end['resolved_by']} ({end['resolution_method']})"
        yield "root cause", end["root_cause"]
        yield "notes", end["notes"]
