"""Servers that are asked for alerts again and again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from pydantic import Field, field_validator, model_validator

from models.alerts.matchers import parse_filters
from models.errors import Malformed, TooLarge
from models.settings.processes import COLLECTOR
from models.settings.secrets import Secret
from models.settings.values import AbsolutePath, Duration, Section, wrong_url

#: Servers of a kind.
SERVERS_MAX = 100
#: A poll of every server of the largest Prometheus there is asks no more often.
INTERVAL_MAX_S = 86_400.0


class PolledServer(Section):
    """A server, and how one proves to it who asks."""

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$",
        description="What we call it; its cursor and its lease are kept under this name.",
    )
    url: str
    interval: Duration = Field(
        30.0, gt=0, le=INTERVAL_MAX_S, description="How long after one poll the next begins."
    )
    timeout: Duration = Field(10.0, gt=0, le=300.0, description="Longest time for one answer.")
    token: Secret | None = Field(
        None, description='Bearer token; `{ env = "NAME" }` or `{ file = "PATH" }` reads it there. Secret.'
    )
    username: str | None = Field(None, description="User of basic authentication, instead of a token.")
    password: Secret | None = Field(None, description="Its password. Secret.")
    ca_file: AbsolutePath | None = Field(
        None, description="File with PEM certificates that are trusted beside the system's."
    )
    cert_file: AbsolutePath | None = Field(None, description="File with our client certificate, as PEM.")
    key_file: AbsolutePath | None = Field(None, description="File with its key.")

    @field_validator("url")
    @classmethod
    def _is_url(cls, value: str) -> str:
        if wrong := wrong_url(value):
            raise ValueError(wrong)
        if "@" in value.split("://", 1)[1].split("/", 1)[0]:
            raise ValueError("expected a URL without user and password: they belong to username and password")
        return value

    @model_validator(mode="after")
    def _is_one_way_in(self) -> PolledServer:
        if self.token is not None and (self.username is not None or self.password is not None):
            raise ValueError("token: expected either a token, or username and password")
        if (self.username is None) != (self.password is None):
            raise ValueError("username: expected username and password together")
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file: expected cert_file and key_file together")
        return self


class AlertmanagerPull(PolledServer):
    """An Alertmanager, asked with `GET /api/v2/alerts`."""

    url: str = Field(
        description="Its address: `https://alertmanager:9093`, with its path prefix if it has one."
    )
    matchers: list[str] = Field(
        [],
        max_length=100,
        description='Only alerts that match all of these, such as `team="llm"`; its own `filter=`.',
    )
    settle: Duration = Field(
        300.0,
        le=INTERVAL_MAX_S,
        description="For so long after it started, what its list lacks is not resolved: it starts with an empty one.",
    )

    @field_validator("matchers")
    @classmethod
    def _can_be_read(cls, value: list[str]) -> list[str]:
        try:
            parse_filters(value)
        except (Malformed, TooLarge) as error:
            raise ValueError(str(error)) from None
        return value


class TaxiiPull(PolledServer):
    """A collection of a TAXII 2.1 server, whose objects become alerts."""

    url: str = Field(
        description="The collection: `https://taxii.example/api1/collections/91a7b528-80eb-42ed-a74d-c6fbd5a26116`."
    )
    interval: Duration = Field(
        300.0, gt=0, le=INTERVAL_MAX_S, description="How long after one poll the next begins."
    )
    added_after: str | None = Field(
        None,
        pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z$",
        description="At first, only what was added after this time, such as `2026-01-31T00:00:00Z`. None: all there is.",
    )
    page: int = Field(100, ge=1, le=1000, description="Objects of one answer; a server may give fewer.")


T = TypeVar("T", bound=PolledServer)


def _by_own_names(value: Sequence[T]) -> Sequence[T]:
    names = [each.name for each in value]
    if twice := next((name for name in names if names.count(name) > 1), ""):
        raise ValueError(f"expected each name once, but {twice!r} is there twice")
    return value


class Pull(Section):
    """[Servers that are polled](pull.md). One process polls each."""

    alertmanager: list[AlertmanagerPull] = Field(
        [],
        max_length=SERVERS_MAX,
        description="Alertmanagers; see [what each takes](#pullalertmanager-each).",
    )
    taxii: list[TaxiiPull] = Field(
        [],
        max_length=SERVERS_MAX,
        description="TAXII 2.1 collections; see [what each takes](#pulltaxii-each).",
    )

    @field_validator("alertmanager", "taxii")
    @classmethod
    def _once(cls, value: Sequence[T]) -> Sequence[T]:
        return _by_own_names(value)

    def for_process(self, kind: str, partitions: int) -> Mapping[str, object]:
        if kind != COLLECTOR:
            return {}
        return {
            "polled_alertmanagers": [each.model_dump() for each in self.alertmanager],
            "polled_taxii": [each.model_dump() for each in self.taxii],
        }
