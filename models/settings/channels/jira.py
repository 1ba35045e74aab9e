"""A receiver of type jira."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, JsonValue, field_validator, model_validator

from models.settings.channels.base import HttpReceiver, Token, Url


class JiraReceiver(HttpReceiver):
    """A project of Jira: one issue an incident, with comments as it changes, and a transition when it is over."""

    type: Literal["jira"] = "jira"
    url: Url = Field(description="Address of the site, as in `https://example.atlassian.net`.")
    user: str = Field(
        "",
        max_length=200,
        description="Account that `token` belongs to, on Jira Cloud. Empty: the token is a personal access token.",
    )
    token: Token = Field(description="API token, or personal access token. Secret.")
    api_version: Literal["2", "3"] = Field("3", description='"3": Jira Cloud. "2": Jira Data Center.')
    project: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,99}$", description="Key of the project.")
    issue_type: str = Field("Task", min_length=1, max_length=100, description="Type of the issue.")
    labels: list[str] = Field([], max_length=20, description="Labels of the issue; none may have a space.")
    priorities: list[str] = Field(
        [],
        max_length=5,
        description='Names of priorities for P0 to P4, as in `["Highest", "High", "Medium", "Low", "Lowest"]`. Empty: the project\'s default.',
    )
    fields: dict[str, JsonValue] = Field(
        {}, max_length=100, description="Further fields of a new issue, as the API takes them."
    )
    resolve_transition: str = Field(
        "",
        max_length=100,
        description="Name of the transition when it is over. Empty: the first to a status that counts as done.",
    )
    reopen_transition: str = Field(
        "",
        max_length=100,
        description="Name of the transition when it begins again. Empty: the first to a status that does not.",
    )

    @field_validator("labels")
    @classmethod
    def _are_labels(cls, value: list[str]) -> list[str]:
        for each in value:
            if not each or len(each) > 255 or any(c.isspace() for c in each):
                raise ValueError(
                    f"expected labels of at most 255 characters without spaces, not {each[:80]!r}"
                )
        return value

    @model_validator(mode="after")
    def _has_all_priorities(self) -> Self:
        if len(self.priorities) not in (0, 5):
            raise ValueError(f"priorities: expected five names, for P0 to P4, not {len(self.priorities)}")
        return self
