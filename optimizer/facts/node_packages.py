"""Which npm packages an install brings: those that compile or download a binary, and those that only development needs."""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING, Any

from optimizer.dockerfile.shell import read_script
from optimizer.facts.manifests import Project
from optimizer.facts.node import LIFECYCLE, LOCKS, installs_by_name, is_project_install, named_packages, parse_json
from optimizer.facts.packages import is_builder, is_plain, node_addon, node_package_of_program
from optimizer.rewrite import Check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optimizer.dockerfile.instruction import Instruction
    from optimizer.facts.application import AppFacts
    from optimizer.facts.commands import Placed
    from optimizer.facts.facts import Facts
    from optimizer.facts.manifests import Application
    from optimizer.rewrite import Evidence

# Install scripts that only print, or that do without what they look for.
_HARMLESS = frozenset(
    {"core-js", "core-js-pure", "es5-ext", "protobufjs", "@scarf/scarf", "styled-components", "fsevents", "msw", "vue-demi"}
)
_OF_YARN = re.compile(r"""^"?((?:@[\w.-]+/)?[\w.-]+)@""", re.MULTILINE)
_REPOSITORY = re.compile(r"^ +resolved \"(git\+|git:|https?://[^\"]+\.git#)", re.MULTILINE)
# Commands of such scripts that take no package.
_PLAIN = frozenset({"echo", "true", "exit", ":", "cd", "test", "[", ""})
# Settings that only checkers, testers and builders read.
_CHECKERS = re.compile(
    r"eslint|prettier|jest|vitest|commitlint|stylelint|lintstaged|lint-staged|husky|vite|webpack|rollup|postcss|tailwind|karma|cypress"
    r"|playwright|nycrc|mocharc|tsup|size-limit|release|npmrc|nvmrc|yarnrc"
)
_NAMES = re.compile(r"""['"`](?P<name>(?:[\w./-]*node_modules/)?(?:@[\w.-]+/)?[\w.-]+(?:/[\w./-]*)?)['"`]""")
_CALLED = re.compile(r"node_modules/\.bin/([\w.@-]+)")
# Programs that are looked up in node_modules, and nowhere else.
_LOCAL_TOOLS = frozenset({"vite", "next", "ts-node", "tsx", "nodemon", "nest", "react-scripts", "nuxt", "astro", "remix"})


def install_addons(facts: Facts, application: Application, run: Instruction) -> Iterator[tuple[Check, str]]:
    """For every package that an npm install of `run` brings and that has an install script: whether it works without a
    compiler, and the package's name. Without a lock file that tells, one check that cannot be decided."""
    for placed in facts.placed(run) or ():
        yield from _named_addons(facts, run, placed)
        if not is_project_install(placed) or "--ignore-scripts" in placed.command.args:
            continue
        if any(
            "build-from-source" in word or "build_from_source" in word for word in (*placed.command.args, *placed.command.sets)
        ):
            seen = facts.seen_command(run, placed.command, "builds from source")
            yield Check("every package is built from source, which takes a compiler", holds=False, evidence=(seen,)), "npm"
        project = application.project(placed, "package.json")
        if project is None:
            seen = facts.seen_command(run, placed.command, "installs")
            yield Check("the packages that are installed are known", holds=None, evidence=(seen,)), ""
            continue
        yield from _addons(facts, application, project)


def _named_addons(facts: Facts, run: Instruction, placed: Placed) -> Iterator[tuple[Check, str]]:
    """What an install for all projects brings, each package that it names: `npm install -g NAME`; and `npm rebuild NAME`."""
    if "rebuild" in placed.command.args:
        names = [_bare(word) for word in placed.command.args if not word.startswith("-") and word != "rebuild"]
    else:
        names = [_bare(word) for word in named_packages(placed.command)] if installs_by_name(placed.command) else []
    for name in names:
        addon = node_addon(name)
        seen = facts.seen_command(run, placed.command, f"installs {name}")
        if addon is not None and not addon.get("prebuilt"):
            yield Check(f"no package is compiled: {name} is", holds=False, evidence=(seen,)), name
        elif addon is None and not (is_builder(name) or is_plain(name)):
            claim = (
                f"{name}, installed for all projects, compiles nothing and starts no program that is missing (not in our table)"
            )
            yield Check(claim, holds=None, evidence=(seen,)), name
        else:
            yield Check(f"{name} is installed without a compiler", holds=True, evidence=(seen,)), name


def _bare(word: str) -> str:
    """The name of a package that is named with a version: `@scope/name@1` is `@scope/name`."""
    return word if word.startswith("@") and word.count("@") == 1 else word.rpartition("@")[0] or word


def _addons(facts: Facts, application: Application, project: Project) -> Iterator[tuple[Check, str]]:
    lock = locked(project)
    manifest = project.source("package.json")
    if (native := project.source("binding.gyp")) and project.has("binding.gyp"):
        seen = facts.seen_in(native, "tells what to compile")
        yield Check("the project itself compiles an addon", holds=False, evidence=(seen,)), "binding.gyp"
    if lock is None:
        if _REPOSITORY.search(project.read("yarn.lock") or ""):
            line = application.line(project.source("yarn.lock"), ".git#", "comes from a repository")
            yield Check("all can be fetched: one comes from a repository, which takes git", holds=None, evidence=(line,)), ""
        names = sorted(project_packages(project))
        known = [n for n in names if node_addon(n) is not None and not (node_addon(n) or {}).get("prebuilt")]
        seen = application.line(manifest, f'"{known[0]}"' if known else "dependencies", "names the packages")
        claim = "no package compiles when it is installed (no package-lock.json says so)"
        yield Check(claim, holds=False if known else None, evidence=(seen,)), (known[0] if known else "")
        return
    path, packages = lock
    found = False
    for where, entry in packages.items():
        name = where.rpartition("node_modules/")[2]
        if not isinstance(entry, dict) or not where:
            continue
        resolved = str(entry.get("resolved", ""))
        if resolved.startswith(("git+", "git:")):
            seen = application.line(path, f'"{where}"', "comes from a repository")
            yield (
                Check(f"{name} can be fetched: it comes from a repository, which takes git", holds=None, evidence=(seen,)),
                name,
            )
        if not entry.get("hasInstallScript") or entry.get("optional") or name in _HARMLESS:
            continue
        found = True
        addon = node_addon(name)
        seen = application.line(path, f'"{where}"', "runs a script when it is installed")
        if addon is None:
            yield Check(f"{name} installs without a compiler (it has an install script)", holds=None, evidence=(seen,)), name
        elif addon.get("prebuilt"):
            yield Check(f"{name} brings its binary along", holds=True, evidence=(seen,)), name
        else:
            yield Check(f"no package is compiled: {name} is", holds=False, evidence=(seen,)), name
    if not found:
        seen = facts.seen_in(path, "lists the packages, and no install script")
        yield Check("no package has an install script", holds=True, evidence=(seen,)), ""


def libc_bound(facts: Facts, application: Application, run: Instruction) -> Iterator[Check]:
    """For every package of a lock file that is built for glibc, with no build for musl beside it: a check that fails."""
    for placed in facts.placed(run) or ():
        project = application.project(placed, "package.json") if is_project_install(placed) else None
        lock = locked(project) if project is not None else None
        for where, entry in lock[1].items() if lock is not None else ():
            bound = isinstance(entry, dict) and (
                "glibc" in (entry.get("libc") or ()) or re.search(r"linux-(x64|arm64)-gnu$", where)
            )
            twin = re.sub(r"-gnu$", "-musl", where) if where.endswith("-gnu") else where.replace("linux-", "linuxmusl-")
            if bound and lock is not None and twin not in lock[1]:
                seen = application.line(lock[0], f'"{where}"', "is built for glibc, and no build for musl is beside it")
                yield Check(
                    f"{where.rpartition('node_modules/')[2]} has no build for musl in the lock file",
                    holds=False,
                    evidence=(seen,),
                )


def project_packages(project: Project) -> frozenset[str]:
    """Every package of a project, as far as a lock file of npm or Yarn, or else package.json, tells."""
    lock = locked(project)
    names = {where.rpartition("node_modules/")[2] for where in lock[1] if where} if lock is not None else set[str]()
    names |= set(_OF_YARN.findall(project.read("yarn.lock") or ""))
    return frozenset(names) | dependencies(project, everything=lock is None)


def locked(project: Project) -> tuple[str, dict[str, Any]] | None:
    """The path of a project's npm lock file and its packages by folder; None without one that tells (version 2 or later)."""
    for name in LOCKS:
        table = parse_json(project.read(name))
        packages = table.get("packages") if table is not None else None
        if isinstance(packages, dict):
            return project.source(name), packages
    return None


def dependencies(project: Project, *, everything: bool = False) -> frozenset[str]:
    """The packages that package.json names for run time, or with `everything` for development too."""
    package = parse_json(project.read("package.json")) or {}
    tables = ("dependencies", "optionalDependencies", *(("devDependencies",) if everything else ()))
    return frozenset(name for table in tables if isinstance(package.get(table), dict) for name in package[table])


def development(project: Project) -> frozenset[str]:
    """The packages that package.json names for development only."""
    package = parse_json(project.read("package.json")) or {}
    table = package.get("devDependencies")
    return frozenset(table) - dependencies(project) if isinstance(table, dict) else frozenset()


def shipped_packages(application: Application, folder: str | None) -> frozenset[str]:
    """The packages of node_modules at run time, as far as a lock file or package.json tells."""
    source = application.source(posixpath.join(folder, "package.json")) if folder is not None else None
    if folder is None or source is None:
        return frozenset()
    project = Project(application, posixpath.dirname(source), folder)
    lock = locked(project)
    names = {where.rpartition("node_modules/")[2] for where in lock[1] if where} if lock is not None else set[str]()
    return frozenset(names | dependencies(project))


def development_use(app: AppFacts, project: Project) -> Check | None:
    """A program that the image starts, or a package that its files name, which only development has; None without one."""
    dev = development(project)
    return _started_use(app, project, dev) or _named_use(app, dev) or _called_use(app, dev)


def _called_use(app: AppFacts, dev: frozenset[str]) -> Check | None:
    """A script of the image that calls a development dependency by its path in node_modules; None without one."""
    for copy in app.application.copies:
        for file in app.facts.files_of(copy):
            if posixpath.basename(file) == "package.json" or "node_modules/" in file:
                continue  # its scripts are followed from what is started
            for match in _CALLED.finditer(app.facts.context.read(file) or ""):
                if tool_package(match[1]) in dev:
                    seen = app.facts.seen_match(file, match, f"calls {match[1]}")
                    claim = f"a script of the image calls `{match[0]}`, which comes with a development dependency"
                    return Check(claim, holds=False, evidence=(seen,))
    return None


def _started_use(app: AppFacts, project: Project, dev: frozenset[str]) -> Check | None:
    """A development dependency among what is started: a program, an option of node, a package that is preloaded."""
    present, manifest = dependencies(project), project.source("package.json")
    options = (app.facts.end_state(app.stage).variables.get("NODE_OPTIONS") or "").split()
    base = app.facts.seen(app.stage.base, "NODE_OPTIONS preloads it")
    words = [(word, started.seen) for started in app.programs for word in started.words]
    words += [(started.what, started.seen) for started in app.programs if started.what is not None]
    for word, seen in (*words, *((option, base) for option in options)):
        for name in (
            word,
            word.partition("=")[2],
            _package_of(word),
            tool_package(word),
            tool_package(posixpath.basename(word)),
        ):
            if name in dev:
                line = app.application.line(manifest, f'"{name}"', "is a development dependency")
                claim = f"`{word}` is used in the image, and comes with a development dependency"
                return Check(claim, holds=False, evidence=(seen, line))
    missing = next((s for s in app.programs if s.what in _LOCAL_TOOLS and tool_package(s.what or "") not in present), None)
    if missing is not None:
        claim = f"`{missing.what}` runs in the image, and no dependency for run time brings it"
        return Check(claim, holds=False, evidence=(missing.seen,))
    return None


def _named_use(app: AppFacts, dev: frozenset[str]) -> Check | None:
    """A file of the image that names a development dependency: a module, a preset, a view engine, a served folder."""
    for path in dict.fromkeys((*(path for path, _ in app.sources), *_settings_files(app))):
        text = app.facts.context.read(path) or ""
        for match in _NAMES.finditer(text):
            name = _package_of(match["name"].partition("node_modules/")[2] or match["name"])
            line = text[text.rfind("\n", 0, match.start()) + 1 : match.start()]
            is_type = re.match(r"\s*((import|export)\s+type\b|//|/?\*)", line) is not None
            if name in dev and not is_type and not name.startswith("@types/"):
                seen = app.facts.seen_match(path, match, f"names {name}")
                claim = f"{name} is named at run time, and is a development dependency"
                return Check(claim, holds=False, evidence=(seen,))
    return None


def _settings_files(app: AppFacts) -> Iterator[str]:
    """Files of the image that tools read when the program runs; not the settings of checkers and builders."""
    for copy in app.application.copies:
        for file in app.facts.files_of(copy):
            name = posixpath.basename(file)
            if re.search(r"^\.[\w-]*rc(\.\w+)?$|\.config\.[cm]?js$", name) and not _CHECKERS.search(name):
                yield file


def install_commands(project: Project) -> Iterator[tuple[str, Evidence]]:
    """The programs that the project's own scripts start at every install, with the line of each script."""
    scripts = (parse_json(project.read("package.json")) or {}).get("scripts")
    scripts = scripts if isinstance(scripts, dict) else {}
    for name in LIFECYCLE:
        script = read_script(scripts[name]) if isinstance(scripts.get(name), str) else None
        line = project.application.line(project.source("package.json"), f'"{name}"', "runs at every install")
        yield from ((command.name, line) for command in (script.commands if script is not None else ()) if command.name)


def _package_of(name: str) -> str:
    """The package that a module's name is of: `@scope/name/file` is of `@scope/name`."""
    parts = name.split("/")
    return "/".join(parts[: 2 if name.startswith("@") else 1])


def development_in_scripts(project: Project, *, ignores_scripts: bool) -> Check | None:
    """A script that npm runs at every install and that may take a development dependency; None where there is none."""
    scripts = (parse_json(project.read("package.json")) or {}).get("scripts")
    present = dependencies(project)
    for name in LIFECYCLE if not ignores_scripts else ():
        text = scripts.get(name) if isinstance(scripts, dict) else None
        script = read_script(text) if isinstance(text, str) else None
        if text is None:
            continue
        commands = script.commands if script is not None else ()
        if script is None or any(tool_package(c.name or "") not in present and c.name not in _PLAIN for c in commands):
            seen = project.application.line(project.source("package.json"), f'"{name}"', "runs at every install")
            return Check(
                f'"{name}" runs at every install, and may take a development dependency', holds=False, evidence=(seen,)
            )
    return None


def tool_package(program: str) -> str:
    """The npm package whose program this would be."""
    return node_package_of_program(program)
