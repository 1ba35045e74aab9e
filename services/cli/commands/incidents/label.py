"""`llm-im incidents label`: labels of an incident."""

from __future__ import annotations

from typing import Annotated

import typer

from services.cli.shared.exits import ExitCode, Failure
from services.cli.shared.options import Reason, VerbOptions, with_options
from services.cli.shared.run_verb import Action, body, do


@with_options
def label(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ID|NAME=VALUE|NAME-",
            help="Incident ids (- reads them from stdin), labels to set, labels to remove.",
            show_default=False,
        ),
    ] = None,
    reason: Reason = None,
    *,
    options: VerbOptions,
) -> None:
    """Set labels of an incident (NAME=VALUE) and remove others (NAME-). Its alerts keep theirs.

    llm-im incidents label 4e5f60718293 team=inference env-
    """
    ids = [word for word in words or () if word == "-" or not ("=" in word or word.endswith("-"))]
    labels = {
        name: value for name, is_pair, value in (word.partition("=") for word in words or ()) if is_pair
    }
    remove = [word[:-1] for word in words or () if word.endswith("-") and "=" not in word and word != "-"]
    if not labels and not remove:
        raise Failure("no labels given: NAME=VALUE to set one, NAME- to remove one", ExitCode.USAGE)
    if "" in labels:
        raise Failure(f"a label has no name: ={labels['']}", ExitCode.USAGE)
    action = Action("label", "labelled", body(set=labels, remove=remove, reason=reason))
    do(action, ids, options)
