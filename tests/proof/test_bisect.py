"""Looking for the guilty rewrites: with few builds, never the wrong ones, and an end in every case."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from optimizer import BuildContext, Document, Settings, optimize
from optimizer.dockerfile.edit import Edit, Span
from optimizer.rewrite import Aspect, Change, Refusal, Rewrite, Safety
from optimizer.transform import Meta, Phase
from optimizer.verify.bisect import MAX_ROUNDS, Bisection, Failed
from optimizer.verify.difference import Area, Difference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from optimizer import Outcome
    from optimizer.facts import Facts
    from optimizer.rewrite import Key


class Renew:
    """A transform that replaces every `old<letter>` by `new<letter>`, each in a rewrite of its own."""

    meta = Meta("renew", Phase.METADATA, frozenset({Aspect.COMMANDS}), ("XX1",), "renew", "because", "renew")

    def rewrites(self, document: Document, facts: Facts) -> Iterator[Rewrite | Refusal]:
        for instruction in document.instructions:
            text = document.source.text[instruction.span.start : instruction.span.end]
            if "old" in text:
                at, word = instruction.span.start + text.index("old"), text.strip().split()[1]
                new = word.replace("old", "new")
                change = Change(Aspect.COMMANDS, (word,), (new,))
                edits = (Edit(Span(at, at + len(word)), new),)
                yield Rewrite(self, word, Safety.SAFE, edits, (facts.seen(instruction, "here"),), changes=(change,))


class Search:
    """A bisection over rewrites a, b, c, ...; an image fails if `is_bad` says so of the letters that were rewritten."""

    def __init__(self, letters: str, is_bad: Callable[[str], bool], suspects: str = "") -> None:
        text = "FROM x\n" + "".join(f"RUN old{letter}\n" for letter in letters)
        self.document = Document.parse(text.encode())
        self.is_bad = is_bad
        self.suspects = suspects
        self.built: list[str] = []
        self.bisection = Bisection(self.optimized, self.check)

    def optimized(self, without: frozenset[Key], at_most: int | None = None) -> Outcome:
        return optimize(self.document, BuildContext(None), Settings(), [Renew()], without=without, at_most=at_most)

    def failed(self, outcome: Outcome) -> Failed | None:
        letters = made(outcome)
        if not self.is_bad(letters):
            return None
        keys = {r.summary[-1]: r.key for r in outcome.applied}
        known = [Difference(Area.FILES, f"lost by {s}", suspect=keys[s]) for s in self.suspects if s in keys]
        return Failed((*known, Difference(Area.BUILD, f"bad: {letters}")), (f"log of {letters}",))

    def check(self, outcome: Outcome) -> Failed | None:
        self.built.append(made(outcome))
        return self.failed(outcome)

    def settle(self) -> str:
        """The letters that were rewritten in the end."""
        first = self.optimized(frozenset())
        return made(self.bisection.settle(first, self.failed(first)))

    @property
    def dropped(self) -> str:
        return "".join(dropped.rewrite.summary[-1] for dropped in self.bisection.dropped)


def made(outcome: Outcome) -> str:
    return "".join(line[-1] for line in outcome.after.source.text.splitlines() if line.startswith("RUN new"))


def test_nothing_is_built_where_nothing_failed() -> None:
    search = Search("abc", lambda _: False)
    assert search.settle() == "abc"
    assert (search.built, search.dropped) == ([], "")


@pytest.mark.parametrize("guilty", "abcdefgh")
def test_one_of_eight_is_found_in_three_builds_and_the_rest_is_built_once(guilty: str) -> None:
    search = Search("abcdefgh", lambda letters: guilty in letters)
    assert search.settle() == "abcdefgh".replace(guilty, "")
    assert search.dropped == guilty
    assert len(search.built) <= 4
    assert search.built[-1] == "abcdefgh".replace(guilty, "")
    assert len(search.built) == len(set(search.built))


@pytest.mark.parametrize("guilty", ["ab", "ah", "de", "gh"])
def test_two_guilty_ones_are_both_found(guilty: str) -> None:
    search = Search("abcdefgh", lambda letters: any(letter in letters for letter in guilty))
    assert search.settle() == "".join(letter for letter in "abcdefgh" if letter not in guilty)
    assert sorted(search.dropped) == sorted(guilty)
    assert len(search.built) == len(set(search.built))


def test_of_two_that_break_only_together_the_later_is_left_out() -> None:
    search = Search("abcdefgh", lambda letters: "b" in letters and "f" in letters)
    assert search.settle() == "abcdegh"
    assert search.dropped == "f"


def test_a_rewrite_that_mends_what_an_earlier_one_breaks_stays() -> None:
    search = Search("abcd", lambda letters: "d" in letters and "a" not in letters)
    assert search.settle() == "abcd"
    assert search.dropped == ""


def test_a_suspect_costs_no_search() -> None:
    search = Search("abcdefgh", lambda letters: "c" in letters, suspects="c")
    assert search.settle() == "abdefgh"
    assert search.built == ["abdefgh"]
    dropped = search.bisection.dropped[0]
    assert [failure.what for failure in dropped.failures] == ["lost by c"]
    assert dropped.log == ("log of abcdefgh",)


def test_several_suspects_go_at_once() -> None:
    search = Search("abcdefgh", lambda letters: "c" in letters or "g" in letters, suspects="cg")
    assert search.settle() == "abdefh"
    assert search.built == ["abdefh"]
    assert [[f.what for f in d.failures] for d in search.bisection.dropped] == [["lost by c"], ["lost by g"]]


def test_after_a_suspect_the_search_goes_on() -> None:
    search = Search("abcdefgh", lambda letters: "c" in letters or "g" in letters, suspects="c")
    assert search.settle() == "abdefh"
    assert search.dropped == "cg"


def test_a_suspect_that_was_never_applied_is_searched_for() -> None:
    search = Search("abcd", lambda letters: "b" in letters)
    first = search.optimized(frozenset())
    stranger = Search("z", lambda _: True).optimized(frozenset()).applied[0].key
    failed = Failed((Difference(Area.FILES, "lost", suspect=stranger),))
    assert made(search.bisection.settle(first, failed)) == "acd"
    assert search.dropped == "b"


def test_what_went_wrong_is_told_of_the_smallest_image_that_fails() -> None:
    search = Search("abcdefgh", lambda letters: "c" in letters)
    search.settle()
    dropped = search.bisection.dropped[0]
    assert [failure.what for failure in dropped.failures] == ["bad: abc"]
    assert dropped.log == ("log of abc",)


def test_where_all_are_guilty_the_original_is_left_and_never_built() -> None:
    search = Search("abcd", bool)
    assert search.settle() == ""
    assert sorted(search.dropped) == ["a", "b", "c", "d"]
    assert "" not in search.built


def test_one_rewrite_alone_is_guilty_without_a_build() -> None:
    search = Search("a", bool)
    assert search.settle() == ""
    assert (search.dropped, search.built) == ("a", [])


def test_the_search_ends_where_more_are_guilty_than_it_has_rounds() -> None:
    letters = "abcdefghijklmnopqrstuvwxyz"
    search = Search(letters, bool)
    assert search.settle() == ""
    assert len(search.dropped) == MAX_ROUNDS


def test_an_image_that_comes_up_twice_is_built_once() -> None:
    search = Search("abcd", lambda letters: "d" in letters)
    for outcome in (search.optimized(frozenset(), 2), search.optimized(frozenset(), 2)):
        assert search.bisection._checked(outcome) is None
    assert search.built == ["ab"]
