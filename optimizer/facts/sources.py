"""Which commands do without the application's files, so that these can come later.

Only what is certain counts: a program that is not known here may read anything.
"""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from optimizer.facts.commands import PACKAGE_FILE, expand_braces, option_value
from optimizer.facts.installs import installs_by_name
from optimizer.facts.places import PROGRAMS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optimizer.dockerfile.instruction import Instruction
    from optimizer.dockerfile.shell import Command
    from optimizer.facts.commands import Placed
    from optimizer.facts.facts import Facts

# Programs that only print what they find: whatever they read, nothing comes of it.
_PRINTS = frozenset("ls pwd cat head tail stat wc du df tree printenv env file".split())
# Programs that read no file but those that they are told to; how they are told is in `_file_arguments`.
_SILENT = frozenset("echo printf true : set export type which hash whoami id date uname locale-gen update-locale cd".split())
_OWNER = re.compile(r"[\w.-]+(:[\w.-]+)?")
_PACKAGES = frozenset("apt-get apt apk dnf yum microdnf zypper add-apt-repository dpkg-reconfigure".split())
_PEOPLE = frozenset("useradd adduser groupadd addgroup usermod".split())
_FILES = frozenset(
    "rm cp mv ln touch tar unzip chmod chown chgrp install sed gpg tee sha256sum sha512sum md5sum test [".split()
)
_DOWNLOADS = frozenset({"curl", "wget"})
_SETTINGS = (("poetry", "config"), ("npm", "config"), ("pnpm", "config"), ("pip", "config"), ("go", "env"))
# Options of curl and wget whose value is a file.
_FILE_OPTIONS = tuple(
    """-o -O -T -K -i -P --output --output-document --input-file --cacert --cert --key --config --upload-file --ca-certificate
    --directory-prefix --post-file""".split()
)


def reads_no_sources(p: Placed, roots: tuple[str, ...]) -> bool:
    """Whether a command certainly does without the files at and below `roots`, and does not touch them.

    `pip install NAME`, `npm install -g NAME` and `go install module@version` count; so does a file tool that only names other
    places.
    """
    command = p.command
    if command.name is None or command.guards & {"function", "substitution"}:
        return False
    if any(word.text is None and re.search(r"[`(]", word.raw) for word in command.words):
        return False
    if command.name == "mkdir" or only_prints(command):
        return True
    found = _file_arguments(command)
    if found is None:
        return False
    found += [word.raw for word in command.words if word.is_pattern]
    found += [r.target for r in command.redirects if r.target is not None and not re.match(r"&|/dev/|\d$", r.target)]
    paths = [p.path(argument) for argument in found]
    return all(path is not None and not meets(path, roots) for path in paths)


def only_prints(command: Command) -> bool:
    """Whether a command prints what it finds, to nobody: neither into a file nor into another command."""
    is_silent = not command.guards & {"pipeline", "substitution", "conditional", "negated"} and not any(
        redirect.is_to_a_file for redirect in command.redirects
    )
    return command.name in _PRINTS and is_silent


def given_owner(p: Placed, roots: tuple[str, ...]) -> str | None:
    """The owner that `chown -R` gives to everything at and below folders that hold all of `roots`; None for another command."""
    command = p.command
    plain = [arg for arg in command.args if not arg.startswith("-")]
    is_recursive = any(re.fullmatch(r"-[a-zA-Z]*R[a-zA-Z]*|--recursive", arg) for arg in command.args)
    if command.name != "chown" or not is_recursive or len(plain) < 2 or command.guards or not _OWNER.fullmatch(plain[0]):
        return None
    folders = [path for path in (p.path(arg) for arg in plain[1:]) if path is not None]
    held = all(any(f"{root}/".startswith(f"{folder.rstrip('/')}/") for folder in folders) for root in roots)
    return plain[0] if held and len(folders) == len(plain) - 1 and bool(roots) else None


def meets(path: str, roots: tuple[str, ...]) -> bool:
    """Whether `path` (perhaps with wildcards) is one of `roots`, holds one or lies below one."""
    for one in expand_braces(path):
        stem = re.split(r"[*?\[]", one)[0]
        for root in roots:
            if root == one or root.startswith(one.rstrip("/") + "/") or one.startswith(root.rstrip("/") + "/"):
                return True
            if stem != one and root.startswith(stem):
                return True
    return False


def _file_arguments(command: Command) -> list[str] | None:
    """The arguments that may name files, or None for a program that may read anything."""
    name, args = command.name or "", command.args
    plain = [arg for arg in args if not arg.startswith("-")]
    in_options = [arg[arg.index("/") :] for arg in args if arg.startswith("-") and "/" in arg and "://" not in arg]
    if name == "yarn" and plain[:1] == ["config"]:
        return ["."]  # Yarn 2 and later write into the project
    if (name, plain[0] if plain else "") in _SETTINGS and any(re.match(r"--(local|location[= ]project|site)", a) for a in args):
        return ["."]
    if name in _SILENT or (name, plain[0] if plain else "") in _SETTINGS or installs_by_name(command):
        return []
    if name in _PACKAGES:
        return [arg for arg in plain if "/" in arg or PACKAGE_FILE.search(arg)]
    if name == "gem" and plain[:1] == ["install"]:
        return [arg for arg in plain[1:] if "/" in arg or PACKAGE_FILE.search(arg)]
    if name == "apt-key":
        return [arg for arg in plain[1:] if plain[0] == "add"]
    if name in _PEOPLE:
        makes_home = name == "adduser" or any(re.match(r"-[a-zA-Z]*m|--create-home", arg) for arg in args)
        return [arg for arg in plain if "/" in arg] + in_options + ([f"/home/{plain[-1]}"] if makes_home and plain else [])
    if name in _DOWNLOADS:
        values = [value for option in _FILE_OPTIONS if (value := option_value(args, option)) not in (None, "-")]
        names_itself = name == "wget" or any(re.match(r"-[a-zA-Z]*O|--remote-name", arg) for arg in args)
        return [str(value) for value in values] + ([] if values or not names_itself else [_remote_name(plain)])
    if name in _FILES:
        unpacks = name in ("tar", "unzip") and not any(option in args for option in ("-C", "-d", "--directory", "-t"))
        return plain + in_options + (["."] if unpacks else [])
    if (re.fullmatch(r"python[\d.]*", name) and args[:2] == ("-m", "venv")) or name == "virtualenv":
        return [arg.rstrip("/") + "/bin" for arg in plain if arg != "venv" or name == "virtualenv"]  # what it fills
    if name == "corepack":
        return [] if plain[:1] == ["enable"] or any("@" in arg for arg in plain) else None
    return [] if name in ("update-ca-certificates", "rustup", "ldconfig", "update-alternatives") else None


def files_named(facts: Facts, instruction: Instruction, p: Placed) -> Iterator[str]:
    """The texts of the files of the build context that a command of `instruction` names, its program among them."""
    program = p.command.words[p.command.head].text if p.command.words else None
    words = [(word, p.path(word)) for word in (program, *p.command.args) if word and not word.startswith("-")]
    if program and "/" not in program:  # a script that was copied onto the PATH
        words += [(program, posixpath.join(folder, program)) for folder in PROGRAMS]
    for _, path in words:
        for copy in facts.copies_before(instruction) if path is not None else ():
            source = copy.locate(path or "")
            text = facts.context.read(source) if source is not None else None
            if text is not None:
                yield text


def _remote_name(arguments: list[str]) -> str:
    """The file that a download without a name for it makes; the whole folder where that cannot be told."""
    addresses = [argument for argument in arguments if "://" in argument]
    return (posixpath.basename(urlsplit(addresses[-1]).path) if addresses else "") or "."
