"""What is in force at each instruction: ENV, ARG, USER, WORKDIR, SHELL, and the image that a stage really starts from."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from optimizer.dockerfile.shell import SHELLS, has_errexit
from optimizer.dockerfile.words import unquoted
from optimizer.facts.images import Image, image

if TYPE_CHECKING:
    from collections.abc import Mapping

    from optimizer.dockerfile.document import Document, Stage
    from optimizer.dockerfile.instruction import Instruction

DEFAULT_SHELL = ("/bin/sh", "-c")
_VARIABLE = re.compile(r"\$(?:(?P<name>[A-Za-z_][A-Za-z0-9_]*)|\{(?P<braced>[A-Za-z_][A-Za-z0-9_]*)(?P<rest>:?[-+?][^}]*)?\})")


@dataclass(frozen=True, slots=True)
class State:
    """The state just before an instruction. A value of None is unknown; a missing name was never set in this file."""

    env: Mapping[str, str | None]
    args: Mapping[str, str | None]
    user: str | None
    workdir: str | None
    shell: tuple[str, ...]

    @property
    def is_posix_shell(self) -> bool:
        """Whether RUN and the shell forms go through a shell of the sh family."""
        return bool(self.shell) and posixpath.basename(self.shell[0]) in SHELLS

    @property
    def has_errexit(self) -> bool:
        """Whether SHELL itself sets `-e`."""
        return has_errexit(self.shell[1:])

    @property
    def variables(self) -> dict[str, str | None]:
        return {**self.args, **self.env}

    def expanded(self, text: str) -> str | None:
        """`text` with its variables; None where one is unknown."""
        return expand(text, self.variables)

    def path(self, text: str) -> str | None:
        """An absolute container path for `text`; None where it hangs on something unknown."""
        expanded = expand(text, self.variables)
        if expanded is None:
            return None
        if expanded.startswith("/"):
            return absolute(expanded)
        return None if self.workdir is None else absolute(self.workdir, expanded)


def absolute(*parts: str) -> str:
    """Container paths joined and made plain, as BuildKit does: with one slash in front, where POSIX would keep two."""
    return "/" + posixpath.normpath(posixpath.join("/", *parts)).lstrip("/")


def expand(text: str, variables: Mapping[str, str | None], escape: str = "\\") -> str | None:
    """`text` with variables replaced and quotes removed, as BuildKit does for instructions other than RUN.

    None where a variable's value is not known, or a form is used that this does not read.
    """
    out, resume = "", 0
    for at, char, quote, is_escaped in unquoted(text, escape, special=f'"${escape}'):
        if at < resume:
            continue
        if char == "$" and quote != "'" and not is_escaped:
            match = _VARIABLE.match(text, at)
            value = _value(match, variables) if match else None
            if match is None or value is None:
                return None
            out += value
            resume = match.end()
        else:
            out += char
    return out


def _value(match: re.Match[str], variables: Mapping[str, str | None]) -> str | None:
    name = match["name"] or match["braced"]
    rest = match["rest"]
    if name not in variables:
        return None  # the base image may set it
    value = variables[name]
    if rest and rest.startswith(":-"):
        return value if value != "" else rest[2:]
    return None if rest else value


def base_reference(document: Document, stage: Stage) -> str | None:
    """The image that `stage` and the stages below it start from, ARG defaults filled in; None where that is unknown."""
    root = list(stage.ancestry)[-1]
    known: dict[str, str | None] = {}
    for arg in document.preamble:
        for pair in arg.pairs:
            known[pair.name] = None if pair.value is None else expand(pair.value, known)
    return expand(root.image, known)


def states(document: Document) -> dict[int, State]:
    """The state before each instruction, by the instruction's index; those above the first FROM have none."""
    found: dict[int, State] = {}
    ends: dict[int, State] = {}
    preamble: dict[str, str | None] = {}
    for arg in document.preamble:
        for pair in arg.pairs:
            preamble[pair.name] = None if pair.value is None else expand(pair.value, preamble)
    for stage in document.stages:
        reference = base_reference(document, stage)
        state = _first(image(reference) if reference else None) if stage.parent is None else ends[stage.parent.index]
        state = replace(state, args={})
        for instruction in stage.instructions:
            found[instruction.index] = state
            state = after(state, instruction, preamble)
        ends[stage.index] = state
    return found


def _first(base: Image | None) -> State:
    return State({}, {}, None, base.workdir if base else None, DEFAULT_SHELL)


def after(state: State, instruction: Instruction, preamble: Mapping[str, str | None] | None = None) -> State:
    """What is in force behind `instruction`, given what is before it; `preamble` holds the ARGs above the first FROM."""
    keyword = instruction.keyword
    if keyword == "ENV":
        new = {pair.name: expand(pair.value or "", state.variables) for pair in instruction.pairs}
        return replace(state, env={**state.env, **new})
    if keyword == "ARG":
        args = dict(state.args)
        for pair in instruction.pairs:
            default = (preamble or {}).get(pair.name) if pair.value is None else expand(pair.value, {**args, **state.env})
            args[pair.name] = default
        return replace(state, args=args)
    if keyword == "WORKDIR":
        return replace(state, workdir=state.path(instruction.value))
    if keyword == "USER":
        return replace(state, user=expand(instruction.value, state.variables) or "?")
    if keyword == "SHELL":
        return replace(state, shell=instruction.exec_form or ())
    return state


def is_root(user: str | None) -> bool:
    """Whether `user`, as USER or a compose file has it, is root, whatever its group; None (nobody says) is not."""
    return (user or "").partition(":")[0] in ("root", "0")
