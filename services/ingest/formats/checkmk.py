"""Checkmk's notifications as a script posts them: its NOTIFY_ variables as JSON, with that prefix or without, in any case."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from services.ingest.formats.format import Request
from services.ingest.formats.values import Fields
from services.ingest.formats.webhook import Draft, Item, WebhookFormat

OVER = frozenset({"ok", "up"})
#: Notifications that say nothing of whether it fires.
_ASIDE = ("acknowledgement", "downtime", "flapping", "custom", "test")
_STATES = (
    "ok",
    "up",
    "warn",
    "warning",
    "crit",
    "critical",
    "unknown",
    "down",
    "unreach",
    "unreachable",
    "pending",
)


class CheckmkFormat(WebhookFormat):
    name = "checkmk"
    path = "/v1/events/checkmk"
    summary = "Checkmk's notifications"
    shape = "notification_type and host or hostname"
    severities = {
        **{"crit": "P1", "critical": "P1", "down": "P1", "unreach": "P2", "unreachable": "P2"},
        **{"warn": "P2", "warning": "P2", "unknown": "P3", "pending": "P4"},
    }

    def drafts(self, body: object, request: Request) -> Iterable[Item]:
        sent = Fields(body)
        notice = Fields(
            {
                name.lower().removeprefix("notify_").replace("_", ""): each
                for name, each in sent.values.items()
            }
        )
        if notice.text("notificationtype").lower().startswith(_ASIDE):
            return []
        return self.each([(notice.values, "")], self._notice)

    def _notice(self, notice: Fields) -> Draft:
        host = notice.need("hostname", "host", "hostalias")
        check = notice.text("servicedesc", "servicedescription", "service")
        is_service = notice.text("what").lower() == "service" or bool(check)
        state = _state(notice, is_service)
        over = state in OVER or notice.text("notificationtype").lower() == "recovery"
        return self.alert(
            check or "HostDown",
            host,
            title=notice.text("summary")
            or (f"{check}: {state.upper()} on {host}" if check else f"{host}: {state.upper()}"),
            text=notice.text("serviceoutput", "hostoutput", "output")
            if is_service
            else notice.text("hostoutput", "output"),
            severity=state.upper(),
            resolved=over,
            labels={"host": host, "site": notice.text("omdsite", "site")},
            notes={
                "details": notice.text("longserviceoutput", "longhostoutput", "longoutput"),
                "check_command": notice.text("servicecheckcommand", "hostcheckcommand", "checkcommand"),
                "address": notice.text("hostaddress", "address"),
                "event": notice.text("event"),
            },
            starts=0.0 if over else notice.time("microtime"),
            url=notice.text("serviceurl", "hosturl", "url"),
        )

    @classmethod
    def recognises(cls, body: object, headers: Mapping[bytes, bytes]) -> bool:
        if not isinstance(body, dict):
            return False
        names = {str(name).lower().removeprefix("notify_").replace("_", "") for name in body}
        return {"notificationtype"} <= names and bool({"host", "hostname"} & names)


def _state(notice: Fields, is_service: bool) -> str:
    names = ("servicestate", "serviceshortstate") if is_service else ("hoststate", "hostshortstate")
    for name in (*names, "status", "state"):
        if name in notice:
            return notice.one_of(name, _STATES)
    return notice.one_of(names[0], _STATES)
