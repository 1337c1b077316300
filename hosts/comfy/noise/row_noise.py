"""Draw random numbers for each frame by itself, no matter which code draws them.

Samplers, guidance functions and models draw noise for a whole batch at once, so a frame's noise
depends on how many frames are run with it. While the mode of this file is active, a draw that has
one row per frame is made row by row. What a frame gets then depends on the seed, on the frame's
number and on earlier draws, but neither on the order of work nor on the batch.

Draw number 0 is made by the generator that was asked, so it equals what ComfyUI draws for a batch
of one frame. Every other draw has its own generator on the CPU. Its seed comes from the state of
the generator that was asked and from the draw's number.
"""

import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

# Fills an empty tensor with random numbers from a generator, in place.
Fill = Callable[[Tensor, torch.Generator], Tensor]


class RowNoise(TorchFunctionMode):
    """While this mode is active, noise with one row per frame is drawn row by row.

    It is paused in calls of the model, so that these do not become slower.
    """

    def __init__(
        self, draws: Callable[[], Sequence[int]], shape: Sequence[int], seed: int | None
    ) -> None:
        """draws: returns the draw number of each row; rows with equal numbers get equal noise.

        It is called at the first draw, because finding the numbers can take time. shape: the shape
        of the latent, (rows, channels, height, width) or with more dimensions. seed: the seed of
        the sampling, from which torch's own generator starts; None leaves that generator as it is.
        """
        super().__init__()
        self._find_draws = draws
        self.shape = tuple(shape)
        self.seed = seed
        # It gets a torch function, its positional and its named arguments; see `watching`.
        self._watch: Callable[[Callable, tuple, dict], None] | None = None

    @functools.cached_property
    def draws(self) -> tuple[int, ...]:
        """The draw number of each row."""
        with self.paused():
            return tuple(self._find_draws())

    def __torch_function__(self, function, types, args=(), kwargs=None):
        """Make a draw row by row if it has one row per frame; leave all other calls unchanged."""
        kwargs = kwargs or {}
        if self._watch is not None:
            self._watch(function, args, kwargs)
        drawn = _DRAWS[function](self, *args, **kwargs) if function in _DRAWS else None
        return function(*args, **kwargs) if drawn is None else drawn

    @contextmanager
    def active(self) -> Iterator[None]:
        """Draw row by row, with torch's generators started from the seed and restored afterwards.

        They start in the state that they have in ComfyUI after it has drawn one frame's noise.
        """
        if self.seed is None:
            with self:
                yield
            return
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(self.seed)
            torch.randn(self.shape[1:])
            with self:
                yield

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Run everything in this context as if the mode were not there."""
        on_top = torch.overrides._get_current_function_mode() is self
        if not on_top:  # it is not active, or another mode was put on top and must stay
            yield
            return
        self.__exit__(None, None, None)
        try:
            yield
        finally:
            self.__enter__()

    @contextmanager
    def watching(self, watch: Callable[[Callable, tuple, dict], None] | None) -> Iterator[None]:
        """Pass every call of a torch function to `watch`, which may raise an error.

        None means that nothing is watched.
        """
        before, self._watch = self._watch, watch
        try:
            yield
        finally:
            self._watch = before

    def draw(self, shape, dtype, device, generator: torch.Generator | None, fill: Fill):
        """Draw each row by itself.

        Returns a tensor of `shape`, or None if such a draw does not have one row per frame, which
        means as many dimensions and as many rows as the latent.
        """
        shape = tuple(shape)
        if len(shape) != len(self.shape) or shape[0] != self.shape[0]:
            return None
        row = (1, *shape[1:])
        generator = generator or torch.default_generator
        state = generator.get_state()
        # This is always drawn, so that the generator continues in the same state for all frames.
        first = fill(torch.empty(row, dtype=dtype, device=generator.device), generator)
        made = {0: first}
        for number in set(self.draws) - {0}:
            own = torch.Generator().manual_seed(_seed_from(state, number))
            made[number] = fill(torch.empty(row, dtype=dtype), own)
        return torch.cat([made[number].to(device) for number in self.draws])


def _seed_from(state: Tensor, number: int) -> int:
    """Return a seed for a draw, made from the state of the generator that was asked."""
    digest = hashlib.blake2b(state.numpy().tobytes(), digest_size=8)
    digest.update(number.to_bytes(8, "little"))
    return int.from_bytes(digest.digest(), "little") >> 1  # seeds are signed 64-bit numbers


def _normal(tensor: Tensor, generator: torch.Generator) -> Tensor:
    return tensor.normal_(generator=generator)


def _uniform(tensor: Tensor, generator: torch.Generator) -> Tensor:
    return tensor.uniform_(generator=generator)


def _new(fill: Fill) -> Callable:
    """Return a replacement of torch.randn or torch.rand."""

    def draw(mode: RowNoise, *size, generator=None, dtype=None, device=None, **kwargs):
        if kwargs.get("out") is not None:
            return None
        size = kwargs.get("size", size)
        shape = size[0] if len(size) == 1 and not isinstance(size[0], int) else size
        dtype = dtype or torch.get_default_dtype()
        return mode.draw(shape, dtype, device or torch.get_default_device(), generator, fill)

    return draw


def _like(fill: Fill) -> Callable:
    """Return a replacement of torch.randn_like or torch.rand_like."""

    def draw(mode: RowNoise, like: Tensor, *, generator=None, dtype=None, device=None, **kwargs):
        return mode.draw(like.shape, dtype or like.dtype, device or like.device, generator, fill)

    return draw


def _in_place(name: str) -> Callable:
    """Return a replacement of Tensor.normal_ or Tensor.uniform_."""

    def draw(mode: RowNoise, tensor: Tensor, *args, generator=None, **kwargs):
        def fill(empty: Tensor, own: torch.Generator) -> Tensor:
            return getattr(empty, name)(*args, generator=own, **kwargs)

        drawn = mode.draw(tensor.shape, tensor.dtype, tensor.device, generator, fill)
        return None if drawn is None else tensor.copy_(drawn)

    return draw


def _of_mean_and_deviation(mode: RowNoise, mean, std=1.0, size=None, *, generator=None, **kwargs):
    """Replace torch.normal, both for numbers with a size and for tensors."""
    if kwargs.get("out") is not None:
        return None
    tensors = [value for value in (mean, std) if isinstance(value, Tensor)]
    if tensors:
        shape = torch.broadcast_shapes(*(tensor.shape for tensor in tensors))
        dtype, device = tensors[0].dtype, tensors[0].device
    else:
        shape = size
        dtype = kwargs.get("dtype") or torch.get_default_dtype()
        device = kwargs.get("device") or torch.get_default_device()
    drawn = mode.draw(shape, dtype, device, generator, _normal)
    return None if drawn is None else drawn * std + mean


_DRAWS: dict[Callable, Callable] = {
    torch.randn: _new(_normal),
    torch.rand: _new(_uniform),
    torch.randn_like: _like(_normal),
    torch.rand_like: _like(_uniform),
    torch.normal: _of_mean_and_deviation,
    Tensor.normal_: _in_place("normal_"),
    Tensor.uniform_: _in_place("uniform_"),
}
