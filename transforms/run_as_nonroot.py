"""Run the program as a user who is not root.

Why: A flaw in a program that runs as root gives away the whole container, and every file that is mounted into it.
Refuses: Ports below 1024, volumes and mounted folders whose files belong to root, entrypoints and sources that need root or
give it up themselves (gosu, su-exec, s6, cron, chown, setuid), the Docker socket, services that compose gives more than a
container has, programs and files that are root's alone, paths that cannot be owned, an image that asks for root.
Source: Docker's best practices, "USER"; hadolint DL3002.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from optimizer.contract import copy_entry, plain_entry
from optimizer.dockerfile.edit import Edit, Span
from optimizer.facts.application import started_by
from optimizer.facts.images import is_distroless
from optimizer.facts.places import ANYONES, ROOTS_OWN
from optimizer.facts.root import objections
from optimizer.facts.started import UNREAD, How
from optimizer.facts.state import is_root
from optimizer.facts.uses import ANYTHING, folder
from optimizer.layers import commands_in
from optimizer.rewrite import Aspect, Change, Check, Evidence, FileChange, Refusal, Rewrite, Safety, decide
from optimizer.transform import Meta, Phase

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optimizer.dockerfile.document import Document, Stage
    from optimizer.facts import Facts
    from optimizer.facts.copies import Copy
    from optimizer.facts.images import Image

NUMERIC = "10001:10001"
_OF_DISTROLESS = "65532:65532"
# What fails where a user has no entry in /etc/passwd.
_ASKS_FOR_NAME = re.compile(r"\bgetpass\.getuser|\bpwd\.getpw|\bos\.getlogin|\bos\.userInfo\(|\buser\.Current\(")
# Calls by which JavaScript and Python write files.
_WRITES = re.compile(
    r"\b(writeFile|createWriteStream|appendFile|mkdir|unlink|rename|copyFile|makedirs|write_text|write_bytes)(Sync)?\(|open\([^)]*['\"][wax]b?\+?['\"]"
)
_PLAIN_PATH = re.compile(r"[\w./@+-]+")


@dataclass
class _Ownership:
    """What the user has to own, folders and the copies that bring files into them.

    `home`: what wants a home folder; `present`: folders that are there.
    """

    folders: dict[str, Evidence] = field(default_factory=dict)
    copies: list[Copy] = field(default_factory=list)
    home: Evidence | None = None
    present: set[str] = field(default_factory=set)


class RunAsNonroot:
    meta = Meta.of(
        __name__,
        phase=Phase.USER,
        may_change={Aspect.USER, Aspect.COPIES, Aspect.COMMANDS, Aspect.BASE},
        settles=("DL3002",),
        changes_files={FileChange.ADDED, FileChange.BASE, FileChange.OWNER},
    )

    def rewrites(self, document: Document, facts: Facts) -> Iterator[Rewrite | Refusal]:
        stage = facts.target
        base = facts.image(stage) if stage is not None else None
        if stage is None or facts.is_windows(stage) or (base is None and facts.reference(stage) != "scratch"):
            return
        user = facts.end_state(stage).user
        if not facts.starts_something or (base is not None and base.user):
            return
        asked = next((i for s in stage.ancestry for i in reversed(s.body) if i.keyword == "USER"), None)
        if asked is not None:
            if is_root(user):
                yield Refusal(self, "the image asks for root itself", (facts.seen(asked, "asks for it"),))
            return
        if (objection := next(objections(facts, stage), None)) is not None:
            yield Refusal(self, objection[0], (objection[1],))
            return
        yield self._proposal(document, facts, stage, base)

    def _proposal(self, document: Document, facts: Facts, stage: Stage, base: Image | None) -> Rewrite | Refusal:
        owned = _ownership(facts, stage)
        if isinstance(owned, Check):
            return Refusal(self, owned.claim, owned.evidence)
        checks = [facts.context_check(), *_checks(facts, stage, owned)]
        decision = decide(Safety.UNSAFE, checks)
        here = facts.seen(stage.base, "no USER stands in it: the program runs as root")
        if decision.failed is not None:
            return Refusal(self, decision.failed.claim, (here, *decision.failed.evidence))
        odd = next((path for path in owned.folders if not _PLAIN_PATH.fullmatch(path)), None)
        if odd is not None:
            return Refusal(self, f"`{odd}` cannot be named in a command as it stands", (owned.folders[odd],))
        if re.search(r"python|pwsh", " ".join(facts.end_state(stage).shell)):
            return Refusal(self, "the shell of its RUNs is of another kind", (here,))
        has_no_shell = base is None or facts.reference(stage) == "scratch" or is_distroless(base.name)
        if has_no_shell and (owned.folders or owned.home is not None):
            path, seen = next(iter(owned.folders.items()), ("a home folder", owned.home or here))
            return Refusal(self, f"{path} would have to belong to the user, and no shell can make it so", (seen,))
        if base is not None and is_distroless(base.name) and self._has_nonroot_tag(stage):
            edits, changes, user = self._nonroot_tag(stage)
        else:
            edits, changes, user = self._with_user(document, stage, base, owned)
        return Rewrite(
            self,
            summary=f"runs as {user}, not as root",
            safety=decision.safety,
            edits=edits,
            evidence=(here, *owned.folders.values(), *decision.evidence),
            changes=changes,
            caveats=("files that are mounted into the container must be readable for that user",),
            unknown=(*decision.unknown, "what is mounted into the container, and whose files those are"),
            held=decision.held,
            implies=frozenset({Aspect.USER}),
        )

    # ---------------------------------------------------------------- the edits

    def _has_nonroot_tag(self, stage: Stage) -> bool:
        """Whether the tag can be swapped: one without a digest, an architecture or a variable, where a WORKDIR is set, since
        such tags have another."""
        is_plain = re.fullmatch(r"[^:@$]+(:(latest|debug))?", stage.base.words[0].text) is not None
        return is_plain and stage.parent is None and any(i.keyword == "WORKDIR" for i in stage.body)

    def _nonroot_tag(self, stage: Stage) -> tuple[tuple[Edit, ...], tuple[Change, ...], str]:
        """Distroless images have a tag of their own for this."""
        image = stage.base.words[0]
        name, _, tag = image.text.partition(":")
        new = f"{name}:{'debug-nonroot' if tag == 'debug' else 'nonroot'}"
        before = plain_entry(stage.base)
        change = Change(Aspect.BASE, removed=(before,), added=(before.replace(image.text, new, 1),))
        return (Edit(image.span, new),), (change,), "nonroot (65532)"

    def _with_user(
        self, document: Document, stage: Stage, base: Image | None, owned: _Ownership
    ) -> tuple[tuple[Edit, ...], tuple[Change, ...], str]:
        user = _user(base)
        owner = "node:node" if user == "node" else user
        edits: list[Edit] = []
        changes = [Change(Aspect.USER, added=(user,))]
        for copy in owned.copies:
            edit, change = _chowned(copy, owner)
            edits.append(edit)
            changes.append(change)
        lines: list[str] = []
        if owned.home is not None and user == NUMERIC and base is not None:
            alpine = base.distribution == "alpine"
            lines.append("adduser -D -u 10001 app" if alpine else "useradd --create-home --uid 10001 app")
        if owned.folders:
            names = " ".join(owned.folders)
            made = [path for path in owned.folders if path not in owned.present]
            lines += [f"mkdir -p {' '.join(made)}"] if made else []
            lines.append(f"chown {owner} {names}")
        newline = document.source.newline
        text = ""
        if lines:
            script = f" && {document.escape}{newline}    ".join(lines)
            changes.append(Change(Aspect.COMMANDS, added=commands_in(" && ".join(lines))))
            text = f"RUN {script}{newline}"
        edits.append(_insert(document, stage, f"{text}USER {user}"))
        return tuple(edits), tuple(changes), user


def _user(base: Image | None) -> str:
    """The user that a base has for this, or a number that nobody has."""
    if base is not None and "node" in base.users:
        return "node"
    return _OF_DISTROLESS if base is not None and is_distroless(base.name) else NUMERIC


def _insert(document: Document, stage: Stage, text: str) -> Edit:
    """`text` behind the last instruction that runs or copies, in front of what is started."""
    last = max((i.index for i in stage.body if i.keyword in ("RUN", "COPY", "ADD", "WORKDIR")), default=-1)
    at = next((i for i in stage.body if i.index > last and i.keyword in ("ENTRYPOINT", "CMD")), None)
    if at is not None:
        return document.insert_before(at, text)
    end = document.source.line_end(document.source.line_index(stage.instructions[-1].span.end))
    newline = document.source.newline
    has_end = end < len(document.source.text) or document.source.text.endswith("\n")
    return Edit(Span(end, end), text + newline if has_end else newline + text)


def _chowned(copy: Copy, owner: str) -> tuple[Edit, Change]:
    """`copy` with the files given to `owner`."""
    instruction = copy.instruction
    at = instruction.span.start + len(instruction.keyword)
    before = copy_entry(instruction)
    after = before.replace(instruction.keyword, f"{instruction.keyword} --chown={owner}", 1)
    return Edit(Span(at, at), f" --chown={owner}"), Change(Aspect.COPIES, removed=(before,), added=(after,))


# -------------------------------------------------------------------- what it writes


def _ownership(facts: Facts, stage: Stage) -> _Ownership | Check:
    """What the user has to own; or the path that it cannot."""
    owned = _Ownership()
    copies = facts.copies_before(stage.instructions[-1], including=True)
    application = facts.application(stage)
    for path, seen in application.writes:
        if path is None or ANYONES.match(path):
            continue
        if path.startswith("~"):
            owned.home = owned.home or seen
            continue
        where = path.removesuffix(ANYTHING).rstrip("/") if path.endswith("/" + ANYTHING) else folder(path)
        if _is_folder_like(path) and posixpath.dirname(path) == "/":
            where = path
        if ROOTS_OWN.match(where) or not where:
            return Check(f"{where} cannot be given to the user: it writes there", holds=False, evidence=(seen,))
        owned.folders.setdefault(where, seen)
    for path, _ in application.sources if owned.home is None else ():
        if match := _ASKS_FOR_NAME.search(facts.context.read(path) or ""):
            owned.home = facts.seen_match(path, match, "asks for the user's name, or home")
            break
    states = (*(facts.state(i) for s in stage.ancestry for i in s.body), facts.end_state(stage))
    owned.present = {state.workdir for state in states if state.workdir is not None}
    for copy in copies:
        brings = any(_meets(root, where) for root in copy.roots for where in owned.folders)
        chown = copy.instruction.flag("chown")
        owner = (chown.value or "").partition(":")[0] if chown is not None else None
        if not brings or owner == _user(facts.image(stage)).partition(":")[0]:
            continue
        if owner is not None or copy.instruction not in stage.body:
            seen = facts.seen(copy.instruction, "brings files there that belong to somebody else")
            return Check("files that it writes beside would not be the user's", holds=False, evidence=(seen,))
        owned.copies.append(copy)
    return owned


def _is_folder_like(path: str) -> bool:
    return "." not in posixpath.basename(path) and not path.endswith(ANYTHING)


def _meets(root: str, where: str) -> bool:
    return root == where or root.startswith(where.rstrip("/") + "/")


def _checks(facts: Facts, stage: Stage, owned: _Ownership) -> Iterator[Check]:
    application = facts.application(stage)
    computed = [seen for path, seen in application.writes if path is None]
    claim = "the paths that the program writes are known"
    yield Check(claim, holds=None if computed else True, evidence=tuple(computed[:1]))
    yield application.is_explained
    writing = next(
        (
            path
            for path in application.built_sources
            if not path.endswith(".go") and _WRITES.search(facts.context.read(path) or "")
        ),
        None,
    )
    if writing is not None:
        seen = facts.seen_in(writing, "is built in another stage, and writes")
        yield Check("the paths that the built sources write are known", holds=None, evidence=(seen,))
    for run in facts.shipped_runs() if owned.folders else ():
        started = next((s for s in started_by(facts, run) if s.how in (How.PYTHON, How.NODE)), None)
        if started is not None:
            claim = "no file that a RUN leaves behind, and that is root's, is written"
            yield Check(claim, holds=None, evidence=(started.seen,))
    unread = next((s for s in application.programs if posixpath.basename(s.what or "") in UNREAD), None)
    if unread is not None:
        claim = f"what the sources of {unread.what} write and listen on is known"
        yield Check(claim, holds=None, evidence=(unread.seen,))
    unknown = next((s for s in application.started if s.how is How.UNKNOWN), None)
    if unknown is not None:
        yield Check("everything that the container starts can be told", holds=None, evidence=(unknown.seen,))
    workdir = facts.end_state(stage).workdir or ""
    if workdir == "/root" or workdir.startswith("/root/"):
        yield Check("the working directory is root's own home", holds=False, evidence=(facts.seen(stage.base, workdir),))
    private = next((f for c in facts.copies(stage) for f in facts.files_of(c) if facts.context.is_private(f)), None)
    if private is not None:
        seen = facts.seen_in(private, "can be read by its owner alone")
        yield Check("a file that is copied can be read by its owner alone", holds=False, evidence=(seen,))
