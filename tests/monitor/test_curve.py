"""Curves, reduced to a number of columns."""

from __future__ import annotations

import numpy as np
import pytest

from caffe.monitor.curve import Arrays, Curve, speed, window


def curve(values, xs=None) -> Arrays:
    values = np.asarray(values, np.float32)
    xs = np.arange(len(values)) if xs is None else np.asarray(xs)
    return Arrays(xs.astype(np.int64), values, xs / 10.0)


def test_a_spike_of_one_step_among_a_million_is_seen_at_full_width_and_found_by_zooming():
    values = np.sin(np.arange(1_000_000) / 1e5).astype(np.float32)
    values[654_321] = 9
    arrays, low, width, columns = curve(values), 0.0, 2000.0, 500
    while width > 1:
        high = window(arrays, "iterations", low, width, columns).high
        column = int(np.nanargmax(high))
        assert high[column] == 9
        low, width = low + width * column - width, max(1.0, width * 3 // columns)
    high = window(arrays, "iterations", low, 1.0, columns).high
    assert low + int(np.nanargmax(high)) == 654_321


def test_columns_hold_least_largest_and_mean_of_their_own_values():
    shown = window(curve([3, 1, 2, 5, 7, 6]), "iterations", 0.0, 2.0, 4)
    np.testing.assert_array_equal(shown.low, [1, 2, 6, np.nan])
    np.testing.assert_array_equal(shown.high, [3, 5, 7, np.nan])
    np.testing.assert_array_equal(shown.mean, [2, 3.5, 6.5, np.nan])


def test_values_that_are_not_finite_do_not_count():
    shown = window(curve([1, np.nan, np.inf, -np.inf, 4, 2]), "iterations", 0.0, 2.0, 3)
    np.testing.assert_array_equal(shown.low, [1, np.nan, 2])
    np.testing.assert_array_equal(shown.high, [1, np.nan, 4])
    np.testing.assert_array_equal(shown.mean, [1, np.nan, 3])


def test_a_line_that_crosses_the_window_has_values_at_its_edges():
    shown = window(curve([0, 100], [0, 100]), "iterations", 40.0, 1.0, 11)
    assert (shown.low[0], shown.high[-1]) == (40.5, 50.5)
    assert np.isnan(shown.mean[1:-1]).all()


def test_the_axis_of_seconds_divides_by_seconds():
    shown = window(curve([3, 1, 2, 5]), "seconds", 0.0, 0.2, 2)
    np.testing.assert_array_equal(shown.high, [3, 5])


def test_a_run_that_is_resumed_replaces_what_stood_from_there_on():
    made = Curve()
    for x in range(600):
        made.add(x, float(x), x / 10)
    made.flush()
    before = made.arrays
    for x in range(200, 210):
        made.add(x, -1.0, 100.0 + x)
    made.flush()
    assert len(before.x) == 600
    assert before.y[205] == 205
    np.testing.assert_array_equal(made.arrays.x, np.arange(210))
    np.testing.assert_array_equal(made.arrays.y[200:], np.full(10, -1))
    assert (np.diff(made.arrays.seconds) >= 0).all()


def test_arrays_that_were_handed_out_are_never_written():
    made, seen = Curve(), []
    for x in range(3000):
        made.add(x, float(x), 0.0)
        if x % 37 == 0:
            made.flush()
            seen.append(made.arrays)
    assert all(np.array_equal(arrays.y, arrays.x) for arrays in seen)


@pytest.mark.parametrize("count", [0, 1, 2, 5000])
def test_speed_is_iterations_a_second(count):
    found = speed(curve(np.zeros(count)))
    np.testing.assert_allclose(found.y, 10, rtol=1e-5)
    assert len(found.x) <= 501
