"""Floating-point operations of a function, counted from the shapes of the torch operations that it
dispatches.

After torch's own counter (`torch.utils.flop_counter`, H. He 2022), with three differences: work outside
matrix products is counted too (a scan is all of a state-space model's work); complex arithmetic is counted in
real operations; and an operation that nobody has given a formula makes the count incomplete instead of free.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from claimbench.errors import UserError

if TYPE_CHECKING:
    from torch.overrides import TorchFunctionMode
    from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["Count", "count", "declared", "formula"]

Formula = Callable[..., int]
F = TypeVar("F", bound=Formula)


@dataclass(frozen=True)
class Count:
    """FLOPs of one call. `by_op` splits them by operation; `missing` names what had no formula, so that they
    are too few."""

    flops: int
    missing: tuple[str, ...] = ()
    by_op: dict[str, int] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether every operation seen was counted; no rule may use an incomplete count."""
        return not self.missing


given: dict[str, Formula] = {}


def formula(operation: str) -> Callable[[F], F]:
    """Give an operation its FLOPs: `@formula("aten::cumsum")` above `def scan(out, self, dim, **options) ->
    int`.

    operation: the dispatcher's name, "namespace::name", for all its overloads. The function is called with
    the operation's output first, then the arguments of the call, and returns real floating-point operations.
    Raises UserError if the operation has a formula already (another one would change other papers' counts).
    """
    if operation.count("::") != 1:
        raise UserError(
            f'formula("{operation}"): name the operation as "namespace::name", for example "aten::cumsum"'
        )

    def register(function: F) -> F:
        known = _formulas().get(operation)
        if known is not None and _origin(known) != _origin(function):
            raise UserError(
                f'formula("{operation}"): this operation has a formula already, in {known.__module__}'
            )
        given[operation] = function
        return function

    return register


def _origin(function: Formula) -> tuple[str, str]:
    return function.__module__, function.__qualname__


def _formulas() -> dict[str, Formula]:
    from claimbench.meters.linear_algebra import FORMULAS

    return {**FORMULAS, **given}


@dataclass(eq=False)
class Tally:
    """What a count has seen so far."""

    by_op: Counter[str] = field(default_factory=Counter)
    missing: dict[str, None] = field(default_factory=dict)  # in the order seen
    operations: int = 0
    declared: int = 0  # how many `declared` blocks are open

    def add(self, name: str, flops: int) -> None:
        if flops:
            self.by_op[name] += flops


_tallies: list[Tally] = []


@contextmanager
def declared(name: str, flops: int) -> Iterator[None]:
    """State the FLOPs of a block that torch does not dispatch (a Triton kernel launched by hand, NumPy, C++).

    Inside `count`, the block's own torch operations are not counted again; outside, it does nothing.
    """
    for tally in _tallies:
        if not tally.declared:
            tally.operations += 1
            tally.add(name, int(flops))
        tally.declared += 1
    try:
        yield
    finally:
        for tally in _tallies:
            tally.declared -= 1


def count(function: Callable[[], Any]) -> Count:
    """Run `function()` once, untimed, and count the real floating-point operations that it dispatches to
    torch.

    A backward pass inside the function is counted. Conventions (docs/meters.md): 2mnk for a matrix product;
    one for each addition, multiplication, division or elementary function of an element; 5 N log2 N for a
    complex FFT. Torch operations without a formula, and tensors handed to code outside torch, stand in
    `missing`.
    """
    import sys

    tally = Tally()
    with ExitStack() as stack:
        if (
            "torch._dynamo" in sys.modules
        ):  # compiled kernels are not dispatched: run what they were compiled from
            import torch

            stack.enter_context(torch.compiler.set_stance("force_eager"))
        _tallies.append(tally)
        stack.callback(_tallies.remove, tally)
        exits, operations = _modes(tally)
        stack.enter_context(exits)
        stack.enter_context(operations)
        function()
    missing = tuple(tally.missing)
    if not tally.operations:
        missing = ("nothing that torch dispatches",)
    return Count(flops=sum(tally.by_op.values()), missing=missing, by_op=dict(tally.by_op.most_common()))


def _modes(tally: Tally) -> tuple[TorchFunctionMode, TorchDispatchMode]:
    import torch
    from torch.overrides import TorchFunctionMode
    from torch.utils._python_dispatch import TorchDispatchMode

    from claimbench.meters.elementwise import cost, described

    formulas = _formulas()
    leaves = {
        torch.Tensor.numpy: "Tensor.numpy",
        torch.Tensor.__array__: "Tensor.__array__",
        torch.Tensor.__dlpack__: "Tensor.__dlpack__",
        torch.Tensor.data_ptr: "Tensor.data_ptr",
    }

    class Exits(TorchFunctionMode):
        """Tensors whose memory is handed to code outside torch, which may compute there unseen."""

        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            try:
                name = leaves.get(func)
            except TypeError:  # not hashable, hence none of ours
                name = None
            if name is not None and not tally.declared:
                tally.missing[f"{name} (leaves torch)"] = None
            return func(*args, **(kwargs or {}))

    class Operations(TorchDispatchMode):
        supports_higher_order_operators = True

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            tally.operations += 1
            if isinstance(func, torch._ops.HigherOrderOperator):
                if not tally.declared:
                    tally.missing[func.name()] = None
                return func(*args, **kwargs)
            name = func._schema.name
            if name not in formulas and described(func).composite:  # not taken apart yet in inference mode
                with self:
                    result = func.decompose(*args, **kwargs)
                if result is not NotImplemented:
                    return result
            out = func(*args, **kwargs)
            if not tally.declared:
                flops = cost(func, formulas, out, args, kwargs)
                if flops is None:
                    tally.missing[name] = None
                else:
                    tally.add(name, flops)
            return out

    return Exits(), Operations()
