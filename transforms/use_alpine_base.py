"""Start from the Alpine variant of the same base image, where `--base alpine` asks for it.

Why: Alpine images are the smallest with a shell and a package manager; package and user commands are put in its words.
Refuses: Anything compiled for glibc: packages without a build for musl, downloaded binaries; RUNs whose commands busybox may
not understand, Debian packages whose name in Alpine is not known, images that have no Alpine variant.
Source: docker-library/official-images, for the variants; Alpine's wiki, "Comparison with other distros"; `alpine.toml`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from optimizer.contract import plain_entry
from optimizer.dockerfile.edit import Edit, Span
from optimizer.facts.commands import apt_install, is_apt
from optimizer.facts.distributions import code_names
from optimizer.facts.images import Image, image, size_change, split, variant
from optimizer.facts.manifests import Application
from optimizer.facts.node_packages import install_addons, libc_bound
from optimizer.facts.packages import package_of, table
from optimizer.facts.python_packages import Requirement, compiled, installed, is_install, python_version, requirements
from optimizer.facts.slim import SlimNeeds
from optimizer.layers import commands_in
from optimizer.rewrite import Aspect, Change, Check, FileChange, Refusal, Rewrite, Safety, decide
from optimizer.transform import Meta, Phase

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optimizer.dockerfile.document import Document, Stage
    from optimizer.dockerfile.instruction import Instruction
    from optimizer.dockerfile.shell import Command
    from optimizer.facts import Facts
    from optimizer.rewrite import Evidence

_LISTS = re.compile(r"rm -rf? (/var/lib/apt/lists/?\*?( /tmp/\*| /var/tmp/\*)*|/var/cache/apt\S*)$")
_OWN = frozenset("pip pip3 python python3 node npm npx yarn corepack go ruby gem bundle php composer cargo java".split())
# Words of Debian, and of glibc, that mean nothing there: in the Dockerfile, and in scripts and settings that are copied.
_OF_DEBIAN = re.compile(
    r"\bwww-data\b|/etc/apt\b|/usr/lib/(x86_64|aarch64)-linux-gnu|\bLD_(PRELOAD|LIBRARY_PATH)\b|/usr/share/zoneinfo|\bsudo\b"
    r"|/usr/bin/(bash|tini|python3)\b|\bONBUILD\b|\bCGO_ENABLED=1\b|/etc/localtime|\bxargs apt|\bplaywright\b|\b(ctypes|cffi)\b"
    r"|\bdate [^|;&\n]*(-d|--date|%N)|\bhostname -[iI]\b|\bfind [^|;&\n]*-(printf|regextype)\b|\bxargs [^|;&\n]*-[da]\b"
    r"|\bsed [^|;&\n]*-[a-z]*[zs]\b|\bgrep [^|;&\n]*-[A-Za-z]*P"
)
_BASH_ELSEWHERE = re.compile(r"\bbash\b")
_SCRIPTS = re.compile(r"\.(sh|bash|py)$|(^|/)(package\.json|[^./]+)$")
# Folders whose files no C library has a part in.
_STATIC = re.compile(r"/(dist|build|public|static|out|html)/?(\s|$)")
# Options that busybox programs lack, or understand in another way.
_OF_GNU = re.compile(r"--\w|-[A-Za-z]*P[A-Za-z]*$")
# What differs and no build shows.
_CAVEATS = (
    "musl resolves names and sizes thread stacks in its own way: try it under load and in your own network",
    "docker exec ... bash no longer works, unless bash is installed",
)


@dataclass(frozen=True, slots=True)
class _Translated:
    """A RUN in Alpine's words: the commands that go and those that come, and the new script."""

    run: Instruction
    script: str
    removed: tuple[str, ...]
    added: tuple[str, ...]


class UseAlpineBase:
    meta = Meta.of(
        __name__,
        phase=Phase.BASE,
        may_change={Aspect.BASE, Aspect.COMMANDS},
        changes_files={FileChange.BASE, FileChange.PACKAGES},
    )

    def rewrites(self, document: Document, facts: Facts) -> Iterator[Rewrite | Refusal]:
        if facts.base_choice != "alpine" or facts.target is None or not facts.starts_something:
            return
        root = facts.shipped[-1]
        base = facts.image(root)
        if base is None or base.manager != "apt" or base.kind not in ("full", "slim") or "$" in root.image:
            return
        here = facts.seen(root.base, "is built on Debian")
        if base.name.startswith("mcr.microsoft.com/dotnet"):
            reason = "Alpine has no ICU: .NET needs icu-libs there, or InvariantGlobalization in the project"
            yield Refusal(self, reason, (here,))
            return
        name, tag = split(root.image)
        version, _, rest = tag.partition("-")
        pins = "@" in root.image or re.search(r"rc|alpha|beta", tag) is not None
        bare = "latest" if version in ("slim", *code_names()) else version
        if pins or (set(rest.split("-")) - {"", "slim", *code_names()}):
            yield Refusal(self, f"{tag} names one image, and which Alpine image would be the same is not known", (here,))
            return
        reference, reason = variant(f"{name}:{bare}", "alpine")
        if not reference:
            yield Refusal(self, reason, (here,))
        else:
            yield self._proposal(document, facts, root, base, reference)

    def _proposal(self, document: Document, facts: Facts, root: Stage, base: Image, reference: str) -> Rewrite | Refusal:
        here = facts.seen(root.base, "is built on Debian")
        runs = facts.runs_on(root)
        decision = decide(Safety.UNSAFE, (facts.context_check(), *_checks(facts, base, runs)))
        if decision.failed is not None:
            return Refusal(self, decision.failed.claim, (here, *decision.failed.evidence))
        translated: list[_Translated] = []
        for run in runs:
            found = _translate(document, facts, run)
            if isinstance(found, Check):
                return Refusal(self, found.claim, found.evidence)
            translated += [found] if found is not None else []
        wanted = _needed(facts)
        if isinstance(wanted, Check):
            return Refusal(self, wanted.claim, wanted.evidence)
        edits, changes = _edits(document, root, reference, *_with_packages(translated, tuple(sorted(wanted))))
        new = image(reference)
        return Rewrite(
            self,
            summary=f"{root.image} -> {reference}{size_change(base, new) if new is not None else ''}",
            safety=min(decision.safety, Safety.UNSAFE),
            edits=edits,
            evidence=(here, *wanted.values(), *decision.evidence),
            changes=changes,
            caveats=_CAVEATS,
            unknown=(*decision.unknown, "how the program fares with musl"),
            held=decision.held,
            implies=frozenset({Aspect.ENV}),
        )


def _edits(
    document: Document, root: Stage, reference: str, translated: list[_Translated], left: tuple[str, ...]
) -> tuple[tuple[Edit, ...], tuple[Change, ...]]:
    """The new base, the RUNs in Alpine's words, and a layer of its own for the packages that are `left`."""
    entry = plain_entry(root.base)
    edits = [Edit(root.base.words[0].span, reference)]
    changes = [Change(Aspect.BASE, removed=(entry,), added=(entry.replace(root.image, reference, 1),))]
    for item in translated:
        edits.append(document.replace(item.run, item.script) if item.script else _without(document, item.run))
        changes.append(Change(Aspect.COMMANDS, removed=item.removed, added=item.added))
    if left:
        text = f"apk add --no-cache {' '.join(left)}"
        gone = {item.run.index for item in translated if not item.script}
        ahead = (i for i in root.body if i.keyword not in ("ARG", "ENV", "LABEL", "WORKDIR") and i.index not in gone)
        at = next(ahead, root.body[-1])
        edits.append(document.insert_before(at, f"RUN {text}"))
        changes.append(Change(Aspect.COMMANDS, added=commands_in(text)))
    return tuple(edits), tuple(changes)


def _without(document: Document, run: Instruction) -> Edit:
    """Take out the lines of `run`; the comment above it stays, for what follows."""
    source = document.source
    first, last = source.line_index(run.span.start), source.line_index(run.span.end)
    return Edit(Span(source.line_starts[first], source.line_end(last)), "")


def _with_packages(translated: list[_Translated], names: tuple[str, ...]) -> tuple[list[_Translated], tuple[str, ...]]:
    """`names` added to the first `apk add` among the RUNs, and those that are left, where there is none."""
    for index, item in enumerate(translated):
        for text in item.added:
            if text.startswith("apk add") and names:
                new = " ".join([text, *(name for name in names if name not in text.split())])
                added = tuple(new if other == text else other for other in item.added)
                changed = _Translated(item.run, item.script.replace(text, new, 1), item.removed, added)
                return [*translated[:index], changed, *translated[index + 1 :]], ()
    return translated, names


def _checks(facts: Facts, base: Image, runs: tuple[Instruction, ...]) -> Iterator[Check]:
    assert facts.target is not None
    application = facts.application(facts.target)
    yield from _debian_words(facts)
    needs = SlimNeeds(facts, facts.target, base, runs)
    needs.look()
    for supply, seen in needs.supplies_used():
        yield Check(f"{supply.what}: which packages hold it on Alpine is not known", holds=False, evidence=(seen,))
    yield from application.unknown
    yield application.is_explained
    for copy in facts.up_to(facts.target.instructions[-1], "COPY"):
        flag = copy.flag("from")
        source = facts.document.stage_named(flag.value or "") if flag is not None else None
        found = facts.image(source) if source is not None else None
        is_other = flag is not None and source not in facts.shipped and (found is None or found.libc == "glibc")
        if flag is not None and is_other and _STATIC.search(copy.value) is None:
            seen = facts.seen(copy, "brings it")
            yield Check(f"what comes from {flag.value} may be built for glibc", holds=False, evidence=(seen,))
    for run in runs:
        inside = Application(facts, run)
        for placed in facts.placed(run) or ():
            if is_install(placed):
                yield from _python_checks(facts, base, run, requirements(inside, placed))
            if placed.command.name in ("curl", "wget"):
                seen = facts.seen_command(run, placed.command, "downloads")
                yield Check("what is downloaded may be compiled for glibc", holds=False, evidence=(seen,))
        for check, package in install_addons(facts, inside, run):
            bound = check.holds is not True or package != ""
            yield (
                Check(f"{package or 'a package'} may have no build for musl", holds=False, evidence=check.evidence)
                if bound
                else check
            )
        yield from libc_bound(facts, inside, run)


def _debian_words(facts: Facts) -> Iterator[Check]:
    """Words that only Debian knows, in the Dockerfile, in what it copies, and in probes of Kubernetes beside it."""
    assert facts.target is not None
    for instruction in facts.up_to(facts.target.instructions[-1]):
        if match := _OF_DEBIAN.search(_said(facts, instruction)):
            seen = facts.seen(instruction, f"names {match[0]}")
            yield Check(f"`{match[0][:40]}` is not known to work on Alpine", holds=False, evidence=(seen,))
    own = next((name for name in _system_users(facts) if _is_its_own_group(facts, name)), None)
    if own is not None:
        seen = facts.seen(facts.target.base, "is built on Debian")
        yield Check(f"a system user has no group of its own on Alpine: {own}:{own} would fail", holds=False, evidence=(seen,))
    followed = {path for path, _ in facts.application(facts.target).sources}
    for path in dict.fromkeys(f for c in facts.application(facts.target).application.copies for f in facts.files_of(c)):
        text = facts.context.read(path) or "" if _SCRIPTS.search(path) and "node_modules/" not in path else ""
        match = _OF_DEBIAN.search(text)
        match = match or (_BASH_ELSEWHERE.search(text) if path in followed or path.endswith("package.json") else None)
        if match is not None:
            seen = facts.seen_match(path, match, f"names {match[0]}")
            yield Check(f"`{match[0][:40]}` is not known to work on Alpine", holds=False, evidence=(seen,))


def _said(facts: Facts, instruction: Instruction) -> str:
    """What an instruction says, without comments and line breaks: its commands, or its words."""
    if commands := facts.commands(instruction):
        return "\n".join(map(str, commands))
    flags = (f"--{flag.name}={flag.value}" for flag in instruction.flags)
    return " ".join((instruction.keyword, *flags, instruction.value))


def _system_users(facts: Facts) -> Iterator[str]:
    """The system users that RUNs make."""
    for run in facts.runs:
        for command in facts.commands(run):
            if command.name in ("useradd", "adduser") and {"-r", "--system"} & set(command.args):
                yield command.args[-1]


def _is_its_own_group(facts: Facts, name: str) -> bool:
    """Whether something is given to a user and the group of the same name."""
    pair = f"{name}:{name}"
    owners = (flag.value for i in facts.document.instructions for flag in i.flags if flag.name == "chown")
    words = (arg for run in facts.runs for command in facts.commands(run) for arg in command.args)
    return pair in {*owners, *words, *(i.value for i in facts.document.instructions if i.keyword == "USER")}


def _python_checks(facts: Facts, base: Image, run: Instruction, found: tuple[Requirement, ...] | None) -> Iterator[Check]:
    if found is None:
        seen = facts.seen(run, "installs them")
        yield Check("the Python packages that are installed are not known", holds=False, evidence=(seen,))
        return
    python = python_version(base)
    for requirement, _ in compiled(found, python, musl=True):
        claim = f"{requirement.name} is not known to have a wheel for musl and this Python"
        yield Check(claim, holds=False, evidence=(requirement.seen,))
    everything = installed(found)
    for package in everything.packages:
        if package.has_wheel(None, python, musl=True) is not True or package.libraries:
            claim = f"{package.name} has no wheel for musl, or loads a library of the distribution"
            yield Check(claim, holds=False, evidence=everything.seen(package.name)[:1])
    if everything.unknown:
        yield Check(f"{everything.unknown[0]} is not in our table of wheels for musl", holds=False)


def _needed(facts: Facts) -> dict[str, Evidence] | Check:
    """The Alpine packages that hold what is started at run time and busybox lacks, each with its line."""
    assert facts.target is not None
    alpine, application = table("alpine"), facts.application(facts.target)
    base = facts.image(facts.target)
    found: dict[str, Evidence] = {}
    for started in application.programs:
        name = (started.what or "").rpartition("/")[2]
        if name in alpine["busybox"] or name in _OWN or (base is not None and name in base.programs):
            continue
        package = package_of(name, None)
        names = alpine["packages"].get(package) if package is not None else None
        if names is None and package is not None:
            return Check(f"which package of Alpine has `{name}` is not known", holds=False, evidence=(started.seen,))
        found |= dict.fromkeys(names or (), started.seen)
    for started in application.started:
        if started.what is not None and started.what.rpartition("/")[2] == "bash":
            found.setdefault("bash", started.seen)
    return found


# -------------------------------------------------------------------- RUNs in Alpine's words


def _translate(document: Document, facts: Facts, run: Instruction) -> _Translated | Check | None:
    """`run` in Alpine's words; None where it is the same there; a check that fails where it cannot be said."""
    script = facts.script(run)
    seen = facts.seen(run, "would have to run on busybox")
    if script is None or not facts.is_editable(run):
        return Check("a RUN cannot be read as a shell script", holds=False, evidence=(seen,))
    if "bash" in " ".join(facts.state(run).shell):
        return Check("a RUN uses a shell of its own", holds=False, evidence=(seen,))
    words: list[str] = []
    changed = False
    for command in script.commands:
        answer = _command(command)
        if answer is None:
            seen = facts.seen_command(run, command, "is not known to work on Alpine")
            return Check(f"`{str(command)[:60]}` is not known to work on Alpine", holds=False, evidence=(seen,))
        changed = changed or answer != [str(command)]
        words += answer
    if not changed:
        return None
    if not script.is_plain_chain or script.comments or run.line.inner_comments:
        return Check(
            "a RUN would have to be put in other words, and is no plain chain of commands", holds=False, evidence=(seen,)
        )
    joined = f" && {document.escape}{document.source.newline}    ".join(words)
    flags = "".join(f"--{f.name}={f.value} " for f in run.flags)
    return _Translated(
        run,
        f"RUN {flags}{joined}" if words else "",
        tuple(str(c) for c in script.commands),
        tuple(str(c) for text in words for c in commands_in(text)),
    )


def _command(command: Command) -> list[str] | None:
    """A command in Alpine's words, as none, one or more commands; None where it cannot be said."""
    if is_apt(command, "update", "clean", "autoclean", "autoremove") or _LISTS.match(str(command)):
        return []
    if (install := apt_install(command)) is not None:
        names = [table("alpine")["packages"].get(name) for name in install.packages]
        if not install.is_complete or None in names or "=" in " ".join(command.args):
            return None
        found = list(dict.fromkeys(name for group in names for name in group or ()))
        return [f"apk add --no-cache {' '.join(found)}"] if found else []
    if command.name in ("echo", "printf") and any("\\" in arg or arg.startswith("-") for arg in command.args):
        return None  # ash reads backslashes where dash and bash do not
    if command.name in ("useradd", "adduser", "groupadd", "addgroup"):
        return _person(command)
    if command.name in table("alpine")["busybox"] and any(_OF_GNU.match(arg) for arg in command.args):
        return None
    known = command.name in _OWN or command.name in table("alpine")["busybox"] or command.name == ""
    return [str(command)] if known else None


def _person(command: Command) -> list[str] | None:
    """A new user or group in busybox's words."""
    args = list(command.args)
    options = {
        "-u": "-u",
        "--uid": "-u",
        "-d": "-h",
        "--home-dir": "-h",
        "--home": "-h",
        "-s": "-s",
        "--shell": "-s",
        "-g": "-G",
        "--gid": "-G",
    }
    group = command.name in ("groupadd", "addgroup")
    if group:
        options = {"-g": "-g", "--gid": "-g"}
    out, makes_home, name = [], False, ""
    while args:
        arg = args.pop(0)
        option, equals, value = arg.partition("=")
        if option in options and (equals or args):
            value = value if equals else args.pop(0)
            if (options[option] == "-G" and re.match(r"[\d$]", value)) or (group and re.match(r"\d{1,3}$", value)):
                return None  # busybox takes a group by its name alone; low numbers are taken there
            out += [options[option], value]
        elif arg in ("-r", "--system"):
            out.append("-S")
        elif arg in ("-m", "--create-home"):
            makes_home = True
        elif arg in ("-M", "--no-create-home", "-N", "--no-user-group", "--disabled-password", "-l", "--no-log-init"):
            continue
        elif arg in ("--gecos", "-c", "--comment") and args:
            args.pop(0)
        elif arg.startswith("-") or name:
            return None
        else:
            name = arg
    if not name:
        return None
    if group:
        return [" ".join(["addgroup", *out, name])]
    keeps = [] if makes_home or command.name == "adduser" else ["-H"]
    return [" ".join(["adduser", "-D", *keeps, *out, name])]
