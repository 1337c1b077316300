"""CrossFrame: cross-frame attention that makes image diffusion models edit video.

Nothing is imported before it is needed: ComfyUI calls `comfy_entrypoint`, while
`crossframe.attention` and `crossframe.hosts.diffusers` do without ComfyUI.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from comfy_api.latest import ComfyExtension

__version__ = "0.1.0"

WEB_DIRECTORY = "./web"  # the nodes' help pages


async def comfy_entrypoint() -> "ComfyExtension":
    """Return the extension that registers the nodes; ComfyUI calls this when it loads a pack."""
    from comfy_api.latest import ComfyExtension

    from .nodes import NODES

    class CrossFrameExtension(ComfyExtension):
        async def get_node_list(self) -> list:
            return NODES

    return CrossFrameExtension()
