"""Node: package.json, workspaces and lock files, and what npm, Yarn, pnpm and Bun read of them."""

from __future__ import annotations

import json
import posixpath
import re
from typing import TYPE_CHECKING, Any

from optimizer.dockerfile.patterns import matches
from optimizer.dockerfile.shell import read_script
from optimizer.facts.commands import is_path
from optimizer.facts.manifests import Inputs, ManifestFile, NeedsSources, distinct, upwards
from optimizer.rewrite import Check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optimizer.dockerfile.shell import Command
    from optimizer.facts.commands import Placed
    from optimizer.facts.context import BuildContext
    from optimizer.facts.manifests import Application, Project

_INSTALLS = {
    "npm": frozenset({"ci", "install", "i", "clean-install", "install-clean"}),
    "yarn": frozenset({None, "install"}),
    "pnpm": frozenset({"install", "i"}),
    "bun": frozenset({"install", "i"}),
}
_FILES = {
    "npm": ("package-lock.json", "npm-shrinkwrap.json", "yarn.lock", ".npmrc"),  # npm 7 takes versions from yarn.lock, too
    "yarn": ("yarn.lock", ".yarnclean", ".yarnrc", ".yarnrc.yml", ".npmrc", ".yarn/releases", ".yarn/plugins", ".yarn/patches"),
    "pnpm": ("pnpm-lock.yaml", "pnpm-workspace.yaml", ".npmrc", ".pnpmfile.cjs"),
    "bun": ("bun.lock", "bun.lockb", "package-lock.json", "yarn.lock", "pnpm-lock.yaml", "bunfig.toml", ".npmrc"),
}
_DEPENDENCIES = (
    "dependencies",
    "devDependencies",
    "optionalDependencies",
    "peerDependencies",
    "overrides",
    "resolutions",
)
LOCKS = ("npm-shrinkwrap.json", "package-lock.json")
# The scripts of package.json that an install runs.
LIFECYCLE = (
    "pnpm:devPreinstall",
    "preinstall",
    "install",
    "postinstall",
    "prepublish",
    "preprepare",
    "prepare",
    "postprepare",
    "dependencies",
)
_LOCAL_SPEC = re.compile(
    r"^(file:|link:|portal:|\.{1,2}/|~/|/)|^patch:.*#(?!~?/?(\./)?\.yarn/patches/)|^(?!\w+:)\S+\.(tgz|tar\.gz|tar)$"
)
_PUPPETEER = (
    ".puppeteerrc.cjs",
    ".puppeteerrc.js",
    ".puppeteerrc.json",
    ".puppeteerrc",
    "puppeteer.config.js",
    "puppeteer.config.cjs",
)
_PRISMA = ("prisma", "prisma.config.ts", "prisma.config.js", "schema.prisma")
# Programs in lifecycle scripts that read no source file (husky looks for .git and goes on without it; lefthook does not).
_HARMLESS = frozenset({"husky", "echo", "true", "exit", "is-ci", "is-ci-cli", "simple-git-hooks", ":", "pinst", "only-allow"})
# Options with a value as the next word that have no part in which files are read.
_HARMLESS_VALUES = frozenset({"--network-timeout", "--network-concurrency", "--loglevel", "--fetch-timeout", "--maxsockets"})
_CERTIFICATES = re.compile(r"^\s*(cafile|certfile|keyfile|cert|key)\s*=", re.MULTILINE)
_VALUED = frozenset({"--prefix", "--cache", "--userconfig", "-C", "--cwd", "--filter", "-F", "--dir", "--cafile"})


def is_project_install(placed: Placed) -> bool:
    """Whether a command installs the packages of the project in its folder."""
    tool, args = placed.command.name or "", placed.command.args
    verb = next((arg for arg in args if not arg.startswith("-")), None)
    apart = any(arg.partition("=")[0] in ("-g", "--global", *_VALUED) for arg in args)
    return tool in _INSTALLS and verb in (*_INSTALLS[tool], "add") and not apart


def local_packages(placed: Placed) -> tuple[str, ...]:
    """The folder of packages that an npm or Yarn install fills; none for an install for all projects."""
    is_global = installs_by_name(placed.command) or {"-g", "--global", "global"} & set(placed.command.args)
    path = placed.path("node_modules") if not is_global else None
    return () if path is None else (path,)


def installs_by_name(command: Command) -> bool:
    """Whether a command installs packages of a registry for all projects: `npm install -g NAME`, `yarn global add NAME`."""
    plain = [arg for arg in command.args if not arg.startswith("-")]
    is_global = plain[:2] == ["global", "add"] or any(a in ("-g", "--global", "--location=global") for a in command.args)
    named = named_packages(command)
    local = any(is_path(name.partition("@")[0] or name[1:]) for name in named)
    return command.name in ("npm", "pnpm", "yarn", "bun") and is_global and bool(named) and not local


def named_packages(command: Command) -> tuple[str, ...]:
    """The packages that an install names, as they are written, with their versions."""
    plain = [arg for arg in command.args if not arg.startswith("-")]
    return tuple(name for name in plain[1:] if name != "add")


def install_inputs(application: Application, placed: Placed) -> Inputs | NeedsSources | None:
    """What an npm, Yarn, pnpm or Bun install of a project reads, or None for another command."""
    tool, args = placed.command.name or "", placed.command.args
    plain = [a for i, a in enumerate(args) if not a.startswith("-") and (i == 0 or args[i - 1] not in _HARMLESS_VALUES)]
    verb = plain[0] if plain else None
    if tool not in _INSTALLS or verb not in _INSTALLS[tool] or any(a in ("-g", "--global", "--version") for a in args):
        return None
    if len(plain) > 1:
        return NeedsSources(f"`{placed.command}` changes package.json, which the sources would then overwrite")
    if any(arg.partition("=")[0] in _VALUED for arg in args):
        return NeedsSources(f"`{placed.command}` works on a folder or a registry that its options name")
    project = application.project(placed, "package.json")
    package = parse_json(project.read("package.json")) if project is not None else None
    if project is None or package is None:
        return NeedsSources(f"`{placed.command}` runs where no readable package.json of the build context is", is_missing=True)
    if project.has("node_modules"):
        return NeedsSources("node_modules of the build context would overwrite what the install makes")
    if above := _workspace_above(project):
        seen = application.facts.seen_in(above, "joins projects below it")
        return NeedsSources("the project may be a workspace of one above it, which the install reads", (seen,))
    what = " ".join(word for word in (tool, verb) if word)
    return _inputs(application, project, package, tool, what, ignores_scripts="--ignore-scripts" in args)


def _workspace_above(project: Project) -> str | None:
    """A file of a folder above that makes the project part of something larger, or that sets its package manager up."""
    for container in list(upwards(project.container))[1:]:
        for name in ("pnpm-workspace.yaml", ".yarnrc", ".yarnrc.yml", "lerna.json", "package.json"):
            source = project.application.source(posixpath.join(container, name))
            package = parse_json(project.application.context.read(source)) if source is not None else None
            if source is not None and (name != "package.json" or "workspaces" in (package or {})):
                return source
    return None


def read_package(context: BuildContext, folder: str) -> dict[str, Any] | None:
    """The package.json of `folder`, or None where there is none that can be read."""
    return parse_json(context.read(posixpath.join(folder, "package.json")))


def parse_json(text: str | None) -> dict[str, Any] | None:
    """The JSON object in `text`, or None where there is none."""
    try:
        found = json.loads(text) if text is not None else None
    except ValueError:
        return None  # unreadable: the caller says so
    return found if isinstance(found, dict) else None


def is_berry(context: BuildContext) -> bool:
    """Whether a project in the context uses Yarn 2 or later."""
    for path in context.walk():
        name = posixpath.basename(path)
        if name == ".yarnrc.yml":
            return True
        if name == "package.json" and "node_modules" not in path.split("/"):
            manager = str((parse_json(context.read(path)) or {}).get("packageManager", ""))
            if re.match(r"yarn@([2-9]|\d\d)", manager):
                return True
        if name == "yarn.lock" and "__metadata:" in (context.read(path) or ""):
            return True
    return False


def uses_pnp(context: BuildContext) -> bool:
    """Whether a package.json of the context asks Yarn 1 for Plug'n'Play."""
    folders = [posixpath.dirname(file) for file in context.walk() if posixpath.basename(file) == "package.json"]
    settings = [(read_package(context, folder) or {}).get("installConfig") for folder in folders]
    return any(isinstance(setting, dict) and setting.get("pnp") for setting in settings)


def _inputs(
    application: Application, project: Project, package: dict[str, Any], tool: str, what: str, *, ignores_scripts: bool
) -> Inputs | NeedsSources:
    members = _members(tool, project, package)
    if isinstance(members, NeedsSources):
        return members
    manifest = project.source("package.json")
    if reason := _more_than_manifests(project, tool, package, members):
        return NeedsSources(reason)
    files = [*project.files("package.json", *_FILES[tool]), *_named_in_settings(project, tool)]
    kept = _keeps_packages(application, project)
    seen = [application.facts.seen_in(manifest, "names the packages, and none in a folder of the sources")]
    for member in ("", *members):
        found = _package_files(application, project, member, ignores_scripts=ignores_scripts)
        if isinstance(found, NeedsSources):
            return found
        files += project.files(*found)
    if members:
        seen.append(application.line(manifest, "workspaces", f"has {len(members)} workspaces"))
    return Inputs(what, distinct(files), tuple(seen), (kept,))


def _keeps_packages(application: Application, project: Project) -> Check:
    """Whether packages that lie in the folder of the context on somebody's machine stay out of the image: copied behind the
    install, they would overwrite it."""
    name = posixpath.join(project.folder, "node_modules")
    claim = f"no {name} of somebody's machine is copied over what the install makes (.dockerignore keeps it out)"
    return Check(claim, holds=application.context.ignored_by(name) is not None or None)


def _more_than_manifests(project: Project, tool: str, package: dict[str, Any], members: tuple[str, ...]) -> str | None:
    """What an install of this project reads or keeps beside manifests, if it is more than can be copied by name."""
    for name in (".yarn/cache", ".yarn/unplugged", ".pnp.cjs", ".pnp.js", ".pnp.loader.mjs"):
        if project.has(name):
            return f"{name} holds the packages themselves"
    for member in members:
        if project.has(posixpath.join(member, "node_modules")):
            return "node_modules of the build context would overwrite what the install makes"
    if tool == "yarn" and "offline-mirror" in (project.read(".yarnrc") or ""):
        return "the packages come from a mirror in the sources"
    if "injectEnvironmentFiles" in (project.read(".yarnrc.yml") or ""):
        return "Yarn reads environment files of the sources"
    if re.search(r"^\s*(global-)?pnpmfile\s*=", project.read(".npmrc") or "", re.MULTILINE):
        return ".npmrc names a hook of the sources"
    if re.search(r"(require|import)\s*\(?\s*['\"]\.", project.read(".pnpmfile.cjs") or ""):
        return ".pnpmfile.cjs loads more of the sources"
    if _CERTIFICATES.search(project.read(".npmrc") or ""):
        return ".npmrc names a certificate of the sources"
    settings = str(
        [package.get("dependenciesMeta"), project.read(".npmrc"), _pnpm_workspace(project) if tool == "pnpm" else ""]
    )
    if tool == "pnpm" and re.search(
        r"'injected': True|inject-?workspace-?packages['\"]?\s*[:=]\s*true", settings, re.IGNORECASE
    ):
        return "pnpm copies the workspaces into node_modules at install"
    overrides = (_pnpm_workspace(project) or {}).get("overrides") if tool == "pnpm" else None
    if any(_LOCAL_SPEC.match(spec) for _, spec in _specs(overrides)):
        return "pnpm-workspace.yaml replaces a package by a folder of the sources"
    return None


def _named_in_settings(project: Project, tool: str) -> tuple[ManifestFile, ...]:
    """The patches and plugins that a package manager's own settings name."""
    names: list[str] = []
    if tool == "pnpm":
        patched = (_pnpm_workspace(project) or {}).get("patchedDependencies")
        names += (str(path) for path in patched.values()) if isinstance(patched, dict) else ()
    if tool == "yarn":
        names += re.findall(r"^\s*-?\s*(?:path|yarnPath):\s*['\"]?([^'\"\s]+)", project.read(".yarnrc.yml") or "", re.MULTILINE)
    return project.files(*names)


def _package_files(
    application: Application, project: Project, member: str, *, ignores_scripts: bool
) -> list[str] | NeedsSources:
    """What an install reads for one package.json, as names in the project: itself, patches, a Prisma schema."""
    name = posixpath.join(member, "package.json")
    path = project.source(name)
    package = parse_json(project.read(name))
    if package is None:
        return NeedsSources(f"{path} cannot be read")
    linked = _linked(application, project, member, package, ignores_scripts=ignores_scripts)
    if isinstance(linked, NeedsSources):
        return linked
    programs = _own_programs(package) if member else ()
    if not all(project.has(posixpath.join(member, program)) for program in programs):
        seen = application.line(path, '"bin"', "is linked at install, if it is there")
        return NeedsSources("a workspace brings a program of its own, which npm links when its file is there", (seen,))
    if project.has(posixpath.join(member, "binding.gyp")) and not ignores_scripts:
        return NeedsSources("a binding.gyp makes the install compile the sources")
    files = [name, *linked, *(posixpath.join(member, program) for program in programs)]
    if not ignores_scripts:
        read = _lifecycle(application, path, member, package)
        if isinstance(read, NeedsSources):
            return read
        files += read
    if any(d in ("@prisma/client", "prisma") for table in _DEPENDENCIES for d, _ in _specs(package.get(table))):
        files += (posixpath.join(member, n) for n in _PRISMA)
        schema = package["prisma"].get("schema") if isinstance(package.get("prisma"), dict) else None
        files += [posixpath.join(member, str(schema))] if schema else []
    if any(d == "puppeteer" for table in _DEPENDENCIES for d, _ in _specs(package.get(table))):
        files += (posixpath.join(member, n) for n in _PUPPETEER)
    pnpm = package.get("pnpm") if isinstance(package.get("pnpm"), dict) else {}
    for patched in (package.get("patchedDependencies"), (pnpm or {}).get("patchedDependencies")):
        files += (posixpath.join(member, str(p)) for p in patched.values()) if isinstance(patched, dict) else ()
    return files


def _linked(
    application: Application, project: Project, member: str, package: dict[str, Any], *, ignores_scripts: bool
) -> list[str] | NeedsSources:
    """The folders and archives of the sources that a package.json names as dependencies, as names in the project."""
    pnpm = package.get("pnpm")
    overrides = pnpm.get("overrides") if isinstance(pnpm, dict) else None
    tables = (*(package.get(name) for name in _DEPENDENCIES), overrides)
    found: list[str] = []
    for dependency, spec in (entry for table in tables for entry in _specs(table) if _LOCAL_SPEC.match(entry[1])):
        local = _local_files(project, member, spec)
        if local is None:
            manifest = project.source(posixpath.join(member, "package.json"))
            seen = application.line(manifest, f'"{dependency}"', "is a folder or a file of the sources")
            return NeedsSources(f"{dependency} is installed from the sources ({spec})", (seen,))
        found.append(local)
    for local in found if not ignores_scripts else ():
        manifest = project.source(posixpath.join(local, "package.json"))
        brought = parse_json(application.context.read(manifest)) or {}
        if isinstance(read := _lifecycle(application, manifest, local, brought), NeedsSources):
            return read
    return found


def _local_files(project: Project, member: str, spec: str) -> str | None:
    """The folder or archive of the project that a `file:` or `link:` dependency names, so that it can be copied along; None for
    one that lies elsewhere, holds the project itself, or is named in another way."""
    match = re.match(r"(?:file:|link:)?(\.{0,2}/?[\w@.][\w@./-]*)$", spec)
    name = posixpath.normpath(posixpath.join(member, match[1])) if match is not None else None
    if name is None or name.startswith(("..", "/")) or name in (".", member) or member.startswith(f"{name}/"):
        return None
    context, source = project.application.context, project.source(name)
    is_clean = not (context.is_folder(source) and any("node_modules/" in file for file in context.walk(source)))
    return name if project.has(name) and is_clean else None


def _own_programs(package: dict[str, Any]) -> tuple[str, ...]:
    """The files that a package.json names as programs."""
    found = package.get("bin")
    names = found.values() if isinstance(found, dict) else (found,) if isinstance(found, str) else ()
    return tuple(posixpath.normpath(str(name)) for name in names)


def _lifecycle(application: Application, path: str, member: str, package: dict[str, Any]) -> list[str] | NeedsSources:
    """What the scripts that run at install read, as names in the project."""
    scripts = package.get("scripts")
    files: list[str] = []
    for name in LIFECYCLE:
        script = scripts.get(name) if isinstance(scripts, dict) else None
        if not isinstance(script, str):
            continue
        read = _script_files(script)
        if read is None:
            seen = application.line(path, f'"{name}"', "runs at install")
            return NeedsSources(f'the install runs "{script}" ({name}), which may read any source file', (seen,))
        files += (posixpath.join(member, n) for n in read)
    return files


def _specs(table: object) -> Iterator[tuple[str, str]]:
    """(name, specification) of a table of dependencies; overrides may be nested."""
    if isinstance(table, dict):
        for name, spec in table.items():
            if isinstance(spec, str):
                yield str(name), spec
            else:
                yield from _specs(spec)


def _script_files(text: str) -> list[str] | None:
    """The files that a lifecycle script reads, or None where that cannot be told."""
    script = read_script(text)
    if script is None:
        return None
    files: list[str] = []
    for command in script.commands:
        if command.redirects:
            return None
        words = [command.name or "", *command.args]
        if words[0] in ("npx", "bunx", "pnpx"):
            words = [word for word in words[1:] if not word.startswith("-")]
        if not words or not words[0]:
            return None
        if words[0] in _HARMLESS:
            continue
        if words[0] == "patch-package":
            files += _patch_folders(words[1:])
        elif words == ["prisma", "generate"]:
            files += _PRISMA
        else:
            return None
    return files


def _patch_folders(options: list[str]) -> list[str]:
    for index, option in enumerate(options):
        if option.startswith("--patch-dir"):
            return [option.partition("=")[2] or (options[index + 1] if index + 1 < len(options) else "patches")]
    return ["patches"]


# -------------------------------------------------------------------- workspaces


def _members(tool: str, project: Project, package: dict[str, Any]) -> tuple[str, ...] | NeedsSources:
    """The folders of a project's workspaces, below the project."""
    workspace = _pnpm_workspace(project) if tool == "pnpm" else package
    globs = workspace.get("packages" if tool == "pnpm" else "workspaces", []) if workspace is not None else None
    if isinstance(globs, dict):
        globs = globs.get("packages", [])
    if not isinstance(globs, list) or not all(isinstance(glob, str) for glob in globs):
        return NeedsSources("the workspaces of this project cannot be read")
    return tuple(workspace_folders(project.application.context, project.folder, globs)) if globs else ()


def _pnpm_workspace(project: Project) -> dict[str, Any] | None:
    """pnpm-workspace.yaml; empty where there is none, None where it cannot be read."""
    text = project.read("pnpm-workspace.yaml")
    if text is None:
        return {}
    import yaml

    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError:
        return None  # unreadable: the caller says so
    return found if isinstance(found, dict) else None


def workspace_folders(context: BuildContext, folder: str, globs: list[str]) -> Iterator[str]:
    """The folders below `folder`, relative to it, that the globs of `workspaces` choose and that have a package.json."""
    for path in context.walk(folder):
        where, name = posixpath.split(path)
        member = posixpath.relpath(where, folder or ".") if where != folder else ""
        if name != "package.json" or not member or "node_modules" in member.split("/"):
            continue
        chosen = False
        for glob in globs:
            if matches(glob.lstrip("!").rstrip("/"), member):
                chosen = not glob.startswith("!")
        if chosen:
            yield member
