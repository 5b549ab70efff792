"""Node: package.json, workspaces and lock files, and what npm, Yarn, pnpm and Bun read of them."""

from __future__ import annotations

import json
import posixpath
import re
from typing import TYPE_CHECKING, Any

from optimizer.dockerfile.patterns import matches
from optimizer.dockerfile.shell import read_script
from optimizer.facts.manifests import Inputs, NeedsSources

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optimizer.facts.commands import Placed
    from optimizer.facts.context import BuildContext
    from optimizer.facts.manifests import Application
    from optimizer.rewrite import Evidence

_INSTALLS = {
    "npm": frozenset({"ci", "install", "i", "clean-install", "install-clean"}),
    "yarn": frozenset({None, "install"}),
    "pnpm": frozenset({"install", "i"}),
    "bun": frozenset({"install", "i"}),
}
_FILES = {
    "npm": ("package-lock.json", "npm-shrinkwrap.json", ".npmrc"),
    "yarn": ("yarn.lock", ".yarnrc", ".yarnrc.yml", ".npmrc", ".yarn/releases", ".yarn/plugins", ".yarn/patches"),
    "pnpm": ("pnpm-lock.yaml", "pnpm-workspace.yaml", ".npmrc", ".pnpmfile.cjs"),
    "bun": ("bun.lock", "bun.lockb", "bunfig.toml", ".npmrc"),
}
_DEPENDENCIES = ("dependencies", "devDependencies", "optionalDependencies", "peerDependencies", "overrides", "resolutions")
_LIFECYCLE = ("preinstall", "install", "postinstall", "prepublish", "preprepare", "prepare", "postprepare")
_LOCAL_SPEC = re.compile(r"^(file:|link:|portal:|\.{1,2}/|~/|/)")
# Programs in lifecycle scripts that read no source file (husky and its like look for .git and go on without it).
_HARMLESS = frozenset({"husky", "echo", "true", "exit", "is-ci", "is-ci-cli", "lefthook", "simple-git-hooks", ":", "pinst"})
_VALUED = frozenset({"--prefix", "--registry", "--cache", "--userconfig", "-C", "--cwd", "--filter", "-F", "--dir"})


def install_inputs(application: Application, placed: Placed) -> Inputs | NeedsSources | None:
    """What an npm, Yarn, pnpm or Bun install of a project reads, or None for another command."""
    tool, args = placed.command.name or "", placed.command.args
    plain = [arg for arg in args if not arg.startswith("-")]
    verb = plain[0] if plain else None
    if tool not in _INSTALLS or verb not in _INSTALLS[tool] or any(a in ("-g", "--global", "--version") for a in args):
        return None
    if len(plain) > 1:
        return NeedsSources(f"`{placed.command}` changes package.json, which the sources would then overwrite")
    if any(arg.partition("=")[0] in _VALUED for arg in args):
        return NeedsSources(f"`{placed.command}` works on a folder or a registry that its options name")
    folder = application.folder(placed)
    package = read_package(application.context, folder) if folder is not None else None
    if folder is None or package is None:
        return NeedsSources(f"{tool} {verb or 'install'} runs where no readable package.json of the build context is")
    if application.context.kind(posixpath.join(folder, "node_modules")) is not None:
        return NeedsSources("node_modules of the build context would overwrite what the install makes")
    return _project(application, tool, folder, package, ignores_scripts="--ignore-scripts" in args)


def read_package(context: BuildContext, folder: str) -> dict[str, Any] | None:
    """The package.json of `folder`, or None where there is none that can be read."""
    return _json(context.read(posixpath.join(folder, "package.json")))


def _json(text: str | None) -> dict[str, Any] | None:
    try:
        found = json.loads(text) if text is not None else None
    except ValueError:
        return None  # unreadable: the caller says so
    return found if isinstance(found, dict) else None


def is_berry(context: BuildContext, folder: str = "") -> bool:
    """Whether a project uses Yarn 2 or later."""
    if context.kind(posixpath.join(folder, ".yarnrc.yml")) is not None:
        return True
    package = read_package(context, folder) or {}
    manager = str(package.get("packageManager", ""))
    return re.match(r"yarn@([2-9]|\d\d)", manager) is not None or "__metadata:" in (
        context.read(posixpath.join(folder, "yarn.lock")) or ""
    )


def _project(
    application: Application, tool: str, folder: str, package: dict[str, Any], *, ignores_scripts: bool
) -> Inputs | NeedsSources:
    members = _members(application, tool, folder, package)
    if isinstance(members, NeedsSources):
        return members
    manifest = posixpath.join(folder, "package.json")
    files = [manifest, *application.present(folder, _FILES[tool])]
    seen: list[Evidence] = [application.facts.seen_in(manifest, "names the packages, and none in a folder of the sources")]
    for where in (folder, *members):
        found = _package_inputs(application, where, ignores_scripts=ignores_scripts, is_member=where != folder)
        if isinstance(found, NeedsSources):
            return found
        files += found
    if application.present(folder, (".yarn/cache",)):
        return NeedsSources(".yarn/cache holds the packages themselves")
    if members:
        seen.append(application.line(manifest, "workspaces", f"has {len(members)} workspaces"))
    return Inputs(f"{tool} install", tuple(dict.fromkeys(files)), tuple(seen))


def _package_inputs(
    application: Application, folder: str, *, ignores_scripts: bool, is_member: bool
) -> list[str] | NeedsSources:
    """The files that an install reads for one package.json: itself, patches, a Prisma schema."""
    context = application.context
    path = posixpath.join(folder, "package.json")
    package = read_package(context, folder)
    if package is None:
        return NeedsSources(f"{path} cannot be read")
    for table in _DEPENDENCIES:
        for name, spec in _specs(package.get(table)):
            if _LOCAL_SPEC.match(spec):
                seen = application.line(path, f'"{name}"', "is a folder or a file of the sources")
                return NeedsSources(f"{name} is installed from the sources ({spec})", (seen,))
    if is_member and package.get("bin"):
        seen = application.line(path, '"bin"', "is linked at install, if it is there")
        return NeedsSources("a workspace brings a program of its own, which npm links when its file is there", (seen,))
    files = [path]
    if application.present(folder, ("binding.gyp",)) and not ignores_scripts:
        return NeedsSources("a binding.gyp makes the install compile the sources")
    scripts = package.get("scripts") if not ignores_scripts else None
    for name in _LIFECYCLE:
        script = (scripts or {}).get(name) if isinstance(scripts, dict) else None
        if not isinstance(script, str):
            continue
        read = _lifecycle_files(application, folder, script)
        if read is None:
            seen = application.line(path, f'"{name}"', "runs at install")
            return NeedsSources(f'the install runs "{script}" ({name}), which may read any source file', (seen,))
        files += read
    if any(name in ("@prisma/client", "prisma") for table in _DEPENDENCIES for name, _ in _specs(package.get(table))):
        files += _prisma(application, folder)
    patched = (package.get("pnpm") or {}).get("patchedDependencies", {}) if isinstance(package.get("pnpm"), dict) else {}
    files += application.present(folder, tuple(str(p) for p in patched.values()))
    return files


def _specs(table: object) -> Iterator[tuple[str, str]]:
    """(name, specification) of a table of dependencies; overrides may be nested."""
    if isinstance(table, dict):
        for name, spec in table.items():
            if isinstance(spec, str):
                yield str(name), spec
            else:
                yield from _specs(spec)


def _lifecycle_files(application: Application, folder: str, text: str) -> list[str] | None:
    """The files that a lifecycle script reads, or None where that cannot be told."""
    script = read_script(text)
    if script is None:
        return None
    files: list[str] = []
    for command in script.commands:
        words = [command.name or "", *command.args]
        if words[0] in ("npx", "bunx", "pnpx"):
            words = [word for word in words[1:] if not word.startswith("-")]
        if not words or not words[0]:
            return None
        if words[0] in _HARMLESS:
            continue
        if words[0] == "patch-package":
            files += application.present(folder, ("patches",))
        elif words[:2] == ["prisma", "generate"] and len(words) == 2:
            files += _prisma(application, folder)
        else:
            return None
    return files


def _prisma(application: Application, folder: str) -> list[str]:
    return list(application.present(folder, ("prisma", "prisma.config.ts", "prisma.config.js", "schema.prisma")))


# -------------------------------------------------------------------- workspaces


def _members(
    application: Application, tool: str, folder: str, package: dict[str, Any]
) -> tuple[str, ...] | NeedsSources:
    """The folders of a project's workspaces."""
    globs = package.get("workspaces", [])
    if isinstance(globs, dict):
        globs = globs.get("packages", [])
    if tool == "pnpm":
        globs = _pnpm_globs(application.context, folder)
    if not isinstance(globs, list) or not all(isinstance(glob, str) for glob in globs):
        return NeedsSources("the workspaces of this project cannot be read")
    return tuple(_expanded(application.context, folder, globs))


def _pnpm_globs(context: BuildContext, folder: str) -> object:
    text = context.read(posixpath.join(folder, "pnpm-workspace.yaml"))
    if text is None:
        return []
    import yaml

    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError:
        return None
    return found.get("packages", []) if isinstance(found, dict) else None


def _expanded(context: BuildContext, folder: str, globs: list[str]) -> Iterator[str]:
    manifests = [path for path in context.walk(folder) if posixpath.basename(path) == "package.json"]
    for path in manifests:
        where = posixpath.dirname(path)
        inside = posixpath.relpath(where, folder) if folder else where
        if inside in ("", ".") or "node_modules" in inside.split("/"):
            continue
        chosen = False
        for glob in globs:
            if matches(glob.lstrip("!").rstrip("/"), inside):
                chosen = not glob.startswith("!")
        if chosen:
            yield where


# -------------------------------------------------------------------- lock files


def lock_in_step(context: BuildContext, folder: str) -> tuple[bool | None, str]:
    """Whether package-lock.json lists exactly what package.json (and each workspace) asks for, and why one thinks so.

    `npm ci` stops where they differ. None where one of them cannot be read.
    """
    package = read_package(context, folder)
    name = next((n for n in ("npm-shrinkwrap.json", "package-lock.json") if context.is_file(posixpath.join(folder, n))), None)
    if name is None:
        return False, "there is no package-lock.json beside package.json"
    lock = _json(context.read(posixpath.join(folder, name)))
    if package is None or lock is None:
        return None, f"package.json or {name} cannot be read"
    packages = lock.get("packages")
    if not isinstance(packages, dict) or not isinstance(packages.get(""), dict):
        return False, f"{name} lists no packages, or is of the old format of npm 6"
    for where, entry in packages.items():
        if "node_modules" in where.split("/") or not isinstance(entry, dict):
            continue
        manifest = package if where == "" else read_package(context, posixpath.join(folder, where))
        if manifest is None:
            return False, f"{name} lists {where}, which the build context does not have"
        for table in ("dependencies", "devDependencies", "optionalDependencies", "peerDependencies"):
            if (manifest.get(table) or {}) != (entry.get(table) or {}):
                return False, f"{name} and package.json differ in {table}: `npm ci` would stop"
    missing = _not_locked(package, packages)
    return (False, f"{name} does not list {missing}") if missing else (True, f"{name} lists what package.json asks for")


def _not_locked(package: dict[str, Any], packages: dict[str, Any]) -> str | None:
    for table in ("dependencies", "devDependencies"):
        for name in package.get(table) or {}:
            if f"node_modules/{name}" not in packages:
                return str(name)
    return None
