"""The operations that cells, stacks and heads compute through. A new one is one folder or file and one line here."""

from typing import Any

from unrolled.core.registry import Registry

__all__ = ["OPERATIONS"]

OPERATIONS: "Registry[Any]" = Registry(
    "operation",
    {
        "bias_attention": "unrolled.kernels.bias_attention:OPERATION",
        "causal_conv": "unrolled.kernels.causal_conv:OPERATION",
        "cell_loop": "unrolled.kernels.cell_loop:OPERATION",
        "diag_scan": "unrolled.kernels.diag_scan:OPERATION",
        "diag_scan_expanded": "unrolled.kernels.diag_scan_expanded:OPERATION",
        "fft_conv": "unrolled.kernels.fft_conv:OPERATION",
        "learner_scan": "unrolled.kernels.learner_scan:OPERATION",
        "linear": "unrolled.kernels.linear:OPERATION",
        "matrix_scan": "unrolled.kernels.matrix_scan:OPERATION",
        "rms_norm": "unrolled.kernels.rms_norm:OPERATION",
        "silu_gate": "unrolled.kernels.silu_gate:OPERATION",
        "rnnt_loss": "unrolled.kernels.rnnt_loss:OPERATION",
        "softmax_scan": "unrolled.kernels.softmax_scan:OPERATION",
        "softmax_loss": "unrolled.kernels.softmax_loss:OPERATION",
        "tree_loop": "unrolled.kernels.tree_loop:OPERATION",
        "trellis": "unrolled.kernels.trellis:OPERATION",
        "token_shift": "unrolled.kernels.token_shift:OPERATION",
    },
)
"""Rows are :class:`unrolled.kernels.dispatch.Operation`."""
