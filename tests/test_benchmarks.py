"""The benchmarks measure what they say, and their tables follow from what they measured."""

import csv

import numpy as np
import pytest
import torch
from crossframe.attention import joint
from crossframe.benchmarks import (
    architectures,
    drift,
    measures,
    motion,
    moving_photos,
    prompts,
    propagation,
    speed,
)
from crossframe.benchmarks import consistency as benchmark
from crossframe.motion import PairMotion, pixel_grid


def row(**changes):
    """The measures of four clips."""
    values = {name: np.array([1.0, 2.0, 3.0, 4.0]) for name in benchmark.MEASURES}
    return {**values, **changes}


def test_an_interval_holds_the_mean_and_narrows_with_agreement():
    found = benchmark.interval(np.array([1.0, 2.0, 3.0, 4.0]))
    assert found.mean == 2.5
    assert 1 < found.low < 2.5 < found.high < 4
    same = benchmark.interval(np.full(5, 3.0))
    assert (same.low, same.mean, same.high) == (3, 3, 3)


def test_an_interval_covers_the_truth_as_often_as_it_says():
    random = np.random.default_rng(1)
    hits = 0
    for _ in range(200):
        found = benchmark.interval(random.normal(5, 2, size=50))
        hits += found.low <= 5 <= found.high
    assert 180 <= hits <= 199


def test_a_ratio_is_that_of_the_means_over_the_same_clips():
    plain = np.array([10.0, 20.0, np.nan, 30.0])
    steady = np.array([1.0, 2.0, 5.0, 3.0])
    found = benchmark.interval(plain, steady)
    assert found.mean == pytest.approx(10)
    assert (found.low, found.high) == pytest.approx((10, 10))


def test_what_no_clip_has_is_no_number():
    assert np.isnan(benchmark.interval(np.full(3, np.nan)).mean)


def test_the_tables_have_every_setting_and_its_gain(tmp_path):
    rows = {"plain": row(near=np.full(4, 0.08)), "steady": row(near=np.full(4, 0.001))}
    plain, steady = benchmark.steadiness(rows, "plain").splitlines()[2:]
    assert plain.startswith("| plain | 80.0 (80.0 to 80.0) |")
    assert steady.endswith("| 80.0 (80.0 to 80.0) | 1.00 (1.00 to 1.00) |")
    benchmark.write_csv(tmp_path / "table.csv", rows)
    with (tmp_path / "table.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 2 * len(benchmark.MEASURES)
    assert lines[0] | {"mean": 0} == {
        "setting": "plain", "measure": "near", "mean": 0, "low": "0.08", "high": "0.08",
        "clips": "4",
    }  # fmt: skip
    benchmark.plot(tmp_path / "plot.png", rows)
    assert (tmp_path / "plot.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("name", "share", "kept"),
    [
        ("layout", 0.995, True),
        ("layout", 0.98, False),
        ("layout", 1.2, True),
        ("detail", 0.94, False),
        ("detail", 1.06, False),
        ("detail", 1.04, True),
        ("diversity", 0.94, False),
        ("newcomer_contrast", 0.91, True),
        ("newcomer_contrast", 0.89, False),
    ],
)
def test_a_guard_that_is_kept_is_bold(name, share, kept):
    plain = row()
    lines = benchmark.guards({"plain": plain, "x": row(**{name: share * plain[name]})}, "plain")
    cell = lines.splitlines()[3].split(" | ")[1 + list(benchmark.GUARDS).index(name)]
    assert cell.strip(" |").startswith("**") == kept
    assert f"{100 * share:.3g}" in cell


def test_rows_have_names_of_their_own():
    names = [row.name for row in benchmark.ROWS]
    assert len(set(names)) == len(names)
    assert benchmark.BASELINE.name in names


def test_growth_is_the_ratio_of_errors_at_two_distances():
    errors = {"x": np.array([[1.0, 4.0, 8.0], [3.0, 12.0, 24.0]]) / 1000}
    (line,) = drift.growth(errors, [1, drift.SETTLED, 48]).splitlines()[2:]
    cells = [cell.split(" ")[0] for cell in line.strip("| ").split(" | ")]
    assert cells == ["x", "2.00", "8.00", "16.0", "2.00", "8.00"]


def test_flop_of_attention_are_counted():
    query, key = torch.randn(2, 3, 16, 8), torch.randn(2, 3, 32, 8)
    attention = torch.nn.functional.scaled_dot_product_attention
    with torch.inference_mode():
        assert (
            measures.count_flop(lambda: attention(query, key, key)) == 2 * 2 * 2 * 3 * 16 * 32 * 8
        )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there the device's own count is used")
def test_the_peak_is_of_what_lives_at_once():
    weight = torch.ones(1000)  # was there before

    def one_after_the_other():
        for _ in range(5):
            (weight * 2).view(10, 100).t()

    def together():
        kept = [weight + number for number in range(5)]
        kept[0].mul_(2)

    assert measures.peak_bytes(one_after_the_other) == 4000
    assert measures.peak_bytes(together) == 5 * 4000


def test_kinds_of_kernels():
    image, weight = torch.randn(1, 8, 64, 64), torch.randn(8, 8, 3, 3)

    def work():
        features = torch.nn.functional.conv2d(image, weight, padding=1).flatten(2)
        torch.nn.functional.scaled_dot_product_attention(features, features, features)
        torch.cat([features @ features.transpose(1, 2)] * 2).exp()

    seconds = measures.seconds_by_kind(work)
    assert all(seconds[kind] > 0 for kind in ("attention", "convolution", "copies", measures.REST))


def test_rows_are_ratios_to_the_first():
    plain = speed.Row("plain, x", None, [2.0, 4.0], [2.0, 2.0], [0.1], 100, 8, 2**20)
    ours = speed.Row("ours", None, [1.8, 6.0], [1.0, 9.0], [0.2], 110, 8, 2**21, ours=True)
    first, second = speed.results([plain, ours], floor=20)
    assert (first["time"], first["efficiency"]) == (1, "")
    assert (second["time"], second["median"], second["process time"]) == (0.9, 1.3, 0.5)
    assert (second["FLOP"], second["efficiency"]) == (1.1, 0.75)  # 0.9 of the time, 1.2 at least
    assert (second["rows through the U-Net"], second["peak MiB"]) == (1, 2)


def test_moving_photos_move_as_they_say():
    clip = moving_photos.MovingPhotos(0, frames=4)
    here, there = clip.frame(0), clip.frame(3)
    pair = clip.between(0, 3)
    visible = pair.trust > 0.5
    found = (here - pair.carry(there)).abs().mean(dim=0)[visible].median()
    assert visible.float().mean() > 0.6
    assert found < 0.03  # of exposure and noise
    assert (here - there).abs().mean(dim=0)[visible].median() > 2 * found


def test_a_motion_is_scored_against_the_exact_one():
    still = pixel_grid(torch.empty(8, 8, 2))
    visible = torch.ones(8, 8)
    visible[0] = 0
    trust = torch.ones(8, 8)
    trust[:, 0] = 0
    found = PairMotion(still + torch.tensor([0.1, 0.0]), trust)
    found.positions[1, 1] += 4
    score = motion.Score.of(found, PairMotion(still, visible))
    assert score.off == pytest.approx(6.4, rel=1e-3)  # a tenth of a pixel of 8, in 512ths
    assert score.found == pytest.approx(49 / 56)
    assert score.wrong == pytest.approx(8 / 56)  # seven are hidden, one lies elsewhere


def test_own_text_once_leaves_the_images_as_they_are():
    layout = joint.Layout(joint.Span(2, 5), joint.Span(2, 5), 5, 5, axis=1, out_axis=1)
    own = torch.arange(5.0).reshape(1, 5, 1)
    references = [torch.full((3, 1), 10.0), torch.full((3, 1), 20.0)]
    repeated = joint._sequences(own, references, layout)
    with architectures.own_text_once():
        once = joint._sequences(own, references, layout)
    assert repeated.flatten().tolist() == [0, 1, *[10] * 3, 0, 1, *[20] * 3]
    assert once.flatten().tolist() == [0, 1, *[10] * 3, *[20] * 3]
    assert torch.equal(joint._sequences(own, references, layout), repeated)


def test_every_case_has_a_name_of_its_own_and_a_plain_row_to_compare_with():
    names = [case.name for case in architectures.CASES]
    assert len(set(names)) == len(names)
    rows = {name: row() for name in names}
    text = "\n".join(architectures.tables(rows))
    assert all(f"| {name} |" in text for name in names)
    assert all(case.name in names for pair in architectures.PAIRS for case in pair)
    assert text.count("| 1.00 (1.00 to 1.00) |") > len(architectures.PAIRS)
    assert "| DiT: plain, different noise | " in text
    assert "| U-Net: plain, different noise | " in text


def test_the_share_of_hits_counts_what_pictures_show():
    found = prompts.interval([[True, True, False], [], [True]])
    assert found.mean == 0.75
    assert 0 < found.low < 0.75 < found.high <= 1


def test_frames_between_keyframes_are_held_or_faded():
    task = propagation.Task(torch.zeros(9, 1, 1, 3), None, (0, 4, 8))
    pictures = torch.tensor([0.0, 0.4, 1.0])[:, None, None, None].expand(3, 1, 1, 3)
    held, faded = (
        make(pictures, task)[:, 0, 0, 0] for make in (propagation.held, propagation.faded)
    )
    assert held.tolist() == pytest.approx([0, 0, 0, 0.4, 0.4, 0.4, 0.4, 1, 1])
    assert faded.tolist() == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.55, 0.7, 0.85, 1])


def test_frames_made_in_another_way_keep_the_keyframes():
    task = propagation.Task(torch.zeros(9, 4, 4, 3), None, (0, 4, 8))
    edits = torch.rand(2, 2, 9, 3, 4, 4)
    made = propagation._made_again(edits, [task, task], propagation.faded)
    assert made.shape == edits.shape
    assert torch.allclose(made[:, :, [0, 4, 8]], edits[:, :, [0, 4, 8]])
    assert torch.allclose(made[:, :, 2], (edits[:, :, 0] + edits[:, :, 4]) / 2)
