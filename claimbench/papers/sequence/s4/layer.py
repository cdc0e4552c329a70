"""The S4 layer: H state-space models as one long convolution, the same as a recurrence, then a gated linear map.

Gu, Goel, Ré 2021, arXiv 2111.00396, Section 3.4. Any kernel that offers `kernel(length)` and a `step` may take the
place of the paper's (`SequenceKernel`), so that one's own parameterisation runs in the same layer and claims.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn

from claimbench.papers.sequence.s4.hippo import INITIALISATIONS, Initialisation
from claimbench.papers.sequence.s4.kernel import (
    Recurrence,
    advance,
    double,
    dplr_kernel,
    recurrence,
    transition,
    truncate,
    untruncate,
)


class State(NamedTuple):
    """Where a recurrence stands: the model discretised once, and its hidden state."""

    model: Recurrence
    hidden: Complex[Tensor, "batch heads n"]


@runtime_checkable
class SequenceKernel(Protocol):
    """What S4 needs of a kernel over `features` channels. Implement it (as an nn.Module) to bring your own."""

    def kernel(self, length: int) -> Float[Tensor, "features length"]:
        """K[l] for l < length: the response to an impulse, l steps later."""

    def init_state(self, batch: int) -> Any:
        """The state before the first token."""

    def step(
        self, u: Float[Tensor, "batch features"], state: Any
    ) -> tuple[Float[Tensor, "batch features"], Any]:
        """One token: the same numbers as the convolution with `kernel` gives at that position."""

    def state_bytes(self, batch: int = 1, length: int = 0) -> int:
        """How much a state holds between tokens."""


class DPLR(nn.Module):
    """The paper's kernel with its parameters: Λ, p, B, C̃, Δ for each of `features` heads.

    log(−Re Λ) is stored, so that every model is stable whatever the optimiser does, and q = p (Goel et al. 2022,
    arXiv 2202.09729; the paper's first version had neither). C̃ = C (I − Ā^length) is learned directly: sequences may be
    shorter than `length`; for longer ones call `extend`. state_size is N; N/2 complex numbers are held.

    initialisation: a name in INITIALISATIONS or a function (N, generator) -> HalfSSM. Δ is log-uniform in step_range;
    C is complex Gaussian. dynamic parameters (`dynamics()`) want a small learning rate and no weight decay.
    """

    def __init__(
        self,
        features: int,
        *,
        length: int,
        state_size: int = 64,
        initialisation: str | Initialisation = "hippo",
        step_range: tuple[float, float] = (0.001, 0.1),
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if length < 1:
            raise ValueError(f"length must be at least 1, not {length}")
        if isinstance(initialisation, str):
            if initialisation not in INITIALISATIONS:
                raise ValueError(f'no initialisation "{initialisation}"; known: {", ".join(INITIALISATIONS)}')
            initialisation = INITIALISATIONS[initialisation]
        self.features, self.state_size, self.length = features, state_size, length
        half = initialisation(state_size, generator)
        low, high = (math.log(bound) for bound in step_range)
        log_step = low + (high - low) * torch.rand(features, generator=generator, dtype=torch.float64)
        c = torch.randn(features, state_size // 2, dtype=torch.complex128, generator=generator)
        lam, p, b = (part.to(c.dtype).expand(features, -1) for part in half)
        diagonal = not bool(p.any())
        truncated = truncate(lam, None if diagonal else p, c, log_step.exp(), length)
        self.log_step = nn.Parameter(log_step.to(torch.get_default_dtype()))
        self.log_decay = nn.Parameter(torch.log(-lam.real).to(torch.get_default_dtype()))
        self.frequency = nn.Parameter(lam.imag.to(torch.get_default_dtype()))
        self.low_rank = None if diagonal else nn.Parameter(_real_view(p))
        self.inputs = nn.Parameter(_real_view(b))
        self.truncated = nn.Parameter(_real_view(truncated))

    def dynamics(self) -> list[nn.Parameter]:
        """Λ, p, B and Δ: what the paper trains at a learning rate of at most 1e-3 and without weight decay."""
        shared = [self.log_step, self.log_decay, self.frequency, self.inputs]
        return shared if self.low_rank is None else [*shared, self.low_rank]

    def _model(self) -> tuple[Tensor, Tensor | None, Tensor, Tensor, Tensor]:
        """Λ, p, B, C̃, Δ."""
        low_rank = None if self.low_rank is None else torch.view_as_complex(self.low_rank)
        return (
            torch.complex(-self.log_decay.exp(), self.frequency),
            low_rank,
            torch.view_as_complex(self.inputs),
            torch.view_as_complex(self.truncated),
            self.log_step.exp(),
        )

    def kernel(self, length: int) -> Float[Tensor, "features length"]:
        """K[l] for l < length. Raises ValueError beyond the length that C̃ was truncated for."""
        if length > self.length:
            raise ValueError(
                f"length {length} exceeds this kernel's {self.length}; call extend({length}) first"
            )
        return dplr_kernel(*self._model(), self.length)[:, :length]

    @torch.no_grad()
    def extend(self, length: int) -> None:
        """Make room for longer sequences: C̃ ← C̃ (I + Ā^L) doubles L and leaves the kernel's first L values alone."""
        while self.length < length:
            lam, p, _, truncated, step = self._model()
            self.truncated.copy_(torch.view_as_real(double(lam, p, truncated, step, self.length)))
            self.length *= 2

    @torch.no_grad()
    def init_state(self, batch: int) -> State:
        """Zero state, with the recurrence worked out once from the parameters as they are."""
        lam, p, b, truncated, step = self._model()
        model = recurrence(lam, p, b, untruncate(lam, p, truncated, step, self.length), step)
        return State(model, torch.zeros(batch, *lam.shape, dtype=lam.dtype, device=lam.device))

    def step(
        self, u: Float[Tensor, "batch features"], state: State
    ) -> tuple[Float[Tensor, "batch features"], State]:
        """One token in O(features·N)."""
        y, hidden = advance(state.model, u, state.hidden)
        return y, State(state.model, hidden)

    def state_bytes(self, batch: int = 1, length: int = 0) -> int:
        """The hidden state alone; parameters do not grow with the batch or the context."""
        return batch * self.features * self.state_size * self.log_step.element_size()

    @torch.no_grad()
    def spectral_radius(self) -> Float[Tensor, " features"]:
        """Largest |eigenvalue| of Ā by head: below 1 for every setting of the parameters."""
        lam, p, b, _, step = self._model()
        return torch.linalg.eigvals(transition(recurrence(lam, p, b, b, step))).abs().amax(-1)


class S4(nn.Module):
    """[batch, length, features] -> [batch, length, features]: convolution + D·u, GELU, linear to 2H with GLU, dropout.

    forward is for whole sequences by FFT, padded to at least 2·length so that it is causal; step is for one token and
    gives the same numbers. bidirectional adds a second kernel that looks ahead (and has no step).
    kernel: any SequenceKernel over `features` channels; by default the paper's, made from the keywords of `DPLR`.
    """

    def __init__(
        self,
        features: int,
        *,
        length: int | None = None,
        kernel: SequenceKernel | None = None,
        bidirectional: bool = False,
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        if (kernel is None) == (length is None):
            raise ValueError(
                "give either length=... for the paper's kernel or kernel=... for one of your own"
            )
        if kernel is not None and (options or bidirectional):
            raise ValueError("options of the paper's kernel do not go with kernel=...")

        def build() -> DPLR:
            return DPLR(features, length=length or 0, generator=generator, **options)

        self.convolution: Any = kernel if kernel is not None else build()
        self.reversed: Any = build() if bidirectional else None
        self.skip = nn.Parameter(torch.randn(features, generator=generator))
        self.mix = nn.Linear(features, 2 * features)
        self.dropout = nn.Dropout(dropout)

    def forward(self, u: Float[Tensor, "batch length features"]) -> Float[Tensor, "batch length features"]:
        """The whole sequence at once."""
        length = u.shape[1]
        kernel = self.convolution.kernel(length)
        size = fft_size(2 * length)
        if self.reversed is not None:
            ahead = self.reversed.kernel(length)  # ahead[:, s] is the response to the token s + 1 steps later
            kernel = nn.functional.pad(kernel, (0, size - length)) + nn.functional.pad(
                ahead.flip(-1), (size - length, 0)
            )
        y = convolve(u.transpose(1, 2), kernel, size).transpose(1, 2).contiguous()
        return self._mix(y + self.skip * u)

    def _mix(self, y: Tensor) -> Tensor:
        mixed: Tensor = self.dropout(nn.functional.glu(self.mix(nn.functional.gelu(y)), dim=-1))
        return mixed

    def init_state(self, batch: int) -> Any:
        """The state before the first token. Raises ValueError for a bidirectional layer, which has none."""
        if self.reversed is not None:
            raise ValueError("a bidirectional layer sees the future, so it cannot run token by token")
        return self.convolution.init_state(batch)

    def step(
        self, u: Float[Tensor, "batch features"], state: Any
    ) -> tuple[Float[Tensor, "batch features"], Any]:
        """One token and the next state."""
        y, state = self.convolution.step(u, state)
        return self._mix(y + self.skip * u), state

    def state_bytes(self, batch: int = 1, length: int = 0) -> int:
        """Bytes held between tokens; the same at every position."""
        return int(self.convolution.state_bytes(batch, length))


def convolve(
    u: Float[Tensor, "batch features length"], kernel: Float[Tensor, "features taps"], size: int
) -> Float[Tensor, "batch features length"]:
    """Convolution along the last axis, circular with period `size`: causal if size >= length + taps - 1. Cut to u.

    Its gradient takes three real transforms; torch's own, through `rfft`, takes complex ones of full size.
    """
    result: Tensor = _Convolution.apply(u, kernel, size)
    return result


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, kernel: Tensor, size: int) -> Tensor:
        inputs, response = torch.fft.rfft(u, n=size), torch.fft.rfft(kernel, n=size)
        ctx.save_for_backward(inputs, response)
        ctx.size, ctx.length, ctx.taps = size, u.shape[-1], kernel.shape[-1]
        return torch.fft.irfft(inputs * response, n=size)[..., : u.shape[-1]]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        inputs, response = ctx.saved_tensors
        spectrum = torch.fft.rfft(grad, n=ctx.size)
        to_u = to_kernel = None
        if ctx.needs_input_grad[0]:
            to_u = torch.fft.irfft(spectrum * response.conj(), n=ctx.size)[..., : ctx.length]
        if ctx.needs_input_grad[1]:
            correlation = torch.einsum("bhf,bhf->hf", spectrum, inputs.conj())
            to_kernel = torch.fft.irfft(correlation, n=ctx.size)[..., : ctx.taps]
        return to_u, to_kernel, None


def fft_size(least: int) -> int:
    """The smallest size of at least `least` with factors 2, 3 and 5 only."""
    from scipy.fft import next_fast_len

    return int(next_fast_len(least, real=True))


def _real_view(values: Tensor) -> Tensor:
    """Complex to real [..., 2] in the default precision: what optimisers and safetensors both hold."""
    return torch.view_as_real(values.resolve_conj().contiguous()).to(torch.get_default_dtype()).clone()
