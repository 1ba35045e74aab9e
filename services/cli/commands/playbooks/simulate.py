"""`llm-im playbooks simulate`: the path that a run takes when certain actions fail."""

from __future__ import annotations

from typing import Annotated

import typer

from services.cli.commands.playbooks import path
from services.cli.commands.playbooks.files import Fails, OneFile, read_file
from services.cli.shared.where import AsJson


def simulate(
    file: OneFile,
    fail: Fails = None,
    expire: Annotated[
        list[str] | None,
        typer.Option(
            "--expire",
            metavar="STEP",
            show_default=False,
            help="An approval that nobody answers. Repeatable.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Walk through a playbook with the outcomes that you give. Nothing is done.

    Shows what would be done, skipped, tried again and rolled back. Conditions on the incident are taken to hold. No running system is
    needed.

    llm-im playbooks simulate critical.yaml --fail repair.health_check --fail repair.service_restart
    """  # fmt: skip
    from models.playbook.simulation import Script
    from models.playbook.simulation import simulate as simulated

    book = read_file(file).playbook
    lines = simulated(book, Script(frozenset(fail or ()), frozenset(expire or ())))
    path.show(lines, as_json, name=book.name, version=book.version)
