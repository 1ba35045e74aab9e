"""Sample messages for docs/channels.md, rendered by the channels themselves. `make docs` puts them between their marks, and
tests/pure/test_channel_samples.py fails when one is stale.

    python -m services.actions.samples docs/channels.md
"""

from __future__ import annotations

import json
import re
import sys
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from uuid import UUID

from models.incidents.incident import IncidentState, IncidentType, Severity
from models.incidents.notification import AlertFacts, Facts
from models.settings.receivers import RECEIVER_TYPES, given_of
from models.settings.secrets import revealed
from services.actions.table import ACTIONS

#: The receiver whose message is shown, by type.
RECEIVERS: dict[str, dict[str, object]] = {
    "webhook": {"url": "https://example.org/hook"},
    "email": {"host": "mx.example.org", "sender": "Incidents <im@example.org>", "to": ["ops@example.org"]},
    "slack": {"token": "xoxb-...", "channel": "#incidents", "mention": "@here"},
    "teams": {"url": "https://example.org/workflows/..."},
    "discord": {"url": "https://discord.com/api/webhooks/..."},
    "pagerduty": {"routing_key": "..."},
    "opsgenie": {"api_key": "...", "responders": ["team:Platform"]},
    "victorops": {"api_key": "...", "routing_key": "platform"},
    "jira": {"url": "https://example.atlassian.net", "token": "...", "project": "OPS"},
    "servicenow": {"url": "https://example.service-now.com", "token": "...", "assignment_group": "Platform"},
    "github": {"repository": "example/ops", "token": "...", "labels": ["incident"]},
}
_MARKED = re.compile(r"(<!-- sample (\w+), by `make docs` -->\n).*?(<!-- to here -->)", re.DOTALL)


def facts() -> Facts:
    """The incident that all samples tell of."""
    common = {"alertname": "HighErrorRate", "service": "chat-api", "severity": "critical"}
    alerts = [
        AlertFacts({**common, "model": model}, {"summary": f"{share} of requests to {model} fail", "runbook_url": "https://wiki.example.org/chat-api"}, "", 1.7820e9, 0.0, 1.7820e9 + 45, True)
        for model, share in (("large-1", "31 %"), ("small-2", "12 %"))
    ]  # fmt: skip
    return Facts(
        reason="opened",
        incident_id=UUID("019f0d6e-6c80-7a41-9c2f-5d1b6e8f4a10").bytes,
        tenant="default",
        service="chat-api",
        title="HighErrorRate on chat-api",
        description="",
        severity=Severity.P1,
        type=IncidentType.AVAILABILITY,
        state=IncidentState.TRIAGED,
        created_at=1.7820e9,
        resolved_at=0.0,
        group_labels={"alertname": "HighErrorRate", "service": "chat-api"},
        common_labels=common,
        common_annotations={"runbook_url": "https://wiki.example.org/chat-api"},
        alerts=alerts,
        total=2,
    )


def sample(kind: str) -> str:
    """The message of a receiver of this type, as text."""
    checked = RECEIVER_TYPES[kind].model_validate({"type": kind, **RECEIVERS[kind]})
    given = revealed({**given_of(checked), "external_url": "https://im.example.org"})
    assert isinstance(given, dict)
    body = ACTIONS[kind].open("ops", given).render(facts())
    if kind != "email":
        return json.dumps(json.loads(body), indent=2, ensure_ascii=False)
    mail = message_from_bytes(body, policy=default)
    assert isinstance(mail, EmailMessage)
    head = [
        f"{name}: {value}" for name, value in mail.items() if name not in ("Content-Type", "MIME-Version")
    ]
    text = mail.get_body(("plain",))
    assert text is not None
    return "\n".join([*head, "", text.get_content().replace("\r\n", "\n").strip()])


def put_into(document: str) -> str:
    """The document with all samples in it made anew."""

    def shown(found: re.Match[str]) -> str:
        language = "" if found[2] == "email" else "json"
        return f"{found[1]}```{language}\n{sample(found[2])}\n```\n{found[3]}"

    return _MARKED.sub(shown, document)


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(put_into(path.read_text("utf-8")), "utf-8")
