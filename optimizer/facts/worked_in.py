"""Whether an image is made for people to work in: such an image is not slimmed, whatever its files say.

What people type into a container stands in no file. An image that idles until somebody comes, that has the sources mounted
over it, or whose other stages compose starts, is kept as it is.
"""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING

from optimizer.dockerfile.shell import SHELLS
from optimizer.facts.started import How

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optimizer.dockerfile.document import Stage
    from optimizer.facts.facts import Facts
    from optimizer.facts.started import Started
    from optimizer.rewrite import Evidence

# Programs through which people work in a container: notebooks, editors, terminals, a shell over the network.
_WORKPLACES = frozenset(
    """jupyter jupyter-lab jupyter-notebook jupyterhub jupyterhub-singleuser notebook jupyterlab start-notebook.sh
    start-notebook.py start-singleuser.sh code-server openvscode-server theia rstudio-server rserver ttyd gotty wetty sshd
    dropbear""".split()
)
# What an entrypoint does besides idling.
_BESIDE_IDLING = frozenset(
    """sleep tail echo printf cat true : trap wait read date env exec test [ mkdir touch chmod chown set export cd id whoami
    tini dumb-init catatonit sudo ls pwd hostname""".split()
) | {*SHELLS}
_NEVER = re.compile(r"^(inf(inity)?|\d{5,}s?|\d{3,}m|\d{2,}h|\d+d)$")
# Endless waiting in the languages of `-c` and `-e`, and in a source that does nothing else.
_WAITS_FOR_EVER = re.compile(
    r"while\s*\(?\s*(True|true|1)\s*\)?\s*[:{;]?\s*(do\s+)?[^\n;{}]*\b(sleep|pass)\b"
    r"|setInterval\(\s*(function\s*\(\)|\(\s*\)\s*=>)\s*\{\s*\}|\bsignal\.pause\(\)|\bloop\s*(\{|do)\s*sleep\b|\bselect\s*\{\s*\}"
    r"|\bsleep(\s+|\()(inf(inity)?|\d{5,})"
)
_MAX_LINES_OF_WAITING, _MAX_CHARACTERS_OF_WAITING = 15, 2_000
# The body of a Go program that does nothing else.
_MAIN_WAITS = re.compile(
    r"\bfunc main\(\)\s*\{\s*(select\s*\{\s*\}|for\s*(true\s*)?\{\s*time\.Sleep\([^{}]*\)\s*\}|<-\s*make\(chan [^)]*\))\s*\}"
)
_DEVELOPMENT_CONTAINER = re.compile(r"(^|/)\.devcontainer/|devcontainer", re.IGNORECASE)
_ITS_DOCKERFILE = re.compile(r'"docker[fF]ile"\s*:\s*"([^"]+)"')
_ITS_SERVICE = re.compile(r'"service"\s*:\s*"([^"]+)"')


def worked_in(facts: Facts, stage: Stage) -> tuple[str, Evidence] | None:
    """Why people work in the image of `stage`, and the line that says so; None where nothing does."""
    return next(_reasons(facts, stage), None)


def _reasons(facts: Facts, stage: Stage) -> Iterator[tuple[str, Evidence]]:
    yield from _by_services(facts, stage)
    yield from _by_name(facts, stage)
    started = facts.application(stage).started
    for one in started:
        name = posixpath.basename(one.what or "")
        if one.how is How.PROGRAM and (name in _WORKPLACES or name.startswith("jupyter")):
            yield f"people work in it through {name}: what they call of the full image stands in no file", one.seen
    if (idle := _idle(facts, stage, started)) is not None:
        yield "it only waits until somebody works in it: what they call of the full image stands in no file", idle


def _by_services(facts: Facts, stage: Stage) -> Iterator[tuple[str, Evidence]]:
    """Services that mount the sources over the image, or start another stage on the same base."""
    workdir = f"{facts.end_state(stage).workdir or '-'}/"
    for service in facts.context.services:
        seen = facts.seen(stage.base, "is what it starts from")
        who = f"service {service.name} of {facts.context.shown_path(service.file)}"
        other = facts.stage_of_service(service)
        if other is stage and any(workdir.startswith(f"{mount.rstrip('/')}/") for mount in service.mounts):
            yield (
                f"{who} mounts the sources over the image: it is built to develop in, with the tools of the full image",
                seen,
            )
        shares = other is not None and other is not stage and not {*stage.ancestry}.isdisjoint(other.ancestry)
        if shares and service.target is not None:
            yield f"{who} starts the stage {service.target}, which is built on the same base", seen


def _by_name(facts: Facts, stage: Stage) -> Iterator[tuple[str, Evidence]]:
    """A development container, by its place, its base, or the file that describes it."""
    reason = "it is a development container: people work in it with the tools of the full image"
    if _DEVELOPMENT_CONTAINER.search(facts.document.path) or _DEVELOPMENT_CONTAINER.search(facts.reference(stage) or ""):
        yield reason, facts.seen(stage.base, "is its base")
    services = {service.name for service in facts.context.services if facts.stage_of_service(service) is stage}
    for path in (".devcontainer/devcontainer.json", ".devcontainer.json"):
        text = facts.context.read(path) or ""
        match = _ITS_DOCKERFILE.search(text)
        named = posixpath.normpath(posixpath.join(posixpath.dirname(path), match[1])) if match is not None else None
        if match is not None and named == facts.context.dockerfile:
            yield reason, facts.seen_match(path, match, "names it")
        service = _ITS_SERVICE.search(text)
        if service is not None and service[1] in services:
            yield reason, facts.seen_match(path, service, "names its service")


def _idle(facts: Facts, stage: Stage, started: tuple[Started, ...]) -> Evidence | None:
    """The line by which the image waits for ever, started by itself or by a service, where it does nothing else."""
    by_services = {one.seen.claim for one in started if one.seen.claim.startswith("service ")}
    for claim in sorted(by_services):
        if (idle := _only_waits(facts, stage, tuple(s for s in started if s.seen.claim == claim))) is not None:
            return idle
    if not facts.starts_something:
        return None  # what it starts is the base's own: a shell, or an interpreter
    own = tuple(one for one in started if one.seen.claim not in by_services)
    return _only_waits(facts, stage, own) or _shell_waits(facts, stage, own)


def _only_waits(facts: Facts, stage: Stage, started: tuple[Started, ...]) -> Evidence | None:
    """The line of what waits for ever among `started`; None where something else is done, too, or nothing waits."""
    waits: Evidence | None = None
    sources = {one.words for one in started if one.how in (How.PYTHON, How.NODE)}
    for one in started:
        if one.how is How.PROGRAM and one.words in sources:
            continue  # the interpreter of a source, which is looked at by itself
        if one.how in (How.PYTHON, How.NODE):
            if not _source_waits(facts, stage, one):
                return None
            waits = waits or one.seen
        elif one.how is How.PROGRAM or (one.how is How.UNKNOWN and one.words):
            name = posixpath.basename(one.words[0] if one.words else one.what or "")
            inline = re.search(r"(?:^|\s)-[ec]\s", " ".join((*one.words, ""))) is not None
            if _waits(one, name) or _main_waits(facts, stage, name) or (inline and _waits_for_ever(" ".join(one.words))):
                waits = waits or one.seen
            elif name not in _BESIDE_IDLING:
                return None
    return waits


def _waits(one: Started, name: str) -> bool:
    """Whether one command waits for ever, or is a shell that somebody has to type into."""
    args = one.words[1:]
    if name == "tail":
        return "/dev/null" in args and any(re.match(r"-\w*[fF]|--follow", arg) for arg in args)
    if name == "sleep":
        return any(_NEVER.match(arg) for arg in args)
    return name in SHELLS and all(re.fullmatch(r"-[il]+|--login", arg) for arg in args)


def _main_waits(facts: Facts, stage: Stage, name: str) -> bool:
    """Whether `name` is a program compiled from the context that does nothing but wait."""
    app = facts.application(stage)
    return name in app.compiled and any(_MAIN_WAITS.search(facts.context.read(path) or "") for path in app.compiled_sources)


def _source_waits(facts: Facts, stage: Stage, one: Started) -> bool:
    """Whether a source file does nothing but wait."""
    path = facts.application(stage).application.source(one.what)
    text = facts.context.read(path) or "" if path is not None else ""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith(("#", "//"))]
    return len(lines) <= _MAX_LINES_OF_WAITING and _waits_for_ever("\n".join(lines))


def _waits_for_ever(text: str) -> bool:
    """Whether a short program waits for ever. One that is longer does something else, and a long stretch of blanks would keep
    the pattern busy."""
    text = re.sub(r"\s+", lambda blanks: "\n" if "\n" in blanks[0] else " ", text)
    return len(text) <= _MAX_CHARACTERS_OF_WAITING and _WAITS_FOR_EVER.search(text) is not None


def _shell_waits(facts: Facts, stage: Stage, started: tuple[Started, ...]) -> Evidence | None:
    """The line of a loop of the shell that sleeps, where nothing else is done in it."""
    programs = {posixpath.basename(one.words[0]) for one in started if one.how is How.PROGRAM and one.words}
    if "sleep" not in programs or not programs <= _BESIDE_IDLING or any(one.how in (How.PYTHON, How.NODE) for one in started):
        return None
    for keyword in ("CMD", "ENTRYPOINT"):
        instruction = next((i for s in stage.ancestry if (i := s.last(keyword)) is not None), None)
        if instruction is not None and re.search(r"\bwhile\b|\buntil\b", instruction.value):
            return facts.seen(instruction, "waits for ever")
    return None
