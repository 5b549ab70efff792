"""The command line: the only module that reads arguments, prints and exits."""

from __future__ import annotations

import contextlib
import inspect
import os
import signal
import sys
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from optimizer import batch, discovery
from optimizer.report import diff, text
from optimizer.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from optimizer.batch import FileResult
    from optimizer.verify.proof import Proof

app = typer.Typer(
    help="Rewrite Dockerfiles into smaller, faster-to-rebuild, safer ones, with the evidence for every change.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
_MANY = 20
_PLAIN_WIDTH = 160  # columns where the output is no terminal


def _fail(message: str) -> typer.Exit:
    typer.echo(message, err=True)
    return typer.Exit(2)


def _expect_one_of(option: str, value: str, *known: str) -> None:
    if value not in known:
        *others, last = known
        raise _fail(f'{option}: expected {", ".join(others)} or {last}, found "{value}"')


# What the commands that rewrite have in common: which rewrites, of which stage, in which folder.
_REWRITING: dict[str, tuple[Any, Any]] = {
    "select": (Annotated[list[str] | None, typer.Option("--select", help="Only these transforms (comma or repeat).")], None),
    "ignore": (Annotated[list[str] | None, typer.Option("--ignore", help="Not these transforms.")], None),
    "target": (Annotated[str | None, typer.Option("--target", help="The stage that is built (default: the last).")], None),
    "context": (Annotated[str | None, typer.Option("--context", help="The build context (default: found).")], None),
    "base": (Annotated[str | None, typer.Option("--base", help="auto, keep, slim, alpine, distroless or scratch.")], None),
}
# And how to verify; the names are those of the settings.
_VERIFYING: dict[str, tuple[Any, Any]] = {
    "builder": (Annotated[str | None, typer.Option(help="docker, podman, buildah, or the name of a buildx builder.")], None),
    "network": (Annotated[str | None, typer.Option(help="The network of builds and containers.")], None),
    "timeout": (Annotated[float | None, typer.Option(help="Seconds that a build may take (default: 1800).")], None),
    "http": (Annotated[list[str] | None, typer.Option(help="A path to GET; :PORT/path for one port (repeat).")], None),
    "smoke": (Annotated[str | None, typer.Option(help="What to run the image with, instead of asking it.")], None),
    "env": (Annotated[list[str] | None, typer.Option(help="NAME=VALUE for the containers (repeat).")], None),
    "wait": (Annotated[float | None, typer.Option(help="Seconds until the image must answer (default: 30).")], None),
    "body": (Annotated[bool | None, typer.Option("--body/--no-body", help="Compare what is answered, too.")], None),
    "edit": (Annotated[str | None, typer.Option(help="The source whose edit is measured (default: the entry file).")], None),
    "build_args": (Annotated[list[str] | None, typer.Option("--build-arg", help="NAME=VALUE for builds (repeat).")], None),
    "scan": (Annotated[bool | None, typer.Option("--scan", help="Count packages and vulnerabilities.")], None),
}


def _options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options above. It gets what the user said of them as `chosen`, the way that the settings take it."""
    shared = {**_REWRITING, **_VERIFYING}

    @wraps(command)
    def filled(**given: Any) -> None:
        said = {name: given.pop(name) for name in shared}
        verifying = {name: tuple(v) if isinstance(v := said[name], list) else v for name in _VERIFYING}
        rewriting = {name: said[name] for name in _REWRITING}
        names = {name: _names(said[name]) for name in ("select", "ignore")}
        command(**given, chosen={**rewriting, **names, "verify": verifying})

    hints = get_type_hints(command, include_extras=True)
    own = [p.replace(annotation=hints[p.name]) for p in inspect.signature(command).parameters.values() if p.name != "chosen"]
    more = [inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, default=d, annotation=a) for n, (a, d) in shared.items()]
    filled.__signature__ = inspect.Signature([*own, *more])  # type: ignore[attr-defined]
    filled.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *more)}
    del filled.__wrapped__  # typer would read the options of the command itself
    return filled


@app.callback(invoke_without_command=True)
def _main(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:  # noqa: FBT002
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"dockeropt {installed('dockeropt')}")
        raise typer.Exit


@app.command()
@_options
def fix(  # noqa: PLR0913 - one parameter an option, as typer wants it
    paths: Annotated[list[str] | None, typer.Argument(help="Files, folders, or - for standard input.")] = None,
    *,
    write: Annotated[bool, typer.Option("--write", "-w", help="Write the files.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Show the diff (the default).")] = False,
    check: Annotated[bool, typer.Option("--check", help="Exit with 1 if a file would change.")] = False,
    unsafe: Annotated[bool, typer.Option("--unsafe", help="Apply what is likely right but not proven, too.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Build and run both; keep whatever is proven.")] = False,
    stdin_filename: Annotated[str, typer.Option("--stdin-filename", help="Where - would lie.")] = "Dockerfile",
    output_format: Annotated[str, typer.Option("--format", help="text or json.")] = "text",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only the diff, and errors.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Every line of evidence.")] = False,
    color: Annotated[str, typer.Option("--color", help="auto, always or never.")] = "auto",
    chosen: dict[str, Any],
) -> None:
    """Rewrite Dockerfiles: show the diff, or write it with -w."""
    is_stdin = paths == ["-"]
    if write and (dry_run or check):
        raise _fail("--write goes with neither --dry-run nor --check")
    if verify and is_stdin:
        raise _fail("--verify builds in a folder: it takes files, not standard input")
    _expect_one_of("--format", output_format, "text", "json")
    _expect_one_of("--color", color, "auto", "always", "never")
    chosen["unsafe"] = unsafe or verify or None
    chosen["proof"] = verify or None
    results = []
    many = _Progress(is_quiet=quiet)
    found = _results(paths or ["."], stdin_filename, chosen, many)
    is_unproven = False
    for proposed in found:
        result = proposed
        if verify:
            result, proof = _proven(proposed, quiet=quiet)
            is_unproven |= proof is not None and not proof.settles
            if proof is not None and not quiet:
                _show_proof(proof, sys.stderr, color=color, verbose=verbose)
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
                written=written or is_stdin,
                proven=verify,
            )
    many.clear()
    if output_format == "json":
        from optimizer.report import json

        _out(json.render(results))
    if is_unproven or any(result.is_failed for result in results):
        raise typer.Exit(2)
    if check and any(result.is_changed for result in results):
        raise typer.Exit(1)


@app.command()
@_options
def verify(
    paths: Annotated[list[str] | None, typer.Argument(help="Files or folders.")] = None,
    *,
    output_format: Annotated[str, typer.Option("--format", help="text, json, markdown or html.")] = "text",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Every difference.")] = False,
    color: Annotated[str, typer.Option("--color", help="auto, always or never.")] = "auto",
    chosen: dict[str, Any],
) -> None:
    """Build, run and compare Dockerfiles and their rewritten versions; nothing is written."""
    _expect_one_of("--format", output_format, "text", "json", "markdown", "html")
    _expect_one_of("--color", color, "auto", "always", "never")
    if paths == ["-"]:
        raise _fail("verify builds in a folder: it takes files, not standard input")
    chosen["unsafe"] = chosen["proof"] = True
    many = _Progress(is_quiet=True)
    results = list(_results(paths or ["."], "Dockerfile", chosen, many))
    proofs: list[tuple[Proof, FileResult]] = []
    for result in results:
        proof = None if result.outcome is None or result.is_failed else _proof(result, drops=False, quiet=quiet)
        if proof is None:
            _err(text.render(result))
            continue
        proofs.append((proof, result))
        if output_format == "text":
            _show_proof(proof, sys.stdout, color=color, verbose=verbose)
    _out(_rendered(proofs, output_format))
    _exit_by_verdict([proof for proof, _ in proofs], is_failed=any(result.is_failed for result in results))


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


# -------------------------------------------------------------------- verifying


def _proven(result: FileResult, *, quiet: bool) -> tuple[FileResult, Proof | None]:
    """A result with nothing but what is proven, and the proof; without one where there is nothing to prove."""
    from optimizer.engine import Outcome
    from optimizer.verify.proof import Verdict

    if result.outcome is None or result.is_failed or not result.is_changed:
        return result, None
    proof = _proof(result, drops=True, quiet=quiet)
    if proof.verdict is Verdict.PROVEN:
        return replace(result, outcome=proof.outcome), proof
    before = result.outcome.before
    return replace(result, outcome=Outcome(before, before, refused=result.outcome.refused)), proof


def _proof(result: FileResult, *, drops: bool, quiet: bool) -> Proof:
    from optimizer.verify.commands import BuilderError
    from optimizer.verify.proof import nothing_to_prove, prove
    from optimizer.verify.session import Session

    if (nothing := nothing_to_prove(result)) is not None:
        return nothing
    doing = _Doing(is_quiet=quiet)
    try:
        with _ended_in_order(), Session(result.settings.verify, doing.show) as session:
            return prove(session, result, drops=drops)
    except BuilderError as error:
        doing.clear()
        raise _fail(f"{result.path}: {error}") from error
    except KeyboardInterrupt:
        doing.clear()
        typer.echo(f"interrupted: {result.path} is as it was, and what was built is removed", err=True)
        raise typer.Exit(130) from None
    finally:
        doing.clear()


@contextlib.contextmanager
def _ended_in_order() -> Iterator[None]:
    """Let a request to end be one that clears up, like Ctrl-C."""
    signs = (signal.SIGTERM, signal.SIGHUP)
    old = {sign: signal.signal(sign, signal.default_int_handler) for sign in signs}
    try:
        yield
    finally:
        for sign, handler in old.items():
            signal.signal(sign, handler)


def _rendered(proofs: list[tuple[Proof, FileResult]], output_format: str) -> str:
    """The proofs in one of the formats for machines and pages; nothing for text, which is printed as it comes."""
    from optimizer.report import proof_html, proof_json, proof_markdown

    if output_format == "json":
        return proof_json.render(proof for proof, _ in proofs)
    if output_format == "markdown":
        return proof_markdown.render(proof for proof, _ in proofs)
    return proof_html.render(proofs) if output_format == "html" else ""


def _exit_by_verdict(proofs: list[Proof], *, is_failed: bool) -> None:
    if is_failed or any(not proof.settles for proof in proofs):
        raise typer.Exit(2)
    if any(proof.failures for proof in proofs):
        raise typer.Exit(1)


def _show_proof(proof: Proof, stream: Any, *, color: str, verbose: bool) -> None:
    from rich.console import Console

    from optimizer.report import proof_text

    is_colored = _is_colored(color, stream)
    width = None if stream.isatty() else _PLAIN_WIDTH
    console = Console(
        file=stream, force_terminal=is_colored or None, no_color=not is_colored, soft_wrap=True, highlight=False, width=width
    )
    for part in proof_text.render(proof, verbose=verbose):
        console.print(part)
    console.print()


class _Doing:
    """What verification is doing, on one line of a terminal, with the seconds that it has taken."""

    def __init__(self, *, is_quiet: bool) -> None:
        self._shows = not is_quiet and sys.stderr.isatty()
        self._status: Any = None

    def show(self, what: str) -> None:
        """Say what runs now. May be called from several threads."""
        if not self._shows:
            return
        if self._status is None:
            from rich.console import Console
            from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

            columns = (SpinnerColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
            self._status = Progress(*columns, console=Console(file=sys.stderr), transient=True)
            self._task = self._status.add_task("", total=None)
            self._status.start()
        self._status.update(self._task, description=" ".join(what.split())[:100])

    def clear(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None


# -------------------------------------------------------------------- writing


def _write(result: FileResult) -> bool:
    try:
        return bool(batch.write(result))
    except OSError as error:
        raise _fail(str(error)) from error


def _print(result: FileResult, *, color: str, is_stdin: bool, shows_diff: bool, quiet: bool, **said: bool) -> None:
    """Print the diff and the review; `said` is what the review takes."""
    if is_stdin and result.outcome is not None:
        _out(result.outcome.after.source.text)
    elif shows_diff:
        _out(diff.render(result), is_colored=_is_colored(color, sys.stdout))
    if not quiet or result.is_failed:
        review = text.render(result, **said)
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
