"""The clock on a screen, filmed: in perspective, blurred, noisy, in an exposure that sees it change."""

import cv2
import numpy as np
import pytest

from robot_rl.hardware.cameras.camera import Frame
from robot_rl.hardware.cameras.display_clock import (
    BITS,
    HEIGHT,
    TICK,
    TICKS,
    WIDTH,
    LatencyMeter,
    draw,
    gray,
    read,
    shown,
    tick_at,
)  # fmt: skip
from robot_rl.hardware.cameras.synthetic import SyntheticSource

PERIOD = 1 / 30
CORNERS = np.array([[112, 88], [540, 130], [505, 400], [90, 352]], np.float32)  # in the picture, of 480 x 640


def film(pattern, generator, corners=CORNERS, size=(480, 640), blur=1.2, noise=6.0):
    """What a camera makes of a screen that shows a pattern, float or uint8 [height, width]."""
    height, width = pattern.shape
    drawn = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    transform = cv2.getPerspectiveTransform(drawn, corners)
    seen = cv2.warpPerspective(
        pattern.astype(np.float32), transform, size[::-1], borderValue=40.0, flags=cv2.INTER_AREA
    )
    light = np.linspace(0.45, 0.8, size[1])[None, :]  # dim, and uneven
    seen = cv2.GaussianBlur(30.0 + seen * light, (0, 0), blur)
    colours = seen[..., None] * np.array([1.0, 0.9, 0.75]) + generator.normal(0.0, noise, (*size, 3))
    return np.clip(colours, 0, 255).astype(np.uint8)


def exposed(time, exposure, steps=9):
    """The screen's light during an exposure that ends at a time."""
    times = time - exposure * (np.arange(steps) + 0.5) / steps
    return np.mean([draw(tick_at(each)).astype(float) for each in times], axis=0)


def test_neighbours_differ_in_one_bit_also_around_the_end():
    ticks = np.arange(TICKS)
    codes = ticks ^ ticks >> 1
    assert len(set(codes.tolist())) == TICKS
    steps = codes ^ np.roll(codes, -1)
    assert (steps & steps - 1 == 0).all()
    assert gray(5) == codes[5]


@pytest.mark.parametrize("tick", [0, 1, 2, TICKS - 1, 0b0101010101010101, 40_000])
def test_what_is_drawn_is_read(tick):
    assert draw(tick).shape == (HEIGHT * 8, WIDTH * 8)
    assert read(np.pad(draw(tick), 20, constant_values=255)) == tick
    assert read(film(draw(tick), np.random.default_rng(0))) == tick


def test_what_is_read_is_right_or_nothing_however_bad_the_picture():
    generator, right, wrong = np.random.default_rng(1), 0, 0
    for trial in range(60):
        tick = int(generator.integers(TICKS))
        corners = CORNERS + generator.normal(0, 12, (4, 2)).astype(np.float32)
        found = read(film(draw(tick), generator, corners, blur=1 + trial / 15, noise=4 + trial / 3))
        right, wrong = right + (found == tick), wrong + (found not in (tick, None))
    assert wrong == 0
    assert right > 25


def test_other_pictures_hold_no_clock():
    generator = np.random.default_rng(2)
    assert read(generator.integers(0, 256, (240, 320, 3), np.uint8)) is None
    assert read(np.full((240, 320, 3), 128, np.uint8)) is None
    covered = film(draw(77), generator)
    covered[:200, :260] = 90
    assert read(covered) is None


def test_a_change_during_the_exposure_lies_between_the_ticks():
    generator = np.random.default_rng(3)
    for tick in (6, 7, 1023, TICKS - 1):
        both = (draw(tick).astype(float) + draw((tick + 1) % TICKS)) / 2
        assert read(film(both, generator)) == tick + 0.5


def test_two_ticks_that_are_no_neighbours_are_refused():
    mixed = (draw(100).astype(float) + draw(100 ^ 1 << BITS - 2)) / 2
    assert read(film(mixed, np.random.default_rng(4))) is None


def test_the_time_of_a_tick_is_the_nearest_one():
    now = 1.8e9 + 0.011
    assert shown(tick_at(now), now + 0.3) == pytest.approx(now, abs=TICK)
    assert shown(TICKS - 1, TICKS * TICK * 5) == pytest.approx(TICKS * TICK * 5 - TICK / 2)


@pytest.mark.parametrize(
    ("latency", "stamped", "exposure"),
    [
        (0.12, 0.03, 0.008),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in [(0.045, 0.0, 0.03), (0.4, 0.4, 0.016)]),
    ],
)
def test_the_latency_of_a_filmed_clock_is_measured_within_a_frame(latency, stamped, exposure):
    """From the middle of the exposure, of a camera whose pictures come and are stamped that much later."""
    generator, meter = np.random.default_rng(5), LatencyMeter()
    for number in range(60):
        middle = 1.8e9 + number * PERIOD * 1.0007
        picture = film(exposed(middle + exposure / 2, exposure), generator)
        meter.take(Frame(picture, middle + stamped, middle + latency))
    assert meter.pictures == 60
    assert len(meter.arrival) > 30
    assert np.median(meter.arrival) == pytest.approx(latency, abs=PERIOD / 3)
    assert np.median(meter.stamp) == pytest.approx(stamped, abs=PERIOD / 3)
    assert np.abs(np.array(meter.arrival) - latency).max() < PERIOD


def test_the_synthetic_camera_films_it_live():
    generator = np.random.default_rng(6)
    source = SyntheticSource(rate=20.0, latency=0.15, scene=lambda now: film(draw(tick_at(now)), generator))
    source.open()
    meter = LatencyMeter()
    for _ in range(10):
        meter.take(source.read())
    assert len(meter.stamp) == 10
    assert np.abs(meter.stamp).max() <= TICK / 2 + 1e-6
    assert min(meter.arrival) > 0.15 - TICK
