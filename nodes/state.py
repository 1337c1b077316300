"""The nodes that keep a state in a file."""

from pathlib import Path

import folder_paths
from comfy_api.latest import io

from ..hosts.comfy.errors import BadInputError, named
from ..hosts.comfy.page.graph import show
from ..hosts.comfy.state.files import load_state, save_state
from ..hosts.comfy.state.search import check_file, state_files
from .common import CATEGORY, StateType


class CrossFrameSaveState(io.ComfyNode):
    """CROSS_FRAME_STATE -> a file in the output folder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CrossFrameSaveState",
            display_name="Cross-Frame Save State",
            category=CATEGORY,
            search_aliases=["save look", "save reference", "long video"],
            description=(
                "Writes what a sampler's frames have left to a file, so that more frames can be "
                "painted to match them: tomorrow, or on another machine."
            ),
            inputs=[
                StateType.Input("state", tooltip="From a CrossFrame sampler."),
                io.String.Input(
                    "filename_prefix",
                    default="crossframe/state",
                    tooltip="What the name of the file in the output folder begins with.",
                ),
            ],
            outputs=[],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, state, filename_prefix: str) -> io.NodeOutput:
        with named("CrossFrameSaveState"):
            file, subfolder = save_state(state, filename_prefix)
        show(cls, f"{state!r}\n{file.name}")
        saved = {"filename": file.name, "subfolder": subfolder, "type": "output"}
        return io.NodeOutput(ui={"states": [saved], "text": [repr(state)]})


class CrossFrameLoadState(io.ComfyNode):
    """A file -> CROSS_FRAME_STATE."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CrossFrameLoadState",
            display_name="Cross-Frame Load State",
            category=CATEGORY,
            search_aliases=["load look", "load reference", "long video"],
            description="Reads a file that Cross-Frame Save State has written.",
            inputs=[
                io.Combo.Input(
                    "file",
                    options=state_files(),
                    tooltip="A state in ComfyUI's input or output folder.",
                )
            ],
            outputs=[
                StateType.Output(
                    display_name="state",
                    tooltip="For a CrossFrame sampler, or for Cross-Frame Attention.",
                )
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, file: str | None) -> bool | str:
        """Takes the place of ComfyUI's own check, which knows no file newer than the page's list.

        file: None if it comes out of another node, which has not run yet.
        """
        try:
            with named("CrossFrameLoadState"):
                if file is not None:
                    check_file(file)
        except BadInputError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, file: str):
        """Runs again if the file is another one than before."""
        found = Path(folder_paths.get_annotated_filepath(file)).stat()
        return [found.st_mtime_ns, found.st_size]

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        with named("CrossFrameLoadState"):
            check_file(file)
            state = load_state(file)
        show(cls, repr(state))
        return io.NodeOutput(state)


NODES = [CrossFrameSaveState, CrossFrameLoadState]
