"""Errors in the middle of a sampling, in words: which node, which input, what to do."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from ....attention import Run, StepMismatchError
from ..errors import BadInputError

CORE = Run.__module__.rpartition(".")[0]  # the package `attention`, however the pack is called
# Whose code says nothing about who is to blame: it is called by everybody.
_COMMON = ("torch", "comfy", "comfy_extras", "einops", "nodes", CORE.rpartition(".")[0])
# Parts of what torch says if tensors have other sizes than they should have.
_SIZES = ("size", "shape", "must match", "broadcast", "dimension")


@contextmanager
def explained(running: int = 0, clip: int = 0) -> Iterator[None]:
    """Turn errors of this pack's core, and wrong sizes in other nodes' patches, into words.

    running: frames of the clip that the model is run on in here, of `clip`; 0 if it is not run.
    Everything else passes as it is.
    """
    try:
        yield
    except BadInputError:
        raise
    except StepMismatchError as error:
        raise BadInputError(
            "sampler",
            f"it does not take the same steps for every frame: {error}.",
            "Choose another sampler, or use a stock sampler node with the same MODEL: there all "
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
        "Remove the nodes that patch the model, one after the other, to find the one that does.",
    )


def _of_patch(error: Exception, running: int, clip: int, owner: str) -> BadInputError:
    return BadInputError(
        "model",
        f"the model cannot be run on {running} of the {clip} frames: {owner} expects "
        f"other sizes, as if it held something for every frame of the clip ({error}).",
        f"Use a stock sampler node and set frames_per_batch to {clip}, so that it sees all "
        "frames at once, or remove the node that it belongs to.",
    )


def _owner(error: Exception) -> str | None:
    """The function of another pack that the error came out of, if it came out of one."""
    owner = None
    traceback = error.__traceback__
    while traceback is not None:
        module = _module(traceback)
        if module and not any(module == n or module.startswith(f"{n}.") for n in _COMMON):
            code = traceback.tb_frame.f_code
            name = getattr(code, "co_qualname", code.co_name)  # which Python 3.10 does not have
            owner = f"{name.split('.')[0]} ({module.split('.')[-1]})"
        traceback = traceback.tb_next
    return owner


def _innermost(traceback: TracebackType | None) -> TracebackType | None:
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback


def _module(traceback: TracebackType | None) -> str:
    return "" if traceback is None else traceback.tb_frame.f_globals.get("__name__", "")
