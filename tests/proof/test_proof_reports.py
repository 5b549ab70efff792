"""The reports of proofs: the same content in every format, nothing cut, nothing taken for markup."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from rich.console import Console

from optimizer import BuildContext, Document, Settings, optimize
from optimizer.batch import FileResult
from optimizer.engine import Outcome
from optimizer.report import proof_html, proof_json, proof_markdown, proof_text
from optimizer.report import proof_rows as rows
from optimizer.verify.behaviour import Answer, Behaviour
from optimizer.verify.bisect import Dropped
from optimizer.verify.containers import Port
from optimizer.verify.difference import Area, Difference
from optimizer.verify.proof import Layer, Measures, Proof, Verdict
from optimizer.verify.scan import Scan

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "docs" / "proof.schema.json").read_text())
NASTY = "a|b <i>*c*</i> [d](e) `f` </pre>"
TEXT = b"FROM debian:12\nMAINTAINER Jane <jane@x>\nADD https://x.example/a /a\nRUN apt-get update && apt-get install -y curl\n"


def outcome() -> Outcome:
    return optimize(Document.parse(TEXT), BuildContext(None), Settings(unsafe=True))


def measures(size: int, **more: Any) -> Measures:
    layers = (
        Layer("/bin/sh -c #(nop) ADD file:0123 in /", size - 1_000, is_of_base=True),
        Layer(f"RUN {NASTY} # buildkit", 1_000),
    )
    return replace(Measures(size, layers, 90, 2_000_000, 12.3, 1, 4, 0.5), **more)


WEB = Behaviour(
    ports=(Port(80), Port(81, is_local=True)),
    answers=(Answer(80, "/", 302, "/b", b"hello"), Answer(81, "/", 0)),
    health=True,
    stop_seconds=0.512345,
    ready_seconds=1.23456,
)


def proof(**more: Any) -> Proof:
    """A proof in which every field says something."""
    found = outcome()
    failure = Difference(Area.FILES, f"missing: {NASTY}")
    full = Proof(
        "sub/Dockerfile",
        Verdict.FAILED,
        found,
        "Docker 27.3.1",
        log=("one", NASTY, "```"),
        before=measures(200_000_000, scan=Scan("grype, syft", 200, {"high": 3, "low": 1})),
        after=measures(50_000_000, scan=Scan("grype, syft", 100, {}), packages=None, cold_seconds=None),
        differences=(failure, Difference(Area.CONFIG, "User: not set -> 10001", "run-as-nonroot", 2)),
        behaviours=(WEB, replace(WEB, health=None, stop_seconds=None)),
        hints={"read-only": True, "no capabilities": False},
        edited="src/app.py",
        dropped=(Dropped(found.applied[0], (failure,), (NASTY,)),),
        seconds=61.239,
        build_seconds=40.0,
    )
    return replace(full, **more)


PROVEN: dict[str, Any] = {"verdict": Verdict.PROVEN, "differences": (), "log": (), "dropped": ()}
NOTHING = Proof("Dockerfile", Verdict.NOTHING, outcome(), "", reason="nothing to rewrite")
NOT_COMPARABLE = Proof(
    "Dockerfile", Verdict.NOT_COMPARABLE, outcome(), "Docker 1", reason="the original does not build", log=("E: x",)
)


def result(found: Proof) -> FileResult:
    return FileResult(found.path, outcome=found.outcome, context=BuildContext(None))


def text(found: Proof, *, verbose: bool = False) -> str:
    stream = io.StringIO()
    console = Console(file=stream, width=160, soft_wrap=True, highlight=False)
    for part in proof_text.render(found, verbose=verbose):
        console.print(part)
    return stream.getvalue()


def html(*found: Proof) -> str:
    return proof_html.render([(one, result(one)) for one in found])


# -------------------------------------------------------------------- rows


@pytest.mark.parametrize(
    ("found", "line"),
    [
        (proof(**PROVEN), f"proven: {len(outcome().applied)} rewrites hold"),
        (
            proof(**PROVEN, outcome=replace(outcome(), applied=outcome().applied[:1])),
            "proven: 1 rewrite holds",
        ),
        (proof(), "not proven: 1 difference that no rewrite announces"),
        (NOT_COMPARABLE, "not comparable: the original does not build"),
        (NOTHING, "nothing to rewrite"),
        (replace(NOTHING, reason="no rewrite holds"), "no rewrite holds"),
    ],
)
def test_the_verdict_in_one_line(found: Proof, line: str) -> None:
    assert rows.headline(found) == line
    assert line in text(found)
    assert line in proof_markdown.render([found])
    assert line in html(found)


def test_what_was_won_row_by_row() -> None:
    found = {gain.what: (gain.before, gain.after, gain.change) for gain in rows.gains(proof())}
    assert found == {
        "size": ("200.0 MB", "50.0 MB", "-75 %"),
        "layers": ("2", "2", ""),
        "system packages": ("90", "not known", ""),
        "wasted in lower layers": ("2.0 MB", "2.0 MB", ""),
        "build without cache": ("12.3 s", "not measured", ""),
        "after an edit of src/app.py": ("1 of 4 steps, 0.5 s", "1 of 4 steps, 0.5 s", ""),
        "packages (grype, syft)": ("200", "100", "-50 %"),
        "vulnerabilities (grype, syft)": ("3 high, 1 low", "none", ""),
    }


def test_what_was_not_measured_has_no_row() -> None:
    bare = measures(1_000, steps=None, scan=None)
    names = [gain.what for gain in rows.gains(proof(before=bare, edited=None))]
    assert names == ["size", "layers", "system packages", "wasted in lower layers", "build without cache"]
    assert rows.gains(proof(after=None)) == ()
    half = proof(before=measures(1, scan=Scan("syft", 1)), after=measures(1, scan=Scan("syft", None, {"low": 1})))
    assert not [gain.what for gain in rows.gains(half) if "syft" in gain.what]


def test_an_image_of_no_size_has_no_percentage() -> None:
    assert rows.gains(proof(before=measures(0)))[0].change == ""
    assert rows.gains(proof(before=measures(100_000_000), after=measures(150_000_000)))[0].change == "+50 %"


def test_every_area_that_was_compared_is_listed() -> None:
    found = {area.area: area for area in rows.compared(proof())}
    assert list(found) == ["configuration", "files", "linkage", "packages", "behaviour"]
    assert [area.holds for area in found.values()] == [True, False, True, True, True]
    verdicts = ["differs as announced", "not the same", "same", "same", "same"]
    assert [area.verdict for area in found.values()] == verdicts
    for name, verdict in zip(found, verdicts, strict=True):
        assert f"{name.ljust(14)}{verdict}" in text(proof())
    assert found["configuration"].announced == ("User: not set -> 10001 (2)  [run-as-nonroot]",)
    assert found["behaviour"].announced == ("GET :80/ 302, 5 bytes",)


def test_a_failed_build_stands_alone() -> None:
    found = proof(differences=(Difference(Area.BUILD, "it does not build"),), behaviours=None)
    assert [(area.area, area.holds) for area in rows.compared(found)] == [("build", False)]


@pytest.mark.parametrize("found", [NOTHING, NOT_COMPARABLE])
def test_where_nothing_was_compared_no_area_is_called_the_same(found: Proof) -> None:
    assert rows.compared(found) == ()
    for report in (text(found), proof_markdown.render([found]), html(found)):
        assert "same" not in report.replace("The same", "")


# -------------------------------------------------------------------- text


def test_the_text_says_it_all() -> None:
    said = text(proof())
    for part in (
        "sub/Dockerfile  not proven: 1 difference that no rewrite announces  (Docker 27.3.1; 61 s, of these 40 s builds)",
        f"    | {NASTY}",
        f"    missing: {NASTY}",
        "-75 %",
        "linkage       same",
        "configuration differs as announced",
        "files         not the same",
        f"left out      {proof().dropped[0].rewrite.name}: ",
        "hint          it also works with a read-only root file system and a tmpfs on /tmp (--read-only --tmpfs /tmp)",
        "hint          it does not work without any capability",
    ):
        assert part in said


def test_many_announced_differences_are_cut_unless_all_are_wanted() -> None:
    many = tuple(Difference(Area.FILES, f"missing: /x{n}", "split-stages") for n in range(9))
    found = proof(**PROVEN | {"differences": many})
    assert "/x5" in text(found)
    assert "/x6" not in text(found)
    assert "and 3 more (-v)" in text(found)
    assert "/x8" in text(found, verbose=True)
    assert "more" not in text(found, verbose=True)


def test_failures_are_never_cut() -> None:
    many = tuple(Difference(Area.FILES, f"missing: /x{n}") for n in range(30))
    assert "/x29" in text(proof(differences=many))


@pytest.mark.parametrize("name", ["app/[slug]/page.js", "app/[/x].js", "app/:smile:.py"])
def test_a_file_name_is_no_markup(name: str) -> None:
    assert name in text(proof(edited=name))


# -------------------------------------------------------------------- markdown


def test_markdown_takes_no_content_for_markup() -> None:
    said = proof_markdown.render([proof(path=f"a/{NASTY}", edited=NASTY)])
    outside = re.sub(r"^ *```$.*?^ *```$", "", said, flags=re.MULTILINE | re.DOTALL)
    assert NASTY not in outside
    assert not re.search(r"(?<!\\)[<`\[]", outside)
    table = [line for line in said.splitlines() if line.startswith("|")]
    assert len(table) == 10
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {5}
    assert r"a\|b \<i\>\*c\*\</i\>" in said


def test_a_log_does_not_end_its_own_fence() -> None:
    said = proof_markdown.render([proof()])
    fences = [line for line in said.splitlines() if line.strip() == "```"]
    assert len(fences) == 4
    assert "'''" in said


def test_a_line_feed_does_not_end_a_cell_or_an_item() -> None:
    differs = Difference(Area.CONFIG, "Cmd: a\n# b -> c")
    said = proof_markdown.render([proof(differences=(differs,), edited="a\nb")])
    assert "  - **Cmd: a \\# b -\\> c**\n" in said
    assert "| after an edit of a b |" in said


def test_markdown_of_several_proofs() -> None:
    said = proof_markdown.render([proof(), NOTHING, NOT_COMPARABLE])
    assert [line for line in said.splitlines() if line.startswith("## ")] == [
        "## sub/Dockerfile",
        "## Dockerfile",
        "## Dockerfile",
    ]
    assert said.endswith("\n")
    assert proof_markdown.render([]) == "\n"


# -------------------------------------------------------------------- html


class _Page(HTMLParser):
    """Checks that every element ends, and gathers words, attributes and what stands in `pre`."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.tags: set[str] = set()
        self.words = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def test_the_page_is_whole_and_escaped() -> None:
    page = _Page(html(proof(path=f"a/{NASTY}", edited=NASTY), NOTHING, NOT_COMPARABLE))
    assert page.open == []
    assert f"a/{NASTY}: not proven" in page.words
    assert f"missing: {NASTY}" in page.words
    assert f"after an edit of {NASTY}" in page.words
    assert page.words.count(NASTY) >= 6
    assert not page.tags & {"i", "a", "script", "link", "img", "iframe"}
    assert any(name == "title" and value is not None and NASTY in value for name, value in page.attributes)


def test_the_page_needs_nothing_else() -> None:
    page = html(proof())
    assert not {name for name, _ in _Page(page).attributes} & {"src", "href", "srcset", "onclick", "onload"}
    assert not re.search(r"url\(|@import|<script|javascript:", page)
    style = page[page.index("<style>") : page.index("</style>")]
    assert "http" not in style
    quiet = html(proof(outcome=Outcome(outcome().before, outcome().before)))
    assert not re.search(r"https?://", quiet)


def test_the_page_is_light_or_dark_as_the_reader_has_it() -> None:
    page = html(proof())
    assert "color-scheme: light dark" in page
    light, dark = re.findall(r":root \{(.*?)\}", page, re.DOTALL)
    assert "prefers-color-scheme: dark" in page
    names = [set(re.findall(r"--([\w-]+):", scheme)) for scheme in (light, dark)]
    assert names[0] == names[1]
    assert set(re.findall(r"var\(--([\w-]+)\)", page)) <= names[0]


def test_bars_are_drawn_to_one_scale() -> None:
    widths = re.findall(r"width: ([\d.]+)%", html(proof()))
    assert widths == ["100.00", "25.00"]
    assert re.findall(r"width: ([\d.]+)%", html(proof(before=measures(0), after=measures(0)))) == ["0.00", "0.00"]


def test_the_layers_of_the_base_are_told_from_the_others() -> None:
    assert html(proof()).count('<span class="base" style="flex: ') == 2
    assert html(proof()).count('<span style="flex: 1000"') == 2


def test_the_page_shows_the_change_line_by_line() -> None:
    page = html(proof())
    assert '<span class="removed">-MAINTAINER Jane &lt;jane@x&gt;</span>' in page
    assert '<span class="place">--- a/sub/Dockerfile</span>' in page
    assert page.count("<section>") == 1
    assert html(proof(), NOTHING).count("<section>") == 2


def test_an_empty_page_is_a_page() -> None:
    assert _Page(html()).open == []


# -------------------------------------------------------------------- json


@pytest.mark.parametrize(
    "found",
    [
        proof(),
        proof(**PROVEN),
        NOTHING,
        NOT_COMPARABLE,
        proof(differences=(Difference(Area.BUILD, "it does not build"),), behaviours=None, after=None, hints={}),
        proof(behaviours=(Behaviour(exit_code=1), Behaviour(problem="x", smoke="y"))),
    ],
)
def test_json_keeps_to_its_schema(found: Proof) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(json.loads(proof_json.render([found])), SCHEMA)


@pytest.mark.parametrize(
    "broken",
    [
        {"verdict": "maybe"},
        {"seconds": "1"},
        {"more": 1},
        {"behaviour": [{}]},
        {"differences": [{"area": "files", "what": "x", "by": None}]},
        {"applied": ["Not A Name"]},
        {"before": {}},
    ],
)
def test_the_schema_refuses_what_is_none_of_it(broken: dict[str, object]) -> None:
    found = json.loads(proof_json.render([proof()]))
    found["proofs"][0] |= broken
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(found, SCHEMA)


def test_json_says_what_the_proof_says() -> None:
    found = json.loads(proof_json.render([proof(), NOTHING]))
    assert found["version"] == 1
    first, second = found["proofs"]
    assert (first["path"], first["verdict"], first["seconds"]) == ("sub/Dockerfile", "failed", 61.24)
    assert first["log"] == ["one", NASTY, "```"]
    assert first["before"]["layers"][1] == {"made_by": f"RUN {NASTY} # buildkit", "size": 1_000, "is_of_base": False}
    assert first["before"]["scan"]["vulnerabilities"] == {"high": 3, "low": 1}
    assert first["behaviour"][0]["ports"] == ["80", "127.0.0.1:81"]
    assert first["behaviour"][0]["answers"][0] == {"port": 80, "path": "/", "status": 302, "location": "/b", "bytes": 5}
    assert first["behaviour"][0]["stop_seconds"] == 0.51
    assert [hint["works"] for hint in first["hints"]] == [True, False]
    assert "read-only" in first["hints"][0]["text"]
    assert first["dropped"][0]["failures"][0]["what"] == f"missing: {NASTY}"
    assert first["applied"] == [rewrite.name for rewrite in outcome().applied]
    assert (second["verdict"], second["before"], second["behaviour"]) == ("nothing to prove", None, [])


def test_an_undecodable_name_breaks_no_report() -> None:
    odd = proof(path="a\udcff/Dockerfile")
    assert "a?/Dockerfile" in proof_json.render([odd])
    assert "a?/Dockerfile" in html(odd)
    assert "a\udcff/Dockerfile" in proof_markdown.render([odd])
