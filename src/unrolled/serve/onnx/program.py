"""A step as a program of real numbers: what depends on weights alone computed ahead, complex numbers as pairs.

ONNX has no complex numbers, and a state-space cell discretises its system anew in every call. Both are settled here,
for every cell alike: the operations that torch records are gone through one by one; those that read no input are
computed once, and the others are carried out on pairs (real part, imaginary part) wherever a value is complex.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx.node import map_arg
from torch.utils import _pytree as pytree

from unrolled.serve.onnx.pairs import Pair, on_pairs, paired

__all__ = ["RealProgram"]

# Operations that say something to the compiler and compute nothing.
_SILENT = ("_assert", "sym_constrain", "_guard")


class _Name(NamedTuple):
    """Of a buffer, in the place of its value."""

    name: str


class RealProgram(nn.Module):
    """A recorded program, as a module that can be recorded again.

    Args:
        program: of a module whose inputs and outputs are real tensors.
    """

    def __init__(self, program: ExportedProgram):
        super().__init__()
        self._values: dict[fx.Node, Any] = {}
        self._views: set[fx.Node] = set()
        self._forms: dict[fx.Node, Any] = {}
        self._names: dict[tuple[Any, ...], _Name] = {}
        self._inputs: list[fx.Node] = []
        self._nodes: list[fx.Node] = []
        self._results: Any = None
        kinds = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
        held: Mapping[str, Any] = {**program.state_dict, **program.constants}
        for node in program.graph_module.graph.nodes:
            if node.op == "placeholder":
                spec = kinds[node.name]
                if spec.kind == InputKind.USER_INPUT:
                    self._inputs.append(node)
                else:
                    self._values[node] = held[str(spec.target)].detach()
            elif node.op == "output":
                self._results = node.args[0]
            elif not any(word in str(node.target) for word in _SILENT):
                self._take(node)
        for node in (*self._nodes, *self._results):
            for one in (*node.all_input_nodes, node):
                if one in self._values:
                    self._keep(one)

    def _take(self, node: fx.Node) -> None:
        """Compute what depends on weights alone; keep the rest for :meth:`forward`."""
        if any(one not in self._values for one in node.all_input_nodes):
            self._nodes.append(node)
            return
        args, kwargs = map_arg((node.args, node.kwargs), self._values.__getitem__)
        value: Any = node.target(*args, **kwargs)  # type: ignore[operator]
        self._values[node] = value
        sources = [self._values[one] for one in node.all_input_nodes]
        if isinstance(value, Tensor) and any(_share(value, one) for one in sources):
            self._views.add(node)  # a view of weights stays one: the file has them once

    def _keep(self, node: fx.Node) -> None:
        """Make a value that was computed ahead part of this module, where it is not yet."""
        if node in self._forms:
            return
        value = self._values[node]
        if node in self._views and not value.is_complex():
            for one in node.all_input_nodes:
                self._keep(one)
            self._forms[node] = None
        else:
            self._forms[node] = pytree.tree_map_only(Tensor, self._held, value)

    def _held(self, value: Tensor) -> Any:
        if value.is_complex():
            return Pair(self._held(value.real.contiguous()), self._held(value.imag.contiguous()))  # type: ignore[arg-type]
        key = value.data_ptr(), value.dtype, tuple(value.shape), tuple(value.stride())
        if key not in self._names:
            self._names[key] = _Name(f"weight{len(self._names)}")
            self.register_buffer(self._names[key].name, value)
        return self._names[key]

    def _constant(self, node: fx.Node) -> Any:
        """A value that was computed ahead, as this module has it."""
        if self._forms[node] is None:
            args, kwargs = map_arg((node.args, node.kwargs), self._constant)
            return node.target(*args, **kwargs)  # type: ignore[operator]
        return _resolved(self._forms[node], self)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """As the module that was recorded."""
        found: dict[fx.Node, Any] = dict(zip(self._inputs, inputs, strict=True))

        def value(node: fx.Node) -> Any:
            return found[node] if node in found else self._constant(node)

        for node in self._nodes:
            args, kwargs = map_arg((node.args, node.kwargs), value)
            operation: Any = node.target
            special = paired(args, kwargs, operation)
            found[node] = on_pairs(operation, args, kwargs) if special else operation(*args, **kwargs)
        results: Sequence[fx.Node] = self._results
        return tuple(value(node) for node in results)


def _share(value: Tensor, other: Any) -> bool:
    return isinstance(other, Tensor) and value.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()


def _resolved(form: Any, module: nn.Module) -> Any:
    return pytree.tree_map_only(
        _Name, lambda one: getattr(module, one.name), form, is_leaf=lambda x: isinstance(x, _Name)
    )
