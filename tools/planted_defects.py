"""Plant one defect after another in a copy of the pack; the tests must notice each of them.

    python tools/planted_defects.py            all of them
    python tools/planted_defects.py hint bank  those whose names contain a word

Each defect is a mistake that packs of this kind make. The script prints a table, and ends with an
error if the tests let a defect pass. Run it with the interpreter of the test environment.
"""

import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
LEFT_OUT = shutil.ignore_patterns(".git", ".venv*", "__pycache__", "build", ".*_cache")


@dataclass(frozen=True)
class Defect:
    """A mistake, `wrong` in place of `right` in a file, and the tests that must notice it."""

    name: str
    file: str
    right: str
    wrong: str
    tests: str


COND = "tests/comfyui/test_conditioning.py"
BATCHING = "tests/comfyui/test_cond_batching.py"
ORDERS = "tests/comfyui/test_orders.py"
REPEAT = "tests/comfyui/test_repeatable.py"
MEMORY = "tests/comfyui/test_bounded_memory.py"
SAMPLERS = "tests/comfyui/test_samplers.py"
STATE = "tests/comfyui/test_state.py"
STATE_FILES = "tests/comfyui/test_state_files.py"
STATE_GRAPHS = "tests/comfyui/test_state_graphs.py"
KEPT = "tests/comfyui/test_kept_states.py"
RESUME = "tests/comfyui/test_resume.py"
NEIGHBOURS = "tests/comfyui/test_neighbours.py"
GUIDANCE = "tests/comfyui/test_guidance.py"
PATCH_ROWS = "tests/comfyui/test_patch_rows.py"
ON_THE_WAY = "tests/comfyui/test_noise_on_the_way.py"
DEFAULTS = "tests/comfyui/test_default_prompts.py"
SEVERAL = "tests/comfyui/test_several_calls.py"
JOINT = "tests/attention/test_joint.py"
FAMILIES = "tests/comfyui/test_transformers.py"
TRANSFORMERS = "tests/comfyui/test_transformer_runs.py"
INVARIANCE = "tests/comfyui/test_invariance.py"
HOOKS = "tests/comfyui/test_hook_keyframes.py"
SHARED = "tests/comfyui/test_shared_projections.py"
VAE_ENCODE = "tests/comfyui/test_vae_encode.py"
WEIGHTS = "tests/comfyui/test_weights.py"
KEYFRAMES = "tests/comfyui/test_keyframes.py"
FUSION = "tests/comfyui/test_fusion.py"
DYNAMICS = "tests/comfyui/test_dynamics.py"
CONTROLNET = "tests/comfyui/test_controlnet.py"
RERENDER = "tests/comfyui/test_rerender.py"
PROPAGATE = "tests/motion/test_propagate.py"
FUSE = "tests/latents/test_fuse.py"
MOTION = "tests/motion/test_motion.py"
COMFY_MOTION = "tests/comfyui/test_motion.py"

DEFECTS = [
    Defect(
        "frame 0's ControlNet hint for every frame",
        "hosts/comfy/rows/conditions.py",
        "twin.cond_hint_original = _rows(control.cond_hint_original, frames, clip)",
        "twin.cond_hint_original = control.cond_hint_original",
        COND,
    ),
    Defect(
        "only the last ControlNet of a chain is cut",
        "hosts/comfy/rows/conditions.py",
        "twin.previous_controlnet = self.of(control.previous_controlnet, frames, clip)",
        "pass",
        COND,
    ),
    Defect(
        "the user's ControlNet is cut, not a copy",
        "hosts/comfy/rows/conditions.py",
        "twin = copy.copy(control)",
        "twin = control",
        COND,
    ),
    Defect(
        "a copy of the ControlNet for each cond",
        "hosts/comfy/rows/conditions.py",
        "if id(control) not in self._copies:",
        "if True:",
        COND,
    ),
    Defect(
        "prompts are not cut",
        "hosts/comfy/rows/conditions.py",
        "return model_cond if rows is value else model_cond._copy_with(rows)",
        "return model_cond",
        COND,
    ),
    Defect(
        "the noise mask of frame 0 for every frame",
        "hosts/comfy/orders/frame_by_frame.py",
        "self.mask is None or len(self.mask) == 1 else take(self.mask, places)",
        "self.mask is None or len(self.mask) == 1 else self.mask[:1]",
        COND,
    ),
    Defect(
        "conds told apart by their place in the batch",
        "hosts/comfy/run/comfy_run.py",
        "return [self.names.get(label, label) for label in labels]",
        "return list(range(len(transformer_options['uuids'])))",
        BATCHING,
    ),
    Defect(
        "conds told apart by index only",
        "hosts/comfy/rows/conditions.py",
        'names[index, entry["uuid"]] = (index, position)',
        'names[index, entry["uuid"]] = (index, 0)',
        BATCHING,
    ),
    Defect(
        "conds told apart by uuid",
        "hosts/comfy/run/comfy_run.py",
        "return [self.names.get(label, label) for label in labels]",
        "return [uuid for _, uuid in labels]",
        BATCHING,
    ),
    Defect(
        "steps told apart by noise level",
        "attention/run.py",
        "return self.run.evaluate(self.step, self.frames, layers)",
        "level = self._noise_levels.index(self._noise_levels[self.step])\n"
        "        return self.run.evaluate(level, self.frames, layers)",
        "tests/attention/test_run.py",
    ),
    Defect(
        "a stale bank: hidden states of one step are read at another",
        "attention/run.py",
        "keys = [self._visit(Key(self.step, layer, entry, count)) for entry in entries]",
        "keys = [self._visit(Key(0, layer, entry, count)) for entry in entries]",
        ORDERS,
    ),
    Defect(
        "the previous frame is the batch's first",
        "attention/references.py",
        "return (Reference(0, self.first), Reference(frame - 1, self.previous))",
        "return (Reference(0, self.first), Reference(max(frame - 2, 0), self.previous))",
        "tests/comfyui/test_article.py",
    ),
    Defect(
        "no finally: a pipeline stays patched after an error",
        "hosts/diffusers/attention.py",
        "        clip.warn_unpainted()\n    finally:\n",
        "        clip.warn_unpainted()\n    except ZeroDivisionError:\n        raise\n    else:\n",
        "tests/test_diffusers.py",
    ),
    Defect(
        "the node patches its input",
        "hosts/comfy/attach.py",
        "patched, before = model.clone(), carried_by(model.model_options)",
        "patched, before = model, carried_by(model.model_options)",
        REPEAT,
    ),
    Defect(
        "start and end are ignored",
        "hosts/comfy/orders/evaluation.py",
        "if not full_range and not run.facts.is_active(float(timestep[0])):",
        "if False:",
        ORDERS,
    ),
    Defect(
        "views in the bank: the whole batch stays alive",
        "attention/storage.py",
        "tokens.to(target, copy=True)",
        "tokens.to(target)",
        "tests/attention/test_bank.py",
    ),
    Defect(
        "frames that no one reads are kept",
        "attention/run.py",
        "bank.drop(key, frame)",
        "pass",
        MEMORY,
    ),
    Defect(
        "memory is asked for the whole clip",
        "hosts/comfy/run/memory.py",
        "noise_shape = [plan.plan_batch(model, conds, noise_shape), *noise_shape[1:]]",
        "plan.plan_batch(model, conds, noise_shape)",
        MEMORY,
    ),
    Defect(
        "the bank is not asked for",
        "hosts/comfy/run/memory.py",
        "noise_shape = [noise_shape[0] + needed, *noise_shape[1:]]",
        "pass",
        MEMORY,
    ),
    Defect(
        "samplers draw their noise for the batch",
        "hosts/comfy/orders/wrappers.py",
        "sampler = with_frame_noise(sampler, seed, run.noise)",
        "pass",
        SAMPLERS,
    ),
    Defect(
        "one draw of a sampler's noise for all frames",
        "hosts/comfy/run/comfy_run.py",
        "return [numbers[place] for place in facts.places(self.lead.frames)]",
        "return [0]",
        SAMPLERS,
    ),
    Defect(
        "noise of a sampler inside of another is drawn for the batch",
        "hosts/comfy/noise/row_noise.py",
        "if len(shape) != len(self.shape) or shape[0] != self.shape[0]:",
        "if True:",
        ON_THE_WAY,
    ),
    Defect(
        "torch's own generator goes on from frame to frame",
        "hosts/comfy/noise/row_noise.py",
        "torch.manual_seed(self.seed)",
        "pass",
        ON_THE_WAY,
    ),
    Defect(
        "noise on the way does not know a part of a clip",
        "hosts/comfy/run/comfy_run.py",
        "numbers = numbers_of(noise, seed, facts.order.start)",
        "pass",
        ON_THE_WAY,
    ),
    Defect(
        "a frame of a part has the noise of its place",
        "hosts/comfy/orders/sampler_nodes.py",
        'numbers=latent.get("batch_index"),',
        "numbers=None,",
        ON_THE_WAY,
    ),
    Defect(
        "a clip's noise is drawn up to a late frame at once",
        "hosts/comfy/noise/clip_noise.py",
        "FRAMES_PASSED_OVER = 64",
        "FRAMES_PASSED_OVER = 1_000_000",
        ON_THE_WAY,
    ),
    Defect(
        "nobody looks whether a sampler mixes frames",
        "hosts/comfy/neighbours/sampler_watch.py",
        "if self._takes_rows_together(name, args, kwargs):",
        "if False:",
        ON_THE_WAY,
    ),
    Defect(
        "guidance is not tried",
        "hosts/comfy/neighbours/guidance_trial.py",
        "raise _refusal(owner_of(function))",
        "return Verdict()",
        GUIDANCE,
    ),
    Defect(
        "guidance is tried on itself and not on a copy",
        "hosts/comfy/neighbours/guidance_trial.py",
        "copying = Rebuilding(torch.clone, apart=True)",
        "copying = Rebuilding(lambda tensor: tensor)",
        GUIDANCE,
    ),
    Defect(
        "patches of batches hold the first rows",
        "hosts/comfy/orders/evaluation.py",
        "held = places_inside(options)",
        "pass",
        PATCH_ROWS,
    ),
    Defect(
        "patches of a frame hold the first rows",
        "hosts/comfy/orders/wrappers.py",
        "around.enter_context(_holding_rows_of_frame(run, options))",
        "pass",
        PATCH_ROWS,
    ),
    Defect(
        "a patch that picks its rows itself gets only some",
        "hosts/comfy/rows/patches.py",
        "return any(is_told(code) for code in _codes(value))",
        "return False",
        PATCH_ROWS,
    ),
    Defect(
        "default prompts are decided batch by batch",
        "hosts/comfy/orders/evaluation.py",
        "return resolve_default_prompts(conds, x, timestep, run.facts.rows, places)",
        "return conds",
        DEFAULTS,
    ),
    Defect(
        "default prompts are decided by one frame's mask",
        "hosts/comfy/rows/default_prompts.py",
        'where["mask"] = entry[CLIP_MASK].mask.to(entry["mask"])',
        "pass",
        DEFAULTS,
    ),
    Defect(
        "a second call in a step counts as the first",
        "attention/run.py",
        "return key._replace(visit=visit)",
        "return key",
        SEVERAL,
    ),
    Defect(
        "a state's file does not know the second call",
        "hosts/comfy/state/files.py",
        'visit = f".{key.visit}" if key.visit else ""',
        'visit = ""',
        SEVERAL,
    ),
    Defect(
        "keyframes of hooks go on from frame to frame",
        "hosts/comfy/orders/frame_by_frame.py",
        "self._keyframes.restore()",
        "pass",
        HOOKS,
    ),
    Defect(
        "other packs are not told the frames",
        "hosts/comfy/run/comfy_run.py",
        "if count < run.facts.rows:",
        "if False:",
        NEIGHBOURS,
    ),
    Defect(
        "nodes that cannot go along are let in",
        "hosts/comfy/neighbours/known.py",
        "if way in neighbour.refused and neighbour.found(guider):",
        "if False:",
        NEIGHBOURS,
    ),
    Defect(
        "a state's frames get the first frames' noise",
        "hosts/comfy/noise/clip_noise.py",
        'drawn = _drawn(noise, latent, 0 if "batch_index" in latent else first)',
        "drawn = _drawn(noise, latent, 0)",
        STATE,
    ),
    Defect(
        "a state of other settings is taken",
        "hosts/comfy/state/same_sampling.py",
        "if pair.made != pair.now:",
        "if False:",
        STATE,
    ),
    Defect(
        "a state leaves out what later frames read",
        "attention/painting_order.py",
        "for frame in carried_frames(policy, frames) if carry else ():",
        "for frame in ():",
        STATE,
    ),
    Defect(
        "a scene cut is not one",
        "hosts/comfy/state/continuation.py",
        "if self.anchor == ANEW:",
        "if False:",
        STATE,
    ),
    Defect(
        "frames after a gap are numbered without it",
        "attention/state.py",
        "return replace(self, frames=frame, stored=stored)",
        "return replace(self, stored=stored)",
        STATE,
    ),
    Defect(
        "a file that is not whole has its name",
        "hosts/comfy/state/files.py",
        'part = file.with_name(f".{file.name}.part")',
        "part = file",
        STATE_FILES,
    ),
    Defect(
        "a file that has lost a part is read",
        "hosts/comfy/state/files.py",
        'if len(names) != int(metadata["tensors"]):',
        "if False:",
        STATE_FILES,
    ),
    Defect(
        "another graph's frames are gone on with",
        "hosts/comfy/state/fingerprint.py",
        "digest = hashlib.sha256(_graph(node).encode())",
        "digest = hashlib.sha256()",
        STATE_GRAPHS,
    ),
    Defect(
        "other contents' frames are gone on with",
        "hosts/comfy/state/fingerprint.py",
        "    _add(digest, list(contents))\n",
        "",
        STATE_GRAPHS,
    ),
    Defect(
        "finished frames are kept after the run",
        "hosts/comfy/orders/sampler_nodes.py",
        "        record.discard()\n",
        "        pass\n",
        STATE_GRAPHS,
    ),
    Defect(
        "a state that was not kept counts as none",
        "nodes/continuation.py",
        "return NOT_KEPT if sampled.state is None else sampled.state",
        "return sampled.state",
        KEPT,
    ),
    Defect(
        "the state of a node in an expansion is dropped",
        "hosts/comfy/page/graph.py",
        "while (name := graph.get_parent_node_id(name)) is not None:",
        "while False:",
        KEPT,
    ),
    Defect(
        "a disk that is full stops a run",
        "hosts/comfy/state/record.py",
        "except (OSError, SafetensorError) as error:  # the latter",
        "except ZeroDivisionError as error:  # the latter",
        RESUME,
    ),
    Defect(
        "hidden states of a frame that was not finished are taken for it",
        "hosts/comfy/state/record.py",
        "if number in lead.frames or not file.exists():",
        "if not file.exists():",
        RESUME,
    ),
    Defect(
        "noise levels are compared to the last bit",
        "attention/noise_levels.py",
        "TOLERANCE = 1e-5",
        "TOLERANCE = 0.0",
        STATE,
    ),
    Defect(
        "states of unfinished runs are listed",
        "hosts/comfy/state/search.py",
        "if folder != top / UNFINISHED",
        "if folder",
        STATE_FILES,
    ),
    Defect(
        "rows that share keys come out in the order in which they were run",
        "attention/shared.py",
        "attended[batch.readers[start] : batch.readers[stop - 1] + 1] = output[start:stop]",
        "attended[start:stop] = output[start:stop]",
        SHARED,
    ),
    Defect(
        "keys and values are projected for every row that attends to them",
        "hosts/comfy/run/shared_projections.py",
        "return without_replaced(wanted, options) & self.untouched",
        "return frozenset()",
        SHARED,
    ),
    Defect(
        "the fast path beside another attn1 patch",
        "hosts/comfy/run/shared_projections.py",
        "if not patches or patches[-1] is not attn1_patch:",
        "if not patches:",
        SHARED,
    ),
    Defect(
        "the fast path over another node's attention",
        "hosts/comfy/run/shared_projections.py",
        "if tuple(layer) not in replaced and tuple(layer)[:2] not in replaced",
        "if True",
        SHARED,
    ),
    Defect(
        "the fast path puts plain attention in place of the user's",
        "hosts/comfy/run/self_attention.py",
        "            transformer_options=extra_options,\n",
        "",
        SHARED,
    ),
    Defect(
        "all frames at once on a CPU",
        "hosts/comfy/run/batches.py",
        'return min(frames, FRAMES_ON_A_CPU) if device_type == "cpu" else frames',
        "return frames",
        MEMORY,
    ),
    Defect(
        "a clip encoded as one video",
        "hosts/comfy/encoding.py",
        "vae.latent_dim == 3 and not vae.not_video",
        "vae.latent_dim == 5",
        VAE_ENCODE,
    ),
    Defect(
        "a VAE that is watched ever after",
        "hosts/comfy/encoding.py",
        "watched.process_input = process_input",
        "watched.process_input = vae.process_input = process_input",
        VAE_ENCODE,
    ),
    Defect(
        "the picture's slice is one token off",
        "hosts/comfy/run/token_layout.py",
        "span = Span(int(places[0]), int(places[-1]) + 1)",
        "span = Span(max(int(places[0]) - 1, 0), int(places[-1]) + 1)",
        FAMILIES,
    ),
    Defect(
        "the text is there once, however many references",
        "attention/joint.py",
        "parts = [part for tokens in references for part in (before, tokens.unsqueeze(0), after)]",
        "parts = [before, *(tokens.unsqueeze(0) for tokens in references), after]",
        FAMILIES,
    ),
    Defect(
        "values of the frame itself under keys of the reference",
        "attention/joint.py",
        "_sequences(tensor[own], [tokens[number] for tokens in of_row], layout)",
        "_sequences(tensor[own], [tokens[0] for tokens in of_row], layout)",
        JOINT,
    ),
    Defect(
        "the text looks at the references",
        "attention/joint.py",
        "rest = attention(others, key, value,",
        "rest = attention(others, key.roll(1, 0), value.roll(1, 0),",
        JOINT,
    ),
    Defect(
        "what was in the override's slot is left out",
        "hosts/comfy/run/joint_attention.py",
        "inner = function if self.previous is None else partial(self.previous, function)",
        "inner = function",
        TRANSFORMERS,
    ),
    Defect(
        "nobody looks whether layers were bypassed",
        "hosts/comfy/run/joint_attention.py",
        "    model_pass.check_reached(options)\n",
        "",
        TRANSFORMERS,
    ),
    Defect(
        "repeated heads are kept as often as they come",
        "hosts/comfy/run/joint_attention.py",
        "image = image[:, :: layer.repeats]",
        "image = image[:, : image.shape[1] // layer.repeats]",
        FAMILIES,
    ),
    Defect(
        "masks of latents with an axis of time are one video's",
        "hosts/comfy/rows/conditions.py",
        "if latent.ndim != 5:",
        "if latent.ndim > 3:",
        INVARIANCE,
    ),
    Defect(
        "weights are lost where projections are shared",
        "attention/shared.py",
        "mask = bias_mask(batch.biases, key.shape[1], query)",
        "mask = None",
        WEIGHTS,
    ),
    Defect(
        "weights are lost beside another attn1 patch",
        "hosts/comfy/run/self_attention.py",
        "bias_mask(biases, key.shape[1] // len(biases[0]), query)",
        "None",
        WEIGHTS,
    ),
    Defect(
        "weights are lost in a transformer",
        "attention/joint.py",
        "if biases is not None and len(set(biases[row])) > 1:",
        "if False:",
        WEIGHTS,
    ),
    Defect(
        "rows with other weights share their keys",
        "attention/shared.py",
        "groups.setdefault((references, biases[row] if biases else ()), []).append(row)",
        "groups.setdefault((references, biases[0] if biases else ()), []).append(row)",
        "tests/attention/test_shared.py",
    ),
    Defect(
        "a frame that is named twice has the weight of one",
        "attention/references.py",
        "total[reference.frame] = total.get(reference.frame, 0.0) + reference.weight",
        "total[reference.frame] = reference.weight",
        "tests/attention/test_run.py",
    ),
    Defect(
        "scenes share their keyframes",
        "attention/references.py",
        "frames = tuple(frame - start for frame in self.frames if start <= frame < stop)",
        "frames = tuple(frame - start for frame in self.frames)",
        KEYFRAMES,
    ),
    Defect(
        "keyframes do not see one another",
        "attention/references.py",
        "if frame in self.frames or frame == 0:\n            return keyframes",
        "if frame in self.frames:\n            return (frame,)",
        KEYFRAMES,
    ),
    Defect(
        "frames are fused where the motion is not certain",
        "latents/fuse.py",
        "share = left * here.trust.to(x0)",
        "share = left * torch.ones_like(here.trust).to(x0)",
        FUSION,
    ),
    Defect(
        "frames are fused to what others were before fusion",
        "latents/fusion.py",
        "known[frame] = fuse_frame(own, others, strength)",
        "known[frame] = own if len(step.frames) == 1 else fuse_frame(own, others, strength)",
        "tests/latents/test_fusion.py",
    ),
    Defect(
        "a state leaves no predictions",
        "hosts/comfy/run/comfy_run.py",
        "stored = {**left.stored, **stored_predictions(self.keeps.kept, frames)}",
        "stored = {**left.stored}",
        FUSION,
    ),
    Defect(
        "an interrupted run keeps no predictions",
        "hosts/comfy/run/comfy_run.py",
        "return needed if self.keeps is None else needed | self.keeps.needed(self.lead.frames)",
        "return needed",
        FUSION,
    ),
    Defect(
        "fusion acts at every step",
        "hosts/comfy/run/comfy_run.py",
        "if at_most(last, sigma) and at_most(sigma, first):\n            return choice",
        "if True:\n            return choice",
        FUSION,
    ),
    Defect(
        "a second node adds the wrappers again",
        "hosts/comfy/attach.py",
        "if before is None:",
        "if True:",
        FUSION,
    ),
    Defect(
        "a ControlNet's VAE takes the hints of a clip for one video",
        "hosts/comfy/rows/conditions.py",
        "if makes_videos(control.vae):",
        "if False:",
        "tests/comfyui/test_transformer_controls.py",
    ),
    Defect(
        "motion: the way back is given for the way forth",
        "motion/motion.py",
        "way = 0 if frame < other else 1",
        "way = 1 if frame < other else 0",
        MOTION,
    ),
    Defect(
        "motion: far frames are compared without the way from frame to frame",
        "motion/motion.py",
        "chained = self._chained(earlier, later) if near else None",
        "chained = None",
        MOTION,
    ),
    Defect(
        "motion: what was found is kept without end",
        "motion/motion.py",
        "while self.bytes > self.most_bytes and len(self._kept) > 1:",
        "while self.bytes < 0:",
        MOTION,
    ),
    Defect(
        "motion: everything is trusted that stays on the picture",
        "motion/trust.py",
        "return (kept & _well_inside(flow))[:, 0]",
        "return _well_inside(flow)[:, 0]",
        MOTION,
    ),
    Defect(
        "motion: colours are not compared",
        "motion/trust.py",
        "kept &= (differs < COLOUR) & (around.mean(differs.clamp(max=OTHER)) < COLOUR_AROUND)",
        "pass",
        MOTION,
    ),
    Defect(
        "motion: a cell takes the mean of all that moves in it",
        "motion/pair.py",
        "agrees = (trusted & ((cells - around).norm(dim=0) < AGREE)).to(flow)",
        "agrees = trusted.to(flow)",
        MOTION,
    ),
    Defect(
        "motion: positions on a grid stay in pixels",
        "motion/pair.py",
        "cells = flow * unit",
        "cells = flow",
        MOTION,
    ),
    Defect(
        "motion: half precision for positions",
        "motion/pair.py",
        "moved = sample(flat, self.positions[None])",
        "moved = sample(flat, self.positions[None].half().float())",
        FUSE,
    ),
    Defect(
        "motion: new content is counted from the first frame",
        "motion/keyframes.py",
        "if newly_shown(motion, frame, found[-1]) > NEW:",
        "if newly_shown(motion, frame, found[0]) > NEW:",
        MOTION,
    ),
    Defect(
        "motion: Cancel is not looked for",
        "motion/motion.py",
        "self.before_each()",
        "self.pictures.shape",
        COMFY_MOTION,
    ),
    Defect(
        "motion: RAFT's first guess is taken",
        "hosts/comfy/motion.py",
        "flow = found[-1] if isinstance(found, (list, tuple)) and found else found",
        "flow = found[0] if isinstance(found, (list, tuple)) and found else found",
        COMFY_MOTION,
    ),
    Defect(
        "motion: RAFT gets colours from 0 to 1",
        "hosts/comfy/motion.py",
        "one, other = (2 * pair - 1).split(1)",
        "one, other = pair.split(1)",
        COMFY_MOTION,
    ),
    Defect(
        "motion: that of another shape is taken",
        "hosts/comfy/run/fusion.py",
        "if abs(height * columns - width * rows) > max(height, width):",
        "if rows == 0:",
        "tests/comfyui/test_fusion.py",
    ),
    Defect(
        "fusion: what is not trusted is mixed too",
        "latents/fuse.py",
        "return x0 + strength * (total - (1 - left) * x0)",
        "return x0 + strength * (total - x0)",
        FUSE,
    ),
    Defect(
        "fusion: a later frame is mixed in where an earlier one shows the place",
        "latents/fuse.py",
        "left = left - share",
        "left = left - share / 2",
        FUSE,
    ),
    Defect(
        "rerender: the second pass begins with what the first ended with",
        "attention/run.py",
        "        if run.rehearses:\n            return\n",
        "",
        RERENDER,
    ),
    Defect(
        "rerender: the evaluations of a second pass count on",
        "attention/run.py",
        'from {self.step} to {step}")\n        self.step = step',
        'from {self.step} to {step}")',
        RERENDER,
    ),
    Defect(
        "rerender: a second pass gets the noise of the start",
        "hosts/comfy/rerender/between_steps.py",
        "            self._remembered(*levels)\n",
        "            self.made.append(levels)\n",
        RERENDER,
    ),
    Defect(
        "rerender: what lies outside a mask is changed too",
        "hosts/comfy/rerender/between_steps.py",
        "x = changed if mask is None else torch.lerp(x, changed, mask.to(x))",
        "x = changed",
        RERENDER,
    ),
    Defect(
        "rerender: the first result does not lie on top",
        "hosts/comfy/rerender/passes.py",
        "for other in (place - 1, first)",
        "for other in (first, place - 1)",
        RERENDER,
    ),
    Defect(
        "rerender: the predictions of first frames are lost with an interruption",
        "hosts/comfy/rerender/passes.py",
        "given = predictions_in(taken.state.stored, taken.finished[0][0].shape[1:])",
        "pass",
        RERENDER,
    ),
    Defect(
        "rerender: the noise that the model has found is not kept",
        "hosts/comfy/rerender/changes.py",
        "return x + clean(self.scaling, sigma, held) - clean(self.scaling, sigma, x0), held",
        "return x + held - x0 - 0.1 * (x - x0), held",
        RERENDER,
    ),
    Defect(
        "rerender: samplers that plan several steps are taken",
        "hosts/comfy/rerender/single_steps.py",
        "return max(means, deviations) < allowed",
        "return True",
        RERENDER,
    ),
    Defect(
        "rerender: only steps of the schedule are tried, which may be too small to show anything",
        "hosts/comfy/rerender/single_steps.py",
        "large, last = torch.stack((sigmas[0], sigmas[0] / 2)), sigmas[-2:]",
        "large, last = sigmas[:2], sigmas[-2:]",
        RERENDER,
    ),
    Defect(
        "rerender: samplers that do not show every step are taken",
        "hosts/comfy/rerender/single_steps.py",
        "is not None and self.shown == list(range(len(part) - 1))",
        "is not None",
        RERENDER,
    ),
    Defect(
        "adain: deviations are left as they are",
        "latents/adain.py",
        "return (latent - own.mean) / own.deviation * wanted.deviation + wanted.mean",
        "return latent - own.mean + wanted.mean",
        "tests/latents/test_adain.py",
    ),
    Defect(
        "renoise: noise becomes weaker where the target counts",
        "latents/renoise.py",
        "share = torch.maximum(1 - weight, keeps_level)",
        "share = 1 - weight",
        "tests/latents/test_renoise.py",
    ),
    Defect(
        "fidelity: correction is never left out",
        "latents/fidelity.py",
        "return torch.where(failed, latent, corrected)",
        "return corrected",
        "tests/latents/test_fidelity.py",
    ),
    Defect(
        "colours: grey is spread over all colours",
        "latents/colours.py",
        "np.unique(mine.round(), return_counts=True)",
        "np.unique(mine, return_counts=True)",
        "tests/latents/test_colours.py",
    ),
    Defect(
        "field: the picture turns the other way",
        "motion/field.py",
        "x * math.cos(angle) - y * math.sin(angle),",
        "x * math.cos(angle) + y * math.sin(angle),",
        "tests/motion/test_field.py",
    ),
    Defect(
        "field: shifts are turned along with the picture",
        "motion/field.py",
        "away = points - centre - start * step",
        "away = points - centre",
        "tests/motion/test_field.py",
    ),
    Defect(
        "dynamics: half a cell takes every second cell twice",
        "latents/dynamics.py",
        "motion.positions - TIE",
        "motion.positions",
        "tests/latents/test_dynamics.py",
    ),
    Defect(
        "dynamics: what reading between cells takes from the noise is not made up for",
        "latents/dynamics.py",
        "return copy, kept.prod(dim=-1)",
        "return copy, torch.ones_like(motion.trust)",
        "tests/latents/test_dynamics.py",
    ),
    Defect(
        "dynamics: frames move against the field",
        "latents/dynamics.py",
        "motion.between(frame, 0, grid)",
        "motion.between(0, frame, grid)",
        "tests/latents/test_dynamics.py",
    ),
    Defect(
        "dynamics: noise is added as if all models mixed it alike",
        "hosts/comfy/dynamics.py",
        "return noise / clean if clean > 1e-6 else None",
        "return noise if clean > 1e-6 else None",
        DYNAMICS,
    ),
    Defect(
        "dynamics: noise is added in the scale of the latents that travel between nodes",
        "hosts/comfy/dynamics.py",
        "inside = model.model.process_latent_in(samples.float())",
        "inside = samples.float()",
        DYNAMICS,
    ),
    Defect(
        "dynamics: the first frame is not the one that was begun",
        "hosts/comfy/dynamics.py",
        'frames[0] = earlier["samples"][0]',
        "pass",
        DYNAMICS,
    ),
    Defect(
        "background: only this frame's foreground is left out",
        "motion/background.py",
        "trust=found.trust * here * found.carry(there)",
        "trust=found.trust * here",
        "tests/motion/test_background.py",
    ),
    Defect(
        "background: every frame gets the first mask",
        "motion/background.py",
        "self.foreground[frame if len(self.foreground) > 1 else 0]",
        "self.foreground[0]",
        "tests/motion/test_background.py",
    ),
    Defect(
        "joined ControlNet: its hooks stay after an error",
        "hosts/comfy/run/control_attention.py",
        """        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()""",
        """        yield
        for hook in hooks:
            hook.remove()""",
        CONTROLNET,
    ),
    Defect(
        "joined ControlNet: two in a chain share their layers",
        "hosts/comfy/model/control_layers.py",
        'layer._replace(block=f"control {depth} {layer.block}")',
        'layer._replace(block=f"control {layer.block}")',
        CONTROLNET,
    ),
    Defect(
        "joined ControlNet: weights are left out",
        "hosts/comfy/run/control_attention.py",
        "if carried.run.facts.order.logits:",
        "if False:",
        CONTROLNET,
    ),
    Defect(
        "joined ControlNet: a state goes on without it",
        "hosts/comfy/state/comfy_state.py",
        "layers = (*settings.layers, *controls)",
        "layers = settings.layers",
        CONTROLNET,
    ),
    Defect(
        "joined ControlNet: a copy with a hint does not take part",
        "hosts/comfy/run/control_attention.py",
        "copied.__class__ = AttendingControlNet",
        "pass",
        CONTROLNET,
    ),
    Defect(
        "prompts: frames blend to the wrong side",
        "hosts/comfy/prompts.py",
        "shares[current : current + 2] = 1 - along, along",
        "shares[current : current + 2] = along, 1 - along",
        "tests/comfyui/test_prompts.py",
    ),
    Defect(
        "prompts: pooled prompts are those of the first line",
        "hosts/comfy/prompts.py",
        "options[key] = _mixed(_same_shape(key, values, prompts), shares)",
        "options[key] = value",
        "tests/comfyui/test_prompts.py",
    ),
    Defect(
        "loose layers: the innermost level stays in",
        "attention/layers.py",
        "if channels[layer] < widest]",
        "if channels[layer] <= widest]",
        "tests/attention/test_layers.py",
    ),
    Defect(
        "propagate: the nearer keyframe is taken, right or wrong",
        "motion/propagate.py",
        "torch.sigmoid((costs[1] - costs[0]) / TOLERANCE + in_time)",
        "torch.sigmoid(0 * costs[0] + in_time)",
        PROPAGATE,
    ),
    Defect(
        "propagate: colours jump from one keyframe to the next",
        "motion/propagate.py",
        "in_time = math.log(other.distance / one.distance)",
        "in_time = 99 * math.log(other.distance / one.distance)",
        PROPAGATE,
    ),
    Defect(
        "propagate: what only one keyframe shows keeps its colours",
        "motion/propagate.py",
        "return carried[0] + passed * difference, carried[1] - (1 - passed) * difference",
        "return carried[0], carried[1]",
        PROPAGATE,
    ),
    Defect(
        "propagate: colours are compared where one keyframe shows something else",
        "motion/propagate.py",
        "one.motion.trust * other.motion.trust * alike",
        "torch.ones_like(alike)",
        PROPAGATE,
    ),
    Defect(
        "propagate: the choice is blurred over the rim of what is hidden",
        "motion/propagate.py",
        "return blurred(share, SOFT * max(share.shape))",
        "return blurred(share, max(share.shape) / 32)",
        PROPAGATE,
    ),
    Defect(
        "propagate: keyframes are carried too",
        "hosts/comfy/propagate.py",
        "        if frame in place:\n",
        "        if frame in place and frame in (0, len(source) - 1):\n",
        "tests/comfyui/test_propagate.py",
    ),
    Defect(
        "spread: the last keyframe counts instead of the next one",
        "hosts/comfy/propagate.py",
        "return [*before[-1:], *after[:1]]",
        "return [*before[-1:], *after[-1:]]",
        "tests/comfyui/test_propagate.py",
    ),
    Defect(
        "spread: broken pictures are taken",
        "hosts/comfy/propagate.py",
        "if broken := frames_not_finite(pictures):",
        "if broken := []:",
        "tests/comfyui/test_propagate.py",
    ),
    Defect(
        "spread: carried keyframes pile up in memory",
        "hosts/comfy/propagate.py",
        "            frames[frame] = _between(frame, beside, painted, source, motion)\n",
        "            made = _between(frame, beside, painted, source, motion)\n"
        "            bar.__dict__[frame], frames[frame] = made, made\n",
        "tests/comfyui/test_propagate.py",
    ),
    Defect(
        "resample: what is brought along overshoots at edges",
        "motion/resample.py",
        "return torch.minimum(torch.maximum(read, least), most)[0]",
        "return read[0]",
        PROPAGATE,
    ),
    Defect(
        "resample: what is brought along is blurred",
        "motion/resample.py",
        'mode="bicubic"',
        'mode="bilinear"',
        PROPAGATE,
    ),
    Defect(
        "smooth: what is not known counts as 0",
        "motion/smooth.py",
        "found = around / (blurred(known, radius) + ENOUGH)",
        "found = around",
        PROPAGATE,
    ),
    Defect(
        "fusion: its strength stays as it is at the start",
        "hosts/comfy/model/settings.py",
        "return self.strength + (self.end_strength - self.strength) * min(max(along, 0.0), 1.0)",
        "return self.strength",
        "tests/comfyui/test_fusion.py",
    ),
    Defect(
        "fusion: frames are mixed with what others were",
        "latents/fuse.py",
        "others = [(done[other], motion.between(frame, other, grid)) for other in earlier]",
        "others = [(x0[other], motion.between(frame, other, grid)) for other in earlier]",
        FUSE,
    ),
    Defect(
        "fusion: later frames count too",
        "latents/fuse.py",
        "earlier = [other for other in fused_to(frame) if other in done]",
        "earlier = [o for o in fused_to(frame) if done.setdefault(o, x0[o]) is not None]",
        FUSE,
    ),
]


def main() -> None:
    """Plant the defects that are asked for, and end with an error if the tests let one pass."""
    chosen = named(sys.argv[1:])
    if not chosen:
        sys.exit("no defect has a name that contains one of these words")
    passed = count_passing(chosen)
    if passed:
        sys.exit(f"{passed} of {len(chosen)} defects pass the tests")
    print(f"all {len(chosen)} defects are caught")


def named(words: list[str]) -> list[Defect]:
    """Return the defects whose names contain one of the words, or all of them if there is none."""
    return [d for d in DEFECTS if not words or any(word in d.name for word in words)]


def count_passing(defects: list[Defect]) -> int:
    """Plant one defect after another, print whether it is caught, and count those that are not."""
    passed = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "crossframe-copy"
        shutil.copytree(ROOT, copy, ignore=LEFT_OUT)
        bar = tqdm(defects, unit="defect")
        for defect in bar:
            bar.set_postfix_str(defect.name)
            caught = is_caught(defect, copy)
            bar.write(f"{'caught' if caught else 'PASSED':<8}{defect.name}")
            passed += not caught
    return passed


def is_caught(defect: Defect, copy: Path) -> bool:
    """Plant a defect in a copy of the pack, run its tests, and restore the file afterwards.

    Returns whether a test has failed.
    """
    file = copy / defect.file
    right = file.read_text()
    if right.count(defect.right) != 1:
        sys.exit(
            f"{defect.name!r}: {defect.file} does not hold its text exactly once; correct it here"
        )
    file.write_text(right.replace(defect.right, defect.wrong))
    command = [sys.executable, "-m", "pytest", "-x", "-q", *defect.tests.split()]
    try:
        return subprocess.run(command, cwd=copy, capture_output=True).returncode == 1
    finally:
        file.write_text(right)


if __name__ == "__main__":
    main()
