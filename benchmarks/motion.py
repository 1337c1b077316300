"""Compare estimators of motion: on clips whose exact motion is known, and on real ones.

The clips are those of the small world, photos that move over each other, and previews of videos
that come with ComfyUI's templates, of which only the way forth and back can be checked.

    python tools/module.py benchmarks.motion --output build/motion

OpenCV's estimators are compared if it is installed. It is no requirement of the pack.
"""

import argparse
import importlib.util
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from ..demo import world
from ..demo.exact_motion import ExactMotion
from ..motion import BuiltIn, EstimatedMotion, Estimator, PairMotion, shrunk_to
from ..motion.variational import coarse_to_fine, refined, resized
from .consistency import random_clips, table
from .moving_photos import MovingPhotos

LAGS = (1, 3, 6)
WRONG = 1 / 32  # of the longer side: 2 pixels of 64, 16 of 512
PREVIEWS = (
    "video_wan2_2_14B_t2v-1",
    "video_wanmove_480p-1",
    "video_wan2.1_fun_camera_v1.1_14B-1",
    "image_to_video_wan-1",
)
PREVIEW_FRAMES = 8


@dataclass(frozen=True)
class Single:
    """An estimator of one flow between two pictures, applied both ways.

    flow: takes two pictures, (3, h, w), and returns the flow, (2, h, w). chain: whether frames that
    lie apart are compared by going from frame to frame.
    """

    flow: Callable[[Tensor, Tensor], Tensor]
    name: str
    chain: bool = False
    longest_side: int = 256

    def __call__(self, pictures: Tensor, chained: Tensor | None) -> Tensor:
        """Return the flows. See `motion.Estimator`."""
        if self.chain and chained is not None:
            return chained
        one, other = pictures
        return torch.stack((self.flow(one, other), self.flow(other, one)))


def tv_l1(here: Tensor, there: Tensor) -> Tensor:
    from skimage.registration import optical_flow_tvl1

    pair = [picture.mean(dim=0).double().numpy() for picture in (here, there)]
    return _xy(optical_flow_tvl1(*pair, dtype=pair[0].dtype))


def ilk(here: Tensor, there: Tensor) -> Tensor:
    from skimage.registration import optical_flow_ilk

    pair = [picture.mean(dim=0).double().numpy() for picture in (here, there)]
    return _xy(optical_flow_ilk(*pair, dtype=pair[0].dtype))


def _xy(down_right: np.ndarray) -> Tensor:
    return torch.from_numpy(down_right[::-1].copy()).float()


def dis(here: Tensor, there: Tensor) -> Tensor:
    """OpenCV's dense inverse search. It needs larger pictures than those of the small world."""
    import cv2

    size, times = here.shape[-2:], max(1, round(256 / max(here.shape[-2:])))
    pair = [_bytes(picture, times) for picture in (here, there)]
    found = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(*pair, None)
    return resized(torch.from_numpy(found).permute(2, 0, 1)[None], tuple(size))[0]


def farneback(here: Tensor, there: Tensor) -> Tensor:
    import cv2

    pair = [_bytes(picture, 1) for picture in (here, there)]
    found = cv2.calcOpticalFlowFarneback(*pair, None, 0.5, 5, 11, 5, 5, 1.1, 0)
    return torch.from_numpy(found).permute(2, 0, 1)


def _bytes(picture: Tensor, times: int) -> np.ndarray:
    grey = picture.mean(dim=0)[None, None]
    larger = torch.nn.functional.interpolate(grey, scale_factor=times, mode="bilinear")
    return (larger[0, 0] * 255).round().byte().numpy()


@dataclass(frozen=True)
class Chosen:
    """The built-in estimator without some of its parts, to see what each is good for."""

    name: str
    chain: bool = True
    choose: bool = True
    longest_side: int = 128

    def __call__(self, pictures: Tensor, chained: Tensor | None) -> Tensor:
        """Return the flows. See `motion.Estimator`."""
        if not self.choose:
            start = chained if self.chain and chained is not None else coarse_to_fine(pictures)
            return refined(pictures, start)
        return BuiltIn()(pictures, chained if self.chain else None)


class ScikitTVL1(Single):
    """TV-L1 of scikit-image, from frame to frame."""

    def __init__(self) -> None:
        super().__init__(tv_l1, "scikit-image TV-L1, chained", chain=True)


def estimators() -> Iterator[Estimator]:
    """Yield all estimators that can be tried here."""
    yield BuiltIn()
    yield Chosen("built in, without the way from frame to frame", chain=False)
    yield Chosen("built in, without a choice: the way from frame to frame, refined", choose=False)
    for flow, name in ((tv_l1, "scikit-image TV-L1"), (ilk, "scikit-image ILK")):
        yield Single(flow, name)
        yield Single(flow, f"{name}, chained", chain=True)
    if importlib.util.find_spec("cv2"):
        for flow, name, side in ((dis, "OpenCV DIS", 512), (farneback, "OpenCV Farneback", 256)):
            yield Single(flow, name, longest_side=side)
            yield Single(flow, f"{name}, chained", chain=True, longest_side=side)


@dataclass(frozen=True)
class Matches:
    """Nearest hidden states of the demo model's first attention level, both ways (TokenFlow).

    It is a motion of its own kind: the states depend on a frame alone.
    """

    states: Tensor  # (frames, tokens, channels)
    name: str = "hidden states of the demo model"

    @classmethod
    def of(cls, pipeline: object, frames: Tensor, time: int = 300) -> "Matches":
        """Return the states of frames with the noise of a time, all with the same noise."""
        kept: list[Tensor] = []
        attention = next(
            module for name, module in pipeline.unet.named_modules() if name.endswith("attn1")
        )
        handle = attention.register_forward_pre_hook(
            lambda _, args, kwargs: kept.append(args[0] if args else kwargs["hidden_states"]),
            with_kwargs=True,
        )
        with torch.inference_mode():
            latents = pipeline.vae.encode(2 * frames - 1).latent_dist.mean
            latents = latents * pipeline.vae.config.scaling_factor
            noise = torch.randn(latents[:1].shape, generator=torch.Generator().manual_seed(0))
            noise = noise.expand_as(latents)
            noisy = pipeline.scheduler.add_noise(latents, noise, torch.tensor(time))
            text = pipeline.encode_prompt("a drawing", "cpu", 1, False)[0]
            pipeline.unet(noisy, time, text.expand(len(frames), -1, -1))
        handle.remove()
        return cls(kept[0])

    def between(self, frame: int, other: int) -> PairMotion:
        """Return where each token lies in another frame; trusted if it is found again, +- 1."""
        here, there = torch.nn.functional.normalize(self.states[[frame, other]], dim=-1)
        likeness = here @ there.T
        forth, back = likeness.argmax(dim=1), likeness.argmax(dim=0)
        side = math.isqrt(len(forth))
        places = torch.stack((forth % side, forth // side), dim=-1) + 0.5
        start = torch.arange(len(forth))
        returned = back[forth]
        right = (returned % side - start % side).abs()
        down = (returned // side - start // side).abs()
        near = torch.maximum(right, down) <= 1
        return PairMotion(places.reshape(side, side, 2), near.float().reshape(side, side))


@dataclass(frozen=True)
class Score:
    """How good a motion is between two frames.

    off: the median error where it is trusted, off_visible: the same of all that is visible, in
    units of 1/512 of the longer side. found: the share of visible pixels that is trusted. wrong:
    the share of trusted pixels that are hidden in the other frame or lie elsewhere, by more than
    WRONG.
    """

    off: float
    off_visible: float
    found: float
    wrong: float

    @classmethod
    def of(cls, found: PairMotion, exact: PairMotion) -> "Score":
        """Compare motions on one grid."""
        unit = max(exact.grid)
        visible, trusted = exact.trust > 0.5, found.trust > 0.5
        error = (found.positions - exact.positions).norm(dim=-1) / unit
        wrong = trusted & (~visible | (error > WRONG))
        return cls(
            float(error[trusted & visible].median()) * 512,
            float(error[visible].median()) * 512,
            float((trusted & visible).sum() / visible.sum()),
            float(wrong.sum() / trusted.sum().clamp(min=1)),
        )


def main() -> None:
    options = parse_options()
    options.output.mkdir(parents=True, exist_ok=True)
    texts = []
    for name in options.only:
        texts.append(f"{name}\n\n{CLIPS[name](options)}")
        print(texts[-1], flush=True)
    (options.output / "motion.md").write_text("\n".join(texts))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("build/motion"))
    parser.add_argument("--only", nargs="*", choices=CLIPS, default=list(CLIPS))
    parser.add_argument("--clips", type=int, default=10)
    parser.add_argument("--photos", type=int, default=4, help="clips of moving photos")
    return parser.parse_args()


def compare_world(options: argparse.Namespace) -> str:
    """Return the table of the small world: 8 frames of 64 x 64."""
    from ..demo.shipped import load_pipeline

    clips = random_clips(options.clips, 8)
    frames = [world.render(clip, world.PLAIN) for clip in clips]
    size = (world.SIZE, world.SIZE)
    lines = []
    for estimator in tqdm(list(estimators()), desc="small world"):
        scores: dict[int, list[Score]] = {lag: [] for lag in LAGS}
        for clip, pictures in zip(clips, frames):
            motion = EstimatedMotion(shrunk_to(256, pictures), size, estimator)
            for lag, start in _pairs(len(clip)):
                exact = ExactMotion(clip).between(start, start + lag)
                scores[lag].append(Score.of(motion.between(start, start + lag), exact))
        lines.append([estimator.name, *_cells(scores)])
    pipeline = load_pipeline()
    scores = {lag: [] for lag in LAGS}
    for clip, pictures in zip(clips, frames):
        matches = Matches.of(pipeline, pictures)
        for lag, start in _pairs(len(clip)):
            found = matches.between(start, start + lag)
            exact = ExactMotion(clip).between(start, start + lag, found.grid)
            scores[lag].append(Score.of(found, exact))
    lines.append([matches.name, *_cells(scores)])
    return table(["estimator", *_heads()], lines)


def compare_photos(options: argparse.Namespace) -> str:
    """Return the table of moving photos: 8 frames of 512 x 512, with the CPU seconds of a pair."""
    clips = [MovingPhotos(seed) for seed in range(options.photos)]
    frames = [torch.stack([clip.frame(time) for time in range(8)]) for clip in clips]
    lines = []
    for estimator in tqdm(list(estimators()), desc="photos"):
        scores: dict[int, list[Score]] = {lag: [] for lag in LAGS}
        seconds = []
        for clip, pictures in zip(clips, frames):
            small = shrunk_to(estimator.longest_side, pictures)
            motion = EstimatedMotion(small, (512, 512), estimator)
            began = time.process_time()
            motion.between(0, 1)
            seconds.append(time.process_time() - began)
            for lag in LAGS:
                scores[lag].append(Score.of(motion.between(0, lag), clip.between(0, lag)))
        lines.append([estimator.name, *_cells(scores), f"{np.median(seconds):.2f}"])
    return table(["estimator", *_heads(), "CPU seconds, 1 apart"], lines)


def compare_previews(options: argparse.Namespace) -> str:
    """Return the table of real clips.

    Nothing is known of them but their colours. So the table has the share that is trusted, which
    rests on the way forth and back, and how much of the difference of colours there is left when
    the other frame is brought to this one.
    """
    clips = list(previews())
    if not clips:
        return "ComfyUI's templates are not installed here.\n"
    lines = []
    for estimator in tqdm(list(estimators()), desc="previews"):
        known = []
        for pictures in clips:
            small = shrunk_to(estimator.longest_side, pictures)
            size = (pictures.shape[-2], pictures.shape[-1])
            motion = EstimatedMotion(small, size, estimator)
            known.append([_known(motion, pictures, lag) for lag in LAGS])
        means = np.mean(known, axis=0)  # (lags, 2)
        lines.append([estimator.name, *(f"{share:.0%}, {rest:.0%}" for share, rest in means)])
    return table(["trusted, colour left over", *(f"{lag} apart" for lag in LAGS)], lines)


def _known(motion: EstimatedMotion, pictures: Tensor, lag: int) -> tuple[float, float]:
    """Return the share that is trusted, and what is left of the difference of colours there."""
    pair = motion.between(0, lag)
    trusted = pair.trust > 0.5
    rest = (pictures[0] - pair.carry(pictures[lag])).abs().mean(dim=0)[trusted].mean()
    still = (pictures[0] - pictures[lag]).abs().mean(dim=0)[trusted].mean()
    return float(trusted.float().mean()), float(rest / still)


def previews() -> Iterator[Tensor]:
    """Yield the first frames of videos that ComfyUI's templates show, (frames, 3, h, w)."""
    for name in PREVIEWS:
        for package in ("media_video", "media_other", "media_api", "media_assets_01"):
            found = importlib.util.find_spec(f"comfyui_workflow_templates_{package}")
            if found is None or found.origin is None:
                continue
            file = Path(found.origin).parent / "templates" / f"{name}.webp"
            if file.exists():
                yield _frames(file)
                break


def _frames(file: Path) -> Tensor:
    with Image.open(file) as picture:
        frames = []
        for number in range(PREVIEW_FRAMES):
            picture.seek(number)
            frames.append(torch.from_numpy(np.asarray(picture.convert("RGB")).copy()))
    return torch.stack(frames).permute(0, 3, 1, 2) / 255


def _pairs(frames: int) -> Iterator[tuple[int, int]]:
    """Yield (lag, first frame) of the pairs that are compared."""
    for lag in LAGS:
        for start in range(0, frames - lag, 2):
            yield lag, start


def _heads() -> list[str]:
    return [f"{lag} apart" for lag in LAGS]


def _cells(scores: dict[int, list[Score]]) -> list[str]:
    """Write the means of scores: error where trusted / of all visible, found, wrong."""
    cells = []
    for found in scores.values():
        means = [np.nanmean([getattr(score, name) for score in found]) for name in vars(found[0])]
        off, visible, share, wrong = means
        cells.append(f"{off:.1f} / {visible:.1f}, {share:.0%}, {wrong:.1%}")
    return cells


CLIPS = {"world": compare_world, "photos": compare_photos, "previews": compare_previews}

if __name__ == "__main__":
    main()
