"""Cells whose recurrent matrix depends on the input: second-order terms of input and state."""
