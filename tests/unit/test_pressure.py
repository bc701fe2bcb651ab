"""Levels of disk and memory, with their hysteresis."""

from __future__ import annotations

import pytest

from storage.pressure import Level, Load, level, sentence, used_share

MIB = 1024 * 1024
CALM = {"space_share": 0.5, "disk_share": 0.0, "memory_share": 0.0, "wait_s": 0.0}


def load(**said: float) -> Load:
    return Load(**{**CALM, **said})


@pytest.mark.parametrize("what", ["space_share", "disk_share"])
@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (0.69, Level.CALM),
        (0.70, Level.WARN),
        (0.84, Level.WARN),
        (0.85, Level.SHED),
        (0.94, Level.SHED),
        (0.95, Level.REFUSE),
        (1.0, Level.REFUSE),
    ],
)
def test_space_and_disk_warn_at_70_shed_at_85_and_refuse_at_95_percent(what: str, share: float, expected: Level):
    assert level(load(**{what: share}), Level.CALM) is expected


@pytest.mark.parametrize(
    ("before", "share", "expected"),
    [
        (Level.WARN, 0.66, Level.WARN),
        (Level.WARN, 0.64, Level.CALM),
        (Level.SHED, 0.81, Level.SHED),
        (Level.SHED, 0.79, Level.WARN),
        (Level.REFUSE, 0.91, Level.REFUSE),
        (Level.REFUSE, 0.89, Level.SHED),
        (Level.REFUSE, 0.0, Level.CALM),
    ],
)
def test_a_level_is_left_five_points_below_where_it_began(before: Level, share: float, expected: Level):
    assert level(load(space_share=share), before) is expected


@pytest.mark.parametrize("said", [{"memory_share": 0.5}, {"wait_s": 1.0}])
def test_memory_that_waits_and_a_disk_that_does_not_answer_shed_but_refuse_nothing(said: dict[str, float]):
    assert level(load(**said), Level.CALM) is Level.SHED
    assert level(load(**said, disk_share=0.96), Level.CALM) is Level.REFUSE


@pytest.mark.parametrize(
    ("free", "total", "share"),
    [
        (80_000 * MIB, 2_000_000 * MIB, 0.0),  # 96 % of two terabytes are used, and 80 GB is room for days
        (4_096 * MIB, 2_000_000 * MIB, 0.0),
        (2_048 * MIB, 2_000_000 * MIB, 0.5),
        (0, 2_000_000 * MIB, 1.0),
        (20 * MIB, 100 * MIB, 0.0),  # a small file system: a tenth of it is headroom
        (5 * MIB, 100 * MIB, 0.5),
        (0, 0, 0.0),  # one that does not say how large it is
    ],
)
def test_free_space_counts_from_64_segments_or_a_tenth_of_a_small_file_system_on(free: int, total: int, share: float):
    assert used_share(free_bytes=free, total_bytes=total, segment_bytes=64 * MIB) == pytest.approx(share)


def test_the_sentence_names_what_presses_and_what_is_done_about_it():
    assert sentence(load(), Level.CALM) == ""
    said = sentence(load(disk_share=0.9, memory_share=0.6, wait_s=2.5), Level.SHED)
    assert "file system has little left (90%" in said
    assert "60% of the memory" in said
    assert "not answered for 2.5 s" in said
    assert said.endswith("best_effort calls are shed, explanations pause")
