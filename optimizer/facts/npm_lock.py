"""package-lock.json: whether `npm ci` would accept it.

Source of the rules: npm's documentation, "npm ci" and "package-lock.json"; tried with npm 10.
"""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING, Any

from optimizer.facts.node import LOCKS, parse_json, read_package, workspace_folders

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optimizer.facts.context import BuildContext

_TABLES = ("dependencies", "devDependencies", "optionalDependencies", "peerDependencies")


def lock_version(context: BuildContext, folder: str) -> int | None:
    """The lockfileVersion of a project's lock file, or None where there is none that can be read."""
    name = _lock_name(context, folder)
    lock = parse_json(context.read(posixpath.join(folder, name))) if name is not None else None
    version = (lock or {}).get("lockfileVersion")
    return version if isinstance(version, int) else None


def lock_in_step(context: BuildContext, folder: str) -> tuple[bool | None, str]:
    """Whether the lock file lists exactly what package.json (and each workspace) asks for, and why one thinks so.

    `npm ci` stops where they differ. None where one of them cannot be read.
    """
    package = read_package(context, folder)
    name = _lock_name(context, folder)
    if name is None:
        return False, "there is no package-lock.json beside package.json"
    lock = parse_json(context.read(posixpath.join(folder, name)))
    if package is None or lock is None:
        return None, f"package.json or {name} cannot be read"
    packages = lock.get("packages")
    if not isinstance(packages, dict) or not isinstance(packages.get(""), dict):
        return False, f"{name} lists no packages, or is of the old format of npm 6"
    if not all(map(_is_whole, packages.values())):
        return None, f"{name} is not as npm writes it"
    if package.get("overrides"):
        return None, f"{name} was made with the overrides of package.json"
    for problem in _problems(context, folder, package, packages):
        return False, f"{name} {problem}: `npm ci` would stop"
    return True, f"{name} lists what package.json asks for"


def _is_whole(entry: Any) -> bool:
    """Whether an entry of a lock file has tables where they belong."""
    return isinstance(entry, dict) and all(
        isinstance(entry.get(name) or {}, dict) for name in (*_TABLES, "peerDependenciesMeta")
    )


def _lock_name(context: BuildContext, folder: str) -> str | None:
    return next((name for name in LOCKS if context.is_file(posixpath.join(folder, name))), None)


def _problems(context: BuildContext, folder: str, package: dict[str, Any], packages: dict[str, Any]) -> Iterator[str]:
    for where, entry in packages.items():
        if "node_modules" in where.split("/"):
            continue
        manifest = package if where == "" else read_package(context, posixpath.join(folder, where))
        if manifest is None:
            yield f"lists {where}, which the build context does not have"
            continue
        for table in _TABLES:
            if (manifest.get(table) or {}) != (entry.get(table) or {}):
                yield f"and package.json differ in {table}"
    globs = package.get("workspaces") or []
    globs = globs.get("packages", []) if isinstance(globs, dict) else globs
    for member in workspace_folders(context, folder, [str(glob) for glob in globs]):
        if member not in packages:
            yield f"does not list the workspace {member}"
    for table in ("dependencies", "devDependencies"):
        for name, wanted in (package.get(table) or {}).items():
            locked = packages.get(f"node_modules/{name}")
            if not isinstance(locked, dict):
                yield f"does not list {name}"
            elif _is_out_of_range(str(wanted), str(locked.get("version", ""))):
                yield f"lists {name} {locked['version']}, and package.json asks for {wanted}"
    yield from _missing_dependencies(packages)
    yield from _missing_peers(packages)


def _is_out_of_range(wanted: str, version: str) -> bool:
    """Whether `version` certainly is not in the range `wanted`; what is no range (a tag, an address) tells nothing."""
    from semantic_version import NpmSpec, Version

    try:
        return not NpmSpec(wanted).match(Version(version))
    except ValueError:
        return False


def _missing_dependencies(packages: dict[str, Any]) -> Iterator[str]:
    """Dependencies of locked packages that are not locked where Node would look for them."""
    for where, entry in packages.items():
        if entry.get("link"):
            continue
        optional = entry.get("optionalDependencies") or {}
        for name, wanted in (entry.get("dependencies") or {}).items():
            found = next((place for place in places(where, name) if place in packages), None)
            if name not in optional and found is None:
                yield f"does not list {name}, which {where or 'the project'} needs"
            locked = packages[found] if found is not None else {}
            version = str(locked.get("version", "")) if not locked.get("link") else ""
            if version and _is_out_of_range(str(wanted), version):
                yield f"lists {name} {version}, which is not what {where.rpartition('node_modules/')[2] or 'the project'} needs"
        missing = [name for name in optional if not any(place in packages for place in places(where, name))]
        if missing:  # npm 11 stops there, older ones do not
            yield f"lacks {missing[0]}, which is optional for {where.rpartition('node_modules/')[2] or 'the project'}: npm 11"


def places(where: str, name: str) -> Iterator[str]:
    """Where Node looks for the package `name` from `where`, nearest first."""
    parts = where.split("/") if where else []
    while True:
        yield "/".join([*parts, "node_modules", name])
        if not parts:
            return
        parts.pop()


def _missing_peers(packages: dict[str, Any]) -> Iterator[str]:
    for where, entry in packages.items():
        optional = entry.get("peerDependenciesMeta") or {}
        for peer in entry.get("peerDependencies") or {}:
            if (optional.get(peer) or {}).get("optional"):
                continue
            if not any(key == f"node_modules/{peer}" or key.endswith(f"/node_modules/{peer}") for key in packages):
                yield f"does not list {peer}, a peer of {where.rpartition('node_modules/')[2] or 'this package'}"
