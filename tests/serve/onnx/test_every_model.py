"""Every cell and every head, exported by one path, gives in ONNX Runtime what the predictor gives."""

import pytest
import torch

from serve.onnx.beside import VOCABULARY, exported_step, largest_error, tiny_model
from unrolled.cells import CELLS
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.kernels.cpu import why_no_library
from unrolled.model import LanguageModel, ModelConfig
from unrolled.model.heads import HEADS
from unrolled.predict import PackedPredictor
from unrolled.serve.onnx.step import plain_model, why_no_graph

NEARLY = 2e-5
REFUSED = [name for name in CELLS if CELLS[name].no_graph]
EXPORTED = [name for name in CELLS if name not in REFUSED]

needs_library = pytest.mark.skipif(why_no_library() is not None, reason=str(why_no_library()))


def model_of(name: str) -> LanguageModel:
    cls = CELLS[name]
    config = next(one for one in cls.EXAMPLES if not cls.causal_from(one))
    multiple = cls.width_multiple(config)
    return tiny_model(width=12 * multiple if multiple < 3 else 2 * multiple, cell=config.model_dump(mode="json"))


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPORTED)
def test_every_cell(name: str) -> None:
    model = model_of(name)
    assert largest_error(exported_step(model), model) < NEARLY


@pytest.mark.parametrize("name", REFUSED)
def test_a_cell_that_is_no_fixed_graph_is_refused_in_one_sentence(name: str) -> None:
    assert len(REFUSED) < len(EXPORTED) / 4
    with pytest.raises(UsageError, match=f"cannot be exported as a graph: {name}: it|{name}: "):
        plain_model(model_of(name))


def test_such_a_cell_is_found_inside_another_layer_too() -> None:
    cell = {"name": "act", "cell": {"name": "gru"}}
    assert str(why_no_graph(tiny_model(cell=["gru", cell]))).startswith("act: it takes")
    assert why_no_graph(tiny_model(cell={"name": "mogrifier", "cell": {"name": "gru"}})) is None


@pytest.mark.slow
@pytest.mark.parametrize("name", list(HEADS))
def test_every_head(name: str) -> None:
    settings = {}
    if name == "perspectives":
        several = [(cell, one) for cell in EXPORTED for one in CELLS[cell].EXAMPLES if CELLS[cell].streams(one) == 2]
        settings["cell"] = several[0][1].model_dump(mode="json")
    model = tiny_model(head=HEADS[name].EXAMPLES[0].model_dump(mode="json"), **{"cell": "lstm", **settings})
    assert largest_error(exported_step(model), model) < NEARLY


FORMS = {
    "tied": {"embedding": {"tied": True, "size": 8}},
    "adaptive input": {"embedding": {"cutoffs": [5, 12], "init": "normal", "div_value": 2.0}},
    "one-hot": {"embedding": {"one_hot": True}},
    "zoneout": {"dropout": {"zoneout": {"h": 0.1}}},
    "residual": {"stack": {"kind": "residual", "mlp": 2.0, "norm": "rms"}},
    "mixed": {"cell": ["conv", "lstm", "mlp"], "layers": 3},
    "bf16": {"compute": {"precision": "bf16"}},
}


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_forms_of_a_model(form: str) -> None:
    model = tiny_model(**{"cell": "lstm", **FORMS[form]})
    # of a model that multiplies in bf16 the same weights in float32 are exported
    wanted = plain_model(model) if form == "bf16" else model
    assert largest_error(exported_step(model), wanted) < NEARLY


@pytest.mark.slow
def test_a_state_that_is_not_carried_is_noticed() -> None:
    model = tiny_model(cell="lstm", embedding={"init": "normal", "scale": 1.0})
    step = exported_step(model)
    assert largest_error(step, model) < NEARLY
    assert largest_error(step, model, carry=False) > 100 * NEARLY


@pytest.mark.slow
def test_an_initial_state_that_is_not_zero_is_in_the_file() -> None:
    cls = next(CELLS[name] for name in EXPORTED if _starts_elsewhere(name))
    model = tiny_model(cell=cls.EXAMPLES[0].model_dump(mode="json"))
    step = exported_step(model)
    assert any(value.any() for value in step.initial().values())
    assert largest_error(step, model) < NEARLY


def _starts_elsewhere(name: str) -> bool:
    config = CELLS[name].EXAMPLES[0]
    multiple = CELLS[name].width_multiple(config)
    try:
        cell = CELLS[name](12 * multiple, 12 * multiple, config)
    except UsageError:
        return False
    return any(bool(part.any()) for part in cell.initial_state(1))


@pytest.mark.slow
def test_logits_and_a_fixed_number_of_rows() -> None:
    model = tiny_model(cell="gru", head={"name": "softmax", "cap": 2.0})
    step = exported_step(model, logits=True)
    assert step.scores == "logits"
    assert largest_error(step, model) < NEARLY
    with pytest.raises(Exception, match=r"[Ii]nvalid dimensions"):
        largest_error(exported_step(model, batch=1), model)


@needs_library
@pytest.mark.slow
@pytest.mark.parametrize("cell", ["lstm", "mamba", "rwkv7", "gru"])
def test_integers_are_those_of_the_decoder(cell: str) -> None:
    torch.manual_seed(0)
    head = {"name": "softmax", "init_scale": 8.0}
    config = {"width": 64, "layers": 2, "cell": cell, "head": head, "embedding": {"init": "normal", "scale": 1.0}}
    model = LanguageModel(ModelConfig.parse(config), VOCABULARY).eval()
    for parameter in model.parameters():  # some begin at zero, as biases do
        parameter.data += torch.randn_like(parameter) * (0.3 if parameter.dim() == 1 else 0.05)
    step = exported_step(model, int8=True)
    ours, plain = PackedPredictor(model, 0, quantize="int8"), largest_error(step, model)
    # one integer that is rounded the other way, of a number that lies between two, is more than float32's own error
    assert largest_error(step, model, ours) < plain / 2
    assert 1e-4 < plain < 0.5


@pytest.mark.slow
def test_a_cell_that_fixes_its_rows_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    original = CELLS["rnn"].step
    monkeypatch.setattr(CELLS["rnn"], "step", lambda self, pre, state, w, tap: original(
        self, pre + torch.zeros(len(pre), 1), state, w, tap
    ))  # fmt: skip
    with pytest.raises(UnrolledError, match=r"cannot be written in ONNX: .*batch"):
        exported_step(tiny_model(cell="rnn"))
