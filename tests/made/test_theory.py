"""Problems with constructions that solve them at every length, and by hand."""

from collections import Counter

import numpy as np
import pytest
import torch

from unrolled.core.random import RandomStreams
from unrolled.data.made import MADE, Batch
from unrolled.data.made.automaton import Automaton, AutomatonConfig, Moves, drawn_automaton, minimised
from unrolled.data.made.chomsky import Chomsky, ChomskyConfig
from unrolled.data.made.chomsky_answers import SOLVERS
from unrolled.data.made.flipflop import FlipFlop, FlipFlopConfig
from unrolled.data.made.group import Group, GroupConfig
from unrolled.data.made.istree import IsTree, IsTreeConfig
from unrolled.data.made.mqar import MultiQuery, MultiQueryConfig
from unrolled.data.made.recursion import Recursion, RecursionConfig
from unrolled.evaluate.in_context import InContextNgram, ngram_counts
from unrolled.evaluate.points import measure_points
from unrolled.kernels.diag_scan import diag_scan

ROWS = 1000


def test_a_diagonal_recurrence_with_gates_of_0_and_1_is_a_flip_flop() -> None:
    """a_t = 1 - write_t, b_t = write_t (2 bit_t - 1), read by the sign: right at every length."""
    batch = FlipFlop(FlipFlopConfig(length=640, write=0.01, read=0.1)).batch(RandomStreams(1), "test", 0, ROWS)
    kind, bit = (torch.from_numpy(part) for part in (batch.inputs[:, 1:-1:2], batch.inputs[:, 2::2] - 4))
    write = (kind == 1).double().unsqueeze(2)
    h, _ = diag_scan(1 - write, write * (2 * bit.double().unsqueeze(2) - 1))
    # what is read after an instruction was written by those before it
    target, asked = torch.from_numpy(batch.targets[:, 3::2]), torch.from_numpy(batch.weight[:, 3::2] > 0)
    assert int(asked.sum()) > 20_000
    assert torch.equal(4 + (h[:, :, 0] > 0)[asked].long(), target[asked])


def test_a_diagonal_recurrence_with_a_negative_factor_is_parity() -> None:
    """a_t = 1 - 2 bit_t from 1 on; no factors from 0 to 1 can do that."""
    batch = Group(GroupConfig(kind="Z2", length=640)).batch(RandomStreams(1), "test", 0, ROWS)
    bit = torch.from_numpy(batch.inputs[:, 1:] - 1).double().unsqueeze(2)
    h, _ = diag_scan(1 - 2 * bit, torch.zeros_like(bit), torch.ones(ROWS, 1, dtype=torch.float64))
    assert torch.equal(1 + (h[:, :, 0] < 0).long(), torch.from_numpy(batch.targets[:, 1:]))


def test_queries_of_recall_are_placed_by_their_law() -> None:
    """Drawn one after the other without replacement: the first with p(g) in proportion to g^(a-1)."""
    slots, power = 12, 0.3
    problem = MultiQuery(MultiQueryConfig(length=2 * 2 + 2 * slots, pairs=2, power=power))
    batch = problem.batch(RandomStreams(1), "train", 0, 20_000)
    law = np.arange(1, slots + 1) ** (power - 1)
    law /= law.sum()
    # of the first pair the slot is that of a single draw; the second falls on what is left
    keys = batch.inputs[:, 1:2]
    first = (batch.inputs[:, 5::2] == keys).argmax(1)
    share = np.bincount(first, minlength=slots) / len(first)
    assert np.abs(share - law).max() < 4 * np.sqrt(law.max() / len(first))
    second = (batch.inputs[:, 5::2] == batch.inputs[:, 3:4]).argmax(1)
    left = sum(law[i] * np.where(np.arange(slots) == i, 0, law) / (1 - law[i]) for i in range(slots))
    assert np.abs(np.bincount(second, minlength=slots) / len(second) - left).max() < 0.012


def test_products_of_groups_by_hand() -> None:
    problem = Group(GroupConfig(kind="S3", length=2))
    assert problem.symbols == (">", "012", "021", "102", "120", "201", "210")
    ids = [[0, problem.symbols.index("102"), problem.symbols.index("120")]]
    batch = Batch(np.array(ids), np.zeros((1, 3), np.int64), np.ones((1, 3), np.float32), {})
    # (p g)(i) = p(g(i)): 0 -> 1 -> 0, 1 -> 2 -> 2, 2 -> 0 -> 1
    assert problem.answers(batch).targets[0].tolist()[1:] == [ids[0][1], problem.symbols.index("021")]
    assert [len(Group(GroupConfig(kind=kind)).symbols) - 1 for kind in ("Z7", "S5", "A5")] == [7, 120, 60]
    few = Group(GroupConfig(kind="A5", generators="few"))
    assert [few.symbols[1 + one] for one in few.read] == ["12034", "13204", "14230"]


@pytest.mark.parametrize("kind", ["Z6", "S4", "A4", "A5"])
def test_few_elements_generate_the_group(kind: str) -> None:
    problem = Group(GroupConfig(kind=kind, generators="few", length=80))
    batch = problem.batch(RandomStreams(1), "train", 0, 200)
    assert set(np.unique(batch.targets[:, 1:])) == set(range(1, len(problem.symbols)))


@pytest.mark.parametrize("task", sorted(SOLVERS))
def test_tasks_of_the_hierarchy_at_all_short_lengths(task: str) -> None:
    """From one symbol on, where the task has such rows; the stated length is that of every row."""
    for length in range(1, 13):
        problem = Chomsky(ChomskyConfig.model_validate({"task": task, "length": length}))
        batch = problem.batch(RandomStreams(1), "train", 0, 40)
        assert batch.inputs.shape[1] == problem.time()
        found = problem.answers(batch)
        asked = batch.weight > 0
        assert np.array_equal(found.targets[asked], batch.targets[asked])
        assert np.array_equal(found.weight, batch.weight)


def test_tasks_of_the_hierarchy_by_hand() -> None:
    for task, read, answer in (
        ("even_pairs", "0 1 1 0", "1"), ("modular_arithmetic", "2 + 3 * 4", "4"), ("parity", "1 1 0 1", "1"),
        ("cycle", "up up down stay down down", "4"), ("stack_manipulation", "0 1 pop push1 push0", "0 1 0 end end end"),
        ("reverse", "0 0 1", "1 0 0"), ("modular_arithmetic_brackets", "( 1 - ( - 3 ) )", "4"),
        ("solve_equation", "( x - 3 ) is 4", "2"), ("duplicate", "0 1", "0 1 0 1"),
        ("missing_duplicate", "0 1 0 lost", "1"), ("odds_first", "0 1 0 1 1", "0 0 1 1 1"),
        ("bucket_sort", "3 1 4 1", "1 1 3 4"), ("addition", "1 1 + 1", "0 0 1 end end"),
        ("multiplication", "1 1 * 0 1", "0 1 1 end end end"), ("sqrt", "1 0 0 1", "1 1"),
    ):  # fmt: skip
        assert SOLVERS[task](read.split()) == answer.split(), task


def test_the_successor_by_hand() -> None:
    problem = Recursion(RecursionConfig(length=4))
    batch = problem.batch(RandomStreams(1), "train", 0, 300)
    rows = {"".join(problem.symbols[i] for i in row[1:5]): place for place, row in enumerate(batch.inputs)}
    for number, follows, depth in (("0111", "1000", 4), ("0110", "0111", 1), ("1011", "1100", 3), ("1101", "1110", 2)):
        place = rows[number]
        asked = batch.weight[place] > 0
        assert "".join(problem.symbols[i] for i in batch.targets[place][asked]) == follows
        assert set(batch.groups["depth"][place][asked].tolist()) == {depth}


def test_depths_are_held_out_of_training() -> None:
    problem = Recursion(RecursionConfig(length=9, depth=(1, 4)))
    for depth, values in (((1, 4), {1, 2, 3, 4}), ((5, 7), {5, 6, 7})):
        batch = problem.batch(RandomStreams(1), "train", 0, 200, depth=depth)
        assert set(batch.groups["depth"][batch.weight > 0].tolist()) == values


def test_walks_of_a_tree_by_hand() -> None:
    text = "> ( a0 ( a1 . . ) ( a2 ( a3 . . ) . ) ) ="
    for task, walk in (("preorder", "0123"), ("inorder", "1032"), ("postorder", "1320")):
        problem = Recursion(RecursionConfig.model_validate({"task": task, "length": 4}))
        ids = [problem.symbols.index(name) for name in text.split()] + [5, 5, 5]
        empty = np.zeros((1, len(ids)), np.int64)
        found = problem.answers(Batch(np.array([ids]), empty, empty.astype(np.float32), {}))
        assert "".join(problem.symbols[i][1] for i in found.targets[0, -4:]) == walk


def test_graphs_are_trees_in_one_half_and_centres_move() -> None:
    problem = IsTree(IsTreeConfig(family="stars", nodes=10, names=10))
    batch = problem.batch(RandomStreams(1), "train", 0, ROWS)
    assert abs((batch.targets[:, -1] == 3).mean() - 0.5) < 0.05
    centres: Counter[int] = Counter()
    for row in batch.inputs:
        often = Counter(row[1:-1].tolist()).most_common(1)[0][0]
        centres[often] += 1
    assert len(centres) == 10
    assert max(centres.values()) < 0.2 * ROWS


def accepts(moves: Moves, string: list[int]) -> bool:
    state: int | None = 0
    for symbol in string:
        state = None if state is None else moves[state].get(symbol)
    return state is not None


def test_minimised_automata_accept_the_same_strings_and_are_canonical() -> None:
    g = np.random.default_rng(5)
    sizes = []
    for _ in range(60):
        moves = drawn_automaton(g, 7, 5, 3)
        small = minimised(moves)
        sizes.append(len(moves) - len(small))
        for _ in range(60):
            string = g.integers(0, 5, int(g.integers(1, 8))).tolist()
            assert accepts(moves, string) == accepts(small, string)
        order = [0, *(1 + g.permutation(len(moves) - 1)).tolist()]
        renamed: Moves = [{} for _ in moves]
        for state, out in enumerate(moves):
            renamed[order[state]] = {symbol: order[to] for symbol, to in out.items()}
        assert minimised(renamed) == small
    assert max(sizes) > 0


def test_every_string_of_a_row_is_accepted() -> None:
    problem = Automaton(AutomatonConfig(length=60))
    batch = problem.batch(RandomStreams(1), "train", 0, 2000)
    lengths: Counter[int] = Counter()
    for moves, row in zip(batch.hidden["moves"], batch.inputs.tolist(), strict=True):
        found: Moves = [{s: to for s, to in enumerate(out) if to >= 0} for out in moves.tolist()]
        text = " ".join(map(str, row[1:]))
        for string in text.split(" 1 "):
            symbols = [int(name) - 2 for name in string.split() if name != "1"]
            lengths[len(symbols)] += 1
            assert accepts(found, symbols)
    assert max(lengths) <= 49


def test_counts_in_context_by_hand() -> None:
    a, b = 0, 1
    counts = ngram_counts(torch.tensor([[a, b, a, a, b]]), 1, 2)[0]
    assert counts[4].tolist() == [1, 0]
    assert counts[3].tolist() == [1, 1], "the a that was just read follows an a"
    assert ngram_counts(torch.tensor([[a, b, a, a, b]]), 1, 2, immediate=False)[0, 3].tolist() == [0, 1]
    assert ngram_counts(torch.tensor([[a, b, a, a, b]]), 0, 2)[0, 2].tolist() == [2, 1]
    assert ngram_counts(torch.tensor([[a, b, a, b]]), 2, 2)[0, 3].tolist() == [1, 0]


def test_counts_in_context_learn_an_automaton_while_they_read() -> None:
    problem = Automaton(AutomatonConfig(states=5, alphabet=6, edges=3, longest=8, length=160))
    counts = InContextNgram(len(problem.symbols), problem.start_id)
    result = measure_points(counts, problem, rows=64)[0]
    groups = result.groups["position"]
    assert groups[4].excess < groups[0].excess  # type: ignore[operator]
    assert groups[4].legal.value > groups[0].legal.value  # type: ignore[union-attr]
    stepwise = [counts.predict(state := counts.begin(2)).log_prob]
    for symbol in ([2, 3], [3, 3], [2, 4]):
        state = counts.observe(state, torch.tensor(symbol))
        stepwise.append(counts.predict(state).log_prob)
    whole, _ = counts.distributions(counts.begin(2), torch.tensor([[2, 3, 2, 0], [3, 3, 4, 0]]))
    torch.testing.assert_close(whole, torch.stack(stepwise, 1))
    np.testing.assert_allclose(whole.exp().sum(2), 1)


@pytest.mark.parametrize("language", range(1, 8))
def test_languages_of_tomita_by_their_words(language: int) -> None:
    """All words of up to 7 letters, by the automaton and by the definition."""
    cls = MADE["tomita"]
    machine, words = cls(cls.EXAMPLES[language - 1]).language  # type: ignore[attr-defined]
    for size in range(8):
        for number in range(1 << size):
            text = f"{number:b}".rjust(size, "0") if size else ""
            state: int | None = 0
            for letter in text:
                state = None if state is None else machine.moves[state].get(letter)
            assert (state is not None) == words.begins(text)
            assert (state is not None and machine.final[state]) == words.word(text)
