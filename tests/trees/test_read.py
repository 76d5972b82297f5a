"""Readers of trees, and the shapes that they are given."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from conformance.trees.forests import tree as random_tree
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.data.labelled.listops import ListOps, ListOpsConfig, value_of
from unrolled.data.trees import Tree, balanced, binarised, bracketed, operation_tree, read_bracketed, read_conllu


def nested(tree: Tree) -> str:
    """The tree with brackets, children in their order."""
    children = tree.children()

    def told(node: int) -> str:
        parts = [part for part in (tree.labels[node], tree.words[node], *map(told, children[node])) if part]
        return f"({' '.join(parts)})"

    return told(len(tree.words) - 1)


def test_bracketed_trees_come_back() -> None:
    line = "(3 (2 It) (4 (2 is) (3 (3 very) (4 good)) (2 .)))"
    found = bracketed(line)
    assert nested(found) == line
    assert found.parents == (7, 6, 4, 4, 6, 6, 7, -1)
    assert found.words == ("It", "is", "very", "good", "", ".", "", "")
    assert found.heights().tolist() == [0, 0, 0, 0, 1, 0, 2, 3]
    assert found.rooted().labels == ("",) * 7 + ("3",)
    assert nested(bracketed("(4 good)")) == "(4 good)"
    deep = 3000
    assert bracketed("(1 " * deep + "x" + ")" * deep).heights()[-1] == deep - 1


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("(3 (2 It) (4 good)", "a bracket is not closed"),
        ("(3 (2 It) (4 good))) ", r"'\)' stands behind its end"),
        ("(3 (2 It) (4 good)) (2 a)", r"'\(' stands behind its end"),
        ("3 (2 It)", "'3' stands outside of brackets"),
        ("(3 (2 It) good)", "the word 'good' has a word or a tree beside it"),
        ("(3 It is)", "the word 'is' has a word or a tree beside it"),
        ("(3 It (2 is))", "'It' has a tree beside it"),
        ("((2 It) (2 is))", "a node has no label"),
        ("(3 (2) (2 is))", "a node '2' is empty"),
        ("(3 () (2 is))", "a node has no label"),
    ],
)
def test_damaged_brackets_are_told_with_their_line(line: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text(f"(3 (2 It) (4 good))\n\n{line}\n")
    with pytest.raises(UnrolledError, match=rf"line 3 of .*t\.txt is no bracketed tree: {words}"):
        read_bracketed(tmp_path / "t.txt")


def test_files_of_trees(tmp_path: Path) -> None:
    (tmp_path / "t.txt.gz").write_bytes(gzip.compress(b"(3 (2 It) (4 good))\n\n(1 bad)\n"))
    assert [nested(tree) for tree in read_bracketed(tmp_path / "t.txt.gz")] == ["(3 (2 It) (4 good))", "(1 bad)"]
    (tmp_path / "none.txt").write_text("\n")
    with pytest.raises(UsageError, match="has no tree"):
        read_bracketed(tmp_path / "none.txt")
    with pytest.raises(UsageError, match="has no sentence"):
        read_conllu(tmp_path / "none.txt")
    with pytest.raises(UnrolledError):
        read_conllu(tmp_path / "absent.conllu")


def sentence(*rows: tuple[str, str, str, str]) -> str:
    return "".join(f"{n}\t{word}\t_\t_\t_\t_\t{head}\t{relation}\t_\t_\n" for n, word, head, relation in rows)


GOOD = sentence(
    ("1", "She", "2", "nsubj"), ("2-3", "didn't", "_", "_"), ("2", "did", "0", "root"), ("2.1", "x", "_", "_"),
    ("3", "her own", "4", "nmod:poss"), ("4", "work", "2", "obj"),
)  # fmt: skip


def test_dependencies(tmp_path: Path) -> None:
    path = tmp_path / "d.conllu"
    path.write_text(f"# text = x\n{GOOD}\n# next\n{sentence(('1', 'Go', '0', 'root'))}")
    first, second = read_conllu(path)
    assert nested(first) == "(root did (nsubj She) (obj work (nmod her_own)))"
    assert first.heights().tolist() == [0, 0, 1, 2]
    assert second == Tree(("Go",), (-1,), ("root",))
    assert "nmod:poss" in read_conllu(path, subtypes=True)[0].labels


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([("1", "a", "0", "root"), ("3", "b", "1", "x")], "line 5 .* has the number '3' where 2 follows"),
        ([("1", "a", "x", "root")], "line 4 .* lacks a word, the number of its head or a relation"),
        ([("1", "a", "0", "")], "line 4 .* lacks a word"),
        ([("1", "a", "0", "root"), ("2", "b", "9", "x")], "sentence at line 4 .* has a head 9 and only 2 words"),
        ([("1", "a", "0", "root"), ("2", "b", "0", "root")], "sentence at line 4 .* has 2 roots"),
        ([("1", "a", "0", "root"), ("2", "b", "3", "x"), ("3", "c", "2", "x")], "heads that go round in a circle"),
    ],
)
def test_damaged_dependencies_are_told_with_their_line(rows: list, words: str, tmp_path: Path) -> None:
    (tmp_path / "d.conllu").write_text(f"{sentence(('1', 'Go', '0', 'root'))}\n# c\n{sentence(*rows)}")
    with pytest.raises(UnrolledError, match=words):
        read_conllu(tmp_path / "d.conllu")
    (tmp_path / "d.conllu").write_text("1\ta\tb\n")
    with pytest.raises(UnrolledError, match=r"line 1 of .* has 3 fields"):
        read_conllu(tmp_path / "d.conllu")


def test_operations_are_read_as_they_were_made() -> None:
    source = ListOps(ListOpsConfig(rows=200))
    split = source.splits()["train"]
    for row, label, depth in zip(split.rows, split.labels, split.groups["depth"], strict=True):
        found = operation_tree([source.symbols[number] for number in row])
        values: list[int] = []
        for node, below in enumerate(found.children()):
            word = found.words[node]
            values.append(value_of(word, [values[child] for child in below]) if below else int(word))
        assert values[-1] == label
        assert found.heights()[-1] == depth
    for wrong in ("[max 2", "[max ]", "2 3", "[most 2 ]", "]", ""):
        with pytest.raises(UsageError):
            operation_tree(wrong.split())


def test_binary_trees_branch_to_the_left() -> None:
    made, places = binarised(bracketed("(5 (1 a) (2 b) (3 (9 c)) (4 d))"))
    assert nested(made) == "(5 (((1 a) (2 b)) (3 c)) (4 d))"
    assert [made.labels[place] for place in places] == ["1", "2", "3", "3", "4", "5"]
    made, places = binarised(operation_tree(["[max", "1", "[min", "2", "]", "3", "]"]))
    assert nested(made) == "((((max) (1)) ((min) (2))) (3))"


def test_binary_trees_keep_leaves_and_what_stands_below_a_label() -> None:
    for seed in range(12):
        parents = random_tree(seed, 1 + seed, None)
        inner = set(parents.tolist())
        count = range(len(parents))
        given = Tree(
            tuple("" if n in inner else f"w{n}" for n in count), tuple(parents.tolist()), tuple(f"l{n}" for n in count)
        )
        made, places = binarised(given)
        below = np.bincount([p for p in made.parents if p >= 0], minlength=len(made.words))
        assert set(below) <= {0, 2}
        assert all(parent > node for node, parent in enumerate(made.parents[:-1]))
        leaves = [_leaves(tree) for tree in (given, made)]
        assert all(leaves[0][node] == leaves[1][places[node]] for node in count)


def _leaves(tree: Tree) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for node, below in enumerate(tree.children()):
        found.append(sum((found[child] for child in below), (tree.words[node],) if not below else ()))
    return found


def test_balanced_trees() -> None:
    assert nested(balanced(["a", "b", "c", "d", "e"], "x")) == "(x (((a) (b)) (c)) ((d) (e)))"
    assert nested(balanced(["a"], "x")) == "(x a)"
    for count in range(1, 40):
        assert balanced(["w"] * count).heights()[-1] == int(np.ceil(np.log2(count)))
    with pytest.raises(UsageError, match="a word at least"):
        balanced([])
