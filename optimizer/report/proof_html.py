"""A proof as one HTML page that needs nothing else: no script, no font, no picture; light or dark as the reader's system."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from optimizer.report import diff, text
from optimizer.report import proof_rows as rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from optimizer.batch import FileResult
    from optimizer.verify.proof import Layer, Measures, Proof

_STYLE = """
:root { color-scheme: light dark; --text: #1c2024; --dim: #60646c; --line: #dddfe3; --back: #ffffff; --panel: #f6f7f9;
  --good: #187a3c; --bad: #b3261e; --warn: #8a5a00; --added: #e3f6e8; --removed: #fdeae9;
  --a: #3b6fb6; --b: #6b96d0; --base: #b9bec7; }
@media (prefers-color-scheme: dark) { :root { --text: #e7e9ec; --dim: #a2a8b3; --line: #343a43; --back: #14171b;
  --panel: #1c2026; --good: #5cc981; --bad: #ff8a80; --warn: #f0b95a; --added: #16321f; --removed: #3a1d1c;
  --a: #5c93e0; --b: #3f6cad; --base: #4d545f; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 2rem 1.25rem 4rem; color: var(--text); background: var(--back);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.4rem; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin: 2rem 0 .5rem; }
section + section { border-top: 2px solid var(--line); margin-top: 3rem; padding-top: 2rem; }
.spent, .announced, figcaption { color: var(--dim); }
.proven { color: var(--good); } .failed { color: var(--bad); } .other { color: var(--warn); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem 1rem .3rem 0; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; white-space: normal; }
figure { margin: .5rem 0 1rem; }
.bar { display: flex; height: 1.6rem; border-radius: 4px; overflow: hidden; gap: 1px; min-width: 2px; }
.bar span { min-width: 2px; background: var(--b); } .bar span:nth-child(odd) { background: var(--a); }
.bar span.base { background: var(--base); }
ul { padding-left: 1.2rem; margin: .3rem 0; overflow-wrap: anywhere; } li.bad { color: var(--bad); font-weight: 600; }
pre { background: var(--panel); border: 1px solid var(--line); border-radius: 6px; padding: .75rem; overflow-x: auto;
  font: 13px/1.45 ui-monospace, monospace; }
pre.diff { padding: .75rem 0; }
pre.diff > span { display: block; padding: 0 .75rem; min-width: max-content; }
.added { background: var(--added); } .removed { background: var(--removed); } .place { color: var(--dim); }
details > summary { cursor: pointer; color: var(--dim); }
"""


def render(proofs: Iterable[tuple[Proof, FileResult]]) -> str:
    """One page for all proofs; each with the result that it proves."""
    body = "\n".join(part for proof, result in proofs for part in _section(proof, result))
    page = (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>dockeropt: proof</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )
    return page.encode("utf-8", "replace").decode()


def _section(proof: Proof, result: FileResult) -> Iterator[str]:
    kind = proof.verdict.value if proof.verdict.value in ("proven", "failed") else "other"
    yield f'<section>\n<h1>{escape(proof.path)}: <span class="{kind}">{escape(rows.headline(proof))}</span></h1>'
    yield f'<p class="spent">{escape(rows.spent(proof))}</p>'
    yield from _log(proof.log)
    yield from _measured(proof)
    yield from _compared(proof)
    yield from _dropped(proof)
    if changes := diff.render(result):
        yield f'<h2>The change</h2>\n<pre class="diff">{"".join(_diff_lines(changes))}</pre>'
    yield f"<h2>The review</h2>\n<pre>{escape(text.render(result, verbose=False, written=True))}</pre>"
    yield "</section>"


def _measured(proof: Proof) -> Iterator[str]:
    if proof.before is None or proof.after is None:
        return
    yield "<h2>Layers by size</h2>"
    for name, measures in (("original", proof.before), ("rewritten", proof.after)):
        yield _bar(name, measures, max(proof.before.size, proof.after.size, 1))
    yield '<h2>What is won</h2>\n<div class="scroll"><table>'
    yield "<thead><tr><th></th><th>original</th><th>rewritten</th><th>change</th></tr></thead><tbody>"
    for gain in rows.gains(proof):
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in (gain.what, gain.before, gain.after, gain.change))
        yield f"<tr>{cells}</tr>"
    yield "</tbody></table></div>"


def _bar(name: str, measures: Measures, largest: int) -> str:
    """The layers of one image side by side, drawn to the scale of the larger one, and as a list."""
    total = sum(layer.size for layer in measures.layers) or 1
    width = 100 * measures.size / largest
    parts = "".join(_part(layer) for layer in measures.layers)
    items = "".join(f"<li>{escape(_layer(layer))}</li>" for layer in sorted(measures.layers, key=lambda layer: -layer.size))
    return (
        f"<figure><figcaption>{name}: {measures.size / 1e6:.1f} MB in {len(measures.layers)} layers, "
        f"the base in grey</figcaption>"
        f'<div class="bar" role="img" aria-label="{len(measures.layers)} layers, {total / 1e6:.1f} MB" '
        f'style="width: {width:.2f}%">{parts}</div>'
        f"<details><summary>the layers</summary><ul>{items}</ul></details></figure>"
    )


def _part(layer: Layer) -> str:
    kind = ' class="base"' if layer.is_of_base else ""
    return f'<span{kind} style="flex: {max(layer.size, 1)}" title="{escape(_layer(layer))}"></span>'


def _layer(layer: Layer) -> str:
    return f"{layer.size / 1e6:.1f} MB  {layer.made_by.removesuffix(' # buildkit')[:160]}"


def _compared(proof: Proof) -> Iterator[str]:
    found = rows.compared(proof)
    if found:
        yield "<h2>What was compared</h2>"
    for area in found:
        verdict = f'<span class="{"proven" if area.holds else "failed"}">{area.verdict}</span>'
        yield f"<div><strong>{area.area}</strong>: {verdict}<ul>"
        yield from (f'<li class="bad">{escape(line)}</li>' for line in area.failures)
        yield from (f'<li class="announced">{escape(line)}</li>' for line in area.announced)
        yield "</ul></div>"
    if said := rows.hints(proof):
        yield f"<h2>Hints</h2>\n<ul>{''.join(f'<li>{escape(hint)}</li>' for hint in said)}</ul>"


def _dropped(proof: Proof) -> Iterator[str]:
    if proof.dropped:
        yield "<h2>Left out</h2>"
    for name, why, log in rows.dropped(proof):
        yield f"<p><strong>{escape(name)}</strong><br>{escape(why)}</p>"
        yield from _log(log)


def _log(lines: tuple[str, ...]) -> Iterator[str]:
    if lines:
        yield f"<pre>{escape(chr(10).join(lines))}</pre>"


def _diff_lines(changes: str) -> Iterator[str]:
    for line in changes.splitlines():
        kind = {"+": "added", "-": "removed", "@": "place"}.get(line[:1], "")
        kind = "place" if line.startswith(("+++", "---")) else kind
        yield f'<span class="{kind}">{escape(line) or " "}</span>'
