"""A receiver of type github."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from models.settings.channels.base import HttpReceiver, Token, Url


class GitHubReceiver(HttpReceiver):
    """Issues of a repository on GitHub: one an incident, with comments as it changes, closed with it."""

    type: Literal["github"] = "github"
    repository: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9-]{0,38}/[A-Za-z0-9._-]{1,100}$", description="As in `owner/name`."
    )
    token: Token = Field(description="Token that may read and write issues. Secret.")
    api_url: Url = Field(
        "https://api.github.com",
        description="Address of the API; `https://HOST/api/v3` of an Enterprise Server.",
    )
    labels: list[str] = Field([], max_length=20, description="Labels of the issue.")
    assignees: list[str] = Field([], max_length=10, description="Users that it is assigned to.")
