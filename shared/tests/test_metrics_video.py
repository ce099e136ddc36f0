"""The figures of clips: against trajectories that are known, and against faults that were planted."""

import json

import pytest
import torch
import torch.nn.functional as F

from shared.datasets import DataConfig, load
from shared.datasets.moving_digits import MovingDigits
from shared.datasets.video_config import VideoConfig
from shared.errors import UserError
from shared.metrics import video
from shared.metrics.loops import seam
from shared.metrics.tracking import track
from shared.metrics.video import drift, judge_clips, real_clips
from shared.metrics.video_figures import measure, speeds, windows
from shared.metrics.video_judge import video_features

FORM = (1, 1, 16, 32)
N = 30


@pytest.fixture(scope="module", autouse=True)
def small_reference():
    """Distances are held against few clips here: these tests are not about their size."""
    kept = video.reference_statistics, video.real_floor
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(video, "POOL", 60)
        for cache in kept:
            cache.cache_clear()
        yield
    for cache in kept:  # what other tests ask for is not to be of this size
        cache.cache_clear()


@pytest.fixture(scope="module")
def real() -> tuple[torch.Tensor, torch.Tensor]:
    """Clips of the training digits, which are others than those that the figures are held against, and labels."""
    return real_clips(FORM, "train", N)


@pytest.fixture(scope="module")
def report(real):
    return judge_clips(*real)


def test_real_clips_reach_what_real_clips_reach(report):
    for figures in (report.generated, report.real):
        assert figures.measured == 1
        assert figures.identity > 0.95 and figures.confident > 0.9 and figures.agreement > 0.95
        assert figures.moving == 1 and figures.speed_right > 0.9 and figures.constant > 0.97
        assert 2.0 <= figures.speed <= 2.2  # 2 pixels a frame; of whole pixels the median is a little more
    assert all(0.9 < share < 1.1 for share in report.of_real.values())
    assert report.distance == pytest.approx(report.ratio * report.floor) and 0.4 < report.ratio < 2.5


def test_what_is_written_down(report):
    found = json.loads(json.dumps(report.to_dict()))
    assert found["n"] == N and found["frames"] == 16 and found["size"] == 32 and found["digits"] == 1
    assert {"extractor", "reference", "caveat", "generated", "real", "of_real", "floor"} <= found.keys()
    assert found["of_real"]["identity"] == report.generated.identity / report.real.identity
    assert video.CAVEAT in str(report) and "singular" in str(report)
    assert judge_clips(real_clips(FORM, "train", 4)[0]).generated.agreement is None


def still(x):
    return x[:, :, :1].expand_as(x)


def shuffled(x):
    return x[:, :, torch.randperm(x.shape[2], generator=torch.Generator().manual_seed(0))]


def changed(x):
    return torch.cat([x[:, :, :8], x.roll(N // 2 + 1, 0)[:, :, 8:]], dim=2)


def blinking(x):
    x = x.clone()
    x[:, :, 3:5] = -1.0
    return x


def blurred(x):
    return F.avg_pool3d(x + 1, (1, 5, 5), stride=1, padding=(0, 2, 2)) - 1


def jittering(x):
    """Each frame up to 2 pixels off its place, each way."""
    shifts = torch.randint(-2, 3, (16, 2), generator=torch.Generator().manual_seed(0)).tolist()
    return torch.stack([x[:, :, f].roll(shift, (-2, -1)) for f, shift in enumerate(shifts)], dim=2)


FAULTS = {  # what must fall to at most this share of the real figure, and what must stay near it
    "stills": (still, {"moving": 0, "speed_right": 0, "constant": 0}, {"identity", "confident", "agreement"}),
    "shuffled": (shuffled, {"speed_right": 0.25, "constant": 0.75}, {"identity", "confident", "agreement"}),
    "changed": (changed, {"identity": 0.3}, {"confident"}),
    "blinking": (blinking, {"identity": 0, "confident": 0.95}, {"speed_right", "constant", "agreement"}),
    "blurred": (blurred, {"confident": 0.8, "agreement": 0.7}, {"moving"}),
    "jittering": (jittering, {"constant": 0.75}, {"identity", "agreement", "moving"}),
    "noise": (torch.rand_like, {"identity": 0, "confident": 0, "moving": 0, "agreement": 0, "constant": 0}, set()),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_seen_where_it_is(real, report, name):
    spoil, fallen, kept = FAULTS[name]
    clips, labels = real
    torch.manual_seed(0)
    spoiled = spoil(clips) * 2 - 1 if name == "noise" else spoil(clips)
    figures = measure(spoiled, 1, report.real.speed, labels)
    for figure, most in fallen.items():
        assert getattr(figures, figure) <= most * getattr(report.real, figure), f"{figure}: {figures}"
    for figure in kept:
        assert getattr(figures, figure) >= 0.9 * getattr(report.real, figure), f"{figure}: {figures}"


@pytest.mark.parametrize(("factor", "right", "moving"), [(0.2, 0, 0.4), (0.5, 0, 1), (1.0, 1, 1), (1.5, 0, 1)])
def test_another_speed_is_found_out(report, factor, right, moving):
    data = MovingDigits("train")
    data.step *= factor
    clips = torch.stack([data[i][0] for i in range(0, 45000, 1523)])
    figures = measure(clips, 1, report.real.speed)
    assert figures.speed_right == pytest.approx(right, abs=0.12)
    assert figures.moving == pytest.approx(moving, abs=0.4 if factor < 0.3 else 0.01)
    if factor >= 0.5:
        assert figures.constant > 0.95  # however fast, as long as it is the same


def line(step: tuple[int, int], frames: int = 7) -> torch.Tensor:
    """A clip (1, 1, F, 64, 64) of a bar that moves by whole pixels."""
    clip = torch.full((1, 1, frames, 64, 64), -1.0)
    for f in range(frames):
        y, x = 14 + f * step[0], 20 + f * step[1]
        clip[0, 0, f, y : y + 20, x : x + 6] = 1.0
    return clip


@pytest.mark.parametrize("step", [(0, 0), (3, 0), (0, 2), (1, 2), (2, 3)])
def test_the_speed_is_the_length_of_the_step(step):
    assert speeds(track(line(step))).item() == pytest.approx((step[0] ** 2 + step[1] ** 2) ** 0.5, abs=1e-4)


@pytest.mark.parametrize(("change", "right"), [(0, True), (1, True), (2, False), (3, False)])
def test_velocities_may_differ_by_the_cut_to_whole_pixels(change, right):
    """Steps of 2 and of 2 + change pixels by turns, far from all borders."""
    clip = torch.full((1, 1, 6, 64, 64), -1.0)
    x = 20
    for f in range(6):
        clip[0, 0, f, 22:42, x : x + 6] = 1.0
        x += 2 + (change if f % 2 else 0)
    figures = measure(clip, 1, real_speed=2.0)
    assert figures.constant == (1.0 if right else 0.5)  # along the other axis it does not move, constantly


def test_a_bounce_is_no_change_of_velocity_and_a_turn_in_the_open_is():
    turning = line((0, 3), 12)
    turning = torch.cat([turning[:, :, :6], turning[:, :, :6].flip(2)[:, :, 1:]], dim=2)  # at x = 35 of 64
    assert measure(turning, 1, real_speed=3.0).constant < 1
    bouncing = torch.full((1, 1, 13, 64, 64), -1.0)
    for f in range(13):
        x = 58 - abs(6 - f) * 4  # up to the right border, and back
        bouncing[0, 0, f, 22:42, x : x + 6] = 1.0
    assert measure(bouncing, 1, real_speed=4.0).constant == 1


def test_two_digits(monkeypatch):
    monkeypatch.setattr(video, "POOL", 24)
    clips, labels = real_clips((2, 1, 20, 64), "train", 12)
    report = judge_clips(clips, labels, VideoConfig(digits=2))
    assert report.digits == 2 and report.frames == 20 and report.size == 64
    for figures in (report.generated, report.real):
        assert figures.measured > 0.7 and figures.identity > 0.8 and figures.confident > 0.9
        assert figures.moving > 0.95 and figures.speed_right > 0.85 and figures.constant > 0.97
        assert 3 < figures.speed < 4.3  # 3.6 pixels a frame
    assert report.ratio is not None and "one digit" in " ".join(report.notes)


def test_drift_is_where_it_begins():
    clips = real_clips((1, 1, 40, 32), "train", 8)[0].clone()
    clips[:, :, 20:] = torch.cat([clips[4:, :, 20:], clips[:4, :, 20:]])  # other digits from frame 20 on
    clips[:, :, 30:] = -1.0
    found = drift(clips, length=10)
    assert [(part["first"], part["last"]) for part in found] == [(0, 9), (10, 19), (20, 29), (30, 39)]
    assert all(part["real_same"] > 0.95 and part["real_confident"] > 0.8 for part in found)
    assert [part["same"] > 0.9 for part in found] == [True, True, False, False]
    assert [part["confident"] > 0.9 for part in found] == [True, True, True, False]
    assert windows(clips, length=25)[1].last == 39


def test_the_seam_of_a_loop():
    """A bar that goes round a ring of pixels in as many steps as there are closes; half a round does not."""
    frame = torch.rand(3, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    ring = torch.stack([frame.roll(4 * f, -1) for f in range(8)], dim=2)
    assert seam(ring).ratio == pytest.approx(1, abs=0.1)
    ramp = torch.linspace(-1, 1, 9).reshape(1, 1, 9, 1, 1).expand(2, 3, 9, 4, 4)
    found = seam(ramp)
    assert (found.n, found.seam, found.ratio) == pytest.approx((2, 2.0, 8.0))
    assert found.step == pytest.approx(0.25)
    assert seam(torch.zeros(2, 1, 4, 8, 8)).ratio is None


def test_few_frames_and_small_pictures_have_no_distance():
    report = judge_clips(real_clips((1, 1, 7, 28), "train", 4)[0])
    assert report.distance is report.floor is report.ratio is None and "no distance" in str(report)
    assert report.generated.identity == 1


@pytest.mark.parametrize(
    ("clips", "labels", "message"),
    [
        (torch.zeros(1, 1, 16, 32, 32) - 0.5, None, "at least 2 clips"),
        (torch.zeros(4, 1, 2, 32, 32) - 0.5, None, "3 frames"),
        (torch.zeros(4, 1, 16, 32, 40) - 0.5, None, "square, not 32×40"),
        (torch.zeros(4, 3, 16, 32, 32) - 0.5, None, "not "),
        (torch.zeros(4, 1, 16, 32, 32) - 0.5, torch.zeros(3), "4 clips need as many labels"),
        (torch.zeros(4, 1, 16, 20, 20) - 0.5, None, "room to move"),
    ],
)
def test_what_it_refuses(clips, labels, message):
    with pytest.raises(UserError, match=message) as caught:
        judge_clips(clips, labels)
    assert "\n" not in str(caught.value)


def test_other_sets_have_no_figures(real):
    with pytest.raises(UserError, match="moving_digits"):
        judge_clips(real[0], reference=VideoConfig(name="ucf101"))


def test_the_reference_is_of_held_out_digits():
    held_out = load(DataConfig(name="digits", split="test")).images[:, 0].flatten(1).float().sum(1)
    whole = ((real_clips(FORM, "test", 20)[0][:, 0, 0] + 1) * 127.5).sum((1, 2))
    assert (whole[:, None] - held_out).abs().amin(dim=1).max() < 1  # the light of one of 500 digits, to the last grey
    clips, _ = real_clips(FORM, "test", video.POOL)
    mean, covariance = video.reference_statistics(FORM)
    torch.testing.assert_close(mean, video_features(clips).double().mean(dim=0), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(covariance, video_features(clips).double().T.cov(), atol=1e-3, rtol=1e-3)


def test_real_clips_come_in_parts(monkeypatch):
    clips, labels = real_clips(FORM, "test", 20)
    later, named = real_clips(FORM, "test", 7, 13)
    assert torch.equal(later, clips[13:]) and torch.equal(named, labels[13:])
    monkeypatch.setattr(video, "PART", 9)
    features = video.real_features.__wrapped__(FORM, "test", 20)
    torch.testing.assert_close(features, video_features(clips), atol=1e-4, rtol=1e-4)


def test_more_clips_than_there_are_real_ones():
    with pytest.raises(UserError, match="more than the 10000 real"):
        real_clips(FORM, "test", 10001)


def test_loops_of_another_shape_are_refused():
    with pytest.raises(UserError, match="loops are clips"):
        seam(torch.zeros(2, 1, 2, 8, 8))
