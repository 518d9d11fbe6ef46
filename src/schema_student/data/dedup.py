"""Find requests that repeat another, exactly or nearly, and those by which training and tests overlap.

Stands before the dataset, which keeps only new requests. Near-duplicates are found as by Lee et al. 2022 (arXiv
2107.06499): MinHash proposes, the exact Jaccard similarity decides. Requests are short, so the sets are of pairs of
neighboring words, values included: at 0.8 two requests of 17 words may differ in one. Overlap is that of GPT-3 (arXiv
2005.14165, appendix C): a run of 13 words, in requests of less (but at least 8) the whole request; what is shorter
overlaps only where it is the same. Templates make runs of 8 words common that say nothing (benchmarks/README.md).

    known = RequestIndex(similarity=0.8, words=13)
    known.add("Show me the films", "train")
    known.find_problem("show me the films!", "test_seen")   # ("duplicate", "this request stands there already")
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from schema_student.core.splits import TESTS

SHORTEST = 8  # words of a request that is looked for as a whole
BANDS, BAND = 32, 4  # of MinHash: finds 99.99% of pairs at 0.7 and 87% at 0.5, of which most are none
WORD = re.compile(r"\w+(?:[.,:'-]\w+)*")

Problem = tuple[str, str]  # error type, reason


class RequestIndex:
    """The requests of a dataset so far, those of training and of tests apart."""

    def __init__(self, similarity: float, words: int) -> None:
        """`similarity` from which a request repeats another, `words` in a row that overlap; 0: not looked at."""
        self._similarity, self._words = similarity, words
        self._exact: set[str] = set()
        self._pairs: list[frozenset[str]] = []
        self._runs: dict[bool, set[str]] = {False: set(), True: set()}  # of `words` words; key: of a test
        self._whole: dict[bool, set[str]] = {False: set(), True: set()}  # shorter ones
        self._texts: dict[bool, list[str]] = {False: [], True: []}
        if similarity:
            from datasketch import MinHashLSH  # slow to load: it brings scipy

            self._index = MinHashLSH(num_perm=BANDS * BAND, params=(BANDS, BAND))

    def find_problem(self, query: str, split: str, given: bool = False, may_resemble: bool = False) -> Problem | None:
        """Say why a request is not taken, None where it is.

        `given` tests, the user's own, may resemble each other; so may what is made of another request.
        """
        if normalized(query) in self._exact:
            return "duplicate", "this request stands there already"
        tested = split in TESTS
        if given and tested:
            return None
        if self._similarity and not may_resemble and (similarity := self._similarity_of(query)) >= self._similarity:
            return "near_duplicate", f"a request that stands there shares {similarity:.0%} of its pairs of words"
        if self._words and (run := self._shared_run(query, other_side=not tested)):
            return "test_overlap", f"training and tests would share the words: {run.strip()}"
        return None

    def add(self, query: str, split: str) -> None:
        """Add a request of a split."""
        self._exact.add(normalized(query))
        tested = split in TESTS
        if self._similarity:
            self._index.insert(len(self._pairs), _min_hash(pairs := word_pairs(query)), check_duplication=False)
            self._pairs.append(pairs)
        if self._words:
            text, words = _padded(query), WORD.findall(query.casefold())
            self._texts[tested].append(text)
            self._runs[tested].update(_runs(words, self._words))
            if SHORTEST <= len(words) < self._words:
                self._whole[tested].add(text)

    def _similarity_of(self, query: str) -> float:
        """The greatest similarity to a request of the index."""
        pairs = word_pairs(query)
        found = (self._pairs[i] for i in self._index.query(_min_hash(pairs)))
        return max((jaccard(pairs, other) for other in found), default=0.0)

    def _shared_run(self, query: str, other_side: bool) -> str:
        """Words that a request shares with one of the other side, or ""."""
        text, words = _padded(query), WORD.findall(query.casefold())
        if len(words) < SHORTEST:
            return ""
        if len(words) < self._words:
            found = (text for other in self._texts[other_side] if text in other)
        else:
            found = (run for run in _runs(words, self._words) if run in self._runs[other_side])
        return next(found, "") or next((whole for whole in self._whole[other_side] if whole in text), "")


def normalized(query: str) -> str:
    """Normalize a request: drop case, extra spaces and the mark at its end."""
    return " ".join(query.casefold().split()).rstrip(" .?!")


def word_pairs(query: str) -> frozenset[str]:
    """Collect each two neighboring words of a request, its beginning and end included.

    >>> sorted(word_pairs("Films of 2010!"))
    [' films', '2010 ', 'films of', 'of 2010']
    """
    words = ["", *WORD.findall(query.casefold()), ""]
    return frozenset(f"{one} {other}" for one, other in pairwise(words))


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    """Compute the Jaccard similarity: the share of the members of two sets that both have."""
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared)


def _min_hash(pairs: frozenset[str]) -> Any:
    from datasketch import MinHash

    sketch = MinHash(num_perm=BANDS * BAND)
    sketch.update_batch([pair.encode("utf-8", "surrogatepass") for pair in pairs])
    return sketch


def _padded(query: str) -> str:
    return f" {' '.join(WORD.findall(query.casefold()))} "


def _runs(words: list[str], n: int) -> Iterator[str]:
    return (" ".join(words[i : i + n]) for i in range(len(words) - n + 1))
