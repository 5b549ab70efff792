"""What a user can choose, and where it is read from.

Command line over environment (`DOCKEROPT_IGNORE=merge-run`) over `.dockeropt.toml` over `[tool.dockeropt]` in
`pyproject.toml` over the defaults. A key that nobody knows is an error with a suggestion.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FILE = ".dockeropt.toml"
# What `base` may be: found by what the application needs, left as it is, or a kind that the user asks for.
BASES = ("auto", "keep", "slim", "alpine", "distroless", "scratch")


VERIFY = "verify"
TIMEOUT = 1800.0


class SettingsError(ValueError):
    """A setting that cannot be used; the message names the file and the key."""


@dataclass(frozen=True, slots=True)
class Verify:
    """How to verify: the table `[verify]`.

    `builder`: docker, podman, buildah or a buildx builder's name, None for what answers; `network` of builds and containers;
    `timeout`: seconds that a build may take; `http`: the paths to GET, with ":PORT" in front for one port alone, "/" where
    there are none; `smoke`: what to run the image with instead; `env`: NAME=VALUE for the containers; `wait`: seconds until a
    container must answer; `body`: whether answers are compared, or their status alone; `edit`: the source, below the build
    context, whose edit is measured, None for the entry file; `build_args`: NAME=VALUE; `scan`: whether to ask scanners.
    """

    builder: str | None = None
    network: str | None = None
    timeout: float = TIMEOUT
    http: tuple[str, ...] = ()
    smoke: str | None = None
    env: tuple[str, ...] = ()
    wait: float = 30.0
    body: bool = True
    edit: str | None = None
    build_args: tuple[str, ...] = ()
    scan: bool = False


@dataclass(frozen=True, slots=True)
class Settings:
    """The choices for one run. `select` empty means every transform; `target` is the stage that is built (default: last);
    `base` is one of BASES; `verify` says how to verify. `proof`: what is rewritten is built, run and compared before it counts,
    so that rewrites are made that only proof can settle; no file sets it."""

    unsafe: bool = False
    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    target: str | None = None
    context: str | None = None
    base: str = "auto"
    verify: Verify = Verify()
    proof: bool = False

    def wants(self, name: str) -> bool:
        """Whether the transform called `name` is to run."""
        return name not in self.ignore and (not self.select or name in self.select)


_KINDS: dict[str, type] = {
    **dict.fromkeys(("target", "context", "base", "builder", "network", "smoke", "edit"), str),
    **dict.fromkeys(("unsafe", "body", "scan"), bool),
    **dict.fromkeys(("timeout", "wait"), float),
    **dict.fromkeys(("select", "ignore", "http", "env", "build_args"), tuple),
}
_EXPECTED = {bool: "true or false", str: "a string", tuple: "a list of strings", float: "a number of seconds"}
KEYS = tuple(field.name for field in dataclasses.fields(Settings) if field.name != "proof")
VERIFY_KEYS = tuple(field.name for field in dataclasses.fields(Verify))


def load(folder: Path, environ: Mapping[str, str], chosen: Mapping[str, Any]) -> Settings:
    """Settings for a Dockerfile in `folder`.

    `chosen` holds what the command line says, what it says of verifying in a table of its own; None and empty tuples there mean
    "not said". Raises SettingsError.
    """
    values = _from_files(folder)
    verify = values.pop(VERIFY, {}) | _from_environment(environ, VERIFY_KEYS, "DOCKEROPT_VERIFY_")
    values |= _from_environment(environ, KEYS, "DOCKEROPT_")
    values |= _said({key: value for key, value in chosen.items() if key != VERIFY})
    _check_base(values.get("base", BASES[0]), "--base")
    verify |= _said(chosen.get(VERIFY) or {})
    _check_smoke(verify.get("smoke"))
    for key in ("timeout", "wait"):
        if verify.get(key, 1.0) <= 0:
            raise SettingsError(f"--{key}: expected a number of seconds above 0, found {verify[key]}")
    return Settings(**values, verify=Verify(**verify))


def _check_smoke(command: str | None) -> None:
    if command is None:
        return
    import shlex

    try:
        shlex.split(command)
    except ValueError as error:
        raise SettingsError(f"--smoke: {error} in {command}") from error


def _said(chosen: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in chosen.items() if value not in (None, ())}


def _check_base(value: object, where: str) -> None:
    if value not in BASES:
        raise SettingsError(f'{where}: expected one of {", ".join(BASES)}, found "{value}"')


def check_names(settings: Settings, known: tuple[str, ...]) -> None:
    """Raise SettingsError for a transform's name in `select` or `ignore` that is not in `known`."""
    for name in (*settings.select, *settings.ignore):
        if name not in known:
            raise SettingsError(f'no transform is called "{name}".{_suggestion(name, known)}')


def _from_files(folder: Path) -> dict[str, Any]:
    for above in (folder, *folder.parents):
        own, project = above / FILE, above / "pyproject.toml"
        if own.is_file():
            return _checked(_toml(own), str(own))
        if project.is_file() and b"[tool.dockeropt" in project.read_bytes():
            return _checked(_toml(project).get("tool", {}).get("dockeropt", {}), f"{project}, [tool.dockeropt]")
        if (above / ".git").exists():
            break
    return {}


def _toml(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: {error}") from error


def _from_environment(environ: Mapping[str, str], keys: tuple[str, ...], prefix: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key in keys:
        name = f"{prefix}{key.upper()}"
        text = environ.get(name, "")
        if not text or key == VERIFY:
            continue
        found[key] = _parsed(text, _KINDS[key], name)
        _check_base(text if key == "base" else BASES[0], name)
    return found


def _parsed(text: str, kind: type, name: str) -> object:
    """What a variable of the environment says, as a setting of `kind`."""
    if kind is bool:
        if text.lower() not in ("0", "1", "true", "false"):
            raise SettingsError(f'{name}: expected 0, 1, true or false, found "{text}"')
        return text.lower() in ("1", "true")
    if kind is tuple:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if kind is float:
        try:
            return float(text)
        except ValueError as error:
            raise SettingsError(f'{name}: expected {_EXPECTED[float]}, found "{text}"') from error
    return text


def _checked(table: dict[str, Any], where: str, keys: tuple[str, ...] = KEYS) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for written, value in table.items():
        key = written.replace("-", "_")
        if key not in keys:
            raise SettingsError(f'{where}: unknown key "{written}".{_suggestion(written, keys)}')
        if key == VERIFY:
            if not isinstance(value, dict):
                raise SettingsError(f"{where}: verify: expected a table, found {value!r}")
            found[key] = _checked(value, f"{where}, [verify]", VERIFY_KEYS)
            continue
        found[key] = _of_kind(value, _KINDS[key], f"{where}: {written}")
        _check_base(value if key == "base" else BASES[0], f"{where}: {key}")
    return found


def _of_kind(value: object, kind: type, where: str) -> object:
    """`value`, which a file sets, if it is of the right kind."""
    if kind is tuple and isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if kind in (bool, str) and isinstance(value, kind):
        return value
    raise SettingsError(f"{where}: expected {_EXPECTED[kind]}, found {value!r}")


def _suggestion(word: str, known: tuple[str, ...]) -> str:
    from difflib import get_close_matches

    close = get_close_matches(word, known, n=1)
    return f' Did you mean "{close[0]}"?' if close else f" Known: {', '.join(known)}"
