"""What a RUN runs: package installs, and the paths that its commands write, delete and change.

Only what is certain is reported: a program that is not known here writes "something", and callers treat that as unknown.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from optimizer.dockerfile.shell import Command, Script, subcommand
from optimizer.facts.state import absolute

if TYPE_CHECKING:
    from collections.abc import Iterator

APT = frozenset({"apt-get", "apt", "aptitude"})
APT_LISTS = "/var/lib/apt/lists"
APT_ARCHIVES = "/var/cache/apt/archives"
# Folders that many things lie in: what is deleted there need not be what was unpacked there.
_SHARED_FOLDERS = frozenset(
    "/ /usr /usr/local /usr/local/bin /usr/bin /usr/lib /usr/share /opt /srv /tmp /var /var/tmp /etc /root /home".split()
)
# Options of apt-get that take a value as the next word.
_APT_VALUED = frozenset(
    {
        "-o",
        "--option",
        "-c",
        "--config-file",
        "-t",
        "--target-release",
        "--default-release",
        "-a",
        "--host-architecture",
    }
)
PACKAGE_FILE = re.compile(r"\.(deb|rpm|apk|gem|whl|tgz|tar\.\w+|zip)$")
# Commands that empty a package manager's cache.
_EMPTIES = {
    ("npm", "clean"): "npm",
    ("npm", "clear"): "npm",
    ("npm", "rm"): "npm",
    ("yarn", "clean"): "yarn",
    ("yarn", "clear"): "yarn",
    ("pip", "purge"): "pip",
    ("pip3", "purge"): "pip",
}
# What makes a `find` choose among the files.
_CHOOSES = frozenset("-name -iname -path -ipath -regex -iregex -mtime -newer -size -user -perm -maxdepth -not !".split())


@dataclass(frozen=True, slots=True)
class AptInstall:
    """An `apt-get install`: the packages that are literal, and whether anything else stands in the list."""

    command: Command
    packages: tuple[str, ...]
    is_complete: bool

    @property
    def skips_recommends(self) -> bool:
        return any(
            re.match(r"--no-install-recommends$|--install-recommends|(-o)?APT::Install-Recommends", arg)
            for arg in self.command.args
        )


def is_apt(command: Command, *subcommands: str) -> bool:
    """Whether `command` is apt-get, apt or aptitude with one of `subcommands`."""
    return command.name in APT and apt_subcommand(command) in subcommands


def apt_subcommand(command: Command) -> str | None:
    words = _apt_words(command)
    return words[0] if words else None


def apt_package_index(command: Command) -> int:
    """Index of the first word of an `apt-get install` that names a package, its options and their values passed over."""
    words = command.words
    at = next(i for i, word in enumerate(words) if word.text == "install") + 1
    while at < len(words) and words[at].raw.startswith("-"):
        at += 2 if words[at].raw in _APT_VALUED else 1
    return min(at, len(words))


def apt_install(command: Command) -> AptInstall | None:
    """The install that `command` is, or None."""
    words = _apt_words(command)
    if command.name not in APT or not words or words[0] != "install":
        return None
    names = words[1:]
    known = tuple(name.partition("=")[0].partition("/")[0].partition(":")[0] for name in names if _is_package(name))
    return AptInstall(command, known, len(known) == len(names))


def _apt_words(command: Command) -> list[str]:
    """The words of an apt command that are neither options nor their values."""
    words, skip = [], False
    for arg in command.args:
        if skip:
            skip = False
        elif arg in _APT_VALUED:
            skip = True
        elif not arg.startswith("-"):
            words.append(arg)
    return words


def _is_package(name: str) -> bool:
    return re.fullmatch(r"[a-z0-9][a-z0-9+.\-]*(:[a-z0-9]+)?([=/]\S+)?", name) is not None and not name.endswith(".deb")


# -------------------------------------------------------------------- where commands run, and what they do to files


@dataclass(frozen=True, slots=True)
class Placed:
    """A command and the folder that it runs in; None where that is unknown."""

    command: Command
    cwd: str | None

    def path(self, text: str) -> str | None:
        """Absolute path of an argument; None where the folder or a variable in it is unknown."""
        if text.startswith("~/"):
            text = "/root" + text[1:]
        if "$" in text or "`" in text:
            return None
        if text.startswith("/"):
            return absolute(text)
        return None if self.cwd is None else absolute(self.cwd, text)


def placed(script: Script, cwd: str | None) -> tuple[Placed, ...]:
    """The script's commands with the folders that they run in, `cd` followed."""
    found = []
    for command in script.commands:
        found.append(Placed(command, cwd))
        if command.name in ("cd", "pushd", "popd"):
            args = [arg for arg in command.args if not arg.startswith("-")]
            certain = command.name == "cd" and len(args) == 1 and not command.guards
            cwd = Placed(command, cwd).path(args[0]) if certain else None
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Touched:
    """A path (or a name such as `apt:git`) and the command that touches it; `deep`: with all that lies below it."""

    path: str
    command: Command
    deep: bool = True

    def covers(self, other: Touched) -> bool:
        """Whether acting on this acts on what `other` has written."""
        return covers(self.path, other.path) if self.deep else self.path == other.path and not other.deep


def written(commands: tuple[Placed, ...]) -> tuple[Touched, ...]:
    """What the commands put on disk, as far as it can be told: never empty files, folders or links; `deep` for a folder."""
    return tuple(
        Touched(path, p.command, p.command.name in ("tar", "unzip", "git"))
        for p in commands
        for path in _written(p)
        if path is not None
    )


def deleted(commands: tuple[Placed, ...]) -> tuple[Touched, ...]:
    """What the commands delete."""
    return tuple(Touched(path, p.command) for p in commands for path in _deleted(p) if path is not None)


def changed(commands: tuple[Placed, ...]) -> tuple[Touched, ...]:
    """What the commands change in place, so that a later layer holds a second copy."""
    return tuple(
        Touched(path, p.command, _is_recursive(p.command)) for p in commands for path in _changed(p) if path is not None
    )


def _is_recursive(command: Command) -> bool:
    if command.name not in ("chmod", "chown", "chgrp"):
        return True
    return any(re.fullmatch(r"-[a-zA-Z]*R[a-zA-Z]*|--recursive", arg) for arg in command.args)


def covers(pattern: str, path: str) -> bool:
    """Whether acting on `pattern` (a path, perhaps with wildcards, or a name) acts on `path` or on something in it."""
    if ":" in pattern or ":" in path:
        return pattern == path
    for one in expand_braces(pattern):
        stem = one.split("*")[0] if "*" in one else one
        within = one.startswith(path.rstrip("/") + "/") and path not in _SHARED_FOLDERS
        inside = path == one or path.startswith(one.rstrip("/") + "/") or within
        if inside or ("*" in one and path.startswith(stem) and len(stem) > 1):
            return True
    return False


def expand_braces(text: str) -> tuple[str, ...]:
    """`/a/{b,c}` as `/a/b` and `/a/c`."""
    match = re.search(r"\{([^{}]*,[^{}]*)\}", text)
    if match is None:
        return (text,)
    head, tail = text[: match.start()], text[match.end() :]
    return tuple(found for part in match[1].split(",") for found in expand_braces(head + part + tail))


def _written(p: Placed) -> Iterator[str | None]:
    command, args = p.command, p.command.args
    for redirect in command.redirects:
        if ">" in redirect.operator and redirect.target and not redirect.target.startswith(("/dev/", "&")):
            yield p.path(redirect.target) if command.name != "touch" else None
    if command.name in ("curl", "wget"):
        yield _download(p)
    elif command.name == "tar" and any(re.match(r"-?[a-zA-Z]*x|--extract|--get", arg) for arg in args[:1] + args):
        yield p.path(option_value(args, "-C", "--directory") or ".")
    elif command.name == "unzip":
        yield p.path(option_value(args, "-d") or ".")
    elif command.name in ("cp", "mv", "install") and len(args) >= 2 and not args[-1].startswith("-"):
        yield p.path(args[-1])
    elif command.name == "git" and "clone" in args:
        plain = [arg for arg in args[args.index("clone") + 1 :] if not arg.startswith("-")]
        if plain:
            yield p.path(plain[-1] if len(plain) > 1 else posixpath.basename(plain[0]).removesuffix(".git"))
    elif (install := apt_install(command)) is not None:
        yield from (f"apt:{name}" for name in install.packages)
        yield APT_ARCHIVES
    elif is_apt(command, "update"):
        yield APT_LISTS
    yield from _caches_written(command)


def _caches_written(command: Command) -> Iterator[str]:
    """The folders that package managers fill beside what they install."""
    words = (command.name, subcommand(command))
    if words in (("npm", "ci"), ("npm", "install"), ("npm", "i")):
        yield "cache:npm"
    elif words in (("pip", "install"), ("pip3", "install")) and "--no-cache-dir" not in command.args:
        yield "cache:pip"
    elif words in (("yarn", "install"), ("yarn", None), ("yarn", "add")):
        yield "cache:yarn"
    elif command.name in ("dnf", "yum", "microdnf") and words[1] in ("install", "groupinstall", "update", "upgrade"):
        yield "cache:dnf"
    elif command.name == "apk" and words[1] == "add":
        virtual = tuple(_after(command.args, "--virtual", "-t"))
        for arg in virtual or tuple(a for a in command.args[1:] if not a.startswith("-")):
            yield f"apk:{arg}"


def _deleted(p: Placed) -> Iterator[str | None]:
    command, args = p.command, p.command.args
    plain = [arg for arg in args if not arg.startswith("-")]
    words = (command.name, plain[0] if plain else None)
    if command.name == "rm":
        yield from (p.path(arg) for arg in plain)
    elif command.name == "find" and plain and ("-delete" in args or "rm" in args) and not _CHOOSES.intersection(args):
        yield p.path(plain[0])
    elif command.name in APT and words[1] in ("purge", "remove", "autoremove", "clean", "autoclean", "distclean"):
        yield from (f"apt:{name}" for name in plain[1:])
        if words[1] in ("clean", "autoclean", "distclean"):
            yield APT_ARCHIVES
        if words[1] == "distclean":
            yield APT_LISTS
    elif command.name == "apk" and words[1] == "del":
        yield from (f"apk:{name}" for name in plain[1:])
    elif words[1] == "cache" and (found := _EMPTIES.get((command.name or "", plain[1] if len(plain) > 1 else ""))) is not None:
        yield f"cache:{found}"
    elif command.name in ("dnf", "yum", "microdnf") and words[1] == "clean":
        yield "cache:dnf"


def _changed(p: Placed) -> Iterator[str | None]:
    command, args = p.command, p.command.args
    plain = [arg for arg in args if not arg.startswith("-")]
    if command.name in ("chmod", "chown", "chgrp") and len(plain) > 1:
        yield from (p.path(arg) for arg in plain[1:])
    elif command.name == "mv" and len(plain) > 1:
        yield from (p.path(arg) for arg in plain[:-1])
    elif command.name == "strip" or (command.name == "sed" and any(re.match(r"-[a-zA-Z]*i|--in-place", a) for a in args)):
        yield from (p.path(arg) for arg in plain[-1:])


def _download(p: Placed) -> str | None:
    """The file that a curl or wget writes; None where it prints, or the name is not known."""
    args = p.command.args
    output = option_value(args, "-o", "--output") if p.command.name == "curl" else option_value(args, "-O", "--output-document")
    if output is not None:
        return None if output in ("-", "/dev/null") else p.path(output)
    urls = [arg for arg in args if "://" in arg]
    remote = p.command.name == "wget" or any(re.match(r"-[a-zA-Z]*O|--remote-name$", arg) for arg in args)
    name = posixpath.basename(urlsplit(urls[-1]).path) if urls else ""
    if not remote or not name:
        return None
    folder = option_value(args, "-P", "--directory-prefix", "--output-dir")
    return p.path(posixpath.join(folder, name) if folder else name)


def option_value(args: tuple[str, ...], short: str, *long: str) -> str | None:
    """The value of an option in any of its spellings: `-o x`, `-ox`, `-fsSLo x`, `--output x`, `--output=x`; `short` is "" for
    an option without one."""
    for index, arg in enumerate(args):
        following = args[index + 1] if index + 1 < len(args) else None
        if arg in (short or None, *long):
            return following
        for name in long:
            if arg.startswith(f"{name}="):
                return arg[len(name) + 1 :]
        if not short:
            continue
        if re.fullmatch(rf"-[a-zA-Z]*{short[1]}", arg):
            return following
        if arg.startswith(short) and not arg.startswith("--"):
            return arg[2:]
        if attached := re.fullmatch(rf"-[a-zA-Z]*{short[1]}([-/.~].*)", arg):
            return attached[1]
    return None


def is_path(name: str) -> bool:
    """Whether an install that is asked for `name` takes it from the disk, not from an index."""
    return name.startswith((".", "/", "~")) or PACKAGE_FILE.search(name) is not None


def _after(args: tuple[str, ...], *names: str) -> Iterator[str]:
    for index, arg in enumerate(args[:-1]):
        if arg in names:
            yield args[index + 1]


def is_certain_install(command: Command) -> bool:
    """Whether an `apt-get install` always installs: neither under a condition, nor only downloads or simulates."""
    return not command.guards and not {"-d", "--download-only", "-s", "--simulate", "--dry-run"} & set(command.args)
