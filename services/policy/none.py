"""Policies that ask nobody: where none is configured, everything that the settings allow is allowed; where one can't be read, nothing
is.
"""

from __future__ import annotations

from models.playbook.policy import PolicyEvalRequest, PolicyEvalResponse, denied


class NoPolicy:
    """Port Policy."""

    async def evaluate(self, request: PolicyEvalRequest) -> PolicyEvalResponse:
        return PolicyEvalResponse(allowed=True)

    async def close(self) -> None:
        """It has nothing."""


class UnreadablePolicy:
    """Port Policy."""

    def __init__(self, why: str) -> None:
        self._why = why

    async def evaluate(self, request: PolicyEvalRequest) -> PolicyEvalResponse:
        # An answer, not an outage: with fail_open too.
        return denied(f"the policies can't be read: {self._why}")

    async def close(self) -> None:
        """It has nothing."""
