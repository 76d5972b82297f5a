"""The cells. A new one is one file and one line in this table."""

from typing import TYPE_CHECKING, Annotated

from pydantic import BeforeValidator, SerializeAsAny

from unrolled.cells.base import Cell, CellConfig, Noise, ParameterRule, Place, StepCell, Tap, Weights
from unrolled.cells.mixer import Given, MixerCell
from unrolled.core.registry import Registry

if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "CELLS",
    "ENCODERS",
    "TREES",
    "AnyCellConfig",
    "AnyTreeConfig",
    "Cell",
    "CellConfig",
    "Given",
    "MixerCell",
    "Noise",
    "ParameterRule",
    "Place",
    "StepCell",
    "Tap",
    "Weights",
]

ENCODERS: "Registry[Any]" = Registry(
    "encoder",
    {
        "bidirectional": "unrolled.cells.encoders.bidirectional:Bidirectional",
        "nystrom": "unrolled.cells.encoders.nystrom:Nystrom",
        "hrrformer": "unrolled.cells.encoders.hrrformer:Hrrformer",
        "grid": "unrolled.cells.encoders.grid:Grid",
    },
)
"""Cells that read whole rows, for tasks that are no language models; a config of a cell finds them by name too."""

TREES: "Registry[Any]" = Registry(
    "tree cell",
    {
        "s_lstm": "unrolled.cells.trees.s_lstm:SLSTM",
        "binary_tree_lstm": "unrolled.cells.trees.binary:BinaryTreeLSTM",
        "child_sum_tree_lstm": "unrolled.cells.trees.child_sum:ChildSumTreeLSTM",
    },
)
"""Cells that read trees (:class:`unrolled.cells.trees.TreeCell`), for the task ``classify_trees``."""

CELLS: "Registry[Any]" = Registry(
    "cell",
    {
        "rnn": "unrolled.cells.gated.rnn:RNN",
        "lstm": "unrolled.cells.gated.lstm:LSTM",
        "gru": "unrolled.cells.gated.gru:GRU",
        "lem": "unrolled.cells.gated.lem:LEM",
        "hyperlstm": "unrolled.cells.gated.hyperlstm:HyperLSTM",
        "ltm": "unrolled.cells.gated.ltm:LTM",
        "gcrn": "unrolled.cells.gated.gcrn:GCRN",
        "mrnn": "unrolled.cells.multiplicative.mrnn:MRNN",
        "mlstm": "unrolled.cells.multiplicative.mlstm:MLSTM",
        "mgru": "unrolled.cells.multiplicative.mgru:MGRU",
        "urn": "unrolled.cells.multiplicative.urn:URN",
        "slstm": "unrolled.cells.gated.slstm:SLSTM",
        "qrnn": "unrolled.cells.scan.qrnn:QRNN",
        "mingru": "unrolled.cells.scan.mingru:MinGRU",
        "minlstm": "unrolled.cells.scan.minlstm:MinLSTM",
        "sru": "unrolled.cells.scan.sru:SRU",
        "lru": "unrolled.cells.scan.lru:LRU",
        "hgrn": "unrolled.cells.scan.hgrn:HGRN",
        "rg_lru": "unrolled.cells.scan.rg_lru:RGLRU",
        "rwkv4": "unrolled.cells.scan.rwkv4:RWKV4",
        "rwkv4_channel": "unrolled.cells.scan.rwkv4:RWKV4Channel",
        "aaren": "unrolled.cells.scan.aaren:Aaren",
        "gateloop": "unrolled.cells.scan.gateloop:GateLoop",
        "mamba": "unrolled.cells.scan.mamba:Mamba",
        "longhorn": "unrolled.cells.scan.longhorn:Longhorn",
        "linear_attention": "unrolled.cells.matrix.linear_attention:LinearAttention",
        "jrt": "unrolled.cells.matrix.jrt:JRT",
        "retnet": "unrolled.cells.matrix.retnet:RetNet",
        "mamba2": "unrolled.cells.matrix.mamba2:Mamba2",
        "gla": "unrolled.cells.matrix.gla:GLA",
        "hgrn2": "unrolled.cells.matrix.hgrn2:HGRN2",
        "gsa": "unrolled.cells.matrix.gsa:GSA",
        "matrix_lstm": "unrolled.cells.matrix.matrix_lstm:MatrixLSTM",
        "deltanet": "unrolled.cells.matrix.delta:DeltaNet",
        "gated_deltanet": "unrolled.cells.matrix.delta:GatedDeltaNet",
        "rwkv7": "unrolled.cells.matrix.rwkv7:RWKV7",
        "rwkv7_channel": "unrolled.cells.matrix.rwkv7_channel:RWKV7Channel",
        "lssl": "unrolled.cells.ssm.lssl:LSSL",
        "s4": "unrolled.cells.ssm.s4:S4",
        "s4d": "unrolled.cells.ssm.s4d:S4D",
        "dss": "unrolled.cells.ssm.dss:DSS",
        "gss": "unrolled.cells.ssm.gss:GSS",
        "mega_ema": "unrolled.cells.ssm.mega_ema:MegaEMA",
        "gcnn": "unrolled.cells.conv.gcnn:GCNN",
        "tcn": "unrolled.cells.conv.tcn:TCN",
        "multires": "unrolled.cells.conv.multires:MultiRes",
        "long_conv": "unrolled.cells.conv.long_conv:LongConv",
        "window_attention": "unrolled.cells.attention.window:WindowAttention",
        "transformer": "unrolled.cells.attention.transformer:Transformer",
        "mega": "unrolled.cells.attention.mega:Mega",
        "seqboat": "unrolled.cells.attention.seqboat:SeqBoat",
        "infini": "unrolled.cells.attention.infini:Infini",
        "block_recurrent": "unrolled.cells.attention.block_recurrent:BlockRecurrent",
        "compressive": "unrolled.cells.attention.compressive:Compressive",
        "longnet": "unrolled.cells.attention.longnet:LongNet",
        "fox": "unrolled.cells.attention.fox:Fox",
        "ttt_linear": "unrolled.cells.learners.ttt:TTTLinear",
        "ttt_mlp": "unrolled.cells.learners.ttt:TTTMLP",
        "titans": "unrolled.cells.learners.titans:Titans",
        "trellis": "unrolled.cells.conv.trellis:TrellisNet",
        "st_lstm": "unrolled.cells.conv.st_lstm:STLSTM",
        "gencnn": "unrolled.cells.conv.gencnn:GenCNN",
        "mlp": "unrolled.cells.feedforward.mlp:MLP",
        "conv": "unrolled.cells.feedforward.conv:Conv",
        "mogrifier": "unrolled.cells.gated.mogrifier:Mogrifier",
        "act": "unrolled.cells.gated.act:ACT",
        "gaussian_window": "unrolled.cells.gated.gaussian_window:GaussianWindow",
    },
    default="lstm",
    beside=ENCODERS,
)

AnyCellConfig = Annotated[SerializeAsAny[CellConfig], BeforeValidator(CELLS.parse)]
"""A field that takes the config of any registered cell, or its name alone."""

AnyTreeConfig = Annotated[SerializeAsAny[CellConfig], BeforeValidator(TREES.parse)]
"""A field that takes the config of any registered tree cell, or its name alone."""
