"""The lossless model: what it reads, what it refuses to read, and the edits that it returns."""

from __future__ import annotations

import pytest

from optimizer.dockerfile.document import Document
from optimizer.dockerfile.generated import why_left_alone
from optimizer.dockerfile.scan import DockerfileError
from optimizer.dockerfile.source import Source
from tests.oracle import buildkit, ours

READABLE = {
    "plain": "FROM debian:12\nRUN true\n",
    "no last newline": "FROM debian:12\nRUN true",
    "crlf": "FROM debian:12\r\nRUN a && \\\r\n    b\r\n",
    "bom": "\ufeffFROM debian:12\n",
    "bom and directive": "\ufeff# syntax=docker/dockerfile:1\nFROM debian:12\n",
    "backtick escape": "# escape=`\nFROM x\nRUN a `\n  b\nRUN c:\\dir\\\n",
    "unknown directive first": "# foo=bar\n# escape=`\nFROM x\nRUN a \\\n b\n",
    "comment ends directives": "# hello\n# escape=`\nFROM x\nRUN a \\\n b\n",
    "comment in continuation": 'FROM x\nRUN a && \\\n # why\n\n  b\nCMD ["x"]\n',
    "continuation at the end": "FROM x\nRUN a \\\n",
    "two escapes are none": "FROM x\nRUN echo a\\\\\nRUN b\n",
    "escape with blanks behind": "FROM x\nRUN a \\  \n  b\n",
    "heredocs": 'FROM x\nCOPY <<A <<-"B" /d/\nRUN rm -rf /\nA\n\t# no comment\n\tB\nRUN <<EOF\nFROM y\nEOF\n',
    "heredoc in a quoted word": "FROM x\nRUN echo '<<EOF' \"<<EOF\"\nRUN b\n",
    "heredoc with odd quotes": "FROM x\nRUN <<\"A\\B\"\na\nA\\B\nRUN <<'C'D\nb\nCD\nRUN <<E\\F\nc\nEF\n",
    "here string": "FROM x\nRUN cat <<<EOF\nRUN b\n",
    "onbuild": "FROM x\nONBUILD RUN <<EOF\na\nEOF\nONBUILD COPY . /app\n",
    "health checks": "FROM x\nHEALTHCHECK --interval=3s --timeout=1s CMD curl -f x || exit 1\nHEALTHCHECK NONE\n",
    "env forms": "FROM x\nENV A 1 2 3\nENV B=1 C=\"a b\" D=a\\ b\nLABEL a=b c='d e'\nARG X Y=1\n",
    "flags": 'FROM --platform=$X x AS y\nCOPY --from=y --chown="a:b" --link /a /b\nRUN --mount=type=cache,target=/x a\n',
    "json": 'FROM x\nCOPY ["a b", "c"]\nRUN ["a", "b"]\nSHELL ["/bin/bash", "-c"]\nVOLUME ["/a"]\nVOLUME /b /c\n',
    "words behind json": 'FROM x\nCMD ["a", "b"] c\nRUN ["d"]#\n',
    "not quite json": "FROM x\nCMD ['a']\nCMD [ \"a\", ]\n",
    "lower case": "from x as y\nrun a\n",
    "tabs before": "\tFROM x\n\t RUN\ta\n",
    "maintainer": "FROM x\nMAINTAINER a b\nEXPOSE 1 2/udp\nUSER a\nWORKDIR /a b\nSTOPSIGNAL 9\n",
    "form feed in a line": "FROM x\nRUN a\fb\n",
    "carriage return alone": "FROM x\nRUN a\rb\n",
    "not utf-8": "FROM x\n# \udcff\udcfe\nRUN a\n",
    "keyword after a continuation": "FROM x\n\\\nRUN a\n",
}


@pytest.mark.parametrize("text", READABLE.values(), ids=READABLE.keys())
def test_reads_as_buildkit_does(text: str) -> None:
    data = text.encode("utf-8", "surrogateescape")
    document = Document.parse(data)
    assert document.source.to_bytes() == data
    assert ours(document) == buildkit(text)


UNREADABLE = {
    "FROM x\nRUNN a\n": (2, 1, "Did you mean RUN?"),
    "FROM x\nRUN apt-get update &&\n  apt-get install\n": (3, 3, 'missing a trailing "\\"'),
    "": (1, 1, "at least one instruction"),
    "# only a comment\n": (1, 1, "at least one instruction"),
    "RUN a\n": (1, 1, "no stage has begun"),
    "ARG A=1\n": (1, 8, "expected FROM"),
    "FROM x\nCOPY <<EOF /a\nb\n": (2, 1, 'a line "EOF" that ends the heredoc'),
    "FROM x\n  USER\n": (2, 3, "an argument after USER"),
    "# escape=x\nFROM y\n": (1, 1, "escape character"),
    "# syntax=a\n# syntax=b\nFROM y\n": (2, 1, 'one "syntax" directive'),
    "FROM a b\n": (1, 1, "FROM image AS name"),
    "FROM x\nENV A\n": (2, 5, "a name without a value"),
    "FROM x\nCMD [1]\n": (2, 5, "array of strings"),
    "FROM x\nONBUILD FRUM a\n": (2, 9, "an instruction after ONBUILD"),
    "\x7fELF\x00\x01": (1, 1, "expected an instruction"),
}


@pytest.mark.parametrize("text", UNREADABLE.keys())
def test_says_where_and_what_was_expected(text: str) -> None:
    line, column, words = UNREADABLE[text]
    with pytest.raises(DockerfileError) as error:
        Document.parse(text.encode())
    assert (error.value.line, error.value.column) == (line, column)
    assert words in error.value.message


def test_leads_and_pragmas_stick_to_their_instruction() -> None:
    document = Document.parse(b"# top\n\n# a\n# hadolint ignore=DL3008, DL3009\nFROM x\n# b\n\nRUN c\n")
    base, run = document.instructions
    assert (
        document.source.text[base.lead.start : base.lead.end] == "# a\n# hadolint ignore=DL3008, DL3009\n"
        if base.lead
        else False
    )
    assert base.pragmas[0].names == {"dl3008", "dl3009"}
    assert run.lead is None


def test_stages_know_their_parents() -> None:
    document = Document.parse(b"ARG V=1\nFROM a:$V AS Base\nFROM base AS second\nFROM c\n")
    assert [stage.name for stage in document.stages] == ["Base", "second", None]
    assert document.stages[1].parent is document.stages[0]
    assert [stage.index for stage in document.stages[1].ancestry] == [1, 0]
    assert document.stage_named("BASE") is document.stages[0]
    assert document.stage_named("2") is document.stages[2]
    assert document.stage_named("no") is None
    assert [arg.value for arg in document.preamble] == ["V=1"]


def test_deleting_takes_the_blank_line_that_set_it_apart() -> None:
    document = Document.parse(b"FROM x\n\n# why\nRUN a\n\nRUN b")
    assert document.edited([document.delete(document.instructions[1])]).source.text == "FROM x\n\nRUN b"
    assert document.edited([document.delete(document.instructions[2])]).source.text == "FROM x\n\n# why\nRUN a\n"
    tight = Document.parse(b"FROM x\r\nRUN a\r\nRUN b")
    assert tight.edited([tight.delete(tight.instructions[2])]).source.text == "FROM x\r\nRUN a"


def test_inserting_keeps_margin_and_newline() -> None:
    document = Document.parse(b"FROM x\r\n  # why\r\n  RUN a\r\n")
    run = document.instructions[1]
    assert document.edited([document.insert_before(run, "RUN b")]).source.text.split("\r\n")[1] == "  RUN b"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FROM x\nRUN a\n", (" && \\\n", "    ")),
        ("FROM x\nRUN a && \\\n\tb\n", (" && \\\n", "\t")),
        ("FROM x\nRUN a \\\n  && b\n", (" \\\n", "  && ")),
        ("# escape=`\nFROM x\r\nRUN a\r\n", (" && `\r\n", "    ")),
        ("FROM x\n  RUN a\n", (" && \\\n", "      ")),
    ],
)
def test_a_new_command_follows_the_authors_style(text: str, expected: tuple[str, str]) -> None:
    document = Document.parse(text.encode())
    assert document.chain(document.instructions[1]) == expected


def test_a_line_keeps_the_number_that_its_author_gave_it() -> None:
    document = Document.parse(b"FROM x\nCOPY a b\nRUN c\nRUN d\n")
    copy, run = document.instructions[1], document.instructions[2]
    edits = [document.delete(copy), document.insert_before(run, "RUN new")]
    after = document.edited(edits)
    assert [after.source.origin(i.span.start) for i in after.instructions] == [1, 3, 3, 4]


ALONE = {
    "# Generated by x. DO NOT EDIT.\nFROM a\n": "generated",
    "FROM {{ base }}\n": "template",
    "FROM a\n{% if x %}\nRUN b\n{% endif %}\n": "template",
    "FROM a\nENV V=@VERSION@\n": "template",
}


@pytest.mark.parametrize("text", ALONE.keys())
def test_templates_and_generated_files_are_left_alone(text: str) -> None:
    found = why_left_alone(Source.from_text(text))
    assert found is not None
    assert ALONE[text] in found.reason


@pytest.mark.parametrize(
    "text",
    [
        "FROM a\nRUN docker inspect -f '{{.State}}' x\n",
        "FROM a\n# {{ not a template }}\nRUN b\n",
        "FROM a\nRUN git clone git@example.com:a/b\n",
        "FROM a\nRUN go list -f '{{ .Dir }}' ./...\n",
    ],
)
def test_what_only_looks_like_a_template_is_not_left_alone(text: str) -> None:
    assert why_left_alone(Source.from_text(text)) is None
