"""`llm-im incidents assign`: who works on an incident."""

from __future__ import annotations

import getpass
from typing import Annotated

import typer

from services.cli.shared.exits import ExitCode, Failure
from services.cli.shared.ids import ManyIds
from services.cli.shared.options import Reason, VerbOptions, with_options
from services.cli.shared.run_verb import Action, body, do


@with_options
def assign(
    ids: ManyIds = None,
    to: Annotated[
        list[str] | None, typer.Option("--to", metavar="PERSON", help="Repeatable.", show_default=False)
    ] = None,
    me: Annotated[bool, typer.Option("--me", help="Assign it to yourself, by your login name.")] = False,
    remove: Annotated[
        list[str] | None,
        typer.Option("--remove", metavar="PERSON", help="Repeatable.", show_default=False),
    ] = None,
    role: Annotated[
        list[str] | None,
        typer.Option(
            "--role",
            metavar="ROLE=PERSON",
            help="commander, communications, scribe or a role of your own; ROLE= removes it. Repeatable.",
            show_default=False,
        ),
    ] = None,
    reason: Reason = None,
    *,
    options: VerbOptions,
) -> None:
    """Assign people to an incident, and give them roles.

    llm-im incidents assign 4e5f60718293 --to alice --role commander=alice

    llm-im incidents assign 4e5f60718293 --me --remove bob
    """
    people = [*(to or ()), *([_my_name()] if me else ())]
    roles = {}
    for word in role or ():
        name, is_pair, person = word.partition("=")
        if not is_pair or not name:
            raise Failure(
                f"--role: {word!r} is not valid; expected ROLE=PERSON, or ROLE= to remove the role",
                ExitCode.USAGE,
            )
        roles[name] = person
    given = body(add=people, remove=remove, roles=roles)
    if not given:
        raise Failure(
            "nobody to assign: give --to PERSON, --me, --remove PERSON or --role ROLE=PERSON", ExitCode.USAGE
        )
    action = Action("assign", "assigned", {**given, **body(reason=reason)})
    do(action, ids, options)


def _my_name() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError) as error:  # a container's user without a name
        raise Failure("your login name is unknown: give --to PERSON", ExitCode.USAGE) from error
