"""What the application's source does when it runs: the words in which the readers of the languages answer."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ANYTHING = "*"


class Act(Enum):
    """What a line of the source does."""

    STARTS = "starts a program"
    SHELL = "runs a shell"
    READS = "reads a file"
    WRITES = "writes a file"
    LISTENS = "listens on a port"
    LOADS = "loads a shared library"
    ASKS = "looks up a user or a group"


@dataclass(frozen=True, slots=True)
class Use:
    """One line that acts on what is outside of the program.

    `what` is the program, the container path, the port, the library or the user as it is named. A path that ends in `*` is
    known only up to there; None: nothing of it is known before the program runs.
    """

    act: Act
    what: str | None
    path: str
    line: int
    excerpt: str


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read of one source file.

    `imports` are the modules that it loads, as it names them, `texts` its literals that could be paths; `unknown` are the lines
    of what cannot be told, with the claim: a module whose name is computed, a file that cannot be parsed.
    """

    uses: tuple[Use, ...] = ()
    imports: tuple[str, ...] = ()
    unknown: tuple[Use, ...] = ()
    texts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where a source file runs: its path below the context, its container path, the working directory, the environment,
    and the words that it is started with, its own name first."""

    path: str
    container: str
    workdir: str | None
    env: Mapping[str, str | None] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()

    def absolute(self, text: str | None) -> str | None:
        """The container path of `text` as the program would take it; None where the working directory is needed and unknown."""
        if text is None or text.startswith("/"):
            return text
        if text.startswith("~"):
            return text
        return None if self.workdir is None else join(self.workdir, text)


def distinct(uses: Iterable[Use]) -> tuple[Use, ...]:
    """`uses` without those that say the same of the same line."""
    return tuple({(use.act, use.what, use.line): use for use in uses}.values())


def join(*parts: str) -> str:
    """Paths joined as a program would; what follows a `*` is not known."""
    path = parts[0]
    for part in parts[1:]:
        if path.endswith(ANYTHING):
            break
        path = part if part.startswith("/") else f"{path.rstrip('/')}/{part}"
    is_open = path.endswith(ANYTHING)
    plain = posixpath.normpath(path.removesuffix(ANYTHING) or "/")
    return (plain.rstrip("/") + "/" + ANYTHING if path.endswith("/" + ANYTHING) else plain + ANYTHING) if is_open else plain


def join_known(parts: list[str | None]) -> str | None:
    """The path that `parts` come to, open from the first one on that is not known; None where that is the first."""
    if not parts or parts[0] is None:
        return None
    known = parts[: parts.index(None)] if None in parts else parts
    whole = join(*(part for part in known if part is not None))
    return whole if len(known) == len(parts) else join(whole, ANYTHING)


def folder(path: str) -> str:
    """The folder that a path lies in; of a path that is only begun, the folder that is certain."""
    return posixpath.dirname(path.removesuffix(ANYTHING)) or "/"
