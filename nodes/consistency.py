"""The node that measures how steady an edited video is."""

from comfy_api.latest import io, ui

from ..hosts.comfy.errors import named
from .common import CATEGORY


class CrossFrameConsistency(io.ComfyNode):
    """Edited and source IMAGE batches -> numbers, a plot and a heat map."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CrossFrameConsistency",
            display_name="Cross-Frame Consistency",
            category=CATEGORY,
            search_aliases=["flicker", "temporal consistency", "warp error", "measure flicker"],
            description=(
                "Measures flicker. It follows every point through the source video and looks how "
                "much its colour changes in the edited one. Lower is steadier, and 0 is perfect. "
                "Compare settings on the same source."
            ),
            inputs=[
                io.Image.Input("edited", tooltip="The edited video."),
                io.Image.Input(
                    "source",
                    tooltip="The video it was made from, with the same number of frames and the "
                    "same size. Motion is estimated here.",
                ),
                io.Int.Input(
                    "far",
                    default=8,
                    min=1,
                    max=1000,
                    tooltip="The largest distance in frames at which to compare. A shorter video "
                    "is compared as far as it goes. Errors that grow with distance are drift.",
                ),
            ],
            outputs=[
                io.Float.Output(
                    display_name="near",
                    tooltip="Warp error one frame apart, x 1000: flicker. nan means that nothing "
                    "could be compared; the report says why.",
                ),
                io.Float.Output(
                    display_name="far",
                    tooltip="Warp error `far` frames apart, x 1000: drift. nan means that nothing "
                    "could be compared.",
                ),
                io.String.Output(display_name="report", tooltip="The numbers for all distances."),
                io.Image.Output(display_name="plot", tooltip="Warp error over distance."),
                io.Image.Output(
                    display_name="heat_map",
                    tooltip="Where each frame differs from the next: hot spots flicker.",
                ),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, edited, source, far: int) -> io.NodeOutput:
        from ..hosts.comfy.consistency import consistency_report

        with named("CrossFrameConsistency"):
            report, plot, heat = consistency_report(edited, source, far)
        near, distant = 1000 * report.errors[1], 1000 * report.errors[max(report.errors)]
        return io.NodeOutput(near, distant, str(report), plot, heat, ui=ui.PreviewText(str(report)))


NODES = [CrossFrameConsistency]
