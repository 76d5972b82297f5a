"""The cells. A new one is one file and one line in this table."""

from typing import TYPE_CHECKING, Annotated

from pydantic import BeforeValidator, SerializeAsAny

from unrolled.cells.base import Cell, CellConfig, Noise, StepCell, Tap, Weights
from unrolled.core.registry import Registry

if TYPE_CHECKING:
    from typing import Any

__all__ = ["CELLS", "AnyCellConfig", "Cell", "CellConfig", "Noise", "StepCell", "Tap", "Weights"]

CELLS: "Registry[Any]" = Registry(
    "cell",
    {
        "rnn": "unrolled.cells.rnn:RNN",
        "lstm": "unrolled.cells.lstm:LSTM",
        "gru": "unrolled.cells.gru:GRU",
        "mrnn": "unrolled.cells.mrnn:MRNN",
        "mlstm": "unrolled.cells.mlstm:MLSTM",
        "mgru": "unrolled.cells.mgru:MGRU",
        "qrnn": "unrolled.cells.qrnn:QRNN",
        "mogrifier": "unrolled.cells.mogrifier:Mogrifier",
    },
    default="lstm",
)

AnyCellConfig = Annotated[SerializeAsAny[CellConfig], BeforeValidator(CELLS.parse)]
"""A field that takes the config of any registered cell, or its name alone."""
