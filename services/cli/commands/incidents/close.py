"""`llm-im incidents close`: nothing more is to be done about it."""

from __future__ import annotations

from services.cli.shared.ids import ManyIds
from services.cli.shared.options import Reason, VerbOptions, with_options
from services.cli.shared.run_verb import Action, body, do


@with_options
def close(
    ids: ManyIds = None,
    reason: Reason = None,
    *,
    options: VerbOptions,
) -> None:
    """Close a resolved incident.

    llm-im incidents close 7a2b8c3d4e5f

    llm-im incidents close --where state=Resolved --where service=llm-api --dry-run
    """
    action = Action("close", "closed", body(reason=reason), asks=True)
    do(action, ids, options)
