"""Properties that hold for any input."""

from __future__ import annotations

import contextlib

from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer.dockerfile.document import Document
from optimizer.dockerfile.edit import Edit, OverlappingEditsError, Span, apply_edits
from optimizer.dockerfile.scan import DockerfileError
from optimizer.engine import optimize
from optimizer.facts.context import BuildContext
from optimizer.settings import Settings
from tests.oracle import OracleError, buildkit, check_outcome, ours

CONTEXT = BuildContext(
    None,
    files={
        "requirements.txt": "flask==3.0\n",
        "app.py": "import flask\n",
        "package.json": '{"dependencies": {"express": "^4.0.0"}}',
        "package-lock.json": '{"packages": {"": {"dependencies": {"express": "^4.0.0"}}, "node_modules/express": {}}}',
        "server.js": "x\n",
        "src/x.js": "y\n",
    },
)
SNIPPETS = (
    "WORKDIR /app",
    "COPY . .",
    "COPY src ./src",
    "ADD src /src",
    "RUN apt-get update",
    "RUN apt-get install -y curl git",
    "RUN apt-get update && apt-get install -y \\\n    wget \\\n    # why\n    ca-certificates",
    "RUN pip install -r requirements.txt",
    "RUN npm install && npm run build",
    "RUN curl -o /tmp/a.tgz https://x/a.tgz",
    "RUN cd /tmp && tar xzf a.tgz; true",
    "RUN rm /tmp/a.tgz",
    "RUN <<EOF\napt-get update\napt-get install -y curl\nEOF",
    "RUN set -e; a; b &",
    "RUN apk add curl",
    "ENV A=1",
    "USER app",
    "CMD python app.py",
    "ENTRYPOINT java -jar x.jar",
    "MAINTAINER a <b@c>",
    'SHELL ["/bin/bash", "-eo", "pipefail", "-c"]',
    "# a comment",
    "",
    "# hadolint ignore=DL3009",
    "FROM node:22-slim AS other",
)
WORDS = (
    "FROM x",
    "RUN",
    "a",
    "\\",
    "`",
    "<<EOF",
    "EOF",
    "#",
    " ",
    "\t",
    "\r\n",
    "\n",
    '"',
    "'",
    "[",
    "]",
    "=",
    "ENV",
    "é",
    "&&",
    "$",
)


@given(st.binary(max_size=200))
def test_any_bytes_come_back_and_nothing_crashes(data: bytes) -> None:
    with contextlib.suppress(DockerfileError):
        document = Document.parse(data)
        assert document.source.to_bytes() == data
        optimize(document, CONTEXT, Settings(unsafe=True))


@given(st.lists(st.sampled_from(WORDS), max_size=25).map(lambda words: "FROM x\n" + "".join(words)))
@settings(max_examples=400)
def test_what_both_parsers_read_they_read_alike(text: str) -> None:
    try:
        theirs = buildkit(text)
        document = Document.parse(text.encode())
    except (OracleError, DockerfileError):
        return
    assert ours(document) == theirs


@given(st.lists(st.sampled_from(SNIPPETS), max_size=12), st.booleans(), st.booleans())
@settings(max_examples=300)
def test_any_dockerfile_is_rewritten_once_and_loses_nothing(lines: list[str], is_crlf: bool, unsafe: bool) -> None:  # noqa: FBT001
    text = "\n".join(["FROM python:3.12", *lines]) + "\n"
    data = (text.replace("\n", "\r\n") if is_crlf else text).encode()
    chosen = Settings(unsafe=unsafe)
    outcome = optimize(Document.parse(data), CONTEXT, chosen)
    check_outcome(outcome)
    after = outcome.after.source.to_bytes()
    assert (b"\n" in after.replace(b"\r\n", b"")) is False or not is_crlf
    context = CONTEXT.with_files({file.path: file.text for file in outcome.files})
    again = optimize(Document.parse(after), context, chosen)
    assert again.after.source.to_bytes() == after


@st.composite
def texts_and_edits(draw: st.DrawFn) -> tuple[str, list[Edit]]:
    text = draw(st.text(alphabet="abc\n", max_size=30))
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=8, unique=True)))
    pairs = zip(cuts[::2], cuts[1::2], strict=False)
    return text, [Edit(Span(a, b), draw(st.text(alphabet="XY\n", max_size=4))) for a, b in pairs]


@given(texts_and_edits(), st.randoms())
def test_edits_do_what_a_list_of_characters_does(given_edits: tuple[str, list[Edit]], random: object) -> None:
    text, edits = given_edits
    model: list[str] = list(text)
    for edit in sorted(edits, key=lambda e: e.span.start, reverse=True):
        model[edit.span.start : edit.span.end] = list(edit.text)
    shuffled = list(edits)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert apply_edits(text, shuffled) == "".join(model)


@given(st.integers(0, 10), st.integers(0, 10), st.integers(0, 10), st.integers(0, 10))
def test_edits_that_overlap_are_refused(a: int, b: int, c: int, d: int) -> None:
    first, second = Span(min(a, b), max(a, b)), Span(min(c, d), max(c, d))
    shared = set(range(first.start, first.end)) & set(range(second.start, second.end))
    if not shared and first.start != second.start:
        return
    try:
        apply_edits("0123456789", [Edit(first, "x"), Edit(second, "y")])
    except OverlappingEditsError:
        return
    raise AssertionError("overlapping edits were applied")
