"""`llm-im notify test|resend|receivers`: tries a receiver, and tells again of an incident."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

import typer

from services.cli.shared import ids, output, run_verb, terminal
from services.cli.shared.exits import EPILOG, ExitCode, Failure
from services.cli.shared.ids import OneId
from services.cli.shared.options import Asked, Reason, with_options

PATH = "/v1/receivers"
#: A receiver has a minute to answer, and the responder two to give up.
TIMEOUT_S = 130.0

app = typer.Typer(
    help="List and try receivers, and send notifications again.", no_args_is_help=True, epilog=EPILOG
)


@app.command(epilog=EPILOG)
@with_options
def receivers(*, asked: Asked) -> None:
    """List the receivers, with the routes that name them.

    llm-im notify receivers
    """
    body = asked.client().get_json(PATH)
    if asked.as_json:
        output.write_json(body)
        return
    for row in body["items"]:
        named = ", ".join(row["routes"]) or "no route"
        ends = "" if row["send_resolved"] else "; no resolves"
        typer.echo(terminal.plain(f"{row['name']} ({row['type']}): {named}{ends}"))
    if not body["items"]:
        typer.echo("no receiver: notify.receivers and notify.webhook.url are not set")


@app.command(epilog=EPILOG)
@with_options
def test(
    receiver: Annotated[str, typer.Argument(metavar="RECEIVER", help="Its name.", show_default=False)],
    *,
    asked: Asked,
) -> None:
    """Send a test message to a receiver, and show its answer.

    The message says that it is a test. Exit code 1 if the receiver did not take it.

    llm-im notify test ops
    """
    client = asked.client(TIMEOUT_S)
    reply = client.post_json(f"{PATH}/{quote(receiver, safe='')}/test", {})
    if reply.status != 200:
        raise client.failure(reply)
    body = reply.json()
    if asked.as_json:
        output.write_json(body)
    if not body["ok"]:
        raise Failure(f"{body['receiver']} did not take it: {body['detail']}", ExitCode.FAILED)
    if not asked.as_json:
        typer.echo(terminal.plain(f"{body['receiver']} took it: {body['detail']}"))


@app.command(epilog=EPILOG)
@with_options
def resend(
    incident: OneId,
    receiver: Annotated[
        str | None,
        typer.Option("--receiver", metavar="NAME", help="Only this receiver.", show_default=False),
    ] = None,
    reason: Reason = None,
    *,
    asked: Asked,
) -> None:
    """Notify of an open incident again, now: everybody who is told of it, or one receiver.

    llm-im notify resend 7a2b8c3d4e5f

    llm-im notify resend 7a2b8c3d4e5f --receiver pager --reason "the pager was down"
    """
    client = asked.client()
    action = run_verb.Action("resend", "told again", run_verb.body(receiver=receiver, reason=reason))
    reply = run_verb.call(client, action, ids.find_one(client, incident), action.body)
    if asked.as_json:
        output.write_json(reply.json())
    else:
        run_verb.say(reply.json(), action.done)
