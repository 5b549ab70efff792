"""Which COPYs can come later: what they write, and what stands between them and where they would go."""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING

from optimizer.facts.commands import deleted
from optimizer.facts.places import LOOKED_UP
from optimizer.facts.sources import given_owner, meets, reads_no_sources

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from optimizer.dockerfile.instruction import Instruction
    from optimizer.facts import Facts
    from optimizer.facts.commands import Placed
    from optimizer.facts.copies import Copy
    from optimizer.facts.manifests import ManifestFile
    from optimizer.facts.state import State

_METADATA = frozenset(
    "ARG CMD ENTRYPOINT ENV EXPOSE HEALTHCHECK LABEL MAINTAINER ONBUILD SHELL STOPSIGNAL USER WORKDIR".split()
)
_SOURCES = re.compile(r"\.(py|pyx|js|mjs|cjs|jsx|ts|tsx|vue|svelte|go)$")
# Settings of tools are written in the same languages, lie beside the manifests and change as seldom.
_TOOL_SETTINGS = re.compile(r"(^|/)(\.[\w.-]+rc\.\w+|[\w.-]+\.config\.\w+|setup\.py|\.yarn/.*|\.pnp\.\w+|\.pnpmfile\.cjs)$")
_HOME = re.compile(r"/root$|/home/[^/]+$")
_HOME_SETTINGS = frozenset(
    ".config .pip .npmrc .netrc .gitconfig .yarnrc .yarnrc.yml .ssh .cache .local .docker .condarc".split()
)
# Python loads these from the folder it runs in, or from one in PYTHONPATH.
_LOADED = frozenset({"sitecustomize.py", "usercustomize.py", "pip", "pip.py"})
# Variables that tell package managers and their network libraries of files.
_TOLD_BY = re.compile(
    r"PIP|UV|POETRY|PIPENV|NPM|YARN|PNPM|BUN|COREPACK|NODE|GO|GIT|SSL|XDG|LD|CURL|REQUESTS|PYTHONSTARTUP|NETRC",
    re.IGNORECASE,
)
_TELLS = re.compile(r"_(BINARY|CONFIG|RC|CERTS?|CA|CAFILE|CA_BUNDLE|CA_CERTS|CONFIG_FILE|BINARY_PATH)$", re.IGNORECASE)


def source_copies(facts: Facts, copies: tuple[Copy, ...], needed: tuple[ManifestFile, ...]) -> tuple[Copy, ...]:
    """The COPYs that bring sources which the install does not need, and those behind them that must stay behind them."""
    names = tuple(file.source for file in needed)
    found: list[Copy] = []
    for copy in copies:
        if copy.placements is None:
            if not copy.is_remote:
                found.append(copy)
        elif any(sources_in(facts, copy, names)) or any(_stays_behind(copy, one) for one in found):
            found.append(copy)
    return tuple(found)


def _brought(facts: Facts, copy: Copy) -> Iterator[str]:
    for placement in copy.placements or ():
        if placement.is_folder:
            yield from facts.context.walk(placement.source)
        else:
            yield placement.source


def sources_in(facts: Facts, copy: Copy, needed: tuple[str, ...] = ()) -> Iterator[str]:
    """The source files that a COPY brings, those in `needed` left out."""
    return (file for file in _brought(facts, copy) if _is_source(file, needed))


def _is_source(file: str, needed: tuple[str, ...]) -> bool:
    if any(file == name or file.startswith(f"{name}/") for name in needed):
        return False
    return _SOURCES.search(file) is not None and _TOOL_SETTINGS.search(file) is None


def _stays_behind(copy: Copy, earlier: Copy) -> bool:
    """Whether `copy` writes over what `earlier` has written, with something else."""
    if not any(meets(root, earlier.roots) for root in copy.roots):
        return False
    alike = copy.instruction.keyword == "COPY" and copy.flags == earlier.flags
    return not (alike and all(earlier.container_path(p.source) == p.path for p in copy.placements or ()))


def why_read(copy: Copy, state: State, homes: frozenset[str]) -> str | None:
    """Why an install may read what a COPY brings, though it is not asked to: settings in a home folder or the system's own,
    a module that Python loads by itself, or a file that a variable names. `homes`: the home folders that users were given."""
    if any(meets(folder, copy.roots) for folder in LOOKED_UP):
        return "it brings files into the system's own folders, where programs look for their settings"
    names = {posixpath.basename(root) for root in copy.roots}
    variables = state.variables
    is_home = _HOME.match(copy.folder or "") is not None or copy.folder in {variables.get("HOME"), *homes}
    if is_home and copy.folder is not None and names & _HOME_SETTINGS:
        return "it brings settings into a home folder, which the install reads"
    if loaded := sorted(names & _LOADED):
        return f"it brings {loaded[0]}, which Python may load for the install"
    for name, value in variables.items():
        if name != "PATH" and not _TOLD_BY.match(name) and not _TELLS.search(name):
            continue
        paths = [state.path(word) for word in re.findall(r"[^\s:;,\"'=]+", value or "")]
        if any(path == root or (path or "").startswith(f"{root}/") for path in paths for root in copy.roots):
            return f"{name} names a file that it brings"
    return None


def why_not_past(facts: Facts, copy: Copy, other: Instruction) -> str | None:
    """Why `copy` cannot move past `other`."""
    if other.keyword in ("ENV", "ARG") and "$" in copy.instruction.value:
        return "a variable in the COPY changes on the way"
    if other.keyword == "WORKDIR" and not copy.destination.startswith("/"):
        return "WORKDIR changes on the way, and the destination is relative"
    if other.keyword == "RUN":
        commands = facts.placed(other)
        roots = copy.roots
        free = commands is not None and all(
            reads_no_sources(p, roots) or empties_cache(p) or given_owner(p, roots) is not None for p in commands
        )
        return None if free else "a RUN between the COPY and the install may read the sources"
    if other.keyword in ("COPY", "ADD"):
        return _overlap(facts, copy, other)
    return None if other.keyword in _METADATA else f"{other.keyword} stands between the COPY and the install"


def _overlap(facts: Facts, copy: Copy, other: Instruction) -> str | None:
    same = next((c for c in facts.copies(facts.document.stage_of(other)) if c.instruction is other), None)
    if same is not None and same.placements is not None:
        return "another COPY between them writes to the same place" if _stays_behind(same, copy) else None
    folder = facts.state(other).path(other.destination)
    if folder is not None and not meets(folder, copy.roots) and not any(root.startswith(folder) for root in copy.roots):
        return None
    return "another COPY between them writes to the same place, and the later one counts"


def owner_given(facts: Facts, copy: Copy, between: Iterable[Instruction]) -> str | None:
    """Whom a RUN between a COPY and its new place gives the files to, all of them: the COPY has to say so itself then."""
    found = None
    for run in (i for i in between if i.keyword == "RUN"):
        for placed in facts.placed(run) or ():
            found = given_owner(placed, copy.roots) or found
    return found


def empties_cache(placed: Placed) -> bool:
    """Whether a command empties a package manager's cache, and nothing else."""
    gone = deleted((placed,))
    return (
        placed.command.name not in ("rm", "find")
        and bool(gone)
        and all(t.path.startswith(("cache:", "/var/cache")) for t in gone)
    )
