"""Attributes of items, and searches under conditions."""

import numpy as np
import pytest

from rails_wgpu import NO_ITEM, Searcher

IDS = [9, 5, 7]
ITEMS = np.array([[1, 1], [1, 0], [0, 1]], dtype=np.float32)
QUERIES = np.array([[2, 1], [-1, 0]], dtype=np.float32)
COLUMNS = {"year": np.array([1990, 1991, 1992]), "score": [0.5, None, float("nan")], "genre": ["Comedy", None, "Drama"]}


class Frame:
    """What a data frame looks like."""

    def __init__(self, columns):
        self.columns, self._columns = list(columns), columns

    def __getitem__(self, name):
        return self._columns[name]


def test_items_are_found_by_their_attributes(tmp_path):
    file = tmp_path / "items.csv"
    file.write_text("item_id,year,score,genre\n5,1991,,\n7,1992,,Drama\n9,1990,0.5,Comedy\n")
    by_id = Frame({"id": [7, 9, 5], **{name: [values[2], values[0], values[1]] for name, values in COLUMNS.items()}})
    for attributes in (COLUMNS, Frame(COLUMNS), by_id, file):
        searcher = Searcher.from_embeddings(IDS, ITEMS, device="cpu", attributes=attributes)
        assert searcher.attributes == {"year": "INTEGER", "score": "REAL", "genre": "TEXT"}

        def found(where, params=None, queries=QUERIES, searcher=searcher):
            return searcher.search(queries, k=2, where=where, params=params)[0].tolist()

        assert found("year >= 1991") == [[5, 7], [7, 5]]
        assert found("score IS NULL AND genre = ?1", ["Drama"]) == [[7, NO_ITEM], [7, NO_ITEM]]
        assert found(["year = ?1", None], [[1990], []]) == [[9, NO_ITEM], [7, 5]]
        assert found("genre = ?1", ["x' OR 1 --"]) == [[NO_ITEM] * 2] * 2
        assert found("year < ?1", [np.int64(1991)], QUERIES[0]) == [9, NO_ITEM]
        ids, _, _ = searcher.search_with_stats(QUERIES, k=1, where="year = 1992", algorithm="mips")
        assert ids.tolist() == [[7], [7]]


def test_folders_keep_attributes_and_added_items_bring_theirs(tmp_path):
    ids = ["a", "b", "c"]
    searcher = Searcher.from_embeddings(ids, ITEMS, device="cpu", attributes=COLUMNS, folder=tmp_path / "index")
    searcher.add(["d", "a"], [[3, 3], [4, 4]], attributes={"year": [2000, 2001], "genre": [None, None]})  # of no type
    for searcher in (searcher, Searcher.from_index(tmp_path / "index", device="cpu")):
        found = searcher.search(QUERIES[0], k=4, where="year >= 2000 OR genre = 'Drama'")[0].tolist()
        assert found == ["a", "d", "c", None]


def test_what_does_not_fit_is_refused():
    def build(attributes, **more):
        Searcher.from_embeddings(IDS, ITEMS, device="cpu", attributes=attributes, **more)

    with pytest.raises(ValueError, match="expected 3 values, one per item, found 2 in column `year`"):
        build({"year": [1, 2]})
    with pytest.raises(TypeError, match="column `year`: expected whole numbers, numbers or strings, found int, str"):
        build({"year": [1, "x", 2]})
    with pytest.raises(TypeError, match="a dictionary of columns or a data frame, found int"):
        build(3)
    with pytest.raises(TypeError, match="column `year`: expected a list of values, found int"):
        build({"year": 1990})
    with pytest.raises(ValueError, match="column `year`: expected whole numbers of 64 bits, found 9223372036854775808"):
        build({"year": [1, 2**63, None]})
    with pytest.raises(ValueError, match="column `score`: expected finite numbers, found -inf"):
        build({"score": [1, -np.inf, None]})
    with pytest.raises(ValueError, match=r"column `genre`: expected text of whole characters, found half of one: '\\ud800'"):
        build({"genre": ["a", "\ud800", None]})
    with pytest.raises(ValueError, match="1 of other ids, the first 77"):
        build({"id": [9, 77], "year": [1, 2]})
    searcher = Searcher.from_embeddings(IDS, ITEMS, device="cpu", attributes=COLUMNS)
    for where, params, words in (
        ("yeer > 3", None, "year INTEGER, score REAL, genre TEXT, found no such column: yeer"),
        ("1); DROP TABLE items; --", None, "a closing parenthesis too many"),
        ("year > ?1", None, "1 parameters"),
        (["year > 3"] * 3, None, "one per query, found 3"),
        (["year > 3"], None, "one per query, found 1"),
        ([], None, "one per query, found 0"),
        (["year > ?1"] * 2, [[1]], "expected 2 lists"),
        (None, [1], "none without `where`"),
        ([], None, "one per query, found 0"),
        (7, None, "an SQL expression, or a list of them, found int"),
        ([7, None], None, "an SQL expression, found int"),
        ("year > ?1", [{}], "numbers, strings or None, found dict"),
        ("year > ?1", 3, "a list of values, found int"),
        ("year > ?1", "3", "a list of values, found str"),
        ("year > ?1", [-(2**63) - 1], "64 bits, found -9223372036854775809"),
        ("genre > ?1", ["\ud800"], "whole characters"),
    ):
        with pytest.raises((ValueError, TypeError), match="expected") as error:
            searcher.search(QUERIES, k=1, where=where, params=params)
        assert words in str(error.value)
    with pytest.raises(ValueError, match="an index with attributes"):
        Searcher.from_embeddings(IDS, ITEMS, device="cpu").search(QUERIES, k=1, where="year > 3")
