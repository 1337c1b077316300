"""Graphs as data, and every way in which ComfyUI may paint their frames.

A `Plan` says with plain values what a graph holds; `Graph` is built from it out of real parts.
Roads are ways for ComfyUI to go about the same work; all must lead to the same frames.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

import bench
import pytest
import tiny
import torch
from families import FAMILIES

ONE, CLIP = "one row", "one row per frame"
CONFIGS = {"sd15": tiny.SD15, "sdxl": tiny.SDXL, "inpaint": tiny.INPAINT}


@dataclass(frozen=True)
class Moving:
    """The motion of a clip whose things move to the right by one latent per frame.

    The upper half of every frame is not to be trusted. size: of a frame, in latents.
    """

    frames: int
    size: tuple[int, int]
    keyframes: tuple[int, ...] = (0, 3)

    @property
    def fingerprint(self) -> str:
        return repr(self)

    def between(self, frame, other, grid=None):
        from crossframe.motion import PairMotion, pixel_grid

        rows, columns = grid or self.size
        positions = pixel_grid(torch.empty(rows, columns, 2)) + torch.tensor([other - frame, 0.0])
        trust = ((positions[..., 0] > 0) & (positions[..., 0] < columns)).float()
        trust[: rows // 2] = 0
        return PairMotion(positions, trust)


def attending(control_net):
    """The ControlNet after the node CrossFrameControlNet."""
    from crossframe.nodes.control import CrossFrameControlNet

    return CrossFrameControlNet.execute(control_net).args[0]


@dataclass(frozen=True)
class Control:
    """A ControlNet or T2I-adapter in a chain; hints: ONE or CLIP.

    joins: whether its self-attention takes part in the run.
    """

    kind: str = "controlnet"
    hints: str = CLIP
    start: float = 0.0
    end: float = 1.0
    joins: bool = False


@dataclass(frozen=True)
class Extra:
    """One more positive prompt: "full", "mask", "bounds", "area", "range", "hooks" or "default"."""

    kind: str = "full"
    rows: str = ONE


@dataclass(frozen=True)
class Plan:
    """What a graph holds. Sizes are a U-Net's latents'; rows: ONE or CLIP.

    family: a name in CONFIGS or in FAMILIES, whose latents have a size of their own.
    """

    family: str = "sd15"
    frames: int = 5
    height: int = tiny.SIZE
    width: int = tiny.SIZE
    references: str = "first + previous"
    include_self: bool = False
    layers: str = "all"
    start_percent: float = 0.0
    end_percent: float = 1.0
    sampler: str = "euler"
    steps: int = 2
    cfg: float = 4.0
    denoise: float = 0.8
    guider: str = "cfg"  # or "dual", "perp neg"
    prompts: str = ONE
    extras: tuple[Extra, ...] = ()
    controls: tuple[Control, ...] = ()
    noise_mask: str | None = None
    frame_noise: str = "different per frame"
    seed: int = 3
    guidance: str | None = None  # a name in GUIDANCE
    patch: bool = False  # whether a patch of another node holds one row per frame
    wrapped: bool = False  # whether another sampler's function calls the sampler's
    first_index: int | None = None  # batch_index of the first frame, as LatentFromBatch sets it
    sigmas: str = "all"  # or a part of them: "high", "low", "last step", "none"
    stages: int = 1  # two: the second goes on with the noise that the first leaves
    pictures: str | None = None  # rows of the reference latents in both prompts
    keyframes: str = ""
    weights: tuple[float, float, float] = (1.0, 1.0, 1.0)  # first, previous, self
    fused_to: str | None = None  # a name in FUSED_TO, along Moving
    attends: bool = True  # whether there is cross-frame attention

    @property
    def size(self) -> tuple[int, int]:
        if self.family in FAMILIES:
            family = FAMILIES[self.family]
            height, width = (side * family.patch for side in family.size)
            return height, width
        return self.height, self.width

    def prompt(self, seed: int, rows: int = 1) -> list:
        """A CONDITIONING for the plan's family."""
        if self.family in FAMILIES:
            return FAMILIES[self.family].prompt(seed, rows)
        return tiny.prompt(seed, rows, self.family == "sdxl")

    def latent(self) -> dict:
        """A LATENT for the plan's family."""
        if self.family in FAMILIES:
            return FAMILIES[self.family].clip(self.frames)
        return tiny.clip(self.frames, size=self.size)


def model_of(family: str, seed: int = 0):
    """A MODEL with random weights. family: a name in CONFIGS or in FAMILIES."""
    if family in FAMILIES:
        return FAMILIES[family].model(seed)
    return tiny.model(CONFIGS[family], seed)


@dataclass
class Parts:
    """Models are made once for a test session."""

    made: dict = field(default_factory=dict)

    def get(self, name: str, make: Callable):
        if name not in self.made:
            self.made[name] = make()
        return self.made[name]

    def model(self, family: str):
        return self.get(family, lambda: model_of(family))

    def control(self, kind: str, family: str, number: int):
        config = CONFIGS["sdxl" if family == "sdxl" else "sd15"]
        if kind == "controlnet":
            name = f"{family} controlnet {number}"
            return self.get(name, lambda: tiny.controlnet(config, seed=number + 1))
        return self.get("t2i", tiny.t2i_adapter)


@dataclass
class Graph:
    """A graph of real parts, but for the node that gives cross-frame attention."""

    plan: Plan
    model: object
    conds: list
    latent: dict

    @classmethod
    def build(cls, plan: Plan, parts: Parts) -> "Graph":
        model = parts.model(plan.family)
        positive = plan.prompt(1, _rows(plan, plan.prompts))
        for number, extra in enumerate(plan.extras):
            positive += _extra(plan, extra, number, parts)
        negative = plan.prompt(2)
        if plan.pictures is not None:
            rows = _rows(plan, plan.pictures)
            positive, negative = (
                FAMILIES[plan.family].with_references(conds, rows) for conds in (positive, negative)
            )
        for number, control in enumerate(plan.controls):
            hints = tiny.images(_rows(plan, control.hints), 40 + number, plan.size)
            network = parts.control(control.kind, plan.family, number)
            positive, negative = tiny.apply_controlnet(
                positive,
                negative,
                attending(network) if control.joins else network,
                hints,
                start=control.start,
                end=control.end,
            )
        if plan.family == "inpaint":
            values = {
                "concat_latent_image": tiny.clip(plan.frames, 12, plan.size)["samples"],
                "concat_mask": tiny.masks(plan.frames, 13, plan.size).unsqueeze(1),
            }
            positive, negative = (
                [[tokens, {**extra, **values}] for tokens, extra in conds]
                for conds in (positive, negative)
            )
        latent = plan.latent()
        if plan.noise_mask is not None:
            masks = tiny.masks(_rows(plan, plan.noise_mask), size=plan.size)
            latent["noise_mask"] = masks.unsqueeze(1)
        if plan.first_index is not None:
            latent["batch_index"] = [plan.first_index + i for i in range(plan.frames)]
        return cls(plan, model, [positive, negative], latent)

    def part(self, first: int, stop: int) -> "Graph":
        """Return the graph of some frames alone, with their rows of every input."""
        frames, controls = self.plan.frames, {}

        def cut(value):
            if isinstance(value, list) and all(isinstance(item, torch.Tensor) for item in value):
                return [cut(item) for item in value]
            has_rows = isinstance(value, (torch.Tensor, list)) and len(value) == frames > 1
            return value[first:stop] if has_rows else value

        def control_of(control):
            if control is not None and id(control) not in controls:
                twin = controls[id(control)] = control.copy()
                twin.cond_hint_original = cut(control.cond_hint_original)
                twin.set_previous_controlnet(control_of(control.previous_controlnet))
            return None if control is None else controls[id(control)]

        def cond_of(tokens, values):
            values = {name: cut(value) for name, value in values.items()}
            if "control" in values:
                values["control"] = control_of(values["control"])
            return [cut(tokens), values]

        conds = [[cond_of(*cond) for cond in conds] for conds in self.conds]
        latent = {name: cut(value) for name, value in self.latent.items()}
        return Graph(self.plan, self.model, conds, latent)

    def patched(self, frames_per_batch: int = 0, model=None):
        """The MODEL with cross-frame attention."""
        model = self.model if model is None else model
        if self.plan.guidance is not None:
            model = GUIDANCE[self.plan.guidance](model)
        if self.plan.patch:
            model = with_rows(model, self.plan.frames)
        if self.plan.fused_to is not None:
            model = self.fused(model, self.plan.fused_to)
        if not self.plan.attends:
            return model
        first, previous, own = self.plan.weights
        return tiny.patch(
            model,
            references=self.plan.references,
            include_self=self.plan.include_self,
            layers=self.plan.layers,
            start_percent=self.plan.start_percent,
            end_percent=self.plan.end_percent,
            frames_per_batch=frames_per_batch,
            keyframes=self.plan.keyframes,
            first_weight=first,
            previous_weight=previous,
            self_weight=own,
        )

    def fused(self, model, to: str, **inputs):
        """The MODEL after the node CrossFrameFusion, with the motion of the plan's clip."""
        from crossframe.nodes.fusion import CrossFrameFusion

        motion = Moving(self.plan.frames, self.plan.size)
        chosen = {"strength": 1.0, "start_percent": 0.0, "end_percent": 0.8, "to": to}
        return CrossFrameFusion.execute(model=model, **{"motion": motion, **chosen, **inputs}).args[
            0
        ]

    def guider(self, model):
        """The plan's GUIDER on a MODEL."""
        from comfy_extras.nodes_custom_sampler import Guider_DualCFG
        from comfy_extras.nodes_perpneg import Guider_PerpNeg

        third = self.plan.prompt(30)
        positive, negative = self.conds
        cfg = self.plan.cfg
        if self.plan.guider == "dual":
            return bench.guider(model, (positive, third, negative), cfg, 2.0, kind=Guider_DualCFG)
        if self.plan.guider == "perp neg":
            return bench.guider(model, (positive, negative, third), cfg, 1.0, kind=Guider_PerpNeg)
        return bench.guider(model, (positive, negative), cfg)

    def paint(self, frame_by_frame: bool = False, model=None, **inputs) -> torch.Tensor:
        """Paint the frames with a custom sampler node on a patched MODEL."""
        return self.sample(frame_by_frame, model, **inputs)[0]["samples"]

    def sample(self, frame_by_frame: bool = False, model=None, **inputs) -> tuple:
        """Return the outputs of the custom sampler node. inputs: more inputs of it."""
        from comfy_extras.nodes_custom_sampler import DisableNoise

        model = self.patched() if model is None else model
        noise = bench.clip_noise(self.plan.seed, self.plan.frame_noise)
        latent = self.latent
        for sigmas in self.levels(model):
            output = bench.custom_output(
                self.guider(model), self.sampler(), sigmas, latent, noise, frame_by_frame, **inputs
            ).args
            latent, noise = output[0], DisableNoise.execute().args[0]
        return output

    def levels(self, model) -> list[torch.Tensor]:
        """The noise levels of every stage."""
        from comfy_extras.nodes_custom_sampler import BasicScheduler

        steps, denoise = self.plan.steps, self.plan.denoise
        sigmas = BasicScheduler.execute(model, "normal", steps, denoise).args[0]
        middle = len(sigmas) // 2
        parts = {
            "all": sigmas,
            "high": sigmas[: middle + 1],
            "low": sigmas[middle:],
            "last step": sigmas[-2:],
            "none": sigmas[-1:],
        }
        sigmas = parts[self.plan.sigmas]
        middle = len(sigmas) // 2
        return [sigmas] if self.plan.stages == 1 else [sigmas[: middle + 1], sigmas[middle:]]

    def sampler(self):
        """The plan's SAMPLER."""
        from comfy.samplers import KSAMPLER, sampler_object

        sampler = sampler_object(self.plan.sampler)
        if not self.plan.wrapped:
            return sampler

        def bend(model, x, sigmas, **kwargs):
            return sampler.sampler_function(model, x, sigmas * 0.98, **kwargs)

        return KSAMPLER(bend, sampler.extra_options, sampler.inpaint_options)


def rescale(model):
    from comfy_extras.nodes_model_advanced import RescaleCFG

    return RescaleCFG().patch(model, 0.7)[0]


def apg(model):
    from comfy_extras.nodes_apg import APG

    return APG.execute(model, 1.0, 5.0, 0.5).args[0]


def linear(model):
    """This guidance weighs a frame by its number."""
    from comfy_extras.nodes_video_model import VideoLinearCFGGuidance

    return VideoLinearCFGGuidance().patch(model, 1.0)[0]


GUIDANCE = {"rescale": rescale, "apg": apg, "linear": linear}


def with_rows(model, frames: int):
    """A MODEL with a patch that holds one row per frame, and takes them from the top."""
    rows = torch.randn(frames, 1, 1, generator=torch.Generator().manual_seed(14))

    def patch(n, extra_options):
        return n + rows.repeat(-(-len(n) // len(rows)), 1, 1)[: len(n)]

    model = model.clone()
    model.set_model_attn2_output_patch(patch)
    return model


def _rows(plan: Plan, rows: str) -> int:
    return plan.frames if rows == CLIP else 1


def _extra(plan: Plan, extra: Extra, number: int, parts: Parts) -> list:
    """One more positive prompt, as ComfyUI's nodes would make it."""
    import comfy.hooks

    rows = _rows(plan, extra.rows)
    ((tokens, values),) = plan.prompt(50 + number, rows)
    values = dict(values)
    if extra.kind == "mask":
        mask = tiny.masks(rows, 60 + number, plan.size)
        values |= {"mask": mask, "mask_strength": 0.7}
    elif extra.kind == "bounds":
        height, width = plan.size
        mask = torch.zeros(rows, height * 8, width * 8)
        mask[:, : height * 4, : width * 6] = 1
        values |= {"mask": mask, "mask_strength": 1.0, "set_area_to_bounds": True}
    elif extra.kind == "area":
        height, width = plan.size
        size = max(height // 2, 4), max(width // 2, 4)
        values |= {"area": (*size, height - size[0], 0), "strength": 0.9}
    elif extra.kind == "default":
        values["default"] = True
    elif extra.kind == "range":
        values |= {"start_percent": 0.3, "end_percent": 0.7}
    conds = [[tokens, values]]
    if extra.kind == "hooks":
        other = parts.get(f"{plan.family} lora", lambda: model_of(plan.family, seed=9))
        weights = comfy.hooks.get_patch_weights_from_model(other)
        hooks = comfy.hooks.create_hook_model_as_lora(weights, None, 0.4, 0.0)
        keyframes = comfy.hooks.HookKeyframeGroup()
        keyframes.add(comfy.hooks.HookKeyframe(1.0, 0.0))
        keyframes.add(comfy.hooks.HookKeyframe(0.2, 0.5))
        hooks.set_keyframes_on_hooks(keyframes)
        conds = comfy.hooks.set_hooks_for_conditioning(conds, hooks)
    return conds


def _memory(graph: Graph, monkeypatch, needs) -> None:
    """Let ComfyUI find, call by call, that a batch needs no memory or more than there is."""
    needs = itertools.cycle(needs)
    monkeypatch.setattr(graph.model.model, "memory_required", lambda *_, **__: next(needs))


def batches_of_2(graph: Graph, monkeypatch):
    """Paint with a clone of a clone, then again, then after the first and a middle call failed."""
    model = graph.patched(2, graph.model.clone().clone()).clone().clone()
    counting, calls = bench.spied(model)
    first = graph.paint(model=counting)
    assert torch.equal(graph.paint(model=model), first)
    for call in (0, len(calls) // 2):
        fails_in_call(graph, model, call)
    assert torch.equal(graph.paint(model=model), first)
    return first


def batches_of_1(graph: Graph, monkeypatch):
    return graph.paint(model=graph.patched(1))


def conds_apart(graph: Graph, monkeypatch):
    _memory(graph, monkeypatch, [1e30])
    return graph.paint(model=graph.patched(3))


def memory_changes(graph: Graph, monkeypatch):
    _memory(graph, monkeypatch, [0, 1e30, 0, 0, 1e30])
    return graph.paint(model=graph.patched(2))


def frame_by_frame(graph: Graph, monkeypatch):
    return graph.paint(frame_by_frame=True)


def frame_by_frame_short_of_memory(graph: Graph, monkeypatch):
    _memory(graph, monkeypatch, [1e30, 0, 1e30])
    return graph.paint(frame_by_frame=True)


ROADS = {
    road.__name__.replace("_", " "): road
    for road in (
        batches_of_2,
        batches_of_1,
        conds_apart,
        memory_changes,
        frame_by_frame,
        frame_by_frame_short_of_memory,
    )
}


def fails_in_call(graph: Graph, model, call: int) -> None:
    """Paint until a call of the model, counted from 0, raises an error."""

    def fail(number, args):
        if number == call:
            raise bench.Planted

    with pytest.raises(bench.Planted):
        graph.paint(model=bench.spied(model, fail)[0])
