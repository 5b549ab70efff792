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
from optimizer.facts.application import started_by
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
_PRIVILEGED = 1024  # ports below it
_LOW = "below 1024 a program that is not root may not listen everywhere"
# Low ports as sources and settings write them.
_LOW_PORT = re.compile(
    r"""\blisten\(\s*(?P<listen>80|443)\b|\bport["']?\s*[:=]\s*(?P<key>80|443)\b|["'](?:[\w.]*|\[::\]):(?P<address>80|443)["']"""
    r"""|["']\w*PORT["']\s*[,)]+\s*(?:or\s*)?["']?(?P<default>80|443)\b|PORT\s*(?:\|\||\?\?)\s*(?P<or>80|443)\b""",
    re.IGNORECASE,
)
_OF_DISTROLESS = "65532:65532"
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
    r"/root\b|~/|\$HOME\b|pip[\d.]* [^&|;]*install [^&|;]*--user\b|playwright install|nltk\.download|python -m nltk|uv python"
    r"|uv sync [^&|;]*--python"
    r"|puppeteer|huggingface-cli|rustup|nvm\b|pipx|\.cargo/|(curl|wget) [^|]*\|\s*(ba)?sh"
    r"|git config --global|from_pretrained|snapshot_download"
)
_POETRY = re.compile(r"\bpoetry (install|sync)\b")
_POETRY_PLACE = re.compile(r"virtualenvs\.(create|in-project|path)|POETRY_VIRTUALENVS_")
# What makes files that only their owner reads.
_PRIVATE = re.compile(
    r"\bchmod (-R )?(0?[1-7]00|[ug]*o-r\w*|go-\w+)\b|--chmod=0?[1-7]00\b|\bumask 0?[0-7]?77\b|\bssh-keygen\b"
    r"|\bopenssl (genrsa|genpkey|req)\b"
    r"|\binstall [^&|;]*-m ?0?[1-7]00\b|\bmktemp\b"
)
# What decides which users and groups there are: some are deleted, or take the name or number that would be ours.
_PEOPLE = re.compile(r"\b(deluser|userdel|delgroup|groupdel)\b|\b10001\b|\b(useradd|adduser|addgroup|groupadd)\b[^&|;]*\bapp\b")
# Sources that give root up, or that need it.
_AS_ROOT = re.compile(
    r"\b(os\.set(re|res)?[ug]id|os\.(initgroups|setgroups|l?chown|fchown|mknod|mount)|shutil\.chown|process\.set[ug]id|chownSync"
    r"|fs\.l?chown"
    r"|syscall\.(Set[ug]id|Mount|Chroot)|os\.L?[Cc]hown|os\.chroot|AF_PACKET|SOCK_RAW|raw-socket|docker\.from_env|dockerode"
    r"|docker\.sock|client\.NewClientWithOpts|apt-get install|apk add|scapy)\b|/proc/sys/|[\"']pip[\"'], *[\"']install[\"']"
)
# What fails where a user has no entry in /etc/passwd.
_ASKS_FOR_NAME = re.compile(r"\bgetpass\.getuser|\bpwd\.getpw|\bos\.getlogin|\bos\.userInfo\(|\buser\.Current\(")
_SETTINGS = ("gunicorn.conf.py",)  # which gunicorn reads by itself
_DROPS_BY_OPTION = frozenset({"--uid", "--gid", "--user", "--group"})
# Programs whose sources are not read.
_UNREAD = frozenset("java ruby bundle rails puma rackup sidekiq perl php dotnet Rscript lua elixir mix erl swift".split())
_SOURCE = re.compile(r"(?<!\.d)\.([cm]?[jt]sx?|py|go)$")
# Calls by which JavaScript and Python write files.
_WRITES = re.compile(
    r"\b(writeFile|createWriteStream|appendFile|mkdir|unlink|rename|copyFile|makedirs|write_text|write_bytes)(Sync)?\(|open\([^)]*['\"][wax]b?\+?['\"]"
)
_PLAIN_PATH = re.compile(r"[\w./@+-]+")
# Programs that write beside their sources when they run, whoever starts them.
_WRITE_BESIDE = frozenset(
    "vite next nuxt ng react-scripts webpack webpack-dev-server gatsby storybook mvnw gradlew mvn gradle go cargo".split()
)
_ANYONE = re.compile(r"^/(tmp|var/tmp|dev|proc|run/secrets)(/|$)")
_SYSTEM = re.compile(r"^/(etc|usr|bin|sbin|lib|lib64|boot|root|sys|opt/venv|var/lib/(apt|dpkg))(/|$)|^/$")


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
        other = next((s for s in document.stages if s is not stage and stage in s.ancestry), None)
        if other is not None:
            reason = "another stage builds on it, and would run as that user too"
            return Refusal(self, reason, (facts.seen(other.base, "builds on it"),))
        if base is not None and base.name in _DROP_THEMSELVES:
            reason = f"{base.name} starts as root and gives root up by itself"
            return Refusal(self, reason, (facts.seen(stage.base, "is the base"),))
        answers = (
            *(self._by_instruction(document, facts, i) for i in facts.up_to(stage.instructions[-1])),
            self._by_service(facts, stage),
            *(
                self._by_source(facts, path)
                for path in (*(p for p, _ in facts.application(stage).sources), *_built(facts, stage), *_SETTINGS)
            ),
            *(self._by_program(started) for started in facts.application(stage).programs),
        )
        by_corepack = next((s for s in facts.application(stage).programs if s.what in ("pnpm", "yarn")), None)
        if by_corepack is not None and "corepack" in document.source.text:
            reason = f"corepack keeps `{by_corepack.what}` in root's own home"
            return Refusal(self, reason, (by_corepack.seen,))
        low = next(((port, seen) for port, seen in facts.application(stage).ports if port < _PRIVILEGED), None)
        if low is not None:
            return Refusal(self, f"port {low[0]}: {_LOW}", (low[1],))
        return next((answer for answer in answers if answer is not None), None)

    def _by_instruction(self, document: Document, facts: Facts, instruction: Instruction) -> Refusal | None:
        raw = document.raw(instruction)
        if instruction.keyword == "VOLUME":
            reason = "the files of a volume that is in use already belong to root"
            return Refusal(self, reason, (facts.seen(instruction, "declares it"),))
        if instruction.keyword == "ONBUILD":
            reason = "its triggers would run as that user in the images that are built on it"
            return Refusal(self, reason, (facts.seen(instruction, "is such a trigger"),))
        if instruction.keyword in ("RUN", "COPY", "ADD", "ENV") and (match := _FOR_ROOT.search(_without_mounts(raw))):
            seen = facts.seen(instruction, "may leave files where only root reads them")
            return Refusal(self, f"something is installed for root alone (`{match[0][:30]}`)", (seen,))
        if instruction.keyword == "RUN" and _POETRY.search(raw) and not _POETRY_PLACE.search(document.source.text):
            seen = facts.seen(instruction, "makes its environment below /root")
            return Refusal(self, "poetry installs for root alone", (seen,))
        if instruction.keyword in ("RUN", "COPY", "ADD") and (match := _PRIVATE.search(raw)):
            return Refusal(self, f"`{match[0]}` makes files that root alone reads", (facts.seen(instruction, "does it"),))
        if instruction.keyword == "ADD" and "://" in raw and instruction.flag("chmod") is None:
            return Refusal(self, "a file from the web is root's alone", (facts.seen(instruction, "fetches it"),))
        if instruction.keyword == "RUN" and (match := _PEOPLE.search(raw)):
            seen = facts.seen(instruction, "decides who exists")
            return Refusal(self, f"the users of the image are its own (`{match[0][:30]}`)", (seen,))
        if "docker.sock" in raw:
            return Refusal(
                self, "the program speaks to Docker, which takes root", (facts.seen(instruction, "names its socket"),)
            )
        return None

    def _by_source(self, facts: Facts, path: str) -> Refusal | None:
        """What a source does that takes root, or that gives it up."""
        text = facts.context.read(path) or ""
        if (match := _LOW_PORT.search(text)) is not None:
            port = next(filter(None, match.groups()))
            seen = facts.seen_in(path, "names it", line=text.count("\n", 0, match.start()) + 1)
            return Refusal(self, f"port {port}: {_LOW}", (seen,))
        if (match := _AS_ROOT.search(text)) is None:
            return None
        seen = facts.seen_in(path, f"names {match[0]}", line=text.count("\n", 0, match.start()) + 1)
        return Refusal(self, f"the program may need root, or give it up itself: it names {match[0]}", (seen,))

    def _by_service(self, facts: Facts, stage: Stage) -> Refusal | None:
        for service in facts.context.services:
            if service.user in ("root", "0", "0:0", "root:root"):
                where = facts.context.shown_path(service.file)
                seen = facts.seen(stage.base, "runs as root there")
                return Refusal(self, f"service {service.name} of {where} asks for root", (seen,))
            if service.privileges:
                where = facts.context.shown_path(service.file)
                seen = facts.seen(stage.base, "runs as root there")
                return Refusal(
                    self, f"service {service.name} of {where} sets {service.privileges[0]}: it may need root", (seen,)
                )
            low = next((port for port in service.ports if port < _PRIVILEGED), None)
            if low is not None:
                where = facts.context.shown_path(service.file)
                seen = facts.seen(stage.base, "is published there")
                return Refusal(self, f"port {low}, which service {service.name} of {where} publishes: {_LOW}", (seen,))
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
        option = next((w for w in started.words if w.partition("=")[0] in _DROPS_BY_OPTION), None)
        if option is not None and name in ("celery", "gunicorn", "uwsgi", "uvicorn", "supervisord"):
            return Refusal(self, f"`{name} {option}` gives up root by itself", (started.seen,))
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
        checks = [facts.context_check(), *_checks(facts, stage, owned)]
        decision = decide(Safety.UNSAFE, checks)
        here = facts.seen(stage.base, "no USER stands in it: the program runs as root")
        if decision.failed is not None:
            return Refusal(self, decision.failed.claim, (here, *decision.failed.evidence))
        odd = next((path for path in owned.folders if not _PLAIN_PATH.fullmatch(path)), None)
        if odd is not None:
            return Refusal(self, f"`{odd}` cannot be named in a command as it stands", (owned.folders[odd],))
        if "python" in " ".join(facts.end_state(stage).shell) or "pwsh" in " ".join(facts.end_state(stage).shell):
            return Refusal(self, "the shell of its RUNs is of another kind", (here,))
        has_no_shell = base is None or facts.reference(stage) == "scratch" or base.name.startswith(_DISTROLESS)
        if has_no_shell and (owned.folders or owned.home is not None):
            path, seen = next(iter(owned.folders.items()), ("a home folder", owned.home or here))
            return Refusal(self, f"{path} would have to belong to the user, and no shell can make it so", (seen,))
        if base is not None and base.name.startswith(_DISTROLESS) and self._has_nonroot_tag(stage):
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
        _, _, tag = stage.base.words[0].text.partition(":")
        plain = tag in ("", "latest", "debug") and "@" not in stage.base.words[0].text and "$" not in stage.base.words[0].text
        return plain and any(i.keyword == "WORKDIR" for s in stage.ancestry for i in s.body) and len(tuple(stage.ancestry)) == 1

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
    return _OF_DISTROLESS if base is not None and base.name.startswith(_DISTROLESS) else NUMERIC


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
        if _is_folder_like(path) and posixpath.dirname(path) == "/":
            where = path
        if _SYSTEM.match(where) or not where:
            return Check(f"{where} cannot be given to the user: it writes there", holds=False, evidence=(seen,))
        owned.folders.setdefault(where, seen)
    for path, _ in application.sources if owned.home is None else ():
        text = facts.context.read(path) or ""
        if match := _ASKS_FOR_NAME.search(text):
            line = text.count("\n", 0, match.start()) + 1
            owned.home = facts.seen_in(path, "asks for the user's name, or home", line=line)
            break
    states = (*(facts.state(i) for s in stage.ancestry for i in s.body), facts.end_state(stage))
    owned.present = {state.workdir for state in states if state.workdir is not None}
    for copy in copies:
        brings = any(_meets(root, where) for root in copy.roots for where in owned.folders)
        chown = copy.instruction.flag("chown")
        if (
            brings
            and chown is not None
            and (chown.value or "").partition(":")[0] == _user(facts.image(stage)).partition(":")[0]
        ):
            continue
        if brings and (chown is not None or copy.instruction not in stage.body):
            seen = facts.seen(copy.instruction, "brings files there that belong to somebody else")
            return Check("files that it writes beside would not be the user's", holds=False, evidence=(seen,))
        if brings:
            owned.copies.append(copy)
    return owned


def _without_mounts(text: str) -> str:
    """An instruction without what is mounted while it runs, and without caches that it deletes."""
    return re.sub(r"--mount=\S+|rm -rf? [^&|;]*", "", text)


def _is_folder_like(path: str) -> bool:
    return "." not in posixpath.basename(path) and not path.endswith(ANYTHING)


def _meets(root: str, where: str) -> bool:
    return root == where or root.startswith(where.rstrip("/") + "/")


def _built(facts: Facts, stage: Stage) -> Iterator[str]:
    """Sources that another stage builds into what is started here: they are not read like those that are copied."""
    application = facts.application(stage)
    started = [s.what for s in application.started if s.how in (How.PYTHON, How.NODE)]
    if started and all(application.application.source(what) is not None for what in started):
        return
    for copy in facts.up_to(stage.instructions[-1], "COPY"):
        flag = copy.flag("from")
        source = facts.document.stage_named(flag.value or "") if flag is not None else None
        for brought in (c for s in source.ancestry for c in facts.copies(s)) if source is not None else ():
            yield from (file for file in facts.files_of(brought) if _SOURCE.search(file))


def _checks(facts: Facts, stage: Stage, owned: _Ownership) -> Iterator[Check]:
    application = facts.application(stage)
    computed = [seen for path, seen in application.writes if path is None]
    claim = "the paths that the program writes are known"
    yield Check(claim, holds=None if computed else True, evidence=tuple(computed[:1]))
    yield application.is_explained
    writing = next(
        (path for path in _built(facts, stage) if not path.endswith(".go") and _WRITES.search(facts.context.read(path) or "")),
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
    unread = next((s for s in application.programs if posixpath.basename(s.what or "") in _UNREAD), None)
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
