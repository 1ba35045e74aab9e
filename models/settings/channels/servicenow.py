"""A receiver of type servicenow."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, JsonValue, model_validator

from models.settings.channels.base import HttpReceiver, Token, Url


class ServiceNowReceiver(HttpReceiver):
    """An instance of ServiceNow, by its Table API: one incident an incident, with work notes as it changes, resolved with it."""

    type: Literal["servicenow"] = "servicenow"
    url: Url = Field(description="Address of the instance, as in `https://example.service-now.com`.")
    username: str = Field("", max_length=200, description="User name for HTTP basic authentication.")
    password: Token | None = Field(None, description="Its password. Secret.")
    token: Token | None = Field(None, description="In place of both: an OAuth access token. Secret.")
    table: str = Field("incident", pattern=r"^[a-z][a-z0-9_]{0,79}$", description="Table of the records.")
    assignment_group: str = Field(
        "", max_length=200, description="Name or sys_id of the group that it is assigned to."
    )
    impact: list[int] = Field([1, 1, 2, 3, 3], min_length=5, max_length=5, description="Impact for P0 to P4.")
    urgency: list[int] = Field(
        [1, 2, 2, 2, 3], min_length=5, max_length=5, description="Urgency for P0 to P4."
    )
    close_code: str = Field(
        "Solution provided",
        min_length=1,
        max_length=100,
        description="Resolution code when it is over: one that the instance knows.",
    )
    fields: dict[str, JsonValue] = Field(
        {}, max_length=100, description="Further fields of a new record, as the API takes them."
    )

    @model_validator(mode="after")
    def _has_one_way_in(self) -> Self:
        if (self.password is None) != (not self.username):
            raise ValueError("expected both username and password, or neither")
        if (self.token is None) == (self.password is None):
            raise ValueError("expected username with password, or token: one of them")
        return self
