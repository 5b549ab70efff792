"""Write a .dockerignore where there is none.

Why: Without one, `COPY . .` takes whatever lies in the folder: local packages for another system, caches, and a changed file
among them runs everything again.
Refuses: A file that is there (it is never touched), each pattern that a COPY, a RUN or a manifest names, or that matches
committed files, and a file that would leave out nothing of weight. `.git` is left out where nothing reads it; where that is not
known, it is an unsafe rewrite of its own.
Source: Docker's documentation, ".dockerignore files".
"""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING

from optimizer.dockerfile.document import Document
from optimizer.dockerfile.patterns import clean, ignoring, read_ignore_file
from optimizer.dockerfile.scan import DockerfileError
from optimizer.facts import Facts
from optimizer.facts.context import DOCKERFILE
from optimizer.facts.manifests import Application
from optimizer.facts.node import is_project_install
from optimizer.facts.python_packages import is_install
from optimizer.rewrite import Check, CompanionFile, FileChange, Refusal, Rewrite, Safety, decide
from optimizer.transform import Meta, Phase

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optimizer.dockerfile.instruction import Instruction
    from optimizer.dockerfile.shell import Command
    from optimizer.facts.copies import Copy
    from optimizer.rewrite import Decision

PATH = ".dockerignore"
# What tools make again and nobody commits, by the manifest that says which tools are at work.
_OF_NODE = ("**/node_modules", "**/npm-debug.log*")
_OF_PYTHON = ("**/__pycache__", "**/*.pyc", "**/.venv", "**/venv", "**/.pytest_cache", "**/.mypy_cache")
_JUNK = {
    "package.json": _OF_NODE,
    **dict.fromkeys(("requirements.txt", "pyproject.toml", "Pipfile", "setup.py"), _OF_PYTHON),
}
_ALWAYS = ("**/.DS_Store", "**/.idea")
# Lines for whose sake a file is worth having.
_WORTH_IT = frozenset({".git", "**/node_modules", "**/__pycache__", "**/.venv"})
_DEPTH = 2
_ENVIRONMENTS = frozenset({"**/.venv", "**/venv"})
# What reads .git, in a build or at run time: git itself, and what asks it for a version, a date or a list of files.
_READS_GIT = re.compile(
    r"(?<![\w./-])\.git(?![\w.-])"
    r"|\bgit[\"', ]+(describe|rev-parse|log|show|status|tag|branch|ls-files|rev-list|config|submodule)\b"
    r"|\b(simple-git|isomorphic-git|nodegit|go-git|GitPython|pygit2|dulwich|setuptools[-_.]scm|hatch[-_.]vcs|versioneer"
    r"|versioningit|dunamai|git-revision|git-rev-sync|git-commit-id|gitinfo|git_info|GitInfo|buildvcs|ReadBuildInfo|vergen"
    r"|shadow-rs|grgit|jgit|GitVersion|MinVer|nbgv|lastUpdated|showLastUpdate\w*|@sentry/|pbr)\b|^import git\b",
    re.MULTILINE,
)
# Compilers that stamp the version control's state into what they build, whether or not a source asks for it.
_STAMPS = frozenset({"go", "dotnet", "cargo", "mvn", "gradle", "mvnw", "gradlew"})


class WriteDockerignore:
    meta = Meta.of(__name__, phase=Phase.CONTEXT, may_change=(), changes_files={FileChange.IGNORED})

    def rewrites(self, document: Document, facts: Facts) -> Iterator[Rewrite | Refusal]:  # noqa: ARG002 - the protocol's
        copies = [c for stage in facts.built for c in facts.copies(stage) if not facts.is_windows(stage)]
        broad = next((c for c in copies if _is_broad(facts, c)), None)
        if broad is None or (facts.context.root is None and not facts.context.files):
            return
        if facts.context.ignore_path is not None:
            if PATH in facts.context.files and not facts.context.is_on_disk(PATH):  # written by this run
                yield from self._git(facts, broad, facts.context.files[PATH])
            return
        wanted = _patterns(facts)
        if not wanted:
            yield from self._git(facts, broad, "")
            return
        has_git = facts.context.kind(".git") is not None
        git = (".git",) if has_git and _git_decision(facts).safety is Safety.SAFE else ()
        at_top = any(p.is_folder and p.source == "" for p in broad.placements or ()) or "*" in map(clean, broad.sources)
        itself = (PATH,) if at_top else ()  # a wildcard takes dot files, too
        patterns = (*git, *(p for p in (*wanted, *_ALWAYS, *itself) if _is_harmless(facts, p, copies)))
        here = facts.seen(broad.instruction, "copies a whole folder, and there is no .dockerignore")
        if _WORTH_IT.isdisjoint(patterns):
            yield Refusal(self, "everything that one would leave out is named by the Dockerfile or committed", (here,))
            return
        decision = decide(Safety.SAFE, (facts.context_check(),))
        yield Rewrite(
            self,
            summary=f"a .dockerignore, so that {', '.join(p.removeprefix('**/') for p in patterns)} never get into the image",
            safety=decision.safety,
            edits=(),
            evidence=(here,),
            unknown=decision.unknown,
            held=decision.held,
            files=(CompanionFile(PATH, "".join(f"{pattern}\n" for pattern in patterns)),),
        )

    def _git(self, facts: Facts, broad: Copy, text: str) -> Iterator[Rewrite | Refusal]:
        """`.git` as well, on top of the `text` that this run has written."""
        if ".git\n" in text or facts.context.kind(".git") is None:
            return
        here = facts.seen(broad.instruction, "copies .git, and every commit changes it")
        decision = _git_decision(facts)
        if decision.failed:
            yield Refusal(self, decision.failed.claim, (here, *decision.failed.evidence))
            return
        yield Rewrite(
            self,
            summary="the .dockerignore keeps .git out too: history is not shipped, and a commit alone runs nothing again",
            safety=decision.safety,
            edits=(),
            evidence=(here,),
            unknown=decision.unknown,
            held=decision.held,
            files=(CompanionFile(PATH, f".git\n{text}"),),
        )


def _is_broad(facts: Facts, copy: Copy) -> bool:
    """Whether a copy takes a whole folder in which tools leave what nobody commits: the context, or a project below it; also
    as `folder/*`."""
    whole = {placement.source for placement in copy.placements or () if placement.is_folder}
    every = {clean(posixpath.dirname(source)) for source in copy.sources if posixpath.basename(source) == "*"}
    return "" in whole or any(name in _JUNK for folder in (*whole, *every) for name in facts.context.names(folder))


def _patterns(facts: Facts) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for path in facts.context.walk(""):
        if path.count("/") <= _DEPTH:
            found |= dict.fromkeys(_JUNK.get(path.rpartition("/")[2], ()))
    return tuple(found)


def _is_harmless(facts: Facts, pattern: str, copies: list[Copy]) -> bool:
    """Whether no COPY names what the pattern matches, no command does, and nothing that is committed matches it."""
    word = pattern.removeprefix("**/").strip("*")
    others = [facts, *_others(facts)]
    if pattern == "**/node_modules" and not (all(map(_installs_node, others)) and _installs_everywhere(facts)):
        return False  # they may be made outside and copied in
    if pattern in _ENVIRONMENTS and not all(map(_installs_python, others)):
        return False
    patterns = read_ignore_file(pattern)
    for copy in copies:
        if any(word.strip("/.") in source for source in copy.sources if word.strip("/.")):
            return False
    if any(_names(text, word) for other in others for text in _texts(other, pattern)):
        return False
    matched = [path for path in facts.context.walk("") if ignoring(patterns, path) is not None]
    if not matched:
        return True
    return facts.context.is_git_ignored(matched)


def _texts(facts: Facts, pattern: str) -> Iterator[str]:
    """The instructions of a Dockerfile in which a word would name what lies in the build context: of packages, which the image
    installs itself, only those that take files out of it."""
    for instruction in facts.document.instructions:
        is_taken = instruction.keyword in ("COPY", "ADD") and instruction.flag("from") is None
        is_taken = is_taken or any(mount.kind == "bind" and "from" not in mount.options for mount in instruction.mounts)
        if pattern != "**/node_modules" or is_taken:
            yield facts.document.raw(instruction)


def _names(text: str, word: str) -> bool:
    """Whether a text names a file or folder; `venv` is a word of commands, too (`python -m venv`), and a folder elsewhere."""
    if word == "venv":
        return re.search(r"(?<![\w./-])(\./)?venv/|COPY\s+venv\b", text) is not None
    return word in text


def _installs_node(facts: Facts) -> bool:
    return any(is_project_install(placed) for run in facts.runs for placed in facts.placed(run) or ())


def _installs_python(facts: Facts) -> bool:
    return any(is_install(placed) for run in facts.runs for placed in facts.placed(run) or ())


def _installs_everywhere(facts: Facts) -> bool:
    """Whether the image runs an install where each package.json lands, or above it for workspaces."""
    installed: set[str] = set()
    for run in facts.runs:
        application = Application(facts, run)
        for placed in facts.placed(run) or ():
            project = application.project(placed, "package.json") if is_project_install(placed) else None
            if project is not None:
                installed.add(project.folder)
    manifests = [p for p in facts.context.walk() if p.rpartition("/")[2] == "package.json" and p.count("/") <= _DEPTH]
    folders = {path.rpartition("/")[0] for path in manifests if "node_modules" not in path.split("/")}
    return all(any(folder == top or folder.startswith(f"{top}/" if top else "") for top in installed) for folder in folders)


def _others(facts: Facts) -> list[Facts]:
    """The facts about the other Dockerfiles of the context: one .dockerignore is for all of them."""
    found = []
    for path in facts.context.walk():
        text = facts.context.read(path) if path != facts.context.dockerfile and DOCKERFILE.search(path) else None
        if text is not None:
            try:
                document = Document.parse(text.encode("utf-8", "surrogateescape"), path)
            except DockerfileError:
                continue  # what cannot be read builds nothing
            found.append(Facts(document, facts.context))
    return found


def _has_git(facts: Facts, run: Instruction, command: Command) -> bool:
    """Whether a compiler finds the git that it asks for the commit; Go leaves the stamp out where there is none."""
    base = facts.image(facts.document.stage_of(run))
    if command.name != "go" or base is None or base.kind != "alpine":
        return True
    earlier = (c for i in facts.up_to(run, "RUN") for c in facts.commands(i))
    return any(c.name == "apk" and {"git", "build-base", "alpine-sdk"} & set(c.args) for c in earlier)


def _git_decision(facts: Facts) -> Decision:
    return decide(Safety.SAFE, _git_checks(facts))


def _git_checks(facts: Facts) -> Iterator[Check]:
    """Whether something reads .git: a command of a Dockerfile, a source, a manifest, or a compiler that stamps."""
    yield facts.context_check()
    for other in (facts, *_others(facts)):
        for instruction in other.document.instructions:
            if instruction.keyword != "FROM" and (match := _READS_GIT.search(other.document.raw(instruction))) is not None:
                seen = other.seen(instruction, f"names {match[0].strip()}")
                yield Check("the Dockerfile uses git", holds=False, evidence=(seen,))
        commands = ((run, command) for run in other.runs for command in other.commands(run))
        stamping = next(((run, c) for run, c in commands if c.name in _STAMPS and _has_git(other, run, c)), None)
        if stamping is not None:
            seen = other.seen_command(*stamping, "may stamp the commit into what it builds")
            yield Check(f"`{stamping[1].name}` stamps no commit that is used", holds=None, evidence=(seen,))
    mentioned = facts.context.mentions(_READS_GIT)
    claim = "no file of the build context reads .git, or asks git for anything"
    if isinstance(mentioned, bool):
        yield Check(claim, holds=None if mentioned else True)
        return
    path, line = mentioned
    seen = facts.seen_in(path, "speaks of git", line=line)
    if path.rpartition("/")[2] in _MANIFESTS:
        yield Check(f"{path} takes the version from git", holds=False, evidence=(seen,))
    else:
        yield Check(claim, holds=None, evidence=(seen,))


_MANIFESTS = frozenset("""pyproject.toml setup.cfg setup.py package.json Makefile build.rs go.mod .goreleaser.yml""".split())
