"""Policy where none is configured: everything that the settings allow is allowed."""

from __future__ import annotations

from models.playbook.policy import PolicyEvalRequest, PolicyEvalResponse


class NoPolicy:
    """Port Policy."""

    async def evaluate(self, request: PolicyEvalRequest) -> PolicyEvalResponse:
        return PolicyEvalResponse(allowed=True)

    async def close(self) -> None:
        """It has nothing."""
