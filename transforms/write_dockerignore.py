"""Write a .dockerignore where there is none.

Why: Without one, `COPY . .` takes whatever lies in the folder: local packages for another system, caches, and a changed file
among them runs everything again.
Refuses: A file that is there (it is never touched), and each pattern that a COPY, a RUN or a manifest names, or that matches
committed files. `.git` is left out only where nothing can read it, and then only as an unsafe rewrite.
Source: Docker's documentation, ".dockerignore files".
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from optimizer.dockerfile.patterns import ignoring, read_ignore_file
from optimizer.facts.manifests import Application
from optimizer.facts.node import is_project_install
from optimizer.rewrite import Check, CompanionFile, FileChange, Refusal, Rewrite, Safety, decide
from optimizer.transform import Meta, Phase

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optimizer.dockerfile.document import Document
    from optimizer.facts import Facts
    from optimizer.facts.copies import Copy

PATH = ".dockerignore"
# What tools make again and nobody commits, by the manifest that says which tools are at work.
_JUNK = {
    "package.json": ("**/node_modules", "**/npm-debug.log*"),
    "requirements.txt": ("**/__pycache__", "**/*.pyc", "**/.venv", "**/.pytest_cache"),
    "pyproject.toml": ("**/__pycache__", "**/*.pyc", "**/.venv", "**/.pytest_cache"),
    "Pipfile": ("**/__pycache__", "**/*.pyc", "**/.venv", "**/.pytest_cache"),
}
_ALWAYS = ("**/.DS_Store", "**/.idea")
_DEPTH = 2
# What the image must make itself, if the folder's own is to be left out.
_MADE_BY = {
    "**/node_modules": re.compile(
        r"\b(?:npm|pnpm|bun)\s+(?:ci|i|install)\b(?![^&|;\n]*\s(?:-g|--global)\b)|\byarn(?:\s+install|\s+--|\s*$|\s*&&)",
        re.MULTILINE,
    ),
    "**/.venv": re.compile(r"\b(pip3?|uv|poetry|pipenv|pdm)\b"),
}
_DOCKERFILE = re.compile(r"(^|/)(Dockerfile|Containerfile)([._-][^/]*)?$|\.Dockerfile$", re.IGNORECASE)
_VERSIONED = re.compile(
    r"setuptools.scm|hatch.vcs|versioneer|pbr|git.describe|git.rev.parse|buildvcs|dunamai|GitVersion|\bgit\b",
    re.IGNORECASE,
)
_MANIFESTS = (
    "pyproject.toml",
    "setup.cfg",
    "setup.py",
    "package.json",
    "Makefile",
    "build.rs",
    "go.mod",
    ".goreleaser.yml",
)


class WriteDockerignore:
    meta = Meta.of(__name__, phase=Phase.CONTEXT, may_change=(), changes_files={FileChange.IGNORED})

    def rewrites(self, document: Document, facts: Facts) -> Iterator[Rewrite | Refusal]:
        copies = [c for stage in facts.built for c in facts.copies(stage) if not facts.is_windows(stage)]
        broad = next((c for c in copies if any(p.is_folder and p.source == "" for p in c.placements or ())), None)
        if broad is None or (facts.context.root is None and not facts.context.files):
            return
        if facts.context.ignore_path is not None:
            if PATH in facts.context.files and not facts.context.is_on_disk(PATH):  # written by this run
                yield from self._git(document, facts, broad, facts.context.files[PATH])
            return
        wanted = _patterns(facts)
        if not wanted:
            yield from self._git(document, facts, broad, "")
            return
        patterns = tuple(p for p in (*wanted, *_ALWAYS) if _is_harmless(document, facts, p, copies))
        here = facts.seen(broad.instruction, "copies the whole folder, and there is no .dockerignore")
        if not set(patterns) & set(wanted):
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

    def _git(self, document: Document, facts: Facts, broad: Copy, text: str) -> Iterator[Rewrite | Refusal]:
        """`.git` as well, on top of the `text` that this run has written."""
        if ".git\n" in text or facts.context.kind(".git") is None:
            return
        here = facts.seen(broad.instruction, "copies .git, and every commit changes it")
        decision = decide(Safety.SAFE, _git_checks(document, facts))
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


def _patterns(facts: Facts) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for path in facts.context.walk(""):
        if path.count("/") <= _DEPTH:
            found |= dict.fromkeys(_JUNK.get(path.rpartition("/")[2], ()))
    return tuple(found)


def _is_harmless(document: Document, facts: Facts, pattern: str, copies: list[Copy]) -> bool:
    """Whether no COPY names what the pattern matches, no command does, and nothing that is committed matches it."""
    word = pattern.removeprefix("**/").strip("*")
    texts = [*_others(facts), "\n".join(document.raw(i) for i in document.instructions)]
    if pattern in _MADE_BY and not all(_MADE_BY[pattern].search(text) for text in texts):
        return False  # they may be made outside and copied in
    if pattern == "**/node_modules" and not _installs_everywhere(facts):
        return False
    patterns = read_ignore_file(pattern)
    for copy in copies:
        if any(word.strip("/.") in source for source in copy.sources if word.strip("/.")):
            return False
    if any(word in text.replace("node_modules/.bin", "") for text in texts):
        return False
    matched = [path for path in facts.context.walk("") if ignoring(patterns, path) is not None]
    if not matched:
        return True
    return facts.context.is_git_ignored(matched)


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


def _others(facts: Facts) -> list[str]:
    """The texts of the other Dockerfiles of the context: one .dockerignore is for all of them."""
    paths = (path for path in facts.context.walk() if path != facts.context.dockerfile)
    return [facts.context.read(path) or "" for path in paths if _DOCKERFILE.search(path)]


def _git_checks(document: Document, facts: Facts) -> Iterator[Check]:
    if _VERSIONED.search("\n".join(document.raw(i) for i in document.instructions if i.keyword != "FROM")):
        yield Check("the Dockerfile uses git", holds=False)
    for path in _MANIFESTS:
        text = facts.context.read(path)
        if text is not None and (match := _VERSIONED.search(text)):
            seen = facts.seen_match(path, match, "names it")
            yield Check(f"{path} takes the version from git", holds=False, evidence=(seen,))
    yield Check("neither the build nor the application reads .git", holds=None)
