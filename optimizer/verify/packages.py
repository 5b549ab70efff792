"""What is installed in an image: the distribution's packages, and those of Python, Node and Ruby.

Source: dpkg(1) and apk(5) on their databases; PyPA's "Recording installed projects"; npm's documentation of package.json.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from optimizer.facts.node import parse_json
from optimizer.facts.npm_lock import places
from optimizer.facts.packages import normalized
from optimizer.verify.snapshot import texts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optimizer.verify.snapshot import Snapshot

_PYTHON = re.compile(r"/(?P<name>[^/]+?)-(?P<version>\d[^-/]*)(?:-py[\d.]+)?\.(?:dist-info|egg-info)$")
_RUBY = re.compile(
    r"/specifications/(?:default/)?(?P<name>[^/]+?)-(?P<version>\d[^-/]*)"
    r"(?:-(?:x86|x64|aarch64|arm|i[3-6]86|java|jruby|universal|ruby|mswin|mingw)[\w-]*)?\.gemspec$"
)
_NODE = re.compile(r"/node_modules/(?P<name>(?:@[^/]+/)?[^/@.][^/]*)/package\.json$")
_MODULE = re.compile(r"^(?P<folder>.*/node_modules/(?P<name>(?:@[^/]+/)?[^/@.][^/]*))(?=/|$)")
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
            found.add(Package("python", normalized(match["name"]), match["version"]))
        elif path.endswith(".gemspec") and (match := _RUBY.search(path)):
            found.add(Package("ruby", match["name"], match["version"]))
        elif path.endswith("/package.json") and (package := node_package(snapshot, path)) is not None:
            found.add(package)
    return frozenset(found)


def node_package(snapshot: Snapshot, path: str) -> Package | None:
    """The package that a package.json below node_modules describes; None for other files."""
    match = _NODE.search(path)
    version = _manifest(snapshot, path).get("version") if match is not None else None
    return Package("node", match["name"], f"{version}") if match is not None and version else None


def needed_node_folders(snapshot: Snapshot) -> frozenset[str]:
    """The folders of the Node packages that an application's manifests need in production, found as Node finds them."""
    waiting = [
        (path.removesuffix("/package.json"), name)
        for path in snapshot.entries
        if path.endswith("/package.json") and "/node_modules/" not in path and not snapshot.is_of_base(path)
        for name in _wanted(snapshot, path)
    ]
    needed: set[str] = set()
    while waiting:
        folder, name = waiting.pop()
        found = _node_folder(snapshot, folder, name)
        if found is not None and found not in needed:
            needed.add(found)
            waiting += ((found, wanted) for wanted in _wanted(snapshot, f"{found}/package.json"))
    return frozenset(needed)


class NodeModules:
    """Which Node packages of an image production needs, and which serve development alone.

    Those that are installed for all, outside of any application, are never for development.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    @cached_property
    def _needed(self) -> frozenset[str]:
        return needed_node_folders(self._snapshot)

    @cached_property
    def in_production(self) -> frozenset[Package]:
        """The packages, with their versions, that are not for development alone."""
        manifests = (path for path in self._snapshot.entries if _NODE.search(path) and not self.is_for_development(path))
        found = (node_package(self._snapshot, path) for path in manifests)
        return frozenset(package for package in found if package is not None)

    def is_for_development(self, path: str) -> bool:
        """Whether a file, or what a link of `.bin` stands for, belongs to a package that production does without."""
        found = node_package_at((self._snapshot.resolve(path) or path) if is_node_program(path) else path)
        if found is None:
            return False
        application = found[0].partition("/node_modules/")[0]
        return f"{application}/package.json" in self._snapshot.entries and found[0] not in self._needed


def is_node_program(path: str) -> bool:
    """Whether a path is a link to a program of a Node package."""
    return "/node_modules/.bin/" in path


def node_package_at(path: str) -> tuple[str, str] | None:
    """The folder and the name of the Node package that a file belongs to; None for other files."""
    match = _MODULE.match(path)
    return None if match is None else (match["folder"], match["name"])


def _node_folder(snapshot: Snapshot, folder: str, name: str) -> str | None:
    """Where Node finds the package `name` from `folder`."""
    found = (snapshot.resolve(place) for place in places(folder, name) if "/node_modules/node_modules/" not in place)
    return next((real for real in found if real is not None), None)


def _wanted(snapshot: Snapshot, path: str) -> list[str]:
    """The packages that a manifest needs in production."""
    manifest = _manifest(snapshot, path) if path in snapshot.entries else {}
    tables = (manifest.get(table) for table in ("dependencies", "optionalDependencies", "peerDependencies"))
    return [name for table in tables if isinstance(table, dict) for name in table]


def system_packages(snapshot: Snapshot) -> frozenset[str] | None:
    """The names of the distribution's packages; None where there is no database that we read."""
    databases = list(texts(snapshot, _DPKG))
    found: set[str] = set()
    for path, text in databases:
        for block in text.split("\n\n"):
            name = re.search(r"^Package: (\S+)", block, re.MULTILINE)
            is_installed = "/status.d/" in path or re.search(r"^Status: \S+ ok installed", block, re.MULTILINE)
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
    return parse_json(snapshot.text(path)) or {}
