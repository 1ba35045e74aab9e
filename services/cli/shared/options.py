"""Options that many commands take, written once: a record of them is one parameter of a command.

@with_options
def ack(ids: ManyIds = None, *, options: VerbOptions) -> None: ...
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, is_dataclass
from functools import wraps
from typing import Annotated, Any, TypeVar, cast, get_type_hints

import typer

from services.cli.shared.client import TIMEOUT_S, Client, Trust
from services.cli.shared.where import AsJson, CaFile, Cert, InContext, Key, TokenFile, Url, client_of

Command = TypeVar("Command", bound=Callable[..., None])

Where = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        metavar="MATCHER",
        help="Instead of ids: every incident that matches, as for `incidents list`. Repeatable; all must match.",
        show_default=False,
    ),
]
Reason = Annotated[
    str | None,
    typer.Option(
        "--reason", "-r", metavar="TEXT", help="Why you do it; shown in the timeline.", show_default=False
    ),
]
IfVersion = Annotated[
    int | None,
    typer.Option(
        "--if-version",
        min=0,
        help="Only if the incident still has this version (see `incidents show`); else exit code 6.",
        show_default=False,
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done, without doing it.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]


@dataclass(frozen=True, slots=True)
class System:
    """Which system a command asks."""

    url: Url = None
    context: InContext = None
    token_file: TokenFile = None
    ca_file: CaFile = None
    cert: Cert = None
    key: Key = None

    def client(self, timeout_s: float = TIMEOUT_S) -> Client:
        """Who to call, with the token that belongs there."""
        trust = Trust(*(str(file) if file else "" for file in (self.ca_file, self.cert, self.key)))
        return client_of(self.url, self.context, self.token_file, timeout_s, trust)


@dataclass(frozen=True, slots=True)
class Asked(System):
    """Which system a command asks, and whether the answer is for programs."""

    as_json: AsJson = False


@dataclass(frozen=True, slots=True)
class VerbOptions:
    """How a verb is to be done: what all commands that change incidents take."""

    where: Where = None
    if_version: IfVersion = None
    dry_run: DryRun = False
    yes: Yes = False
    asked: Asked = field(default_factory=Asked)


def with_options(command: Command) -> Command:
    """The command as it is typed: in place of each parameter that is a record of options, the options in it."""
    records = {
        name: kind
        for name, kind in get_type_hints(command, include_extras=True).items()
        if isinstance(kind, type) and is_dataclass(kind)
    }
    parameters: list[inspect.Parameter] = []
    for each in inspect.signature(command, eval_str=True).parameters.values():
        if each.name in records:
            parameters += _options_of(records[each.name])
        else:
            parameters.append(each.replace(kind=inspect.Parameter.KEYWORD_ONLY))

    @wraps(command)
    def called(**given: Any) -> None:
        made = {name: _made(kind, given) for name, kind in records.items()}
        command(**given, **made)

    # The signature is what there is to type; who looks behind it would find the record.
    del called.__wrapped__
    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    called.__annotations__ = {each.name: each.annotation for each in parameters}
    return cast(Command, called)


def _options_of(record: type) -> Iterator[inspect.Parameter]:
    hints = get_type_hints(record, include_extras=True)
    for name, each in inspect.signature(record).parameters.items():
        if is_dataclass(hints[name]):
            yield from _options_of(hints[name])
        else:
            yield each.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[name])


def _made(record: type, given: dict[str, Any]) -> object:
    """The record of what was given, which is taken out of it."""
    hints: Mapping[str, Any] = get_type_hints(record, include_extras=True)
    names = inspect.signature(record).parameters
    return record(
        **{
            name: _made(hints[name], given) if is_dataclass(hints[name]) else given.pop(name)
            for name in names
        }
    )
