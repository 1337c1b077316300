"""Whether the frames of a clip share their noise; the same choice in every host."""

FRAME_NOISE = ("same for every frame", "different per frame")
SAME, DIFFERENT = FRAME_NOISE
