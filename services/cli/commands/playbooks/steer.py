"""`llm-im playbooks pause|resume|cancel|approve|deny`: what people do with runs, and whether a playbook runs."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from services.cli.commands.playbooks.remote import (
    RUNS,
    Reason,
    RunId,
    RunOrName,
    find_run,
    is_run,
    json_of,
    path_of,
    say_run,
)
from services.cli.shared import output, terminal
from services.cli.shared.client import Client
from services.cli.shared.where import AsJson, InContext, TokenFile, Url, client_of

Step = Annotated[
    str, typer.Option("--step", metavar="STEP", help="The step that waits; default: all that wait.")
]
Question = Annotated[
    str,
    typer.Option(
        "--question",
        metavar="DIGEST",
        help="Only what `history RUN` showed with this digest. Default: what it asks now, which is shown.",
        show_default=False,
    ),
]


def pause(
    what: RunOrName,
    reason: Reason = None,
    url: Url = None,
    context: InContext = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Pause a run: it starts nothing new until it is resumed. Or pause a playbook: no new incident starts it; its runs go on.

    llm-im playbooks pause a91c07d2e5b4

    llm-im playbooks pause restart-api
    """
    _hold(client_of(url, context, token_file), what, "pause", "paused", reason, as_json)


def resume(
    what: RunOrName,
    reason: Reason = None,
    url: Url = None,
    context: InContext = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Let a paused run go on. Or let a paused playbook run again, for incidents that open from now on.

    llm-im playbooks resume a91c07d2e5b4

    llm-im playbooks resume restart-api
    """
    _hold(client_of(url, context, token_file), what, "resume", "active", reason, as_json)


def cancel(
    run: RunId,
    reason: Reason = None,
    url: Url = None,
    context: InContext = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """End a run: it starts nothing new. Actions under way are waited for, then its `finally` steps run.

    llm-im playbooks cancel a91c07d2e5b4 --reason "I do it by hand"
    """
    _steer(
        client_of(url, context, token_file),
        run,
        "cancel",
        {"reason": reason or ""},
        "is told to end:",
        as_json,
    )


def approve(
    run: RunId,
    step: Step = "",
    question: Question = "",
    reason: Reason = None,
    url: Url = None,
    context: InContext = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Approve what a run waits for: it goes on.

    `llm-im playbooks history --active` lists runs that wait, `llm-im playbooks history RUN` shows for what.

    llm-im playbooks approve a91c07d2e5b4
    """
    _answer(client_of(url, context, token_file), run, "approve", step, question, reason, "approved:", as_json)


def deny(
    run: RunId,
    step: Step = "",
    question: Question = "",
    reason: Reason = None,
    url: Url = None,
    context: InContext = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Deny what a run waits for: that step fails.

    llm-im playbooks deny a91c07d2e5b4 --reason "customers are on it"
    """
    _answer(client_of(url, context, token_file), run, "deny", step, question, reason, "denied:", as_json)


def _hold(client: Client, what: str, verb: str, mode: str, reason: str | None, as_json: bool) -> None:
    if is_run(what):
        done = "paused:" if verb == "pause" else "goes on:"
        _steer(client, what, verb, {"reason": reason or ""}, done, as_json)
        return
    if reason:
        typer.echo("--reason is not kept: only runs have a timeline", err=True)
    reply = client.post_json(f"{path_of(what)}/mode", {"mode": mode})
    changed = json_of(client, reply, hint="to list them: llm-im playbooks list")
    if as_json:
        output.write_json(changed)
    else:
        typer.echo(f"{terminal.plain(changed['name'])} is {changed['mode']}")


def _answer(
    client: Client,
    word: str,
    verb: str,
    step: str,
    question: str,
    reason: str | None,
    done: str,
    as_json: bool,
) -> None:
    """Answer what a run asks: what it asks now, one question after the other, and nothing that it asks by the time we arrive."""
    identity = find_run(client, word)
    body = {"step": step, "reason": reason or ""}
    if question:
        _steer(client, identity, verb, {**body, "question": question}, done, as_json)
        return
    asked = [
        each
        for each in client.get_json(f"{RUNS}/{identity}")["waits_for"]
        if step in ("", each["step"]) and each.get("question")
    ]
    for each in asked:
        if not as_json:
            typer.echo(f"{terminal.plain(each['step'])}: {terminal.plain(each['message'])}")
        _steer(
            client,
            identity,
            verb,
            {**body, "step": each["step"], "question": each["question"]},
            done,
            as_json and each is asked[-1],
            says=not as_json,
        )
    if not asked:
        # It says why.
        _steer(client, identity, verb, body, done, as_json)


def _steer(
    client: Client, word: str, verb: str, body: dict[str, Any], done: str, as_json: bool, *, says: bool = True
) -> None:
    identity = find_run(client, word)
    reply = client.post_json(f"{RUNS}/{identity}/{verb}", body)
    run = json_of(client, reply, hint="to list runs: llm-im playbooks history")
    if as_json:
        output.write_json(run)
    elif says:
        say_run(run, done)
