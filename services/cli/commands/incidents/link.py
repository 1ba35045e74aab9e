"""`llm-im incidents link|unlink`: incidents that have to do with each other."""

from __future__ import annotations

from services.cli.shared.ids import ManyIds, OneId
from services.cli.shared.options import Asked, DryRun, IfVersion, Reason, VerbOptions, with_options
from services.cli.shared.run_verb import Action, body, do_with


@with_options
def link(
    incident: OneId,
    others: ManyIds = None,
    reason: Reason = None,
    if_version: IfVersion = None,
    dry_run: DryRun = False,
    *,
    asked: Asked,
) -> None:
    """Link related incidents; each stays independent.

    llm-im incidents link 4e5f60718293 7a2b8c3d4e5f
    """
    action = Action("link", "linked", body(reason=reason), joint="with")
    do_with(action, incident, others, VerbOptions(None, if_version, dry_run, asked=asked))


@with_options
def unlink(
    incident: OneId,
    others: ManyIds = None,
    reason: Reason = None,
    if_version: IfVersion = None,
    dry_run: DryRun = False,
    *,
    asked: Asked,
) -> None:
    """Remove links between incidents.

    llm-im incidents unlink 4e5f60718293 7a2b8c3d4e5f
    """
    action = Action("unlink", "unlinked", body(reason=reason), joint="from")
    do_with(action, incident, others, VerbOptions(None, if_version, dry_run, asked=asked))
