"""A video and pictures as a user may bring them."""

from pathlib import Path

FRAMES, FPS = 8, 12
SIZE = (130, 94)  # width and height as a camera may give them
SECONDS = FRAMES / FPS
SAMPLE_RATE = 44100


def write_video(path: Path) -> None:
    """A square and a bar on a striped ground, moving apart, with a tone."""
    import av
    import numpy as np

    width, height = SIZE
    y, x = np.mgrid[:height, :width]
    with av.open(str(path), "w") as container:
        video = container.add_stream("h264", rate=FPS)
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        audio = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        for i in range(FRAMES):
            image = np.stack([(x * 5) % 256, (y * 7) % 256, (x + y) % 256], -1).astype(np.uint8)
            image[20:50, 10 + 6 * i : 40 + 6 * i] = (230, 40, 40)
            image[60 - 3 * i : 66 - 3 * i] = (20, 200, 240)
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(video.encode())
        times = np.arange(round(SECONDS * SAMPLE_RATE)) / SAMPLE_RATE
        tone = 0.3 * np.sin(2 * np.pi * 440 * times, dtype=np.float32)[None]
        samples = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
        samples.sample_rate = SAMPLE_RATE
        container.mux(audio.encode(samples))
        container.mux(audio.encode())


def write_picture(path: Path, color: tuple[int, int, int]) -> None:
    """A picture of one colour, RGB in 0..255."""
    from PIL import Image

    Image.new("RGB", SIZE, color).save(path)
