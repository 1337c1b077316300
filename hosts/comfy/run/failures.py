"""Explain errors during a sampling: they name the node, the input and what to do."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from ....attention import Run, StepMismatchError
from ..errors import BadInputError

CORE = Run.__module__.rpartition(".")[0]  # the package `attention`, whatever the pack's name is
# These packages are called by all others, so an error in them does not show whose fault it is.
_COMMON = ("torch", "comfy", "comfy_extras", "einops", "nodes", CORE.rpartition(".")[0])
# Words in torch's error texts about tensors of the wrong size.
_SIZES = ("size", "shape", "must match", "broadcast", "dimension")


@contextmanager
def explained(running: int = 0, clip: int = 0) -> Iterator[None]:
    """Explain errors of this pack's core, and wrong sizes in other nodes' patches.

    running: how many of the clip's frames the model is run on in this context; 0 if it is not run.
    clip: the number of the clip's frames. All other errors pass unchanged.
    """
    try:
        yield
    except BadInputError:
        raise
    except StepMismatchError as error:
        raise BadInputError(
            "sampler",
            f"it does not take the same steps for every frame: {error}.",
            "Choose another sampler, or use a stock sampler node with the same MODEL, where all "
            "frames share their steps.",
        ) from error
    except (RuntimeError, ValueError, IndexError, KeyError) as error:
        if "memory" in str(error).lower():
            raise
        if _module(_innermost(error.__traceback__)).startswith(CORE):
            raise _of_core(error) from error
        owner = _owner(error)
        sizes = any(word in str(error).lower() for word in _SIZES)
        if owner is not None and 0 < running < clip and sizes:
            raise _of_patch(error, running, clip, owner) from error
        raise


def _of_core(error: Exception) -> BadInputError:
    return BadInputError(
        "model",
        f"another node that patches the model changes which frames it is run on ({error}).",
        "Remove the nodes that patch the model, one after another, to find the one that does it.",
    )


def _of_patch(error: Exception, running: int, clip: int, owner: str) -> BadInputError:
    return BadInputError(
        "model",
        f"the model cannot be run on {running} of the {clip} frames: {owner} expects "
        f"other sizes, as if it held something for every frame of the clip ({error}).",
        f"Use a stock sampler node and set frames_per_batch to {clip}, so that the patch sees all "
        "frames at once, or remove the node that the patch belongs to.",
    )


def _owner(error: Exception) -> str | None:
    """Return the name of another pack's function that an error came from, or None."""
    owner = None
    traceback = error.__traceback__
    while traceback is not None:
        module = _module(traceback)
        if module and not any(module == n or module.startswith(f"{n}.") for n in _COMMON):
            code = traceback.tb_frame.f_code
            name = getattr(code, "co_qualname", code.co_name)  # Python 3.10 has no co_qualname
            owner = f"{name.split('.')[0]} ({module.split('.')[-1]})"
        traceback = traceback.tb_next
    return owner


def _innermost(traceback: TracebackType | None) -> TracebackType | None:
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback


def _module(traceback: TracebackType | None) -> str:
    return "" if traceback is None else traceback.tb_frame.f_globals.get("__name__", "")
