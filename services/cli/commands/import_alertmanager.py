"""`llm-im config import-alertmanager`: settings of ours from Alertmanager's configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from services.cli.shared import terminal
from services.cli.shared.exits import ExitCode, Failure


def import_alertmanager(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Alertmanager's configuration, alertmanager.yml.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Write here instead of stdout. It must not exist."
        ),
    ] = None,
) -> None:
    """Write settings for the routes, receivers, inhibit rules and timings of an Alertmanager.

    What has no counterpart is reported on stderr, a line each with its place. Secrets are not copied.

    llm-im config import-alertmanager alertmanager.yml -o llm-im.toml
    """
    from services.importing.alertmanager import import_alertmanager as imported

    try:
        text = file.read_text("utf-8-sig")
    except UnicodeDecodeError:
        raise Failure(f"{file}: not UTF-8", ExitCode.FAILED) from None
    made = imported(text, str(file))
    if output is None:
        typer.echo(made.text, nl=False)
    else:
        try:
            with output.open("x", encoding="utf-8") as out:
                out.write(made.text)
        except FileExistsError:
            raise Failure(f"{output} is there already: give another --output", ExitCode.FAILED) from None
    for line in made.report:
        typer.echo(terminal.plain(line), err=True)
    if output is not None:
        count = len(made.report)
        todo = f"; {count} thing{'' if count == 1 else 's'} to look at, above" if count else ""
        typer.echo(f"wrote {output}{todo}; check it with: llm-im config check {output}", err=True)
