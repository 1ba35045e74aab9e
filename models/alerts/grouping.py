"""Which incident an alert belongs to: its group key, always with the service in it, and how it reads as a title."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

from models.alerts.alert import PLAIN_NAME

#: A title is one line in a pager and a table.
TITLE_MAX_CHARS = 200
#: A longer label name makes a bad noun for a title: "3 alerts" says as much.
NOUN_MAX_CHARS = 40
#: Labels that may hold a severity word, in the order they are tried.
SIGNAL_LABELS = ("severity", "priority", "level")
#: What an annotation `severity` must be to count.
LEVELS = frozenset({"P0", "P1", "P2", "P3", "P4"})
#: No rule knows longer severity words.
SIGNAL_MAX_CHARS = 32


def group_of(labels: Mapping[str, str], service: str, group_by: Sequence[str]) -> tuple[str, dict[str, str]]:
    """(group key, group labels). The key is written as Alertmanager writes label sets; two groups never share one."""
    group_labels = {"service": service}
    for name in group_by:
        if name != "service":
            group_labels[name] = labels.get(name, "")
    return group_key(group_labels), group_labels


def overflow_group_of(service: str) -> tuple[str, dict[str, str]]:
    """The group that a service's alerts join when there is no room for more incidents."""
    return "overflow:" + group_key({"service": service}), {"service": service}


def group_key(group_labels: Mapping[str, str]) -> str:
    pairs = [f"{_name(name)}={_quoted(value)}" for name, value in group_labels.items()]
    return "{" + ", ".join(pairs) + "}"


def title_of(
    labels: Mapping[str, str], annotations: Mapping[str, str], service: str, count: int = 1, varying: str = ""
) -> str:
    """A line for a person: what is wrong, with which service, and with how many. `labels` and `annotations` are what
    all `count` alerts have in common, `varying` the only label in which they differ ("" if there is not just one)."""
    return counted_title(what_is_wrong(labels, annotations, service), count, called(varying))


def what_is_wrong(labels: Mapping[str, str], annotations: Mapping[str, str], service: str) -> str:
    """The same without how many, as long as it may be: what counted_title() takes."""
    text = annotations.get("summary") or annotations.get("title") or labels.get("alertname") or "alert"
    if service not in text:
        text = f"{text} ({service})"
    return " ".join(text.split())


def counted_title(text: str, count: int, them: str) -> str:
    """A title of what_is_wrong(), with how many of `them`, as they are called()."""
    many = f" ({count} {them})" if count > 1 else ""
    room = TITLE_MAX_CHARS - len(many)
    return (text if len(text) <= room else text[: room - 3] + "...") + many


def overflow_title(service: str) -> str:
    """The title of an overflow incident."""
    return f"Too many incidents: overflow of {service}"


def called(varying: str) -> str:
    """What several alerts are called that differ in this label only, "" for others."""
    return _plural(varying) if varying else "alerts"


def _plural(name: str) -> str:
    if len(name) > NOUN_MAX_CHARS:
        return "alerts"
    if name.endswith(("s", "x", "ch", "sh")):
        return f"{name}es"
    if name.endswith("y") and name[-2:-1] not in ("", *"aeiou"):
        return f"{name[:-1]}ies"
    return f"{name}s"


def signal_of(labels: Mapping[str, str], annotations: Mapping[str, str]) -> str:
    """The severity word of an alert, lower case, or "" if it has none. An annotation `severity` that is P0 to P4 goes
    before labels: it is what a format made of its sender's word, and may change while the alert fires."""
    level = annotations.get("severity", "")
    if level in LEVELS:
        return level.lower()
    for name in SIGNAL_LABELS:
        word = labels.get(name)
        if word:
            return word.strip().lower()[:SIGNAL_MAX_CHARS]
    return ""


@lru_cache(maxsize=256)  # the names of the settings' group_by, and of those before it
def _name(name: str) -> str:
    return name if PLAIN_NAME.match(name) else _quoted(name)


def _quoted(value: str) -> str:
    if "\\" in value or '"' in value or "\n" in value:
        value = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{value}"'
