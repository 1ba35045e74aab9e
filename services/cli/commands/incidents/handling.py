"""`llm-im incidents ack|unack|assign|comment|update`: who looks after an incident, and what they say about it."""

from __future__ import annotations

import getpass
from typing import Annotated

import typer

from services.cli.shared import moments
from services.cli.shared.exits import ExitCode, Failure
from services.cli.shared.ids import ManyIds
from services.cli.shared.run_verb import Deed, DryRun, IfVersion, Manner, Reason, Where, Yes, body, do
from services.cli.shared.where import AsJson, InContext, TokenFile, Url
from services.cli.shared.words import Message, MessageFile, text_wanted


def ack(
    ids: ManyIds = None,
    span: Annotated[
        str | None,
        typer.Option(
            "--for", metavar="SPAN", help="How long the acknowledgement lasts: 30m, 2h.", show_default=False
        ),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="When the acknowledgement ends: a time, RFC 3339.", show_default=False
        ),
    ] = None,
    reason: Reason = None,
    where: Where = None,
    if_version: IfVersion = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    url: Url = None,
    context: InContext = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Acknowledge an incident: you are on it. Without --for or --until, until it is resolved.

    llm-im incidents ack 4e5f60718293 --for 2h

    llm-im incidents ack --where service=llm-api --where state=Triaged
    """
    if span is not None and until is not None:
        raise Failure("give either --for or --until, not both", ExitCode.USAGE)
    given = body(
        **{
            "for": None if span is None else moments.span(span, "--for"),
            "until": None if until is None else moments.future(until, "--until"),
            "reason": reason,
        }
    )
    deed = Deed("acknowledge", "acknowledged", given)
    do(deed, ids, Manner(url, context, token_file, as_json, dry_run, yes, if_version, where))


def unack(
    ids: ManyIds = None,
    reason: Reason = None,
    where: Where = None,
    if_version: IfVersion = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    url: Url = None,
    context: InContext = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Withdraw an acknowledgement.

    llm-im incidents unack 4e5f60718293 --reason "handed over to the day shift"
    """
    deed = Deed("unacknowledge", "unacknowledged", body(reason=reason))
    do(deed, ids, Manner(url, context, token_file, as_json, dry_run, yes, if_version, where))


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
    where: Where = None,
    if_version: IfVersion = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    url: Url = None,
    context: InContext = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
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
    deed = Deed("assign", "assigned", {**given, **body(reason=reason)})
    do(deed, ids, Manner(url, context, token_file, as_json, dry_run, yes, if_version, where))


def comment(
    ids: ManyIds = None,
    message: Message = None,
    file: MessageFile = None,
    where: Where = None,
    if_version: IfVersion = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    url: Url = None,
    context: InContext = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Add a comment to the timeline. Without -m or -F, your editor opens (VISUAL, EDITOR).

    llm-im incidents comment 4e5f60718293 -m "rolled back to 1.4"

    kubectl get pods | llm-im incidents comment 4e5f60718293 -F -
    """
    deed = Deed("comment", "commented", {"text": text_wanted(message, file, "The comment")})
    do(deed, ids, Manner(url, context, token_file, as_json, dry_run, yes, if_version, where))


def update(
    ids: ManyIds = None,
    audience: Annotated[
        str,
        typer.Option(
            "--audience", "-a", metavar="NAME", help="Who the update is for: customers, support, ..."
        ),
    ] = "stakeholders",
    message: Message = None,
    file: MessageFile = None,
    upcoming: Annotated[
        str | None,
        typer.Option(
            "--next",
            metavar="SPAN|TIME",
            help="When you promise the next update: 30m, or a time, RFC 3339.",
            show_default=False,
        ),
    ] = None,
    where: Where = None,
    if_version: IfVersion = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    url: Url = None,
    context: InContext = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Post a stakeholder update and promise the next one.

    llm-im incidents update 4e5f60718293 --audience customers -m "A fix is on its way." --next 30m
    """
    given = {"audience": audience, "text": text_wanted(message, file, "The update")}
    if upcoming is not None and moments.is_span(upcoming):
        given["next_due_in"] = moments.span(upcoming, "--next")
    elif upcoming is not None:
        given["next_due_at"] = moments.future(upcoming, "--next")
    deed = Deed("update", "updated", given)
    do(deed, ids, Manner(url, context, token_file, as_json, dry_run, yes, if_version, where))


def _my_name() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError) as error:  # a container's user without a name
        raise Failure("your login name is unknown: give --to PERSON", ExitCode.USAGE) from error
