"""`llm-im incidents comment`: a word into the timeline."""

from __future__ import annotations

from services.cli.shared.ids import ManyIds
from services.cli.shared.options import VerbOptions, with_options
from services.cli.shared.run_verb import Action, do
from services.cli.shared.words import Message, MessageFile, text_wanted


@with_options
def comment(
    ids: ManyIds = None,
    message: Message = None,
    file: MessageFile = None,
    *,
    options: VerbOptions,
) -> None:
    """Add a comment to the timeline. Without -m or -F, your editor opens (VISUAL, EDITOR).

    llm-im incidents comment 4e5f60718293 -m "rolled back to 1.4"

    kubectl get pods | llm-im incidents comment 4e5f60718293 -F -
    """
    action = Action("comment", "commented", {"text": text_wanted(message, file, "The comment")})
    do(action, ids, options)
