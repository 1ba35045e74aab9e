"""Exit codes of `llm-im`, the words that `--help` says about them, and how a command gives up."""

from __future__ import annotations

from enum import IntEnum

from models.errors import (
    Conflict,
    Forbidden,
    IncidentManagerError,
    NotFound,
    Stale,
    Unauthorized,
)


class ExitCode(IntEnum):
    """What a script can branch on."""

    OK = 0
    FAILED = 1
    USAGE = 2  # given by typer itself
    NOT_RUNNING = 3
    DEGRADED = 4
    NOT_FOUND = 5
    CONFLICT = 6
    FORBIDDEN = 7
    INTERRUPTED = 130  # given by typer itself


EPILOG = (
    "Exit codes: 0 done; 1 failed, or something was refused; 2 the command line is wrong; "
    "3 nothing runs there; 4 it runs, but is not ready or a shard is down; 5 not found; 6 its state does not allow it, or somebody changed it in the meantime; 7 not allowed; 130 stopped by Ctrl-C."
)


class Failure(Exception):
    """A command ends here. The message is for a person: what is wrong, and what to do about it."""

    def __init__(self, message: str, code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(message)
        self.code = code


def code_of(status: int) -> ExitCode:
    """What a script learns of an HTTP status that is no success."""
    match status:
        case 401 | 403:
            return ExitCode.FORBIDDEN
        case 404 | 410:
            return ExitCode.NOT_FOUND
        case 409 | 412:
            return ExitCode.CONFLICT
        case 429 | 503:
            return ExitCode.DEGRADED
        case _:
            return ExitCode.FAILED


def code_of_error(error: IncidentManagerError) -> ExitCode:
    """What a script learns of an error of ours: the same as of the HTTP status that stands for it."""
    match error:
        case Conflict() | Stale():
            return ExitCode.CONFLICT
        case NotFound():
            return ExitCode.NOT_FOUND
        case Unauthorized() | Forbidden():
            return ExitCode.FORBIDDEN
        case _:
            return ExitCode.FAILED
