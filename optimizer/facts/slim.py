"""What an image uses of all that its full base has and the slim variant lacks: programs, libraries, certificates, compilers."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from optimizer.facts.application import started_by
from optimizer.facts.commands import apt_install, is_certain_install
from optimizer.facts.images import slim_packages
from optimizer.facts.manifests import Application
from optimizer.facts.mentioned import handed_on, helpers, programs_in
from optimizer.facts.natives import is_unread, native_dependency
from optimizer.facts.node import is_project_install
from optimizer.facts.node_packages import install_addons, install_commands, project_packages, shipped_packages, tool_package
from optimizer.facts.packages import (
    base_programs,
    in_release,
    is_build_only,
    is_builder,
    library_package,
    lost_in_slim,
    node_addon,
    node_programs,
    package_of,
    python_package,
    python_package_of_program,
    runtime_libraries,
    table,
)
from optimizer.facts.python_packages import (
    Installed,
    Requirement,
    compiled,
    installed,
    is_install,
    python_version,
    requirements,
)
from optimizer.facts.started import UNREAD, How
from optimizer.facts.supplies import supplies
from optimizer.facts.uses import Act
from optimizer.rewrite import Check

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from optimizer.dockerfile.document import Stage
    from optimizer.dockerfile.instruction import Instruction
    from optimizer.facts.commands import Placed
    from optimizer.facts.facts import Facts
    from optimizer.facts.images import Image
    from optimizer.facts.started import Started
    from optimizer.facts.supplies import Supply
    from optimizer.rewrite import Evidence

# Package managers and their like: what they install is looked at by itself.
_KNOWN = frozenset(
    """apt apt-get apt-key add-apt-repository dpkg pip pip3 python python3 uv poetry pipenv virtualenv npm npx yarn pnpm
    corepack node nodejs bun useradd adduser groupadd addgroup usermod chpasswd update-ca-certificates locale-gen
    update-locale sudo tini dumb-init
    gosu""".split()
)
# Programs that fetch over TLS, and so want certificates.
_SPEAKS_TLS = frozenset({"curl", "wget", "git", "hg", "svn"})
_CERTIFICATE_VARIABLES = frozenset(
    {"NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"}
)
# What asks for the certificates of the system by name.
_SYSTEM_CERTIFICATES = re.compile(r"--use-(openssl|system)-ca|/etc/ssl/certs|\bgetCACertificates\b")
# Build backends that take the version from git.
_BY_GIT = re.compile(r"setuptools.scm|hatch-vcs|versioningit|dunamai|\bpbr\b")
# What reads the documentation that slim images of Debian leave out; openjdk's packages install manuals into its folders.
_DOCUMENTATION = re.compile(r"/usr/share/(doc|man|info|locale|groff)\b|\bman-db\b|\bopenjdk-(8|11)-\w+|\bman -")
# Sources that call a compiler when they run.
_COMPILES_LATER = re.compile(r"\btorch\.compile\b|\btorch\.utils\.cpp_extension\b|@triton\.jit\b|\bpyximport\b|\bffi\.verify\(")
_TK = re.compile(r"['\"](TkAgg|TkCairo)['\"]")
# Programs that start others, by a file of their own.
_SUPERVISORS = frozenset({"supervisord", "circusd", "honcho", "foreman", "s6-svscan"})
# Files that belong to packages of the full image alone.
_OF_THE_FULL_IMAGE = re.compile(r"/etc/ImageMagick|/usr/share/mime\b|/usr/include/|/etc/mercurial|/etc/subversion")
# Images that bring programs which are linked statically.
_BRINGS_ALL = re.compile(r"(^|/)(uv|busybox|static-[\w-]+|buildx-bin|dumb-init|tini-static)(:|@|$)")
# Programs that link others with libraries of their image.
_LINKS = re.compile(r"^(gcc|g\+\+|cc|c\+\+|clang|make|cmake|ninja|cargo|rustc|meson|ghc|stack|swift|crystal|nim)$")
# Words by which a package manager installs or builds when the container starts.
_INSTALLS_LATER = frozenset({"install", "ci", "i", "add", "sync", "wheel", "download", "update", "upgrade", "rebuild"})
# Packages whose installation registers an alternative with a manual page, and releases whose slim images have no folder for
# one (debuerreotype#10; mended in images from 2021-08 on, which not every tag was built after).
_WITHOUT_MANUALS = frozenset({"wheezy", "jessie", "stretch", "buster"})
_WANTS_MANUALS = re.compile(
    r"^(default-j(re|dk)(-headless)?|openjdk-\d+-j(re|dk)(-headless)?|postgresql(-client)?(-\d[\d.]*)?|maven|ant|tomcat\d*)$"
)
_OTHER_INSTALLS = re.compile(
    r"^(gem|bundle|bundler|composer|cargo|conda|mamba|R|Rscript|cpan|cpanm|luarocks|go|mvn|gradle|dotnet|pipx|opam)$"
)


@dataclass
class Missing:
    """What is missing in the slim variant.

    `packages` are Debian packages to install, each with the line that needs it; `compiles` the first line that takes a
    compiler, `checks` what could be told and what could not.
    """

    packages: dict[str, Evidence] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)
    compiles: tuple[str, Evidence] | None = None


class SlimNeeds:
    """Looks at what `runs` do in the build and at what the application of `stage` does, were `base` the slim variant."""

    def __init__(self, facts: Facts, stage: Stage, base: Image, runs: Iterable[Instruction]) -> None:
        self.facts = facts
        self.stage = stage
        self.base = base
        self.runs = tuple(runs)
        self.lost = lost_in_slim(base.release) - slim_packages(base.name) if base.has_libraries else frozenset[str]()
        self.missing = Missing()
        self.own = self._own_packages()
        self.python: dict[str, Evidence] = {}
        self.brought = frozenset[str]()
        inside = Application(facts, stage.instructions[-1], including=True)
        self.node = shipped_packages(inside, facts.end_state(stage).workdir)

    def bring(self, found: tuple[Requirement, ...] | None, debian: Iterable[str] = ()) -> None:
        """Take in packages of Python and Debian that come from elsewhere, as from a builder, and are used here."""
        everything = installed(found or ())
        self.python |= {package.name: everything.seen(package.name)[0] for package in everything.packages}
        self.brought |= frozenset(debian)

    def look(self) -> Missing:
        """Everything that is missing."""
        for run in self.runs:
            self._look_at_run(run)
        self._look_at_stages()
        self._look_at_application()
        self._look_at_supplies()
        self._look_at_certificates()
        self._look_at_release()
        return self.missing

    def _look_at_release(self) -> None:
        """Whether the tables, made of certain releases, speak of this one; and what slim images of old ones break."""
        release, known = self.base.release, table("debian")["releases"]
        if self.base.buildpack and release not in known:
            what = f"what the full image of {release or 'that release'} has beside the slim one"
            claim = f"{what} is known (it is for {', '.join(known)})"
            self.missing.checks.append(Check(claim, holds=None, evidence=(self.facts.seen(self.stage.base, "is its base"),)))
        if release in _WITHOUT_MANUALS and (name := next((n for n in self.own if _WANTS_MANUALS.match(n)), None)) is not None:
            run = next(i for i in self.runs if i.index >= self.own[name] - 1)
            claim = f"{name} is installed, which fails where /usr/share/man is left out, as in slim images of {release}"
            self.missing.checks.append(Check(claim, holds=False, evidence=(self.facts.seen(run, f"installs {name}"),)))

    def _look_at_supplies(self) -> None:
        """Fonts, tables and zones that the full image brings by itself: what uses them gets them by name."""
        for supply, seen in self.supplies_used():
            packages = supply.packages.get(self.base.release or "")
            if packages is None and self.base.has_libraries:
                claim = f"{supply.what}: which packages hold it on {self.base.release} is known"
                self.missing.checks.append(Check(claim, holds=None, evidence=(seen,)))
            for package in packages or ():
                self._needs(package, seen)

    def supplies_used(self) -> Iterator[tuple[Supply, Evidence]]:
        """What the application uses of that, each with the line; asked when the runs have been looked at."""
        for supply in supplies():
            if (seen := self._use_of(supply)) is not None:
                yield supply, seen

    def _use_of(self, supply: Supply) -> Evidence | None:
        """The line by which the application uses a supply; None where it does not."""
        if (name := supply.user_among("python", self.python)) is not None:
            return replace(self.python[name], claim=f"{name} uses {supply.what}")
        if (name := supply.user_among("node", self.node)) is not None:
            return self.facts.seen(self.stage.base, f"{name} uses {supply.what}")
        if (name := supply.user_among("debian", self.brought | self.own.keys())) is not None:
            run = next((i for i in self.runs if i.index >= self.own.get(name, i.index + 2) - 1), self.stage.base)
            return self.facts.seen(run, f"{name} uses {supply.what}")
        application = self.facts.application(self.stage)
        for started in application.programs:
            if posixpath.basename(started.what or "") in supply.programs:
                return replace(started.seen, claim=f"uses {supply.what}")
        for run in self.runs:
            if command := next((c for c in self.facts.commands(run) if c.name in supply.programs), None):
                return self.facts.seen_command(run, command, f"uses {supply.what}")
        for path, _ in application.sources:
            if match := supply.sources.search(self.facts.context.read(path) or ""):
                return self.facts.seen_match(path, match, f"uses {supply.what}")
        return None

    def _look_at_stages(self) -> None:
        """What comes from other stages and images, packages that load libraries and programs that were linked there, and what
        other stages take from this image."""
        for other in (i for i in self.facts.document.instructions if i.keyword == "COPY"):
            flag = other.flag("from")
            source = self.facts.document.stage_named(flag.value or "") if flag is not None else None
            if source is not None and source in self.facts.shipped:
                self._look_at_text(self.facts.document.raw(other), self.facts.seen(other, "takes it"), other)
        for copy in self.facts.up_to(self.stage.instructions[-1], "COPY", "ADD"):
            flag = copy.flag("from")
            name = flag.value if flag is not None else None
            if name is None or _BRINGS_ALL.search(name):
                continue
            source = self.facts.document.stage_named(name)
            if source is None:
                seen = self.facts.seen(copy, "comes from an image")
                self.missing.checks.append(Check(f"what comes from {name} needs no library", holds=None, evidence=(seen,)))
                continue
            if source in self.facts.shipped:
                continue
            for run in (i for stage in source.ancestry for i in stage.body if i.keyword == "RUN"):
                self._look_at_run_elsewhere(run, copy)

    def _look_at_run_elsewhere(self, run: Instruction, copy: Instruction) -> None:
        application = Application(self.facts, run)
        for placed in self.facts.placed(run) or ():
            if is_install(placed) and (found := requirements(application, placed)) is not None:
                self._python_needs(installed(found))
                for requirement, _ in compiled(found, python_version(self.base)):
                    self._linked_elsewhere(requirement.name, copy)
            elif is_install(placed):
                self._linked_elsewhere("a Python package", copy)
            elif _LINKS.match(placed.command.name or ""):
                self._linked_elsewhere(placed.command.name or "", copy)
            project = application.project(placed, "package.json") if is_project_install(placed) else None
            for package in sorted(project_packages(project)) if project is not None else ():
                self._node_needs(package, copy)

    def _linked_elsewhere(self, what: str, copy: Instruction) -> None:
        claim = f"what {what} built in the other stage is linked with is in the slim image"
        self.missing.checks.append(Check(claim, holds=None, evidence=(self.facts.seen(copy, "brings it"),)))

    def _node_needs(self, name: str, at: Instruction) -> None:
        """Libraries and programs of an npm package that runs here."""
        for library in (node_addon(name) or {}).get("libraries", ()):
            self._needs(in_release(library, self.base.release), self.facts.seen(at, f"{name} loads it"))
        for program in node_programs(name):
            self._program(program, self.facts.seen(at, f"{name} starts {program}"), None)

    def _needs(self, package: str | None, seen: Evidence) -> None:
        """Enter a package that has to be installed, where the slim image lacks it and no RUN installs it."""
        if package is not None and package in self.lost and package not in self.own:
            self.missing.packages.setdefault(package, seen)

    def _own_packages(self) -> dict[str, int]:
        """The Debian packages that RUNs install by name, and the index of the RUN."""
        found: dict[str, int] = {}
        for run in self.runs:
            above: set[str | None] = set()
            for placed in self.facts.placed(run) or ():
                install = apt_install(placed.command)
                if install is None or not is_certain_install(placed.command):
                    above.add(package_of(posixpath.basename(placed.command.name or ""), self.base.release))
                    continue
                for name in install.packages:
                    at = run.index + (name in above)  # what is used above its own install comes too late there
                    found[name] = min(found.get(name, at), at)
        return found

    # ---------------------------------------------------------------- the build

    def _look_at_run(self, run: Instruction) -> None:
        for started in started_by(self.facts, run):
            if started.how is How.UNKNOWN:
                claim = "everything that the build runs is known to be in the slim image"
                self.missing.checks.append(Check(claim, holds=None, evidence=(started.seen,)))
            elif started.how is How.PROGRAM and started.what is not None:
                self._program(started.what, started.seen, run)
                self._handed_on(started.words, started.seen, run)
        self._look_at_text(self.facts.document.raw(run), self.facts.seen(run, "names it"), run)
        application = Application(self.facts, run)
        for placed in self.facts.placed(run) or ():
            self._look_at_command(placed, application, run)
        for check, package in install_addons(self.facts, application, run):
            self._addon(check, package)
            if package and check.holds is True:
                self._node_needs(package, run)

    def _look_at_command(self, placed: Placed, application: Application, run: Instruction) -> None:
        """What one command of the build installs, removes or compiles."""
        if {"purge", "remove", "autoremove"} & set(placed.command.args) and placed.command.name in ("apt", "apt-get"):
            seen = self.facts.seen_command(run, placed.command, "removes it")
            for name in sorted(self.lost.intersection(placed.command.args) - self.own.keys()):
                self.missing.checks.append(
                    Check(f"{name} is removed in the build, and the slim image lacks it", holds=False, evidence=(seen,))
                )
        if is_install(placed):
            self._python_install(run, requirements(application, placed))
            project = application.source(placed.path("pyproject.toml")) if "." in placed.command.args else None
            if project is not None and _BY_GIT.search(self.facts.context.read(project) or ""):
                self._program("git", self.facts.seen_in(project, "takes the version from git"), run)
        if any(arg.endswith("setup.py") for arg in placed.command.args):
            seen = self.facts.seen_command(run, placed.command, "may compile")
            compiled_ones = [f for f in self.facts.context.walk() if f.endswith((".c", ".cpp", ".pyx", ".rs"))]
            claim = "setup.py compiles nothing"
            self.missing.checks.append(Check(claim, holds=False if compiled_ones else None, evidence=(seen,)))
        if placed.command.name and _OTHER_INSTALLS.match(placed.command.name):
            seen = self.facts.seen_command(run, placed.command, "installs or builds, perhaps with a compiler")
            native = native_dependency(application, placed)
            claim = f"nothing that it installs takes a compiler{f': {native} does' if native else ''}"
            if is_unread(application, placed):
                claim = "the gems that it installs are not known (no lock file names them): most applications compile one"
                native = "?"
            self.missing.checks.append(Check(claim, holds=False if native else None, evidence=(seen,)))
        package = application.project(placed, "package.json") if is_project_install(placed) else None
        for command, line in install_commands(package) if package is not None else ():
            self._mentioned(command, line, run)

    def _handed_on(self, words: tuple[str, ...], seen: Evidence, run: Instruction | None) -> None:
        """Programs that `words` start in turn."""
        for program in helpers(words):
            self._program(program, seen, run)
        for word in handed_on(words):
            self._mentioned(word, seen, run)

    def _mentioned(self, word: str, seen: Evidence, run: Instruction | None) -> None:
        """A word that may be a program: only one of the packages that the slim image lacks is taken for one."""
        if package_of(posixpath.basename(word), self.base.release) in self.lost:
            self._program(word, seen, run)

    def _look_at_text(self, text: str, seen: Evidence, run: Instruction | None) -> None:
        """Paths and options in a RUN or in a source that name what only the full image has."""
        for word in programs_in(text):
            self._mentioned(word, seen, run)
        if (file := _OF_THE_FULL_IMAGE.search(text)) is not None and self.base.has_libraries:
            claim = f"nothing is read below {file[0].rstrip('/')}, which the slim image lacks"
            self.missing.checks.append(Check(claim, holds=None, evidence=(seen,)))
        if (file := _DOCUMENTATION.search(text)) is not None and not self.base.has_libraries:
            claim = f"`{file[0]}` would find nothing: slim images leave documentation and manuals out"
            self.missing.checks.append(Check(claim, holds=False, evidence=(seen,)))
        if _COMPILES_LATER.search(text) and run is None:
            self.missing.compiles = self.missing.compiles or ("gcc", seen)
            claim = "nothing is compiled when the program runs: it compiles models"
            self.missing.checks.append(Check(claim, holds=False, evidence=(seen,)))
        if _TK.search(text):
            self._needs_tk(seen)
        if ("sources.list" in text and "https://" in text) or _SYSTEM_CERTIFICATES.search(text):
            self._needs("ca-certificates", replace(seen, claim="reads the system's certificates"))

    def _addon(self, check: Check, package: str) -> None:
        if "takes git" in check.claim:
            for name in ("git", "ca-certificates"):
                self._needs(name, check.evidence[0])
        if check.holds is False and self.missing.compiles is None and check.evidence:
            self.missing.compiles = (package, check.evidence[0])
        self.missing.checks.append(check)

    def _program(self, program: str, seen: Evidence, run: Instruction | None) -> None:
        name = posixpath.basename(program)
        if name in self.base.programs:
            return
        package = package_of(name, self.base.release)
        if package is not None and package in self.lost:
            at = self.own.get(package)
            if at is not None and (run is None or at <= run.index):
                return
            if is_build_only(package) or name in ("make", "gcc", "cc", "g++", "c++", "ld", "as", "ar"):
                claim = f"nothing is compiled in the image: `{name}` is not in the slim one"
                self.missing.compiles = self.missing.compiles or (name, seen)
                self.missing.checks.append(Check(claim, holds=False, evidence=(seen,)))
            else:
                self.missing.packages.setdefault(package, seen)
            return
        if run is None or "/" in program or self._is_known(name):
            return
        claim = f"`{name}` itself uses nothing that the slim image lacks"
        self.missing.checks.append(Check(claim, holds=None, evidence=(seen,)))

    def _is_known(self, name: str) -> bool:
        return (
            name in _KNOWN
            or name in base_programs()
            or name in self.base.programs
            or package_of(name, self.base.release) is not None
            or python_package_of_program(name) is not None
            or _OTHER_INSTALLS.match(name) is not None
            or tool_package(name) in self.node
            or is_builder(tool_package(name))
        )

    def _python_install(self, run: Instruction, found: tuple[Requirement, ...] | None) -> None:
        if found is None:
            seen = self.facts.seen(run, "installs them")
            self.missing.checks.append(Check("the Python packages that are installed are known", holds=None, evidence=(seen,)))
            return
        python = python_version(self.base)
        unsure = list(compiled(found, python))
        for requirement, verdict in unsure:
            self._uncertain(requirement, run, verdict=verdict)
        everything = installed(found)
        self._python_needs(everything)
        for package in everything.packages:
            self.python |= dict.fromkeys([package.name], next(iter(everything.seen(package.name)), found[0].seen))
        if everything.unknown:
            names = ", ".join(everything.unknown[:3])
            self.missing.checks.append(
                Check(
                    f"{names} need no compiler, and no library or program that only the full image has (not in our table)",
                    holds=None,
                    evidence=tuple(r.seen for r in found if r.name in everything.unknown)[:1],
                )
            )
        if everything.packages and not unsure:
            claim = f"every package has a wheel for Python {python or '3'}, or is pure Python"
            self.missing.checks.append(Check(claim, holds=True, evidence=(replace(found[0].seen, claim=claim),)))
        if (vcs := next((r for r in found if r.origin == "vcs"), None)) is not None:
            tool = "mercurial" if "hg+" in vcs.seen.excerpt else "git"
            over_ssh = ("openssh-client",) if "ssh://" in vcs.seen.excerpt else ()
            for package in (tool, *over_ssh, "ca-certificates"):
                self._needs(package, vcs.seen)

    def _uncertain(self, requirement: Requirement, run: Instruction, *, verdict: bool | None) -> None:
        package = python_package(requirement.name)
        needed = [n for n in (package.build if package is not None else ("gcc",)) if n in self.lost or is_build_only(n)]
        has_tools = bool(needed) and all(self.own.get(n, run.index + 1) <= run.index or self._comes_with(n) for n in needed)
        if verdict is False and not has_tools:
            claim = f"no package is compiled: {requirement.name} has no wheel for this Python"
            self.missing.compiles = self.missing.compiles or (requirement.name, requirement.seen)
            self.missing.checks.append(Check(claim, holds=False, evidence=(requirement.seen,)))
        elif verdict is None:
            name = _what_it_is(requirement)
            claim = f"{name} has a wheel for this Python, or is pure Python"
            self.missing.checks.append(Check(claim, holds=None, evidence=(requirement.seen,)))

    def _comes_with(self, package: str) -> bool:
        """Whether another package that is installed brings a build tool."""
        return package in ("gcc", "g++", "make", "libc6-dev") and bool({"build-essential", "g++"} & self.own.keys())

    def _python_needs(self, everything: Installed) -> None:
        for package in everything.packages:
            for seen in everything.seen(package.name)[:1]:
                for named in package.libraries:
                    library = in_release(named, self.base.release)
                    if library is None:
                        claim = f"what {named} is called on {self.base.release} is known"
                        self.missing.checks.append(Check(claim, holds=None, evidence=(seen,)))
                    elif not self._has_headers(library):
                        self._needs(library, seen)
                for program in package.programs:
                    self._program(program, seen, None)

    def _has_headers(self, library: str) -> bool:
        """Whether a `-dev` package that is installed brings a library with it."""
        return any(library in (runtime_libraries(name, self.base.release) or ()) for name in self.own)

    # ---------------------------------------------------------------- run time

    def _look_at_application(self) -> None:
        application = self.facts.application(self.stage)
        for started in application.programs:
            self._look_at_program(started)
        self.missing.checks += application.unknown
        for path, _ in application.sources:
            self._look_at_text(self.facts.context.read(path) or "", self.facts.seen_in(path, "names it"), None)
        self._look_at_text(
            self.facts.end_state(self.stage).env.get("NODE_OPTIONS") or "",
            self.facts.seen(self.stage.base, "NODE_OPTIONS"),
            None,
        )
        self._look_at_libraries()
        if application.is_explained.holds is None:
            self.missing.checks.append(application.is_explained)
        for name in sorted(self.node):
            self._node_needs(name, self.stage.base)
        if not application.unknown and application.is_traced:
            claim = "the programs that the application starts are known"
            more = len(application.sources) - 1
            who = f"this file and the {more} that it imports start" if more else "this file starts"
            known = [self.facts.seen_in(p, f"{who} no other program of the full image") for p, _ in application.sources[:1]]
            self.missing.checks.append(Check(claim, holds=True, evidence=tuple(known)))

    def _look_at_program(self, started: Started) -> None:
        """A program that the image starts, with the words that it gets."""
        name, seen = posixpath.basename(started.what or ""), started.seen
        if started.what is not None:
            self._program(started.what, seen, None)
        self._handed_on(started.words, seen, None)
        self._look_at_text(" ".join(started.words), seen, None)
        if name in ("npm-run-all", "run-p", "run-s"):
            self._program("ps", seen, None)
        claims = []
        if name in UNREAD:
            claims.append(f"the programs that the sources start are known: those of {started.what} are not read")
        if name in _SUPERVISORS:
            claims.append("the programs that a supervisor starts are known")
        if _OTHER_INSTALLS.match(name) or _INSTALLS_LATER.intersection(started.words[1:3]):
            claims.append("nothing is installed or built when the container starts that takes a compiler")
        self.missing.checks += [Check(claim, holds=None, evidence=(seen,)) for claim in claims]

    def _look_at_libraries(self) -> None:
        """Shared libraries that the sources load by name, and the one of Python's own modules that slim images lack."""
        application = self.facts.application(self.stage)
        for use in application.uses:
            if use.act is not Act.LOADS:
                continue
            seen = application.seen(use, f"loads {use.what or 'a library'}")
            package = library_package(use.what, self.base.release) if use.what is not None else None
            if package is None:
                self.missing.checks.append(Check("which shared library is loaded is known", holds=None, evidence=(seen,)))
            elif not self._has_headers(package):
                self._needs(package, seen)
        if any(name.partition(".")[0] in ("tkinter", "turtle") for name in application.imports):
            self._needs_tk(self.facts.seen(self.stage.base, "the sources import tkinter"))
        if trigger := next((i for i in self.facts.up_to(self.stage.instructions[-1]) if i.keyword == "ONBUILD"), None):
            seen = self.facts.seen(trigger, "runs in images that build on this one")
            claim = "what is built on this image does without the full one"
            self.missing.checks.append(Check(claim, holds=None, evidence=(seen,)))

    def _needs_tk(self, seen: Evidence) -> None:
        claim = "Tk is needed, which the slim image lacks"
        self.missing.checks.append(Check(claim, holds=False, evidence=(seen,)))

    def _look_at_certificates(self) -> None:
        if "ca-certificates" not in self.lost or "ca-certificates" in self.own:
            return
        speaking = [n for n in (*self.own, *self.missing.packages) if n in _SPEAKS_TLS]
        state = self.facts.end_state(self.stage)
        named = sorted(_CERTIFICATE_VARIABLES & state.env.keys())
        if speaking and speaking[0] in self.missing.packages:
            seen = self.missing.packages[speaking[0]]
            self.missing.packages.setdefault("ca-certificates", replace(seen, claim=f"{speaking[0]} checks certificates"))
        elif speaking or named:
            seen = self.facts.seen(self.stage.base, f"{(speaking or named)[0]} reads the certificates of the full image")
            self.missing.packages.setdefault("ca-certificates", seen)
        if "TZ" in state.env:
            self._needs("tzdata", self.facts.seen(self.stage.base, "TZ is set, and the slim image has no zones"))


def _what_it_is(requirement: Requirement) -> str:
    if requirement.origin == "extra":
        return "what the extra adds"
    return "a package of the sources or of a repository" if requirement.name == "?" else requirement.name
