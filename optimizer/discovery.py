"""Which files are Dockerfiles, which folder is a file's build context, and how a result is written."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from optimizer.dockerfile.patterns import clean, has_wildcard
from optimizer.facts import compose

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pathspec import GitIgnoreSpec

    from optimizer.dockerfile.document import Document
    from optimizer.facts.compose import Service

_NAMES = re.compile(r"^(?:dockerfile|containerfile)(?:[._-].+)?$|^.+\.dockerfile$", re.IGNORECASE)
_NOT_DOCKERFILES = re.compile(
    r"\.(?:dockerignore|md|rst|txt|html?|py|js|ts|go|java|rb|rs|sh|json|ya?ml|toml|lock|orig|bak|swp|tar|gz|zip|png|svg)$",
    re.IGNORECASE,
)
_LEVELS_UP = 4
# The lock files of a manifest: where the nearest folder has none, but one above it does, that one is built in.
_LOCKED_BY = {
    "package.json": ("package-lock.json", "npm-shrinkwrap.json", "yarn.lock", "pnpm-lock.yaml", "bun.lock", "bun.lockb"),
    "pyproject.toml": ("uv.lock", "poetry.lock", "pdm.lock"),
    "Cargo.toml": ("Cargo.lock",),
    "composer.json": ("composer.lock",),
}
_MANIFESTS = ("package.json", "pyproject.toml", "requirements.txt", "go.mod", "go.work", "pnpm-workspace.yaml")


def dockerfiles(folder: Path) -> Iterator[Path]:
    """The Dockerfiles below `folder` in sorted order: by name, without what `.gitignore` files leave out and without links."""
    yield from _walk(folder, [])


def _walk(folder: Path, above: list[tuple[Path, GitIgnoreSpec]]) -> Iterator[Path]:
    specs = above
    ignore = folder / ".gitignore"
    if ignore.is_file():
        from pathspec import GitIgnoreSpec

        lines = ignore.read_text("utf-8", "replace").splitlines()
        specs = [*above, (folder, GitIgnoreSpec.from_lines(lines))]
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        path = folder / entry.name
        is_folder = entry.is_dir(follow_symlinks=False)
        if entry.is_symlink() or entry.name == ".git" or _is_ignored(path, specs, is_folder=is_folder):
            continue
        if is_folder:
            yield from _walk(path, specs)
        elif _NAMES.match(entry.name) and not _NOT_DOCKERFILES.search(entry.name):
            yield path


def _is_ignored(path: Path, specs: list[tuple[Path, GitIgnoreSpec]], *, is_folder: bool) -> bool:
    """Whether the nearest `.gitignore` that speaks of `path` leaves it out."""
    for root, spec in reversed(specs):
        shown = path.relative_to(root).as_posix() + ("/" if is_folder else "")
        result = spec.check_file(shown)
        if result.include is not None:
            return result.include
    return False


# -------------------------------------------------------------------- build contexts


@dataclass(frozen=True, slots=True)
class ContextFolder:
    """The folder that is sent to the builder for a Dockerfile, why one thinks so, and what speaks against it, if anything.

    `services` are those of the compose files that build it.
    """

    folder: Path
    reason: str
    doubt: str = ""
    services: tuple[Service, ...] = ()


def context_folder(dockerfile: Path, document: Document) -> ContextFolder:
    """The build context of a Dockerfile: what a compose file says, else the nearest folder that has its COPY sources."""
    dockerfile = dockerfile.absolute()
    ladder = list(_ladder(dockerfile.parent))
    every = [service for folder in ladder for path in _compose_files(folder) for service in _services(path)]
    built = [(folder, service) for service in every if (folder := _built_in(service, dockerfile)) is not None]
    services = (*(service for _, service in built), *_started(every, built, ladder))
    if built:
        folder, first = built[0]
        others = {other for other, _ in built} - {folder}
        doubt = f"a compose file builds it in {min(others)} too" if others else ""
        return ContextFolder(folder, f"{Path(first.file).name} says so", doubt, services)
    sources = _literal_sources(document)
    fitting = [folder for folder in ladder if all((folder / source).exists() for source in sources)]
    if not fitting:
        return ContextFolder(dockerfile.parent, "it holds the Dockerfile", services=services)
    return ContextFolder(fitting[0], "it has what the Dockerfile copies", _doubt(fitting, dockerfile.parent), services)


def _doubt(fitting: list[Path], beside: Path) -> str:
    """What speaks for another folder of the same repository: one further down that has its own ignore file and what is copied,
    or one further up that has what is copied, and the same manifests, or the lock file that the nearest one lacks."""
    nearest = fitting[0]
    if not (nearest / ".dockerignore").exists():
        below = [beside, *(folder for folder in beside.parents if folder.is_relative_to(nearest))]
        below += sorted(path.parent for path in nearest.glob("*/.dockerignore"))
        if other := next((folder for folder in below if folder != nearest and (folder / ".dockerignore").exists()), None):
            return f"{other} has a .dockerignore of its own, as a build context has"
    if not (fitting[-1] / ".git").exists():
        return ""
    own = [name for name in _MANIFESTS if (nearest / name).is_file()]
    for folder in fitting[1:]:
        if any((folder / name).is_file() for name in own):
            return f"{folder} has what it copies too"
    for manifest, locks in _LOCKED_BY.items():
        if manifest not in own or any((nearest / lock).is_file() for lock in locks):
            continue
        above = ((folder, lock) for folder in fitting[1:] for lock in locks if (folder / lock).is_file())
        if (found := next(above, None)) is not None:
            return f"{found[1]} lies in {found[0]}"
    return ""


def _ladder(folder: Path) -> Iterator[Path]:
    """`folder` and those above it, up to the top of the repository."""
    for level, above in enumerate((folder, *folder.parents)):
        yield above
        if (above / ".git").exists() or level >= _LEVELS_UP:
            return
        if above.parent == Path(above.anchor):
            return


def _literal_sources(document: Document) -> list[str]:
    found: list[str] = []
    for instruction in document.instructions:
        if instruction.keyword in ("COPY", "ADD") and instruction.flag("from") is None and not instruction.heredocs:
            words = (word.text for word in instruction.words[:-1])
            found += [clean(text) for text in words if "$" not in text and "://" not in text and not has_wildcard(text)]
    return found


def _compose_files(folder: Path) -> list[Path]:
    """Its compose files, and those of a development container in it."""
    found: list[Path] = []
    for place in (folder, folder / ".devcontainer"):
        try:
            with os.scandir(place) as entries:  # a folder above may hold thousands: no Path for each
                found += sorted(place / entry.name for entry in entries if compose.NAME.match(entry.name) and entry.is_file())
        except OSError:
            continue  # not there, or a folder above that we may not list: it says nothing
    return found


def _services(path: Path) -> tuple[Service, ...]:
    """The services of a compose file; none of one that cannot be opened."""
    try:
        with path.open("rb") as file:
            data = file.read(compose.MAX_BYTES + 1)
    except OSError:
        return ()
    return compose.services(data, str(path))


def _built_in(service: Service, dockerfile: Path) -> Path | None:
    """The build context of a service that builds `dockerfile`; None for another."""
    if service.context is None:
        return None
    context = Path(os.path.normpath(Path(service.file).parent / service.context))
    named = Path(os.path.normpath(context / service.dockerfile))
    return context if named == dockerfile and context.is_dir() else None


def _started(every: list[Service], built: list[tuple[Path, Service]], ladder: list[Path]) -> Iterator[Service]:
    """The services that start the image without building it: under the name that a service builds it by, or under the
    repository's own."""
    images = {service.image for _, service in built if service.image}
    repository = ladder[-1].name.lower()
    for service in every:
        name = service.image.partition("@")[0].rpartition("/")[2].partition(":")[0].lower()
        if service.context is None and (service.image in images or name == repository):
            yield service


# -------------------------------------------------------------------- writing


class WriteError(OSError):
    """A file that was not written; the message says why, and the file is as it was."""


def write_atomically(files: Iterable[tuple[Path, bytes]], *, new: Iterable[Path] = ()) -> None:
    """Write files, each as a whole or not at all, keeping the mode of those that are there.

    A link is followed only inside its own folder tree; the paths in `new` must not exist, not even as links. Raises WriteError.
    """
    prepared: list[tuple[Path, Path]] = []
    fresh = frozenset(new)
    try:
        for path, data in files:
            target = _target(path, is_new=path in fresh)
            prepared.append((_temporary(target, data), target))
        for temporary, target in prepared:
            temporary.replace(target)
    except WriteError:
        raise
    except OSError as error:
        raise WriteError(f"{path}: not written: {error.strerror or error}") from error
    finally:
        for temporary, _ in prepared:
            temporary.unlink(missing_ok=True)


def _target(path: Path, *, is_new: bool) -> Path:
    if is_new and os.path.lexists(path):
        raise WriteError(f"{path}: not written: it is there already")
    if not path.is_symlink():
        return path
    target = path.resolve()
    if not target.is_relative_to(path.parent.resolve()):
        raise WriteError(f"{path}: not written: it is a link to {target}, outside its folder")
    return target


def _temporary(target: Path, data: bytes) -> Path:
    import tempfile

    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        if target.exists():
            mode = stat.S_IMODE(target.stat().st_mode)
        else:
            mask = os.umask(0)
            os.umask(mask)
            mode = 0o666 & ~mask
        temporary.chmod(mode)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    return temporary
