"""`llm-im incidents reopen`: it is not over after all."""

from __future__ import annotations

from services.cli.shared.ids import ManyIds
from services.cli.shared.options import Reason, VerbOptions, with_options
from services.cli.shared.run_verb import Action, body, do


@with_options
def reopen(
    ids: ManyIds = None,
    reason: Reason = None,
    *,
    options: VerbOptions,
) -> None:
    """Reopen a resolved or closed incident.

    llm-im incidents reopen 7a2b8c3d4e5f --reason "errors are back"
    """
    action = Action("reopen", "reopened", body(reason=reason), asks=True)
    do(action, ids, options)
