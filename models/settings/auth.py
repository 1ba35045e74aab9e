"""Who gets in."""

from __future__ import annotations

from pydantic import Field

from models.settings.values import Section


class Auth(Section):
    """Who may call the server. API tokens are made with `llm-im tokens`; see [security.md](security.md)."""

    required: bool | None = Field(
        None,
        description="`true`: every request needs an API token, even before the first token exists. `false`: no request needs one; allowed on loopback only. None: open until the first token is created, then every request needs one.",
    )
    open_metrics: bool = Field(
        False, description="Whether `GET /metrics` needs no token even when everything else does."
    )
