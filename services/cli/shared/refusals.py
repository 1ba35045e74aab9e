"""What to do instead, when the server refuses a verb: the command that helps, and who was faster."""

from __future__ import annotations

from services.cli.shared import ids, terminal
from services.cli.shared.client import Client
from services.cli.shared.exits import Failure

#: What the server says is in the way, and the command that deals with it. tests/cli/test_real.py asks a real one.
_INSTEAD = (
    ("resolve it first", "llm-im incidents resolve"),
    ("reopen it first", "llm-im incidents reopen"),
    ("alerts still fire", "llm-im incidents alerts"),
)


def instead_of(detail: str, identity: str) -> str:
    """The command that does what the server says about a conflict, else the one that shows why."""
    for words, command in _INSTEAD:
        if words in detail:
            return f"try: {command} {identity}"
    return f"to see it: llm-im incidents show {identity}"


def changed_by(client: Client, identity: str) -> str:
    """Who changed an incident last, and how to go on."""
    advice = f"check before you repeat it: llm-im incidents show {identity}"
    try:
        version = client.get_json(f"{ids.PATH}/{identity}")["version"]
        entries = client.get_json(f"{ids.PATH}/{identity}/timeline")["items"]
        last = entries[-1]
        who = f"{terminal.plain(last['actor'])}, {terminal.since(last['timestamp'])} ago: {terminal.plain(last['description'])}"
    except (Failure, LookupError, TypeError):
        return f"somebody changed it in the meantime; {advice}"
    return f"somebody changed it in the meantime (now version {version}), last {who}; {advice}"
