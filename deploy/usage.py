"""What was mistyped on a command line, as one line: the option that there is not with the nearest that there is."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from difflib import get_close_matches
from itertools import dropwhile, takewhile
from typing import Any

from onestride.hardware.errors import OneStrideError

OPTION, COLOUR = re.compile(r"(?<![\w-])--[a-z][\w-]*"), re.compile(r"\x1b\[[0-9;]*m")


class UsageError(OneStrideError):
    """The words of a command line do not fit the command."""


def parse(command: Any, prog: str, arguments: Sequence[str]) -> Callable[[], int]:
    """A command with its options.

    Args:
        command: dataclass of the command.
        prog: how it is called, for its help.
        arguments: what was typed after that.

    Raises:
        UsageError: that does not fit the command.
    """
    told = io.StringIO()
    try:
        with redirect_stderr(told):
            parsed = _tyro(command, prog, arguments)
    except SystemExit as end:
        if not end.code:
            raise
        text = _help(command, prog, [word for word in arguments[:1] if not word.startswith("-")])
        message = _unknown_option(text, arguments) or _first_words(told.getvalue())
        full = re.match(rf"usage: ({re.escape(prog)}[ \w]*?) \[", text)
        raise UsageError(f"{message}; `{full[1] if full else prog} --help` lists all options") from None
    sys.stderr.write(told.getvalue())
    return parsed


def _tyro(command: Any, prog: str, arguments: Sequence[str]) -> Callable[[], int]:
    import tyro

    config = (tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes, tyro.conf.CascadeSubcommandArgs)
    parsed: Callable[[], int] = tyro.cli(command, prog=prog, args=arguments, config=config)
    return parsed


def _help(command: Any, prog: str, first: Sequence[str]) -> str:
    """The help, of the sub-command where the first word chooses one; empty where there is none with that word."""
    told = io.StringIO()
    try:
        with redirect_stdout(told), redirect_stderr(io.StringIO()):
            _tyro(command, prog, [*first, "--help"])
    except SystemExit:
        pass
    return told.getvalue()


def _unknown_option(help_text: str, arguments: Sequence[str]) -> str:
    known = set(OPTION.findall(help_text))
    for word in arguments:
        option = word.partition("=")[0]
        if known and option.startswith("--") and option.replace("_", "-") not in known:
            nearest = get_close_matches(option, sorted(known), n=1, cutoff=0.7)
            return f"unknown option: got {option}" + (f", nearest: {nearest[0]}" if nearest else "")
    return ""


def _first_words(told: str) -> str:
    """Of tyro's box, whose frame depends on the terminal, what stands between its title and its next rule."""
    rows = [line.strip("│ ") for line in COLOUR.sub("", told).splitlines()[1:]]
    rest = dropwhile(_is_rule, rows)
    return " ".join(takewhile(lambda row: not _is_rule(row), rest)).rstrip(".") or "expected other arguments"


def _is_rule(row: str) -> bool:
    return not row.strip("─-╰╯ ")
