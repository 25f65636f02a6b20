"""The recorded course of a training run: complete after a kill and a resumption, and never too long to draw."""

from __future__ import annotations

from facviz.store.training import MAX_POINTS, SERIES, TRAINING_FILE, TrainingCurve, read_training


def add(curve, steps, offset=0.0):
    for step in steps:
        curve.add(step, **dict.fromkeys(SERIES, step + offset))


def test_a_course_is_read_back_with_its_last_step(tmp_path):
    add(TrainingCurve(tmp_path, 5), range(1, 6))
    course = read_training(tmp_path)
    assert (course.steps, course.series["fvu"], course.is_finished) == (
        (1, 2, 3, 4, 5),
        (1.0, 2.0, 3.0, 4.0, 5.0),
        True,
    )


def test_after_a_kill_the_repeated_steps_count_and_a_torn_line_swallows_nothing(tmp_path):
    add(TrainingCurve(tmp_path, 3), [1, 2])
    add(TrainingCurve(tmp_path, 2), [2])  # the last step of a run is written at once
    with (tmp_path / TRAINING_FILE).open("a") as file:
        file.write('\n{"step": 9, "lo')
    add(TrainingCurve(tmp_path, 3), [2, 3], offset=0.5)
    course = read_training(tmp_path)
    assert (course.steps[-2:], course.series["loss"][-2:], course.is_finished) == ((2, 3), (2.5, 3.5), True)


def test_a_long_course_is_thinned_but_keeps_its_end(tmp_path):
    add(TrainingCurve(tmp_path, 5000), range(1, 5001))
    course = read_training(tmp_path)
    assert len(course.steps) <= MAX_POINTS + 1
    assert (course.steps[0], course.steps[-1]) == (1, 5000)


def test_nothing_recorded_is_none(tmp_path):
    assert read_training(tmp_path) is None
