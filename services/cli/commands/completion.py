"""`llm-im completion bash|zsh|fish`: the script that lets a shell complete commands, options and ids."""

from __future__ import annotations

import os
from enum import StrEnum
from typing import Annotated

import typer

#: By this variable the script calls back; typer reads it.
VARIABLE = "_LLM_IM_COMPLETE"


class Shell(StrEnum):
    """Shells that have a script."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(shell: Annotated[Shell, typer.Argument(help="The shell to print the script for.")]) -> None:
    """Print a shell script that completes commands, options, contexts and incident ids.

    source <(llm-im completion bash)

    llm-im completion fish > ~/.config/fish/completions/llm-im.fish
    """
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    typer.echo(get_completion_script(prog_name="llm-im", complete_var=VARIABLE, shell=shell.value))


def answer_shells() -> None:
    """Make typer understand its own scripts, when one calls."""
    if VARIABLE in os.environ:
        from typer.completion import completion_init  # type: ignore[attr-defined]

        completion_init()
