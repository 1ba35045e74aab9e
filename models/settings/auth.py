"""Who gets in."""

from __future__ import annotations

from pydantic import Field

from models.settings.values import Section


class Auth(Section):
    """Who gets in: API tokens (`llm-im tokens`). [security.md](security.md) has the whole."""

    required: bool | None = Field(
        None,
        description="`true`: nobody gets in without an API token, also before there is one. `false`: everybody, and only on "
        "loopback. None: everybody until the first token is made, then nobody without one.",
    )
    open_metrics: bool = Field(False, description="`GET /metrics` needs no token, also when all else does.")
