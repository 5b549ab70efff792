"""The command line: the only module that reads arguments, prints and exits."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from optimizer import batch, discovery
from optimizer.report import diff, text
from optimizer.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from optimizer.batch import FileResult

app = typer.Typer(
    help="Rewrite Dockerfiles into smaller, faster-to-rebuild, safer ones, with the evidence for every change.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
_MANY = 20


def _fail(message: str) -> typer.Exit:
    typer.echo(message, err=True)
    return typer.Exit(2)


def _expect_one_of(option: str, value: str, *known: str) -> None:
    if value not in known:
        *others, last = known
        raise _fail(f'{option}: expected {", ".join(others)} or {last}, found "{value}"')


@app.callback(invoke_without_command=True)
def _main(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:  # noqa: FBT002
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"dockeropt {installed('dockeropt')}")
        raise typer.Exit


@app.command()
def fix(  # noqa: PLR0913 - one parameter an option, as typer wants it
    paths: Annotated[list[str] | None, typer.Argument(help="Files, folders, or - for standard input.")] = None,
    *,
    write: Annotated[bool, typer.Option("--write", "-w", help="Write the files.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Show the diff (the default).")] = False,
    check: Annotated[bool, typer.Option("--check", help="Exit with 1 if a file would change.")] = False,
    unsafe: Annotated[bool, typer.Option("--unsafe", help="Apply what is likely right but not proven, too.")] = False,
    select: Annotated[list[str] | None, typer.Option("--select", help="Only these transforms (comma or repeat).")] = None,
    ignore: Annotated[list[str] | None, typer.Option("--ignore", help="Not these transforms.")] = None,
    target: Annotated[str | None, typer.Option("--target", help="The stage that is built (default: the last).")] = None,
    context: Annotated[str | None, typer.Option("--context", help="The build context (default: found).")] = None,
    base: Annotated[str | None, typer.Option("--base", help="auto, keep, slim, alpine, distroless or scratch.")] = None,
    stdin_filename: Annotated[str, typer.Option("--stdin-filename", help="Where - would lie.")] = "Dockerfile",
    output_format: Annotated[str, typer.Option("--format", help="text or json.")] = "text",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only the diff, and errors.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Every line of evidence.")] = False,
    color: Annotated[str, typer.Option("--color", help="auto, always or never.")] = "auto",
) -> None:
    """Rewrite Dockerfiles: show the diff, or write it with -w."""
    if write and (dry_run or check):
        raise _fail("--write goes with neither --dry-run nor --check")
    _expect_one_of("--format", output_format, "text", "json")
    _expect_one_of("--color", color, "auto", "always", "never")
    chosen = {
        "unsafe": unsafe or None,
        "select": _names(select),
        "ignore": _names(ignore),
        "target": target,
        "context": context,
        "base": base,
    }
    results = []
    is_stdin = paths == ["-"]
    many = _Progress(is_quiet=quiet)
    for result in _results(paths or ["."], stdin_filename, chosen, many):
        written = _write(result) if write and not is_stdin and not result.is_failed else False
        results.append(result)
        many.clear()
        if output_format == "text":
            _print(
                result,
                color=color,
                is_stdin=is_stdin,
                shows_diff=not (write or check),
                quiet=quiet,
                verbose=verbose,
                written=written,
            )
    many.clear()
    if output_format == "json":
        from optimizer.report import json

        _out(json.render(results))
    if any(result.is_failed for result in results):
        raise typer.Exit(2)
    if check and any(result.is_changed for result in results):
        raise typer.Exit(1)


@app.command("list")
def list_transforms() -> None:
    """List the transforms in the order in which they run."""
    from optimizer.transform import all_transforms

    for transform in all_transforms():
        typer.echo(f"{transform.meta.name:24} {transform.meta.summary}")


@app.command()
def explain(name: Annotated[str, typer.Argument(help="A transform, as `dockeropt list` calls it.")]) -> None:
    """Say what a transform does, why, and what it refuses."""
    from difflib import get_close_matches

    from optimizer.transform import all_transforms

    known = {transform.meta.name: transform.meta for transform in all_transforms()}
    if name not in known:
        close = get_close_matches(name, known, n=1)
        raise _fail(f'no transform is called "{name}".' + (f' Did you mean "{close[0]}"?' if close else " See: dockeropt list"))
    meta = known[name]
    rules = f"\n\nSettles: {', '.join(meta.settles)}" if meta.settles else ""
    typer.echo(f"{name}\n\n{meta.page}{rules}")


@app.command()
def images(name: Annotated[str, typer.Argument(help="An image, with or without its tag: python:3.13.")]) -> None:
    """Say what is known of a base image: its release, user, programs, variants and sizes."""
    from difflib import get_close_matches

    from optimizer.facts.images import names, split
    from optimizer.report import images as report

    text = report.render(name)
    if text is None:
        close = get_close_matches(split(name)[0], names(), n=1)
        hint = f' Did you mean "{close[0]}"?' if close else f" Known: {', '.join(names())}"
        raise _fail(f'the table has no image "{name}".{hint}')
    typer.echo(text, nl=False)


# -------------------------------------------------------------------- reading


def _names(given: list[str] | None) -> tuple[str, ...]:
    return tuple(name.strip() for item in given or () for name in item.split(",") if name.strip())


def _results(paths: list[str], stdin_filename: str, chosen: dict[str, Any], many: _Progress) -> Iterator[FileResult]:
    try:
        if "-" in paths:
            if len(paths) > 1:
                raise _fail("- stands alone: standard input is one Dockerfile")
            yield batch.fix_bytes(sys.stdin.buffer.read(), Path(stdin_filename), chosen)
            return
        for path in many.over(_files(paths)):
            yield batch.fix_file(path, chosen)
    except SettingsError as error:
        raise _fail(str(error)) from error
    except OSError as error:
        raise _fail(f"{error.filename}: {error.strerror}") from error


def _files(paths: list[str]) -> list[Path]:
    found: dict[str, Path] = {}
    for given in paths:
        path = Path(given)
        if path.is_dir():
            below = list(discovery.dockerfiles(path))
            if not below and len(paths) == 1:
                raise _fail(f"{given}: expected a Dockerfile in this folder or below it, found none")
            found |= {os.path.normpath(p.absolute()): p for p in below if os.path.normpath(p.absolute()) not in found}
        elif path.exists():
            found.setdefault(os.path.normpath(path.absolute()), path)
        else:
            raise _fail(f"{given}: expected a file or a folder, found nothing")
    return list(found.values())


class _Progress:
    """How far a run over many files is, on a terminal."""

    def __init__(self, *, is_quiet: bool) -> None:
        self._shows = not is_quiet and sys.stderr.isatty()
        self._width = 0

    def over(self, files: list[Path]) -> Iterator[Path]:
        for number, path in enumerate(files, 1):
            if self._shows and len(files) >= _MANY:
                line = f"{number}/{len(files)}  {path}"[:78]
                sys.stderr.write("\r" + line.ljust(self._width))
                sys.stderr.flush()
                self._width = len(line)
            yield path

    def clear(self) -> None:
        if self._width:
            sys.stderr.write("\r" + " " * self._width + "\r")
            self._width = 0


# -------------------------------------------------------------------- writing


def _write(result: FileResult) -> bool:
    try:
        return bool(batch.write(result))
    except OSError as error:
        raise _fail(str(error)) from error


def _print(
    result: FileResult, *, color: str, is_stdin: bool, shows_diff: bool, quiet: bool, verbose: bool, written: bool
) -> None:
    if is_stdin and result.outcome is not None:
        _out(result.outcome.after.source.text)
    elif shows_diff:
        _out(diff.render(result), is_colored=_is_colored(color, sys.stdout))
    if not quiet or result.is_failed:
        review = text.render(result, verbose=verbose, written=written or is_stdin)
        _err(review, is_colored=_is_colored(color, sys.stderr))


def _is_colored(color: str, stream: Any) -> bool:
    if color == "auto":
        return stream.isatty() and "NO_COLOR" not in os.environ
    return color == "always"


def _out(content: str, *, is_colored: bool = False) -> None:
    if is_colored:
        _colored(content.splitlines(keepends=True), _diff_style, sys.stdout)
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(content.encode("utf-8", "surrogateescape"))
    sys.stdout.buffer.flush()


def _err(content: str, *, is_colored: bool = False) -> None:
    if is_colored:
        _colored(content.splitlines(keepends=True), _review_style, sys.stderr)
        return
    sys.stderr.write(content.encode("utf-8", "replace").decode())
    sys.stderr.flush()


def _colored(lines: Iterable[str], style: Any, stream: Any) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(file=stream, force_terminal=True, soft_wrap=True, highlight=False)
    for line in lines:
        console.print(Text(line.encode("utf-8", "replace").decode(), style=style(line)), end="")


def _diff_style(line: str) -> str:
    if line.startswith(("+++", "---")):
        return "bold"
    return {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "")


def _review_style(line: str) -> str:
    if line.startswith("held back"):
        return "yellow"
    if line.startswith(("not done", "    ")):
        return "dim"
    return "bold" if line.strip() else ""
