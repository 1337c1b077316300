"""The diffusers host: cross-frame attention for any U-Net pipeline, and a pipeline for clips."""

from .attention import Clip, cross_frame_attention
from .video import CrossFrameVideoOutput, CrossFrameVideoPipeline

__all__ = ["Clip", "CrossFrameVideoOutput", "CrossFrameVideoPipeline", "cross_frame_attention"]
