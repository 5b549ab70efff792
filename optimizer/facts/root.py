"""What speaks against taking root from a program: what needs root or gives it up by itself, and files that are root's alone."""

from __future__ import annotations

import posixpath
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from optimizer.dockerfile.shell import SHELLS, from_words
from optimizer.facts.application import started_by
from optimizer.facts.commands import option_value
from optimizer.facts.manifests import Application
from optimizer.facts.python import program
from optimizer.facts.started import DROPS_ROOT, How
from optimizer.facts.state import is_root

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optimizer.dockerfile.document import Stage
    from optimizer.dockerfile.instruction import Instruction
    from optimizer.dockerfile.shell import Command
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
# Programs that install, or download models, into the home of whoever runs them; with the words that make them do so, where not
# every call does.
_INTO_HOME: dict[str, frozenset[str]] = {
    "playwright": frozenset({"install"}),
    "puppeteer": frozenset({"browsers"}),
    "huggingface-cli": frozenset({"download", "login"}),
    "hf": frozenset({"download", "auth"}),
    "rustup": frozenset(),
    "rustup-init": frozenset(),
    "nvm": frozenset(),
    "pyenv": frozenset(),
    "pipx": frozenset(),
    "whisper": frozenset(),
    "ollama": frozenset({"pull"}),
    "nltk.downloader": frozenset(),
    "deno": frozenset({"install", "cache"}),
}
# Calls by which Python downloads models or data into the home folder.
_MODELS = re.compile(
    r"\bload_model\(|\bfrom_pretrained\b|\bsnapshot_download\b|\bhf_hub_download\b|\bnltk\.download\b|\btorch\.hub\b"
    r"|\bSentenceTransformer\(|\bWhisperModel\(|\bpipeline\(|\bstanza\.download\b|\beasyocr\.Reader\(|\bpaddleocr\b|\bkagglehub\b"
)
# What poetry and pipenv install lies below /root, unless they are told another place.
_OTHER_PLACE = {
    "poetry": re.compile(r"virtualenvs\.(create|in-project|path)|POETRY_VIRTUALENVS_"),
    "pipenv": re.compile(r"PIPENV_VENV_IN_PROJECT|WORKON_HOME|PIPENV_CUSTOM_VENV_NAME|--system\b"),
}
_ROOTS_HOME = re.compile(r"^(/root(/|$)|~(/|$)|\$\{?HOME\b|[\w-]+=/root(/|$))|:/root/")
# What makes files that only their owner reads.
_PRIVATE_MODE = re.compile(r"(0?[1-7]00|[ug]*o-r\w*|go-\w+)$")
_DELETES_PEOPLE = frozenset({"deluser", "userdel", "delgroup", "groupdel"})
_MAKES_PEOPLE = frozenset({"useradd", "adduser", "addgroup", "groupadd"})
# Names and numbers that would be ours.
_OURS = frozenset({"app", "10001"})
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
    if instruction.keyword == "RUN":
        yield from _by_run(facts, instruction)
    elif instruction.keyword == "ENV":
        named = next((pair for pair in instruction.pairs if _ROOTS_HOME.search(pair.value or "")), None)
        if named is not None:
            yield _for_root(f"{named.name}={named.value}"), facts.seen(instruction, _LEAVES)
    else:
        place = next((word.text for word in instruction.words[-1:] if _ROOTS_HOME.search(word.text)), None)
        if place is not None:
            yield _for_root(place), facts.seen(instruction, _LEAVES)
        mode = instruction.flag("chmod")
        if mode is not None and _PRIVATE_MODE.match(mode.value or ""):
            yield f"`--chmod={mode.value}` makes files that root alone reads", facts.seen(instruction, "does it")
    if instruction.keyword == "ADD" and "://" in raw and instruction.flag("chmod") is None:
        yield "a file from the web is root's alone", facts.seen(instruction, "fetches it")


_LEAVES = "may leave files where only root reads them"


def _for_root(what: str) -> str:
    return f"something is installed for root alone (`{what[:30]}`)"


def _by_run(facts: Facts, run: Instruction) -> Iterator[tuple[str, Evidence]]:
    """Files that a RUN leaves where only root reads them, and users that it makes or deletes."""
    script = facts.script(run)
    if run.heredocs and (match := _MODELS.search(facts.document.raw(run))):
        yield _for_root(match[0]), facts.seen(run, "downloads into the home of whoever runs it")
    if script is None:
        if match := re.search(r"/root\b|~/|\$HOME\b", facts.document.raw(run)):
            yield _for_root(match[0]), facts.seen(run, "cannot be read as a script, and names it")
        return
    for command in script.commands:
        seen = facts.seen_command(run, command, _LEAVES)
        name, args = program(command)
        if (what := _installed_for_root(facts, run, command)) is not None:
            yield what, seen
        if (private := _private(command)) is not None:
            yield f"`{private}` makes files that root alone reads", replace(seen, claim="does it")
        if name in _DELETES_PEOPLE or (name in _MAKES_PEOPLE and _OURS.intersection(args)):
            text = str(command)
            yield f"the users of the image are its own (`{text[:30]}`)", replace(seen, claim="decides who exists")
    for started in started_by(facts, run):
        inner = from_words(started.words) if started.how is How.PROGRAM and started.words else None
        for command in inner.commands if inner is not None else ():
            if (what := _installed_for_root(facts, run, command)) is not None:
                yield what, started.seen
        path = Application(facts, run).source(started.what) if started.how is How.PYTHON else None
        if path is not None and (match := _MODELS.search(facts.context.read(path) or "")):
            yield _for_root(match[0]), facts.seen_match(path, match, "downloads into the home of whoever runs it")


def _installed_for_root(facts: Facts, run: Instruction, command: Command) -> str | None:
    """Why what a command installs or downloads is root's alone; None where it is not."""
    name, args = program(command)
    name, args = (args[0], args[1:]) if name in ("npx", "bunx") and args else (name, args)
    if re.fullmatch(r"python[\d.]*", name) and args[:1] == ("-m",):
        name, args = args[1] if len(args) > 1 else "", args[2:]
    home = next((arg for arg in args if _ROOTS_HOME.search(arg)), None)
    home = home or next((r.raw for r in command.redirects if r.is_to_a_file and _ROOTS_HOME.search(r.raw)), None)
    if home is not None and name not in ("rm", "find", "ls", "cd", "echo"):
        return _for_root(home)
    words = _INTO_HOME.get(name)
    if words is not None and (not words or words.intersection(args)):
        return _for_root(str(command))
    if name in _OTHER_PLACE and {"install", "sync"} & set(args[:2]):
        told = _OTHER_PLACE[name].search("\n".join(facts.document.raw(i) for i in facts.up_to(run)))
        return None if told else f"{name} installs for root alone"
    is_pip = re.fullmatch(r"pip[\d.]*", name) is not None
    by_user = ("--user" in args and (is_pip or name == "gem")) or (name == "git" and "--global" in args)
    is_managed = name == "uv" and (args[:1] in (("python",), ("tool",)) or (args[:1] == ("sync",) and "--python" in args))
    piped = name in SHELLS and "pipeline" in command.guards and all(arg.startswith("-") for arg in args)
    if by_user or is_managed or piped or any(_MODELS.search(arg) for arg in args):
        return _for_root(str(command))
    return None


def _private(command: Command) -> str | None:
    """The words by which a command makes files that only their owner reads; None where it does not."""
    name, args = command.name or "", command.args
    plain = [arg for arg in args if not arg.startswith("-") or name == "umask"]
    if name == "chmod" and plain and _PRIVATE_MODE.match(plain[0]):
        return f"chmod {plain[0]}"
    if name == "umask" and plain and re.fullmatch(r"0?[0-7]?77", plain[0]):
        return f"umask {plain[0]}"
    if name in ("ssh-keygen", "mktemp"):
        return name
    if name == "openssl" and args[:1] in (("genrsa",), ("genpkey",), ("req",)):
        return f"openssl {args[0]}"
    mode = option_value(args, "-m", "--mode") if name == "install" else None
    return f"install -m {mode}" if mode is not None and _PRIVATE_MODE.match(mode) else None


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
