"""What is installed in an image: the distribution's packages, and those of Python, Node and Ruby.

Source: dpkg(1) and apk(5) on their databases; PyPA's "Recording installed projects"; npm's documentation of package.json.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from optimizer.verify.snapshot import texts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optimizer.verify.snapshot import Snapshot

_PYTHON = re.compile(r"/(?P<name>[^/]+?)-(?P<version>\d[^-/]*)(?:-py[\d.]+)?\.(?:dist-info|egg-info)$")
_RUBY = re.compile(r"/specifications/(?:default/)?(?P<name>[^/]+)-(?P<version>\d[^-/]*)\.gemspec$")
_NODE = re.compile(r"/node_modules/(?P<name>(?:@[^/]+/)?[^/@.][^/]*)/package\.json$")
_DPKG = re.compile(r"^/var/lib/dpkg/(status|status\.d/[^/]+)$")
_APK = re.compile(r"^/lib/apk/db/installed$")
_LIST = re.compile(r"^/var/lib/dpkg/info/(?P<name>[^/:]+)(?::\w+)?\.list$")


@dataclass(frozen=True, slots=True, order=True)
class Package:
    """A package of a language: `kind` is python, node or ruby."""

    kind: str
    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


def language_packages(snapshot: Snapshot, *, with_base: bool) -> frozenset[Package]:
    """The packages of languages in an image; without those that came with its base image, unless `with_base`."""
    found = set()
    for path, entry in snapshot.entries.items():
        if not with_base and entry.layer < snapshot.base:
            continue
        if path.endswith("-info") and (match := _PYTHON.search(path)):
            found.add(Package("python", re.sub(r"[-_.]+", "-", match["name"]).lower(), match["version"]))
        elif path.endswith(".gemspec") and (match := _RUBY.search(path)):
            found.add(Package("ruby", match["name"], match["version"]))
        elif path.endswith("/package.json") and (match := _NODE.search(path)):
            manifest = _manifest(snapshot, path)
            if manifest.get("version"):
                found.add(Package("node", match["name"], f"{manifest['version']}"))
    return frozenset(found)


def needed_node_packages(snapshot: Snapshot) -> frozenset[str]:
    """The names of the Node packages that an application's manifests need in production, and what those need in turn."""
    wanted: dict[str, set[str]] = {}
    waiting: list[str] = []
    for path in snapshot.entries:
        if not path.endswith("/package.json"):
            continue
        manifest = _manifest(snapshot, path)
        names = {
            name
            for table in ("dependencies", "optionalDependencies", "peerDependencies")
            for name in _names(manifest.get(table))
        }
        if match := _NODE.search(path):
            wanted.setdefault(match["name"], set()).update(names)
        elif "/node_modules/" not in path and not snapshot.is_of_base(path):
            waiting += names
    needed: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed.add(name)
            waiting += wanted.get(name, ())
    return frozenset(needed)


def system_packages(snapshot: Snapshot) -> frozenset[str] | None:
    """The names of the distribution's packages; None where there is no database that we read."""
    databases = list(texts(snapshot, _DPKG))
    found: set[str] = set()
    for path, text in databases:
        for block in text.split("\n\n"):
            name = re.search(r"^Package: (\S+)", block, re.MULTILINE)
            is_installed = "/status.d/" in path or re.search(r"^Status: install ok installed", block, re.MULTILINE)
            if name is not None and is_installed:
                found.add(name[1])
    apk = list(texts(snapshot, _APK))
    found |= {line[2:] for _, text in apk for line in text.splitlines() if line.startswith("P:")}
    return frozenset(found) if databases or apk else None


def owned_files(snapshot: Snapshot, packages: frozenset[str]) -> Iterator[str]:
    """The files that some of Debian's packages brought, their folders' links followed."""
    for path in list(snapshot.entries):
        if (match := _LIST.match(path)) is None or match["name"] not in packages:
            continue
        for line in (snapshot.text(path) or "").splitlines():
            folder, _, name = line.strip().rpartition("/")
            real = snapshot.resolve(folder) if folder else None
            yield f"{real or folder}/{name}"


def _manifest(snapshot: Snapshot, path: str) -> dict[str, Any]:
    try:
        found = json.loads(snapshot.text(path) or "{}")
    except json.JSONDecodeError:
        return {}  # a test's own broken manifest
    return found if isinstance(found, dict) else {}


def _names(table: object) -> list[str]:
    return list(table) if isinstance(table, dict) else []
