"""The choice whether the frames of a clip share their noise, which is the same in every host."""

FRAME_NOISE = ("same for every frame", "different per frame")
SAME, DIFFERENT = FRAME_NOISE
