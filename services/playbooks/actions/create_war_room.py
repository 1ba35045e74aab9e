"""Action create_war_room: a Slack channel of the incident's own, or the link to a meeting that the settings make for a platform
([playbooks.war_room]). The link is kept with the incident.

Slack's Web API: conversations.create, conversations.invite, users.lookupByEmail, chat.postMessage (https://docs.slack.dev/reference).
The name comes from the incident, so that a repeat finds the channel that is there.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlencode

import msgspec

from models.errors import Conflict, Malformed, Unavailable
from models.playbook import template
from models.playbook.catalog import CATALOG
from models.playbook.parameters import CreateWarRoom
from models.playbook.work import Done, IncidentEffect
from services.playbooks.kind import Asked, PlaybookAction, failed, succeeded
from services.playbooks.tools import Tools
from services.playbooks.words import names_in

ANSWER_MAX = 1024 * 1024
#: Slack's bounds: characters of a channel's name, and people in one invitation.
NAME_MAX = 80
INVITED_MAX = 100
#: Pages of a thousand channels that are looked through for one that exists already.
PAGES_MAX = 20
_USER_ID = re.compile(r"[UW][A-Z0-9]{6,}")
#: Errors of Slack's that another try does not mend.
_FINAL = frozenset(
    {"invalid_auth", "not_authed", "account_inactive", "token_revoked", "missing_scope", "no_permission", "restricted_action",
     "invalid_name", "invalid_name_specials", "invalid_name_punctuation", "invalid_name_required", "not_allowed_token_type"}
)  # fmt: skip


class _SlackError(Exception):
    """Slack answered 200 with `ok: false`."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def _check(tools: Tools, asked: Asked, params: CreateWarRoom) -> str:
    platform = params.platform
    if platform in tools.war_room.links or (platform == "slack" and tools.war_room.slack_token):
        return ""
    if platform == "slack":
        return "no Slack token is set: playbooks.war_room.slack_token"
    return f"platform: no link is set for {platform[:40]!r}: playbooks.war_room.links.{platform[:40]}"


async def _create(tools: Tools, asked: Asked, params: CreateWarRoom) -> Done:
    invited = names_in(params.invite)
    if params.platform in tools.war_room.links:
        return _meeting(tools, asked, params, invited)
    try:
        return await _channel(tools, asked, params, invited)
    except _SlackError as error:
        return failed(f"Slack answered {error.code}", final=error.code in _FINAL)


def _meeting(tools: Tools, asked: Asked, params: CreateWarRoom, invited: list[str]) -> Done:
    link = template.render(tools.war_room.links[params.platform], asked.seen).strip()
    if not link.startswith(("http://", "https://")) or any(each <= " " for each in link):
        return failed(
            f"playbooks.war_room.links.{params.platform}: it makes no URL", final=True, reached=False
        )
    people = f" for {', '.join(invited)}" if invited else ""
    return succeeded(
        f"war room{people}: {link}",
        {"url": link, "platform": params.platform, "invite": invited},
        effects=(IncidentEffect("link", link),),
    )


async def _channel(tools: Tools, asked: Asked, params: CreateWarRoom, invited: list[str]) -> Done:
    name = _name(
        params.name or f"inc-{asked.incident.get('service') or ''}-{str(asked.incident.get('id'))[-12:]}"
    )
    try:
        channel = (await _slack(tools, "conversations.create", {"name": name}))["channel"]["id"]
        is_new = True
    except _SlackError as error:
        if error.code != "name_taken":
            raise
        channel, is_new = await _existing(tools, name), False
    ids, unknown = await _people(tools, invited)
    if ids:
        try:
            await _slack(
                tools, "conversations.invite", {"channel": channel, "users": ",".join(ids[:INVITED_MAX])}
            )
        except _SlackError as error:
            if error.code not in ("already_in_channel", "cant_invite_self"):
                unknown.append(f"(Slack: {error.code})")
    text = (
        params.message
        or f"War room of incident {asked.incident.get('id')}: {asked.incident.get('title') or ''}"
    )
    if is_new:
        await _slack(tools, "chat.postMessage", {"channel": channel, "text": text})
    link = f"https://slack.com/app_redirect?{urlencode({'channel': channel})}"
    left_out = f", not invited: {', '.join(unknown)}" if unknown else ""
    return succeeded(
        f"war room #{name}{left_out}",
        {"url": link, "platform": "slack", "channel": channel, "name": name, "not_invited": unknown},
        effects=(IncidentEffect("link", link),),
    )


async def _existing(tools: Tools, name: str) -> str:
    cursor = ""
    for _ in range(PAGES_MAX):
        asked = {"limit": "1000", "exclude_archived": "true", "types": "public_channel"}
        page = await _slack(
            tools, "conversations.list", {**asked, **({"cursor": cursor} if cursor else {})}, get=True
        )
        for each in page.get("channels") or []:
            if each.get("name") == name:
                return str(each["id"])
        cursor = str((page.get("response_metadata") or {}).get("next_cursor") or "")
        if not cursor:
            break
    raise Conflict(f"Slack has a channel {name} already, which this token does not see")


async def _people(tools: Tools, invited: list[str]) -> tuple[list[str], list[str]]:
    """Slack's ids of those that can be found, and the others. A bot finds people by id or address, not by name or group."""
    ids, unknown = [], []
    for name in invited:
        if _USER_ID.fullmatch(name):
            ids.append(name)
        elif "@" in name[1:]:
            try:
                ids.append(
                    str((await _slack(tools, "users.lookupByEmail", {"email": name}, get=True))["user"]["id"])
                )
            except _SlackError:
                unknown.append(name)
        else:
            unknown.append(name)
    return ids, unknown


async def _slack(tools: Tools, method: str, fields: dict[str, str], *, get: bool = False) -> dict[str, Any]:
    """Raises _SlackError, Malformed, Unavailable."""
    given = tools.war_room
    url = f"{given.slack_api.rstrip('/')}/{method}"
    headers = {"Authorization": f"Bearer {given.slack_token}"}
    if not get:
        headers["Content-Type"] = "application/json; charset=utf-8"
    answer = await tools.outbound.call(
        "GET" if get else "POST",
        f"{url}?{urlencode(fields)}" if get else url,
        headers=headers,
        body=None if get else msgspec.json.encode(fields),
        max_bytes=ANSWER_MAX,
        trusted=True,
    )
    if answer.status != 200:
        raise Unavailable(f"Slack answered {answer.status}")
    try:
        decoded = msgspec.json.decode(answer.body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Malformed("Slack answered with something else than JSON") from None
    if not isinstance(decoded, dict) or not decoded.get("ok"):
        code = str(decoded.get("error") or "an error") if isinstance(decoded, dict) else "no object"
        raise _SlackError(code[:60])
    return decoded


def _name(text: str) -> str:
    """As Slack wants it: lower case, digits, hyphens and underscores."""
    plain = re.sub(r"[^a-z0-9_-]+", "-", text.lower())
    return re.sub(r"-{2,}", "-", plain).strip("-_")[:NAME_MAX] or "incident"


ACTION = PlaybookAction(CATALOG["create_war_room"], _create, _check)
