"""Run the program as a user who is not root.

Why: A flaw in a program that runs as root gives away the whole container, and every file that is mounted into it.
Refuses: Ports below 1024, volumes and mounted folders whose files belong to root, entrypoints that need root or give it up
themselves (gosu, su-exec, s6, cron, chown), the Docker socket, programs that were installed for root, paths that cannot be
owned, an image that asks for root.
Source: Docker's best practices, "USER"; hadolint DL3002.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from optimizer.contract import copy_entry, plain_entry
from optimizer.dockerfile.edit import Edit, Span
from optimizer.facts.started import DROPS_ROOT, How
from optimizer.facts.uses import ANYTHING, folder
from optimizer.layers import commands_in
from optimizer.rewrite import Aspect, Change, Check, Evidence, Refusal, Rewrite, Safety, decide
from optimizer.transform import Meta, Phase

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optimizer.dockerfile.document import Document, Stage
    from optimizer.dockerfile.instruction import Instruction
    from optimizer.facts import Facts
    from optimizer.facts.copies import Copy
    from optimizer.facts.images import Image
    from optimizer.facts.started import Started

NUMERIC = "10001:10001"
_DISTROLESS = "gcr.io/distroless/"
# Images whose entrypoint starts as root and gives it up, or whose program does.
_DROP_THEMSELVES = frozenset(
    "nginx httpd postgres mysql mariadb redis mongo caddy haproxy rabbitmq memcached php traefik".split()
)
_NEED_ROOT = re.compile(
    r"^(cron|crond|supervisord|s6-.*|init|runsvdir|systemctl|sshd|iptables|ip6tables|nft|sysctl|mount|chown|chgrp|apt-get|apt|apk|useradd"
    r"|usermod|groupmod|adduser|setcap|service|docker|dockerd|tcpdump|openvpn|nginx|apache2.*|httpd)$"
)
_MANAGERS = frozenset("pip pip3 npm yarn pnpm bundle bundler gem composer poetry uv pipenv cargo".split())
_FOR_ROOT = re.compile(
    r"/root\b|~/|\$HOME\b|pip[\d.]* install [^&|;]*--user\b|playwright install|nltk\.download|python -m nltk|spacy download"
    r"|puppeteer|huggingface-cli|rustup|nvm\b|pipx|\.cargo/|curl [^|]*\|\s*(ba)?sh"
)
# Programs that write beside their sources when they run, whoever starts them.
_WRITE_BESIDE = frozenset(
    "vite next nuxt ng react-scripts webpack webpack-dev-server gatsby storybook mvnw gradlew mvn gradle go cargo".split()
)
_ANYONE = re.compile(r"^/(tmp|var/tmp|dev|proc|run/secrets)(/|$)")
_SYSTEM = re.compile(r"^/(etc|usr|bin|sbin|lib|lib64|boot|root|sys|opt/venv|var/lib/(apt|dpkg))(/|$)|^/$")


@dataclass
class _Ownership:
    """What the user has to own: folders, and the copies that bring files into them; `homeless`: it wants a home folder."""

    folders: dict[str, Evidence] = field(default_factory=dict)
    copies: list[Copy] = field(default_factory=list)
    home: Evidence | None = None


class RunAsNonroot:
    meta = Meta.of(
        __name__,
        phase=Phase.USER,
        may_change={Aspect.USER, Aspect.COPIES, Aspect.COMMANDS, Aspect.BASE},
        settles=("DL3002",),
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
            if user in ("root", "0", "0:0", "root:root"):
                yield Refusal(self, "the image asks for root itself", (facts.seen(asked, "asks for it"),))
            return
        if (refusal := self._refusal(document, facts, stage, base)) is not None:
            yield refusal
            return
        yield self._proposal(document, facts, stage, base)

    # ---------------------------------------------------------------- what stands against it

    def _refusal(self, document: Document, facts: Facts, stage: Stage, base: Image | None) -> Refusal | None:
        if base is not None and base.name in _DROP_THEMSELVES:
            reason = f"{base.name} starts as root and gives root up by itself"
            return Refusal(self, reason, (facts.seen(stage.base, "is the base"),))
        answers = (
            *(self._by_instruction(document, facts, i) for i in facts.up_to(stage.instructions[-1])),
            self._by_service(facts, stage),
            *(self._by_program(started) for started in facts.application(stage).programs),
        )
        low = next(((port, seen) for port, seen in facts.application(stage).ports if port < 1024), None)
        if low is not None:
            reason = f"port {low[0]}: below 1024 a program that is not root may not listen everywhere"
            return Refusal(self, reason, (low[1],))
        return next((answer for answer in answers if answer is not None), None)

    def _by_instruction(self, document: Document, facts: Facts, instruction: Instruction) -> Refusal | None:
        raw = document.raw(instruction)
        if instruction.keyword == "VOLUME":
            reason = "the files of a volume that is in use already belong to root"
            return Refusal(self, reason, (facts.seen(instruction, "declares it"),))
        if instruction.keyword == "RUN" and (match := _FOR_ROOT.search(raw)):
            seen = facts.seen(instruction, "may leave files where only root reads them")
            return Refusal(self, f"something is installed for root alone (`{match[0][:30]}`)", (seen,))
        if "docker.sock" in raw:
            return Refusal(
                self, "the program speaks to Docker, which takes root", (facts.seen(instruction, "names its socket"),)
            )
        return None

    def _by_service(self, facts: Facts, stage: Stage) -> Refusal | None:
        for service in facts.context.services:
            if mount := next(iter(service.mounts), None):
                where = facts.context.shown_path(service.file)
                what = "Docker's socket" if mount.endswith("docker.sock") else f"{mount}, whose files may belong to root"
                seen = facts.seen(stage.base, "runs as root there")
                return Refusal(self, f"service {service.name} of {where} mounts {what}", (seen,))
        return None

    def _by_program(self, started: Started) -> Refusal | None:
        name = posixpath.basename(started.what or "")
        if name in DROPS_ROOT:
            return Refusal(self, f"`{name}` gives up root by itself", (started.seen,))
        if name in _MANAGERS and {"install", "add", "ci", "sync"} & set(started.words[1:3]):
            return Refusal(self, f"`{name}` installs packages when the container starts", (started.seen,))
        if _NEED_ROOT.match(name):
            return Refusal(self, f"`{name}` may need root", (started.seen,))
        if name in _WRITE_BESIDE:
            return Refusal(self, f"`{name}` writes beside its sources when it runs", (started.seen,))
        return None

    def _proposal(self, document: Document, facts: Facts, stage: Stage, base: Image | None) -> Rewrite | Refusal:
        owned = _ownership(facts, stage)
        if isinstance(owned, Check):
            return Refusal(self, owned.claim, owned.evidence)
        checks = [facts.context_check(), *_checks(facts, stage)]
        decision = decide(Safety.UNSAFE, checks)
        here = facts.seen(stage.base, "no USER stands in it: the program runs as root")
        if decision.failed is not None:
            return Refusal(self, decision.failed.claim, (here, *decision.failed.evidence))
        if base is not None and base.name.startswith(_DISTROLESS):
            if owned.folders:
                path, seen = next(iter(owned.folders.items()))
                return Refusal(self, f"{path} would have to belong to the user, and no shell can make it so", (seen,))
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
        users = base.users if base is not None else {}
        user = "node" if "node" in users else NUMERIC
        owner = "node:node" if user == "node" else NUMERIC
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
            lines += [f"mkdir -p {names}", f"chown {owner} {names}"]
        newline = document.source.newline
        text = ""
        if lines:
            script = f" && {document.escape}{newline}    ".join(lines)
            changes.append(Change(Aspect.COMMANDS, added=commands_in(" && ".join(lines))))
            text = f"RUN {script}{newline}"
        edits.append(_insert(document, stage, f"{text}USER {user}"))
        return tuple(edits), tuple(changes), user


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
        if path is None or _ANYONE.match(path):
            continue
        if path.startswith("~"):
            owned.home = owned.home or seen
            continue
        where = path.removesuffix(ANYTHING).rstrip("/") if path.endswith("/" + ANYTHING) else folder(path)
        if _is_folder_like(path):
            where = path
        if _SYSTEM.match(where):
            return Check(f"{where} cannot be given to the user: it writes there", holds=False, evidence=(seen,))
        owned.folders.setdefault(where, seen)
    for copy in copies:
        brings = any(_meets(root, where) for root in copy.roots for where in owned.folders)
        if brings and copy.instruction.flag("chown") is None and copy.instruction in stage.body:
            owned.copies.append(copy)
    return owned


def _is_folder_like(path: str) -> bool:
    return "." not in posixpath.basename(path) and not path.endswith(ANYTHING)


def _meets(root: str, where: str) -> bool:
    return root == where or root.startswith(where.rstrip("/") + "/")


def _checks(facts: Facts, stage: Stage) -> Iterator[Check]:
    application = facts.application(stage)
    computed = [seen for path, seen in application.writes if path is None]
    claim = "the paths that the program writes are known"
    yield Check(claim, holds=None if computed else True, evidence=tuple(computed[:1]))
    yield application.is_explained
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
