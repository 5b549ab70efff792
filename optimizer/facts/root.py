"""What speaks against taking root from a program: what needs root or gives it up by itself, and files that are root's alone."""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING

from optimizer.facts.started import DROPS_ROOT
from optimizer.facts.state import is_root

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optimizer.dockerfile.document import Stage
    from optimizer.dockerfile.instruction import Instruction
    from optimizer.facts.facts import Facts
    from optimizer.facts.started import Started
    from optimizer.rewrite import Evidence

_PRIVILEGED = 1024  # ports below it
_LOW = "below 1024 a program that is not root may not listen everywhere"
# Low ports as sources and settings write them.
_LOW_PORT = re.compile(
    r"""\blisten\(\s*(?P<listen>80|443)\b|\bport["']?\s*[:=]\s*(?P<key>80|443)\b|["'](?:[\w.]*|\[::\]):(?P<address>80|443)["']"""
    r"""|["']\w*PORT["']\s*[,)]+\s*(?:or\s*)?["']?(?P<default>80|443)\b|PORT\s*(?:\|\||\?\?)\s*(?P<or>80|443)\b""",
    re.IGNORECASE,
)
# Images whose entrypoint starts as root and gives it up, or whose program does.
_DROP_THEMSELVES = frozenset(
    "nginx httpd postgres mysql mariadb redis mongo caddy haproxy rabbitmq memcached php traefik".split()
)
# Programs that need root, or that usually do.
_NEED_ROOT = re.compile(
    r"^(cron|crond|supervisord|s6-.*|init|runsvdir|systemctl|sshd|iptables|ip6tables|nft|sysctl|mount|chown|chgrp|apt-get|apt|apk|useradd"
    r"|usermod|groupmod|adduser|setcap|service|docker|dockerd|tcpdump|openvpn|nginx|apache2.*|httpd)$"
)
# What installs packages.
_MANAGERS = frozenset("pip pip3 npm yarn pnpm bundle bundler gem composer poetry uv pipenv cargo".split())
# What is installed below /root, or by a program that puts it there.
_FOR_ROOT = re.compile(
    r"/root\b|~/|\$HOME\b|pip[\d.]* [^&|;]*install [^&|;]*--user\b|playwright install|nltk\.download|python -m nltk|uv python"
    r"|uv sync [^&|;]*--python|puppeteer|huggingface-cli|rustup|nvm\b|pipx|\.cargo/|(curl|wget) [^|]*\|\s*(ba)?sh"
    r"|git config --global|from_pretrained|snapshot_download"
)
# What poetry installs lies below /root, unless it is told another place.
_POETRY = re.compile(r"\bpoetry (install|sync)\b")
_POETRY_PLACE = re.compile(r"virtualenvs\.(create|in-project|path)|POETRY_VIRTUALENVS_")
# What makes files that only their owner reads.
_PRIVATE = re.compile(
    r"\bchmod (-R )?(0?[1-7]00|[ug]*o-r\w*|go-\w+)\b|--chmod=0?[1-7]00\b|\bumask 0?[0-7]?77\b|\bssh-keygen\b"
    r"|\bopenssl (genrsa|genpkey|req)\b|\binstall [^&|;]*-m ?0?[1-7]00\b|\bmktemp\b"
)
# What decides which users and groups there are: some are deleted, or take the name or number that would be ours.
_PEOPLE = re.compile(r"\b(deluser|userdel|delgroup|groupdel)\b|\b10001\b|\b(useradd|adduser|addgroup|groupadd)\b[^&|;]*\bapp\b")
# Sources that give root up, or that need it.
_AS_ROOT = re.compile(
    r"\b(os\.set(re|res)?[ug]id|os\.(initgroups|setgroups|l?chown|fchown|mknod|mount)|shutil\.chown|process\.set[ug]id|chownSync"
    r"|fs\.l?chown|syscall\.(Set[ug]id|Mount|Chroot)|os\.L?[Cc]hown|os\.chroot|AF_PACKET|SOCK_RAW|raw-socket|docker\.from_env|dockerode"
    r"|docker\.sock|client\.NewClientWithOpts|apt-get install|apk add|scapy)\b|/proc/sys/|[\"']pip[\"'], *[\"']install[\"']"
)
_SETTINGS = ("gunicorn.conf.py",)  # which gunicorn reads by itself
# Options by which servers give root up, and those servers.
_DROPS_BY_OPTION = frozenset({"--uid", "--gid", "--user", "--group"})
# Programs that write beside their sources when they run, whoever starts them.
_WRITE_BESIDE = frozenset(
    "vite next nuxt ng react-scripts webpack webpack-dev-server gatsby storybook mvnw gradlew mvn gradle go cargo".split()
)
_SERVERS = frozenset({"celery", "gunicorn", "uwsgi", "uvicorn", "supervisord"})


def objections(facts: Facts, stage: Stage) -> Iterator[tuple[str, Evidence]]:
    """Why the program of `stage` cannot run as another user, each with the line that says so, as they are found."""
    other = next((s for s in facts.document.stages if s is not stage and stage in s.ancestry), None)
    if other is not None:
        yield "another stage builds on it, and would run as that user too", facts.seen(other.base, "builds on it")
    base, application = facts.image(stage), facts.application(stage)
    if base is not None and base.name in _DROP_THEMSELVES:
        yield f"{base.name} starts as root and gives root up by itself", facts.seen(stage.base, "is the base")
    by_corepack = next((s for s in application.programs if s.what in ("pnpm", "yarn")), None)
    if by_corepack is not None and "corepack" in facts.document.source.text:
        yield f"corepack keeps `{by_corepack.what}` in root's own home", by_corepack.seen
    yield from ((f"port {port}: {_LOW}", seen) for port, seen in application.ports if port < _PRIVILEGED)
    for instruction in facts.up_to(stage.instructions[-1]):
        yield from _by_instruction(facts, instruction)
    yield from _by_services(facts, stage)
    for path in (*(path for path, _ in application.sources), *application.built_sources, *_SETTINGS):
        yield from _by_source(facts, path)
    for started in application.programs:
        yield from ((reason, started.seen) for reason in _by_program(started))


def _by_instruction(facts: Facts, instruction: Instruction) -> Iterator[tuple[str, Evidence]]:
    raw = facts.document.raw(instruction)
    if instruction.keyword == "VOLUME":
        yield "the files of a volume that is in use already belong to root", facts.seen(instruction, "declares it")
    elif instruction.keyword == "ONBUILD":
        reason = "its triggers would run as that user in the images that are built on it"
        yield reason, facts.seen(instruction, "is such a trigger")
    elif instruction.keyword in ("RUN", "COPY", "ADD", "ENV"):
        yield from _by_files(facts, instruction, raw)
    if "docker.sock" in raw:
        yield "the program speaks to Docker, which takes root", facts.seen(instruction, "names its socket")


def _by_files(facts: Facts, instruction: Instruction, raw: str) -> Iterator[tuple[str, Evidence]]:
    """Files and users that an instruction makes."""
    is_run = instruction.keyword == "RUN"
    if match := _FOR_ROOT.search(_without_mounts(raw)):
        seen = facts.seen(instruction, "may leave files where only root reads them")
        yield f"something is installed for root alone (`{match[0][:30]}`)", seen
    if is_run and _POETRY.search(raw) and not _POETRY_PLACE.search(facts.document.source.text):
        yield "poetry installs for root alone", facts.seen(instruction, "makes its environment below /root")
    if instruction.keyword != "ENV" and (match := _PRIVATE.search(raw)):
        yield f"`{match[0]}` makes files that root alone reads", facts.seen(instruction, "does it")
    if instruction.keyword == "ADD" and "://" in raw and instruction.flag("chmod") is None:
        yield "a file from the web is root's alone", facts.seen(instruction, "fetches it")
    if is_run and (match := _PEOPLE.search(raw)):
        yield f"the users of the image are its own (`{match[0][:30]}`)", facts.seen(instruction, "decides who exists")


def _without_mounts(text: str) -> str:
    """An instruction without what is mounted while it runs, and without caches that it deletes."""
    return re.sub(r"--mount=\S+|rm -rf? [^&|;]*", "", text)


def _by_services(facts: Facts, stage: Stage) -> Iterator[tuple[str, Evidence]]:
    for service in facts.services:
        who = f"service {service.name} of {facts.context.shown_path(service.file)}"
        seen = facts.seen(stage.base, "runs as root there")
        if is_root(service.user):
            yield f"{who} asks for root", seen
        yield from ((f"{who} sets {key}: it may need root", seen) for key in service.privileges)
        for port in service.ports:
            if port < _PRIVILEGED:
                yield f"port {port}, which {who} publishes: {_LOW}", facts.seen(stage.base, "is published there")
        for mount in service.mounts:
            what = "Docker's socket" if mount.endswith("docker.sock") else f"{mount}, whose files may belong to root"
            yield f"{who} mounts {what}", seen


def _by_source(facts: Facts, path: str) -> Iterator[tuple[str, Evidence]]:
    text = facts.context.read(path) or ""
    if match := _LOW_PORT.search(text):
        port = next(filter(None, match.groups()))
        yield f"port {port}: {_LOW}", facts.seen_match(path, match, "names it")
    if match := _AS_ROOT.search(text):
        seen = facts.seen_match(path, match, f"names {match[0]}")
        yield f"the program may need root, or give it up itself: it names {match[0]}", seen


def _by_program(started: Started) -> Iterator[str]:
    name = posixpath.basename(started.what or "")
    if name in DROPS_ROOT:
        yield f"`{name}` gives up root by itself"
    option = next((w for w in started.words if w.partition("=")[0] in _DROPS_BY_OPTION), None)
    if option is not None and name in _SERVERS:
        yield f"`{name} {option}` gives up root by itself"
    if name in _MANAGERS and {"install", "add", "ci", "sync"} & set(started.words[1:3]):
        yield f"`{name}` installs packages when the container starts"
    if _NEED_ROOT.match(name):
        yield f"`{name}` may need root"
    if name in _WRITE_BESIDE:
        yield f"`{name}` writes beside its sources when it runs"
