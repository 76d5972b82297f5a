"""Weight normalisation of the mLSTM."""

from typing import Any

import pytest
import torch

from conformance.material import wave
from conformance.tolerance import assert_close
from unrolled.cells.multiplicative.mlstm import MLSTM, MLSTMConfig

MATRICES = ("weight_x", "weight_mx", "weight_mh", "weight_m")


def pair(**options: Any) -> tuple[MLSTM, MLSTM]:
    torch.manual_seed(7)
    plain = MLSTM(5, 4, MLSTMConfig(**options)).double()
    normed = MLSTM(5, 4, MLSTMConfig(weight_norm=True, **options)).double()
    torch.manual_seed(7)
    normed.reset_parameters()
    plain.load_state_dict({name: value for name, value in normed.state_dict().items() if not name.endswith("_gain")})
    with torch.no_grad():  # in float64: the start was drawn in float32
        for name in MATRICES:
            normed.get_parameter(f"{name}_gain").copy_(normed.get_parameter(name).norm(dim=1))
    return plain, normed


@pytest.mark.parametrize("coupled", [False, True])
def test_start_is_unchanged(coupled: bool) -> None:
    plain, normed = pair(coupled=coupled, factor=3)
    x = wave(2, 5, 5)
    assert_close(normed(x)[0], plain(x)[0], "output at the start")


def test_rows_have_the_norm_of_the_gain_whatever_v_is() -> None:
    _, normed = pair()
    with torch.no_grad():
        for k, name in enumerate(MATRICES):
            normed.get_parameter(name).copy_(3 * wave(*normed.get_parameter(name).shape, phase=k))
            gain = normed.get_parameter(f"{name}_gain")
            gain.copy_(wave(*gain.shape).abs())
    effective = normed.effective_weights()
    for name in MATRICES:
        assert_close(effective[name].norm(dim=1), normed.get_parameter(f"{name}_gain"), name)
    assert set(effective) == {*MATRICES, "bias"}


def test_scale_of_v_does_not_matter_and_its_gradient_is_orthogonal_to_it() -> None:
    _, normed = pair()
    x = wave(2, 5, 5)
    before, _ = normed(x)
    before.square().sum().backward()
    for name in MATRICES:
        v = normed.get_parameter(name)
        assert v.grad is not None
        assert float(v.grad.norm()) > 0
        # Scaling a row does nothing, so the slope along the row is zero.
        assert float((v.grad * v.detach()).sum(1).abs().max()) < 1e-12 * float(v.grad.norm())
    with torch.no_grad():
        for name in MATRICES:
            normed.get_parameter(name).mul_(2.5)
    assert_close(normed(x)[0], before, "output after scaling V")
