"""Whether something installs from apt's lists behind the layer that downloaded them: by name, by a script, or unread."""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING

from optimizer.dockerfile.document import Document
from optimizer.dockerfile.scan import DockerfileError
from optimizer.dockerfile.shell import SHELLS, read_script, subcommand
from optimizer.facts.commands import is_apt, written
from optimizer.facts.images import image
from optimizer.facts.packages import base_programs, package_of
from optimizer.facts.sources import files_named

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optimizer.dockerfile.instruction import Instruction
    from optimizer.dockerfile.shell import Command, Script
    from optimizer.facts.commands import Placed
    from optimizer.facts.facts import Facts
    from optimizer.rewrite import Evidence

# Programs that install from the lists, themselves or through apt.
_INSTALLERS = frozenset(
    """apt apt-get aptitude apt-cache apt-file apt-fast nala rosdep gdebi tasksel mk-build-deps ansible-playbook ansible-pull
    puppet chef-client chef-solo salt-call conan cloud-init unattended-upgrade apt-rdepends grep-aptavail grep-dctrl
    ubuntu-drivers apt-show-versions apt-listbugs pbuilder-satisfydepends pbuilder-satisfydepends-experimental
    pbuilder-satisfydepends-apt pbuilder-satisfydepends-aptitude dh_builddeps""".split()
)
# Programs of which one subcommand does.
_SOMETIMES = {"opam": frozenset({"depext", "install", "init"}), "ansible": frozenset({"localhost", "all"})}
_CALLS_APT = re.compile(
    rf"(?<![\w./-])(?:/usr/bin/)?({'|'.join(sorted(_INSTALLERS, key=len, reverse=True))})(?![\w./=-])|\bopam\s+depext\b"
)
# Commands of apt that need no lists.
_HARMLESS = ("clean", "autoclean", "distclean", "purge", "remove", "autoremove")
# Files of the build context that a program of these names runs commands from.
_RECIPES = {"make": ("Makefile", "makefile", "GNUmakefile"), "npm": ("package.json",), "yarn": ("package.json",)}
# Targets of a recipe that would install what a build needs.
_INSTALLS_NEEDS = re.compile(r"dep(s|end|$)|prereq|bootstrap|setup|provision|\bapt\b|install-(?!.*(lib|bin|strip|headers))")
# What comes with sources and only looks around or builds.
_BUILD_SCRIPTS = frozenset(
    """configure config Configure autogen.sh autogen bootstrap buildconf gradlew mvnw sbt b2 bjam waf rebar3 nimble Build
    genMakefiles""".split()
)
# Programs that images are known for, and that install nothing of the distribution.
_HARMLESS_IMAGES = frozenset(
    "uv uvx go gofmt node npm npx yarn pnpm composer busybox tini dumb-init gosu docker kubectl helm deno bun".split()
)
_ENVIRONMENTS = (
    "bin/activate",
    "/env",
    "nvm.sh",
    "os-release",
    "profile",
    ".bashrc",
    "asdf.sh",
    "sdkman-init.sh",
    "setup.bash",
)


def later_use(facts: Facts, run: Instruction) -> tuple[str, tuple[Evidence, ...]] | None:
    """What installs, or may install, from the lists that `run` has downloaded, with the line; None where nothing does.

    Looked at: the instructions behind it, what the image starts, and Dockerfiles beside it that build on the image.
    """
    for instruction in facts.behind(run):
        if instruction.keyword in ("ONBUILD", "RUN", "CMD", "ENTRYPOINT"):
            if (reason := _why(facts, instruction)) is not None:
                return reason, (facts.seen(instruction, "has no update of its own"),)
            if instruction.keyword == "RUN" and _is_new_from(facts, instruction):
                return None
    return _at_run_time(facts) or _by_neighbours(facts)


def _why(facts: Facts, instruction: Instruction) -> str | None:
    """Why an instruction may call apt for more than an update first; None where it does not."""
    script = facts.script(instruction) if instruction.keyword != "ONBUILD" else None
    if script is None:
        text = facts.document.raw(instruction)
        calls = _CALLS_APT.search(text) is not None or any(_CALLS_APT.search(t) for t in facts.scripts_started(instruction))
        return "a later instruction installs from these lists" if calls else None
    if _calls_first(script):
        return "a later RUN installs from these lists"
    if _first_call(script) is not None:
        return None  # it updates before
    placed = facts.placed(instruction) or ()
    if any(_is_opaque(item.command) for item in placed) or _CALLS_APT.search(_data_for_a_shell(script)):
        return "what a later RUN runs is only known when it runs: it may install from these lists"
    if any(_CALLS_APT.search(text) for item in placed for text in files_named(facts, instruction, item)):
        return "a later RUN starts a script that installs from these lists"
    if any(_has_apt_recipe(facts, instruction, item) for item in placed):
        return "a later RUN follows a recipe that installs from these lists"
    opaque = (i for i in placed if _is_unread(facts, instruction, i) or _is_brought(facts, instruction, i))
    if instruction.keyword == "RUN" and (unread := next(opaque, None)) is not None:
        what = unread.command.words[unread.command.head].raw
        return f"what `{what[:40]}` does was not read: it may install from these lists"
    return None


def _is_installer(command: Command) -> bool:
    """Whether a command installs from the lists, or looks something up in them."""
    if is_apt(command, "update", *_HARMLESS):
        return False
    return command.name in _INSTALLERS or subcommand(command) in _SOMETIMES.get(command.name or "", ())


def _first_call(script: Script) -> Command | None:
    """The first command that has to do with the lists."""
    return next((c for c in script.commands if is_apt(c, "update") or _is_installer(c) or _names_apt(c)), None)


def _names_apt(command: Command) -> bool:
    """Whether another program's arguments call apt: `xargs apt-get install`, `bash -c "apt-get ..."`."""
    return (
        not is_apt(command, *_HARMLESS)
        and _CALLS_APT.search(str(command)) is not None
        and command.name not in ("echo", "printf")
    )


def _calls_first(script: Script) -> bool:
    """Whether a script needs lists that it has not certainly updated before."""
    first = _first_call(script)
    if first is None:
        return False
    needs = [c for c in script.commands if _is_installer(c) or (_names_apt(c) and not is_apt(c, "update"))]
    is_sure = is_apt(first, "update") and (first.is_unconditional or all(first.guards <= c.guards for c in needs))
    return not is_sure or any(c.name == "exit" for c in script.commands)


def _is_opaque(command: Command) -> bool:
    """Whether what a command runs is only known when it runs: a name in a variable, or a shell that reads a pipe."""
    if command.name is None or command.name == "eval":
        return True
    return command.name in SHELLS and "pipeline" in command.guards and all(arg.startswith("-") for arg in command.args)


def _data_for_a_shell(script: Script) -> str:
    """The heredocs of a script that a shell reads: what else stands in quotes is data."""
    return script.text if any(c.name in (*SHELLS, "eval", "xargs") for c in script.commands) else ""


def _has_apt_recipe(facts: Facts, instruction: Instruction, placed: Placed) -> bool:
    """Whether a command runs what a recipe lists that calls apt, or one that is not at hand and by its target would."""
    names = _RECIPES.get(placed.command.name or "", ())
    if not names:
        return False
    own = [text for name in names if (path := placed.path(name)) is not None for text in _texts_at(facts, instruction, path)]
    every = own or [facts.context.read(f) or "" for f in facts.context.walk() if _is_recipe(f, names)]
    if any(_CALLS_APT.search(text) for text in every):
        return True
    return not own and placed.command.name == "make" and any(_INSTALLS_NEEDS.search(arg) for arg in placed.command.args)


def _is_recipe(path: str, names: tuple[str, ...]) -> bool:
    """Whether a file is a recipe of the application: those of its packages, thousands at times, are not run by name."""
    return posixpath.basename(path) in names and "node_modules" not in path.split("/")


def _texts_at(facts: Facts, instruction: Instruction, path: str) -> Iterator[str]:
    for copy in facts.copies_before(instruction):
        source = copy.locate(path)
        text = facts.context.read(source) if source is not None else None
        if text is not None:
            yield text


def _is_unread(facts: Facts, instruction: Instruction, placed: Placed) -> bool:
    """Whether a command starts a script or program by its path that neither the base nor the build context has: one out of a
    repository, an archive or another image."""
    command = placed.command
    if not command.words or command.name in (".", "source"):
        return False
    word = command.words[command.head].text or ""
    script = next((arg for arg in command.args if not arg.startswith("-")), "") if command.name in SHELLS else word
    if command.name in SHELLS and any(re.fullmatch(r"-[a-z]*c", arg) for arg in command.args):
        return False  # its words are looked at as they stand
    if "/" not in script or posixpath.basename(script) in _BUILD_SCRIPTS or script.endswith(_ENVIRONMENTS):
        return False
    path = placed.path(script)
    name = posixpath.basename(script)
    is_of_system = path is not None and re.match(r"/(usr/(local/)?)?s?bin/", path) is not None
    if is_of_system and (name in base_programs() or package_of(name, None) is not None):
        return False
    return path is None or not any(True for _ in _texts_at(facts, instruction, path))


def _is_brought(facts: Facts, instruction: Instruction, placed: Placed) -> bool:
    """Whether a program that is called by its bare name was put onto the PATH by somebody: downloaded, or copied from another
    image, so that nothing of it was read."""
    word = placed.command.words[placed.command.head].text if placed.command.words else None
    if not word or "/" in word or word in base_programs() or package_of(word, None) is not None:
        return False
    for earlier in facts.up_to(instruction, "COPY", "ADD", "RUN"):
        if earlier.keyword == "RUN":
            touched = written(facts.placed(earlier) or ())
            if any(posixpath.basename(t.path) == word and t.path.startswith("/") for t in touched):
                return True
        elif earlier.flag("from") is not None or "://" in earlier.value:
            names = {posixpath.basename(w.text) for w in earlier.words}
            if word in names and word not in _BUILD_SCRIPTS | _HARMLESS_IMAGES:
                return True
    return False


def _is_new_from(facts: Facts, run: Instruction) -> bool:
    """Whether `run` certainly updates the lists, so that what stands behind it has new ones."""
    commands = facts.commands(run)
    updates = [c for c in commands if is_apt(c, "update") and c.is_unconditional]
    return bool(updates) and not any(c.name == "exit" for c in commands)


def _at_run_time(facts: Facts) -> tuple[str, tuple[Evidence, ...]] | None:
    """A program that the image starts, and that installs from the lists without updating them."""
    updates = False
    for started in facts.application(facts.target).programs if facts.target is not None else ():
        name, verb = posixpath.basename(started.what or ""), next((w for w in started.words[1:] if not w.startswith("-")), "")
        updates = updates or (name in ("apt", "apt-get") and verb == "update")
        if name in _INSTALLERS and verb not in ("update", *_HARMLESS) and not updates:
            return f"`{name}` runs when the container starts, and installs from these lists", (started.seen,)
    return None


def _by_neighbours(facts: Facts) -> tuple[str, tuple[Evidence, ...]] | None:
    """A Dockerfile beside this one that builds on the image and installs without an update of its own."""
    for path, text in facts.context.neighbours():
        try:
            document = Document.parse(text.encode("utf-8", "surrogateescape"), path)
        except DockerfileError:
            continue  # what cannot be read builds nothing
        for stage in document.stages:
            if stage.parent is not None or not _may_be_ours(facts, stage.image):
                continue
            for run in (i for i in stage.body if i.keyword == "RUN" and i.exec_form is None):
                script = read_script(run.argument.text)
                if script is not None and _calls_first(script):
                    seen = facts.seen_at(path, document.source.origin(run.span.start), "installs without an update")
                    return f"{path} builds on this image and installs from its lists", (seen,)
                if script is not None and any(is_apt(c, "update") for c in script.commands):
                    break
    return None


def _may_be_ours(facts: Facts, reference: str) -> bool:
    """Whether an image that another Dockerfile starts from may be the one that this Dockerfile makes: no public one that is
    known, and called as the folder is, or as a service calls the image."""
    if image(reference) is not None or reference == "scratch" or "$" in reference.partition(":")[0]:
        return False
    names = {service.image.partition(":")[0] for service in facts.context.services if service.image}
    words = {word for word in re.split(r"[/:_.@-]", reference.lower()) if len(word) > 2}
    own = {word for name in facts.context.names_of_image() for word in re.split(r"[_.-]", name) if len(word) > 2}
    return reference.partition(":")[0] in names or bool(words & own)
