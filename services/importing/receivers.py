"""Receivers of Alertmanager as ours: one function a type of `*_configs`, in TYPES. Each gives the fields of our receiver, by the names
of models/settings/channels/, or None if there is nothing that we could send to.

Templates of Go stay behind: ours are Jinja2, and each channel has a good text of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from models.settings.receivers import wrong_name
from services.importing.given import Given, Report
from services.importing.secrets import Secrets
from services.importing.toml import Inline

Fields = dict[str, object]

_SLACK_POST = "https://slack.com/api/chat.postMessage"
#: What makes no difference to what is told: how a client connects, and what our own channels always do.
_CONNECTION = ("follow_redirects", "enable_http2")


@dataclass(slots=True)
class Importing:
    """What the functions work with: `defaults` is the map `global`, `owner` the receiver's name among ours."""

    defaults: Given
    secrets: Secrets
    owner: str = ""

    def secret(self, given: Given, key: str, default: str = "") -> Inline | None:
        """A secret of its own, else the one of `global`."""
        own = self.secrets.of(given, key, self.owner)
        # The same for all that have none of their own: named by where it stands.
        return own or (self.secrets.of(self.defaults, default, "") if default else None)

    def text(self, given: Given, key: str, default: str = "") -> str:
        return given.text(key) or (self.defaults.text(default) if default else "")


def _webhook(given: Given, of: Importing) -> Fields | None:
    fields: Fields = {}
    url = of.secrets.of(given, "url", of.owner)
    if url is None:
        given.report.say(given.line, "webhook_configs: expected a url; left out")
        return None
    fields["url"] = url
    if most := given.number("max_alerts"):
        fields["max_alerts"] = most
    if timeout := given.duration("timeout"):
        fields["timeout"] = timeout
    fields |= _authorization(given, of, takes_basic=True)
    return fields


def _slack(given: Given, of: Importing) -> Fields | None:
    place, channel = of.text(given, "api_url", "slack_api_url"), given.text("channel")
    if place == _SLACK_POST or given.has("app_token") or (not place and _has_app_token(of)):
        token = of.secret(given, "app_token", "slack_app_token") or _bearer(given, of)
        if token is not None:
            given.ignore("app_url")
            return {"token": token, "channel": channel} | _mention(given)
        given.report.say(given.line, "slack_configs: expected a bot token for chat.postMessage; left out")
        return None
    url = of.secret(given, "api_url", "slack_api_url")
    if url is None:
        given.report.say(given.line, "slack_configs: expected an api_url; left out")
        return None
    if channel:
        given.report.say(
            given.line_of("channel"),
            f"channel {channel!r}: an incoming webhook writes to the channel that it was made for; give a bot token and this channel instead",
        )
    return {"url": url} | _authorization(given, of) | _mention(given)


def _has_app_token(of: Importing) -> bool:
    return of.defaults.has("slack_app_token") or of.defaults.has("slack_app_token_file")


def _mention(given: Given) -> Fields:
    given.ignore("color", "short_fields", "link_names", "mrkdwn_in", "message_text")
    return {}


def _email(given: Given, of: Importing) -> Fields | None:
    host, _, port = of.text(given, "smarthost", "smtp_smarthost").rpartition(":")
    to = [_address(each) for each in given.text("to").split(",") if each.strip()]
    sender = of.text(given, "from", "smtp_from")
    if not host or not sender or not to:
        given.report.say(given.line, "email_configs: expected to, from and smarthost; left out")
        return None
    if any("{{" in each for each in to):
        given.report.say(given.line_of("to"), "to: a Go template can't choose addresses here; left out")
        return None
    fields: Fields = {
        "host": host.strip("[]"),
        "port": int(port) if port.isdigit() else 25,
        "sender": sender,
        "to": to,
    }
    user = of.text(given, "auth_username", "smtp_auth_username")
    password = of.secret(given, "auth_password", "smtp_auth_password")
    wants_tls = given.flag("require_tls", of.defaults.flag("smtp_require_tls", True))
    is_implicit = given.flag("implicit_tls", of.defaults.flag("smtp_force_implicit_tls", port == "465"))
    given.ignore("hello")
    of.defaults.ignore("smtp_hello", "smtp_auth_identity")
    given.ignore("auth_identity")
    fields["tls"] = "tls" if is_implicit else "starttls" if wants_tls else "none"
    if user and password:
        fields |= {"username": user, "password": password}
        if fields["tls"] == "none" and not host.startswith(("localhost", "127.")):
            fields["tls"] = "starttls"
            given.report.say(
                given.line, "email_configs: a password is not sent in the clear: tls is starttls now"
            )
    elif user or password:
        given.report.say(given.line, "email_configs: expected both auth_username and auth_password; left out")
    headers = {name.lower(): node for name, node in given.pairs("headers")}
    if (reply_to := headers.pop("reply-to", None)) is not None and "{{" not in reply_to.text:
        fields["reply_to"] = reply_to.text
    if (subject := headers.pop("subject", None)) is not None:
        _template(given, subject.line, "headers.Subject", subject.text, fields, "title")
    for name, node in headers.items():
        given.report.say(node.line, f"headers.{name}: no counterpart; left out")
    tls = given.inner("tls_config")
    if (ca_file := tls.text("ca_file")).startswith("/"):
        fields["ca_file"] = ca_file
    elif ca_file:
        given.report.say(tls.line_of("ca_file"), "tls_config.ca_file: set it by its absolute path; left out")
    _say_unused_tls(tls)
    return fields


def _address(text: str) -> str:
    found = re.search(r"<([^<>]+)>\s*$", text)
    return (found[1] if found else text).strip()


def _pagerduty(given: Given, of: Importing) -> Fields | None:
    key = of.secrets.of(given, "routing_key", of.owner)
    if key is None and (given.has("service_key") or given.has("service_key_file")):
        line = given.line_of("service_key" if given.has("service_key") else "service_key_file")
        why = "service_key: of PagerDuty's Events API v1; make an integration of Events API v2"
        key = of.secrets.by_hand(line, "routing_key", of.owner, why)
    if key is None:
        given.report.say(given.line, "pagerduty_configs: expected a routing_key; left out")
        return None
    fields: Fields = {"routing_key": key}
    url = of.text(given, "url", "pagerduty_url").removesuffix("/").removesuffix("/v2/enqueue")
    if url and url != "https://events.pagerduty.com" and "/create_event.json" not in url:
        fields["api_url"] = url
    given.ignore("client", "client_url", "severity", "details", "source", "group")
    return fields | _authorization(given, of)


def _opsgenie(given: Given, of: Importing) -> Fields | None:
    key = of.secret(given, "api_key", "opsgenie_api_key")
    if key is None:
        given.report.say(given.line, "opsgenie_configs: expected an api_key; left out")
        return None
    fields: Fields = {"api_key": key}
    url = of.text(given, "api_url", "opsgenie_api_url").removesuffix("/")
    if url and url != "https://api.opsgenie.com":
        fields["api_url"] = url
    responders = []
    for each in given.maps("responders"):
        name = each.text("name") or each.text("username") or each.text("id")
        each.ignore("id", "username")
        kind = each.text("type").lower().removesuffix("s")
        if "{{" in name or "{{" in kind:
            given.report.say(each.line, "responders: a Go template can't choose them here; left out")
        elif kind in ("team", "user", "escalation", "schedule") and name:
            responders.append(f"{kind}:{name}")
        else:
            given.report.say(each.line, "responders: expected a type and a name; left out")
    if responders:
        fields["responders"] = responders
    tags = [each.strip() for each in given.text("tags").split(",") if each.strip()]
    if any("{{" in each for each in tags):
        given.report.say(given.line_of("tags"), "tags: those with Go templates are left out")
    if tags := [each for each in tags if "{{" not in each]:
        fields["tags"] = tags
    given.ignore("priority", "source", "details", "update_alerts")
    return fields | _authorization(given, of)


def _victorops(given: Given, of: Importing) -> Fields | None:
    key, routing = of.secret(given, "api_key", "victorops_api_key"), given.text("routing_key")
    if key is None or not routing or "{{" in routing:
        given.report.say(
            given.line, "victorops_configs: expected an api_key and a plain routing_key; left out"
        )
        return None
    fields: Fields = {"api_key": key, "routing_key": routing}
    url = of.text(given, "api_url", "victorops_api_url").rstrip("/")
    if url and url != "https://alert.victorops.com/integrations/generic/20131114/alert":
        fields["api_url"] = url
    given.ignore("message_type", "monitoring_tool", "custom_fields", "entity_display_name")
    return fields | _authorization(given, of)


def _teams(given: Given, of: Importing) -> Fields | None:
    url = of.secrets.of(given, "webhook_url", of.owner)
    if url is None:
        given.report.say(given.line, "msteams_configs: expected a webhook_url; left out")
        return None
    return {"url": url} | _authorization(given, of)


def _old_teams(given: Given, of: Importing) -> Fields | None:
    given.report.say(
        given.line,
        "msteams_configs: connectors were retired by Microsoft; give the URL of a workflow (Post to a channel when a webhook request is received)",
    )
    return _teams(given, of)


def _discord(given: Given, of: Importing) -> Fields | None:
    url = of.secrets.of(given, "webhook_url", of.owner)
    if url is None:
        given.report.say(given.line, "discord_configs: expected a webhook_url; left out")
        return None
    given.ignore("username", "avatar_url")
    return {"url": url} | _authorization(given, of)


def _jira(given: Given, of: Importing) -> Fields | None:
    site = of.text(given, "api_url", "jira_api_url")
    project, parts = given.text("project"), urlsplit(site)
    login = given.inner("http_config")
    basic = login.inner("basic_auth")
    user, token = basic.text("username"), of.secrets.of(basic, "password", of.owner)
    if token is None:
        token, user = _bearer(given, of), ""
    if not parts.netloc or not project or "{{" in project or token is None:
        given.report.say(
            given.line,
            "jira_configs: expected api_url, a plain project, and credentials in http_config; left out",
        )
        return None
    path = re.sub(r"/rest/api/\d/?$", "", parts.path).rstrip("/")
    fields: Fields = {"url": f"{parts.scheme}://{parts.netloc}{path}", "token": token, "project": project}
    if user:
        fields["user"] = user
    fields["api_version"] = (
        "2" if "/rest/api/2" in site and not parts.netloc.endswith(".atlassian.net") else "3"
    )
    given.ignore("api_type", "reopen_duration", "wont_fix_resolution")
    if (kind := given.text("issue_type")) and "{{" not in kind:
        fields["issue_type"] = kind
    labels = [each.text for each in given.items("labels") if "{{" not in each.text and " " not in each.text]
    if labels:
        fields["labels"] = labels
    for name in ("resolve_transition", "reopen_transition"):
        if value := given.text(name):
            fields[name] = value
    extra = {name: node.plain() for name, node in given.pairs("fields") if "{{" not in str(node.plain())}
    if extra:
        fields["fields"] = extra
    login.ignore("authorization", *_CONNECTION)
    login.unused("http_config.")
    return fields


@dataclass(frozen=True, slots=True)
class Type:
    """How one type is read. `title` and `text`: its keys for these, of which plain ones are taken over. `sends_resolved`: what
    Alertmanager does unless told otherwise."""

    name: str
    read: Callable[[Given, Importing], Fields | None]
    sends_resolved: bool = True
    title: str = ""
    text: str = ""


TYPES: dict[str, Type] = {
    "webhook_configs": Type("webhook", _webhook),
    "email_configs": Type("email", _email, False, text="text"),
    "slack_configs": Type("slack", _slack, False, "title", "text"),
    "pagerduty_configs": Type("pagerduty", _pagerduty, title="description"),
    "opsgenie_configs": Type("opsgenie", _opsgenie, title="message", text="description"),
    "victorops_configs": Type("victorops", _victorops, text="state_message"),
    "msteams_configs": Type("teams", _old_teams, title="title", text="text"),
    "msteamsv2_configs": Type("teams", _teams, title="title", text="text"),
    "discord_configs": Type("discord", _discord, title="title", text="message"),
    "jira_configs": Type("jira", _jira, title="summary", text="description"),
}


@dataclass(slots=True)
class Imported:
    """A receiver of theirs: `ours` by name, in their order. `is_empty`: it sends nothing, and was meant so."""

    name: str
    line: int
    ours: dict[str, tuple[int, Fields]] = field(default_factory=dict)
    is_empty: bool = False


def receivers_of(given: Given, report: Report) -> dict[str, Imported]:
    """All receivers by their name. Reports what has no counterpart."""
    of = Importing(given.inner("global"), Secrets(report))
    found: dict[str, Imported] = {}
    taken: set[str] = set()
    for each in given.maps("receivers"):
        name = each.text("name")
        made = found[name] = Imported(name, each.line)
        rows = [(kind, config) for kind in TYPES for config in each.maps(kind)]
        others = [key for key in each.node.entries if key not in TYPES and key != "name"]
        made.is_empty = not rows and not others
        for kind, config in rows:
            ours = _free_name(name if len(rows) == 1 else f"{name}-{TYPES[kind].name}", taken)
            of.owner = ours
            if (fields := _read(TYPES[kind], config, of)) is not None:
                taken.add(ours)
                made.ours[ours] = config.line, fields
        for key in others:
            report.say(each.line_of(key), f"{key}: there is no such channel here yet; left out")
    _rest_of_global(of.defaults)
    return found


def _read(kind: Type, config: Given, of: Importing) -> Fields | None:
    fields: Fields = {"type": kind.name}
    sends_resolved = config.flag("send_resolved", kind.sends_resolved)
    own = kind.read(config, of)
    if own is None:
        return None
    fields |= own
    if not sends_resolved:
        fields["send_resolved"] = False
    for theirs, ours in ((kind.title, "title"), (kind.text, "text")):
        if theirs and (text := config.text(theirs)):
            _template(config, config.line_of(theirs), theirs, text, fields, ours)
    config.unused()
    return fields


def _template(given: Given, line: int, key: str, text: str, fields: Fields, ours: str) -> None:
    if "{{" in text or "{%" in text or "{#" in text:
        given.report.say(line, f"{key}: a Go template; write {ours} in Jinja2, or keep the channel's own")
    else:
        fields[ours] = text


def _authorization(given: Given, of: Importing, *, takes_basic: bool = False) -> Fields:
    """What http_config says of who we are. Only webhooks have it."""
    client = given.inner("http_config") if given.has("http_config") else of.defaults.inner("http_config")
    client.ignore(*_CONNECTION)
    fields: Fields = {}
    if takes_basic:
        basic = client.inner("basic_auth")
        password = of.secrets.of(basic, "password", of.owner)
        if (user := basic.text("username")) and password:
            fields |= {"username": user, "password": password}
        elif token := _token(client, of):
            fields["bearer_token"] = token
    headers: Fields = {}
    for name, node in client.pairs("http_headers"):
        header = Given(node, given.report)
        if (values := header.items("values")) or header.items("secrets"):
            headers[name] = (
                values[0].text if values else of.secrets.of_node(header.items("secrets")[0], name, of.owner)
            )
        elif files := header.items("files"):
            headers[name] = Inline(file=files[0].text)
    if headers:
        fields["headers"] = headers
    _say_unused_tls(client.inner("tls_config"))
    client.unused("http_config.")
    return fields


def _bearer(given: Given, of: Importing) -> Inline | None:
    return _token(given.inner("http_config"), of)


def _token(client: Given, of: Importing) -> Inline | None:
    authorization = client.inner("authorization")
    if authorization.text("type").lower() in ("", "bearer"):
        found = of.secrets.of(authorization, "credentials", of.owner)
        if found is not None:
            return found
    return of.secrets.of(client, "bearer_token", of.owner)


def _say_unused_tls(tls: Given) -> None:
    if tls.flag("insecure_skip_verify", False):
        tls.report.say(
            tls.line_of("insecure_skip_verify"),
            "insecure_skip_verify: certificates are always verified; name yours in [outbound] ca_file",
        )
    if tls.has("ca_file"):
        tls.report.say(tls.line_of("ca_file"), "tls_config.ca_file: set it as [outbound] ca_file")
    tls.unused("tls_config.")


def _rest_of_global(defaults: Given) -> None:
    defaults.ignore("http_config", "resolve_timeout", "smtp_hello", "smtp_auth_identity")
    # They matter only with receivers that use them.
    for key in ("slack_api_url", "slack_app_token", "slack_app_url", "pagerduty_url", "opsgenie_api_url", "opsgenie_api_key",
                "victorops_api_url", "victorops_api_key", "jira_api_url", "smtp_smarthost", "smtp_from", "smtp_auth_username",
                "smtp_auth_password", "smtp_require_tls", "smtp_force_implicit_tls"):  # fmt: skip
        defaults.ignore(key, f"{key}_file")
    defaults.unused("global.")


def _free_name(theirs: str, taken: set[str]) -> str:
    """One of ours, as close to theirs as our names allow."""
    bare = re.sub(r"[^A-Za-z0-9_.-]+", "-", theirs).strip("-_.")[:56] or "receiver"
    name, number = bare, 2
    while name in taken or wrong_name(name):
        name, number = f"{bare}-{number}", number + 1
    return name
