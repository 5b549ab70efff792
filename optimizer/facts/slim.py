"""What an image uses of all that its full base has and the slim variant lacks: programs, libraries, certificates, compilers."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from optimizer.facts.application import started_by
from optimizer.facts.commands import apt_install
from optimizer.facts.images import slim_packages
from optimizer.facts.manifests import Application
from optimizer.facts.node_packages import install_addons, shipped_packages, tool_package
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
)
from optimizer.facts.python_packages import Installed, Requirement, compiled, installed, is_install, requirements
from optimizer.facts.started import How
from optimizer.facts.uses import Act
from optimizer.rewrite import Check

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from optimizer.dockerfile.document import Stage
    from optimizer.dockerfile.instruction import Instruction
    from optimizer.facts.facts import Facts
    from optimizer.facts.images import Image
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
_OTHER_INSTALLS = re.compile(
    r"^(gem|bundle|bundler|composer|cargo|conda|mamba|R|Rscript|cpan|cpanm|luarocks|go|mvn|gradle|dotnet)$"
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
        inside = Application(facts, stage.instructions[-1], including=True)
        self.node = shipped_packages(inside, facts.end_state(stage).workdir)

    def look(self) -> Missing:
        """Everything that is missing."""
        for run in self.runs:
            self._look_at_run(run)
        self._look_at_application()
        self._look_at_certificates()
        return self.missing

    def _own_packages(self) -> dict[str, int]:
        """The Debian packages that RUNs install by name, and the index of the RUN."""
        found: dict[str, int] = {}
        for run in self.runs:
            for placed in self.facts.placed(run) or ():
                install = apt_install(placed.command)
                for name in install.packages if install is not None else ():
                    found[name] = min(found.get(name, run.index), run.index)
        return found

    # ---------------------------------------------------------------- the build

    def _look_at_run(self, run: Instruction) -> None:
        for started in started_by(self.facts, run):
            if started.how is How.UNKNOWN:
                claim = "everything that the build runs is known to be in the slim image"
                self.missing.checks.append(Check(claim, holds=None, evidence=(started.seen,)))
            elif started.how is How.PROGRAM and started.what is not None:
                self._program(started.what, started.seen, run)
        application = Application(self.facts, run)
        for placed in self.facts.placed(run) or ():
            if is_install(placed):
                self._python_install(run, requirements(application, placed))
            if any(arg.endswith("setup.py") for arg in placed.command.args):
                seen = self.facts.seen_command(run, placed.command, "may compile")
                compiled_ones = [f for f in self.facts.context.walk() if f.endswith((".c", ".cpp", ".pyx", ".rs"))]
                claim = "setup.py compiles nothing"
                self.missing.checks.append(Check(claim, holds=False if compiled_ones else None, evidence=(seen,)))
            if placed.command.name and _OTHER_INSTALLS.match(placed.command.name):
                seen = self.facts.seen_command(run, placed.command, "installs or builds, perhaps with a compiler")
                self.missing.checks.append(Check("nothing that it installs takes a compiler", holds=None, evidence=(seen,)))
        for check, package in install_addons(self.facts, application, run):
            self._addon(check, package)

    def _addon(self, check: Check, package: str) -> None:
        if check.holds is False and self.missing.compiles is None and check.evidence:
            self.missing.compiles = (package, check.evidence[0])
        self.missing.checks.append(check)

    def _program(self, program: str, seen: Evidence, run: Instruction | None) -> None:
        name = posixpath.basename(program)
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
            for package in ("git", "ca-certificates"):
                if package not in self.own and package in self.lost:
                    self.missing.packages.setdefault(package, vcs.seen)

    def _uncertain(self, requirement: Requirement, run: Instruction, *, verdict: bool | None) -> None:
        package = python_package(requirement.name)
        needed = [n for n in (package.build if package is not None else ("gcc",)) if n in self.lost or is_build_only(n)]
        has_tools = bool(needed) and all(self.own.get(n, run.index + 1) <= run.index or self._comes_with(n) for n in needed)
        if verdict is False and not has_tools:
            claim = f"no package is compiled: {requirement.name} has no wheel for this Python"
            self.missing.compiles = self.missing.compiles or (requirement.name, requirement.seen)
            self.missing.checks.append(Check(claim, holds=False, evidence=(requirement.seen,)))
        elif verdict is None:
            name = "a package of the sources or of a repository" if requirement.name == "?" else requirement.name
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
                    elif library in self.lost and library not in self.own and not self._has_headers(library):
                        self.missing.packages.setdefault(library, seen)
                for program in package.programs:
                    self._program(program, seen, None)

    def _has_headers(self, library: str) -> bool:
        """Whether a `-dev` package that is installed brings a library with it."""
        return any(library in (runtime_libraries(name, self.base.release) or ()) for name in self.own)

    # ---------------------------------------------------------------- run time

    def _look_at_application(self) -> None:
        application = self.facts.application(self.stage)
        for started in application.programs:
            if started.what is not None:
                self._program(started.what, started.seen, None)
            if _OTHER_INSTALLS.match(posixpath.basename(started.what or "")) or {"install", "ci"} & set(started.words[1:3]):
                claim = "nothing is installed or built when the container starts that takes a compiler"
                self.missing.checks.append(Check(claim, holds=None, evidence=(started.seen,)))
        self.missing.checks += application.unknown
        self._look_at_libraries()
        for name in sorted(self.node):
            for library in (node_addon(name) or {}).get("libraries", ()):
                package = in_release(library, self.base.release)
                if package is not None and package in self.lost and package not in self.own:
                    seen = self.facts.seen(self.stage.base, f"{name} loads it")
                    self.missing.packages.setdefault(package, seen)
        if application.is_explained.holds is None:
            self.missing.checks.append(application.is_explained)
        for name in sorted(self.node):
            for program in node_programs(name):
                seen = self.facts.seen(self.stage.base, f"{name} starts {program}")
                self._program(program, seen, None)
        if not application.unknown and application.is_traced:
            claim = "the programs that the application starts are known"
            more = len(application.sources) - 1
            who = f"this file and the {more} that it imports start" if more else "this file starts"
            known = [self.facts.seen_in(p, f"{who} no other program of the full image") for p, _ in application.sources[:1]]
            self.missing.checks.append(Check(claim, holds=True, evidence=tuple(known)))

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
            elif package in self.lost and package not in self.own and not self._has_headers(package):
                self.missing.packages.setdefault(package, seen)
        if any(name.partition(".")[0] in ("tkinter", "turtle") for name in application.imports):
            seen = self.facts.seen(self.stage.base, "the sources import tkinter")
            self.missing.checks.append(Check("no source needs Tk, which the slim image lacks", holds=False, evidence=(seen,)))
        if trigger := next((i for i in self.facts.up_to(self.stage.instructions[-1]) if i.keyword == "ONBUILD"), None):
            seen = self.facts.seen(trigger, "runs in images that build on this one")
            claim = "what is built on this image does without the full one"
            self.missing.checks.append(Check(claim, holds=None, evidence=(seen,)))

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
        if "TZ" in state.env and "tzdata" in self.lost and "tzdata" not in self.own:
            self.missing.packages.setdefault(
                "tzdata", self.facts.seen(self.stage.base, "TZ is set, and the slim image has no zones")
            )


def apt_layer(facts: Facts, packages: Iterable[str]) -> str:
    """A RUN that installs Debian packages and leaves no lists behind, without a last newline."""
    document = facts.document
    end = f" && {document.escape}{document.source.newline}    "
    names = " ".join(sorted(packages))
    return f"RUN apt-get update{end}apt-get install -y --no-install-recommends {names}{end}rm -rf /var/lib/apt/lists/*"


def python_version(base: Image) -> str | None:
    """The minor version of Python in an image, such as "3.11"."""
    match = re.match(r"3\.\d+", base.version or "") if base.name == "python" else None
    return match[0] if match else None


def affected(facts: Facts, root: Stage) -> Iterator[Instruction]:
    """The RUNs of the stages that start from `root`, itself included."""
    for stage in facts.document.stages:
        if root in stage.ancestry:
            yield from (i for i in stage.body if i.keyword == "RUN")
