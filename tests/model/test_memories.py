"""What each memory is for: published behaviour of single ones, beside what all are held to in the conformance suite."""

import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from conformance.tolerance import assert_close
from unrolled.core.errors import UsageError
from unrolled.model import LanguageModel, ModelConfig
from unrolled.model.memory.associative import AssociativeConfig, AssociativeMemory, dpfp
from unrolled.model.memory.nugget import NuggetConfig, NuggetMemory
from unrolled.model.memory.slots import SlotMemory, SlotsConfig

_ATTENTION = {"name": "transformer", "heads": 2, "context": 64, "factor": 1.0}


def _model(memory: dict[str, Any] | None, cell: Any = None, **more: Any) -> LanguageModel:
    torch.manual_seed(0)
    shape = {"width": 8, "layers": 2, "cell": cell or _ATTENTION, "memory": memory, **more}
    return LanguageModel(ModelConfig.model_validate(shape), 11).double()


@pytest.mark.parametrize(
    "memory",
    [
        {"name": "tokens", "slots": 0},
        {"name": "summary", "vectors": 0},
        {"name": "associative", "slots": 0},
        {"name": "latents", "slots": 3},
    ],
    ids=lambda memory: memory["name"],
)
def test_a_memory_that_is_off_is_the_base_on_each_segment_alone(memory: dict[str, Any]) -> None:
    base, model = _model(None), _model({**memory, "segment": 5})
    model.load_state_dict(base.state_dict(), strict=False)
    ids = torch.randint(0, 11, (2, 20))
    alone = torch.cat([base(part).raw for part in ids.split(5, 1)], 1)
    assert torch.equal(model(ids).raw, alone)


def test_carried_cells_without_slots_are_the_base() -> None:
    base = _model(None, "lstm")
    model = _model({"name": "tokens", "slots": 0, "segment": 5, "state": "carry"}, "lstm")
    model.load_state_dict(base.state_dict(), strict=False)
    ids = torch.randint(0, 11, (2, 20))
    assert_close(model(ids).raw, base(ids).raw, "outputs")


def test_state_bytes_do_not_grow() -> None:
    model = _model({"name": "summary", "segment": 4, "vectors": 2, "most": 3})
    sizes = set()
    state = None
    for ids in torch.randint(0, 11, (1, 64)).split(8, 1):
        state = model(ids, state).state
        sizes.add(sum(part.numel() * part.element_size() for cells in state.cells for part in cells))
    assert len(sizes) == 1


def test_as_many_summaries_stand_before_a_segment_as_were_kept() -> None:
    model: Any = _model({"name": "summary", "segment": 4, "vectors": 2, "most": 3})
    lengths, state = [], None
    for ids in torch.randint(0, 11, (1, 24)).split(4, 1):
        held = model.initial_state(1).cells[-1] if state is None else state.cells[-1]
        prefix = model.memory.prefix(held)
        lengths.append(0 if prefix is None else prefix.shape[1])
        state = model(ids, state).state
    assert lengths == [0, 2, 4, 6, 6, 6]


class _Plain(AssociativeMemory):
    """Keys are their own features."""

    def featured(self, key: Tensor) -> Tensor:
        return key


@pytest.mark.parametrize("epsilon", [1e-5, 1e-6, 0.0])
def test_orthonormal_keys_are_recalled(epsilon: float) -> None:
    """16 keys with values N(0, 1): errors of at most three times epsilon (and the largest value); one that is written
    anew leaves the others."""
    torch.manual_seed(0)
    memory = _Plain(AssociativeConfig(keys=16, epsilon=epsilon, rolls=1), 16, [16], [16], 16).double()
    memory.size = 16
    start = memory.begin(1, dtype=torch.float64)
    state = start._replace(matrix=torch.zeros(1, 1, 16, 16).double(), sums=torch.zeros(1, 1, 16).double())
    keys, values = torch.eye(16).double().unsqueeze(0), torch.randn(1, 16, 16).double()

    def store(state: Any, key: Tensor, value: Tensor) -> Any:
        matrix, sums = memory.store(0, key, value, 1.0, state)
        return state._replace(matrix=matrix.unsqueeze(1), sums=sums.unsqueeze(1))

    for i in range(16):
        state = store(state, keys[:, i : i + 1], values[:, i : i + 1])
    most = 3 * epsilon * float(values.abs().max()) + 1e-12
    found = memory.recall(0, keys, state)
    assert float((found - values).abs().max()) <= most
    other = torch.randn(1, 1, 16).double()
    after = store(state, keys[:, :1], other)
    assert float((memory.recall(0, keys[:, 1:], after) - found[:, 1:]).abs().max()) <= 1e-12
    assert float((memory.recall(0, keys[:, :1], after) - other).abs().max()) <= 3 * epsilon * 6 + 1e-12


def test_features_of_keys_by_hand() -> None:
    key = torch.tensor([1.0, -2.0])
    r = [1.0, 0.0, 0.0, 2.0]
    wanted = [r[i] * r[i - j] for j in (1, 2, 3) for i in range(4)]
    assert torch.equal(dpfp(key, 3), torch.tensor(wanted))


def _slots() -> tuple[Any, Any]:
    torch.manual_seed(0)
    memory: Any = SlotMemory(SlotsConfig(segment=3, slots=4, heads=1), 6, [6], [6], 6).double()
    state = memory.begin(2, dtype=torch.float64)
    state = state._replace(seen=torch.randn(2, 3, 6).double(), fill=torch.full((2,), 3))
    return memory, state


def test_a_slot_that_reads_itself_alone_stays_or_tends_to_its_bias() -> None:
    memory, state = _slots()
    with torch.no_grad():
        memory.value.copy_(torch.eye(6))
    itself = torch.full((2, 4, 4), -torch.inf).double()
    itself[..., 0] = 0
    memory.scores = lambda _: itself
    with torch.no_grad():
        bias = memory.base.clone()
        memory.base.zero_()
    kept = memory.update(state, None)
    assert_close(kept.vectors, state.vectors, "slots without a bias")
    with torch.no_grad():
        memory.base.copy_(0.3 * bias)
    other = state._replace(vectors=torch.nn.functional.normalize(torch.randn(2, 4, 6).double(), dim=-1))
    for _ in range(400):
        other = memory.update(other, None)
    wanted = torch.nn.functional.normalize(bias, dim=-1).expand(2, -1, -1)
    assert float((other.vectors - wanted).detach().abs().max()) < 1e-6


def test_written_slots_attend_to_themselves_and_to_the_segment_alone() -> None:
    memory, state = _slots()
    base = memory.update(state, None).vectors
    moved = state.vectors.clone()
    moved[:, 0] += 1
    other = memory.update(state._replace(vectors=moved), None).vectors
    assert torch.equal(other[:, 1:], base[:, 1:])
    assert not torch.equal(other[:, 0], base[:, 0])


@pytest.mark.parametrize("ratio", [0.1, 0.25, 0.5])
def test_as_many_nuggets_as_the_ratio_says(ratio: float) -> None:
    memory = NuggetMemory(NuggetConfig(segment=40, ratio=ratio, heads=1), 6, [6], [6], 6)
    for tokens in range(1, 41):
        scores = torch.randn(1, 40)
        places, there = memory.chosen(scores, torch.tensor([tokens]))
        chosen = places[there].tolist()
        assert len(chosen) == max(1, -int(-ratio * tokens // 1))
        assert chosen == sorted(set(chosen))
        assert chosen[-1] == tokens - 1, "the last one is always kept"
        best = set(scores[0, : tokens - 1].topk(len(chosen) - 1).indices.tolist())
        assert set(chosen[:-1]) == best


def test_straight_scores_learn_and_change_nothing() -> None:
    ids = torch.randint(0, 11, (2, 12))
    outs = []
    for straight in (True, False):
        model: Any = _model({"name": "nugget", "segment": 4, "ratio": 0.5, "heads": 2, "straight": straight})
        raw = model(ids).raw
        (grad,) = torch.autograd.grad(raw.square().sum(), model.memory.score, retain_graph=True)
        assert grad.abs().sum() > 0
        outs.append(raw)
        with torch.no_grad():
            model.memory.score.zero_()  # all scores 0: the softmax of scores alone
        model.memory.chosen = lambda scores, fill, chosen=model.memory.chosen: chosen(
            torch.arange(4.0).expand(2, 4), fill
        )
        outs.append(model(ids).raw)
    assert not torch.equal(outs[0], outs[2])


def test_a_query_reaches_what_is_kept() -> None:
    model: Any = _model({"name": "latents", "segment": 4, "slots": 2, "heads": 2, "query": 3})
    with torch.no_grad():
        model.memory.alpha.fill_(1.0)
    x = torch.randn(1, 12, 8).double().requires_grad_()
    state = model.run_stack(x).state.cells[-1]
    (asked,) = torch.autograd.grad(state.vectors.sum(), x, retain_graph=True)
    assert asked[:, :3].abs().sum() > 0
    blind: Any = _model({"name": "latents", "segment": 4, "slots": 2, "heads": 2})
    # without a query, what comes first reaches the latents through its own segment alone
    with torch.no_grad():
        blind.memory.compress.value.zero_()
    (grad,) = torch.autograd.grad(blind.run_stack(x).state.cells[-1].vectors.sum(), x, allow_unused=True)
    assert grad is None or not grad.any()


def test_latents_begin_as_different_vectors_and_stay_so() -> None:
    """What they take from a segment is at first much the same for all of them; it must not outweigh what tells them
    apart, or they ask for the same ever after."""
    model: Any = _model({"name": "latents", "segment": 16, "slots": 4, "heads": 4}, width=64, cell={**_ATTENTION})
    vectors = model(torch.randint(0, 11, (8, 64))).state.cells[-1].vectors.detach()
    apart = (vectors - vectors.mean(1, keepdim=True)).square().mean()
    assert float(apart) > 0.5 * float(vectors.square().mean())


def test_gates_that_begin_open_let_latents_through_and_gradients_back() -> None:
    ids = torch.randint(0, 11, (2, 15))
    shut, ajar = (_model({"name": "latents", "segment": 5, "slots": 3, "heads": 2, "gate_init": a}) for a in (0.0, 1.0))
    assert torch.equal(shut(ids).raw[:, :5], ajar(ids).raw[:, :5])
    assert not torch.allclose(shut(ids).raw[:, 5:], ajar(ids).raw[:, 5:])
    for model, reached in ((shut, False), (ajar, True)):
        memory: Any = model.memory
        (grad,) = torch.autograd.grad(model(ids).raw.square().sum(), memory.latents)
        assert bool(grad.any()) is reached


def test_what_does_not_fit_is_refused_in_one_sentence() -> None:
    with pytest.raises(UsageError, match="one width"):
        _model({"name": "tokens"}, embedding={"size": 4})
    with pytest.raises(UsageError, match="heads cannot share"):
        _model({"name": "slots", "heads": 3})
    with pytest.raises(UsageError, match="lower least"):
        _model({"name": "tokens", "segment": 4, "least": 5})
    with pytest.raises(UsageError, match=r"memory\.state=reset"):
        _model({"name": "summary", "state": "carry"})


@pytest.fixture
def living() -> Iterator[Callable[[], list[Tensor]]]:
    """Gives the tensors that were made since and are held by something. What was there before is not looked through."""
    gc.freeze()

    def found() -> list[Tensor]:
        gc.collect()
        # isinstance would wake what torch holds asleep
        return [value for value in gc.get_objects() if issubclass(type(value), Tensor)]

    yield found
    gc.unfreeze()


def test_segments_that_are_computed_again_keep_little(living: Callable[[], list[Tensor]]) -> None:
    """Bytes that are held for the backward pass grow by less than five vectors of each token; states of the layers, a
    ring of 64 keys and values each, are not among them."""

    def held(segments: int, again: bool) -> int:
        memory = {"name": "slots", "segment": 8, "slots": 3, "heads": 2, "checkpoint": again}
        model, seen = _model(memory), {}

        def keep(value: Tensor) -> Tensor:
            storage = value.untyped_storage()
            seen[storage.data_ptr()] = (value, storage.nbytes())  # what is held keeps its place in memory
            return value

        ids = torch.randint(0, 11, (1, 8 * segments))
        before = living()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
            end = model(ids).raw.square().sum()
        # what a segment is computed again from is held by the function that does it
        for value in living():
            keep(value)
        for value in before:
            seen.pop(value.untyped_storage().data_ptr(), None)
        assert end.requires_grad
        return sum(size for _, size in seen.values())

    grows = {again: (held(16, again) - held(4, again)) / 12 for again in (False, True)}
    token = 8 * 8  # eight numbers of eight bytes
    assert grows[True] < 8 * 5 * token
    assert grows[False] > 5 * grows[True]
