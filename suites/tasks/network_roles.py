"""The settings handed to each role of the tasks depth, width and joint, with an estimator and for plain training."""

from __future__ import annotations

from suites.settings import Settings
from suites.tasks.network_settings import (
    Counted,
    Gradient,
    Grid,
    LearningStep,
    Network,
    Penalty,
    PlainRun,
    Precision,
    Size,
    Timed,
    Timing,
    Train,
    Trajectory,
    WholeStep,
)


class PointsSettings(Settings):
    """Handed for "points"."""

    network: Network
    train: LearningStep
    penalty: Penalty
    trajectory: Trajectory


class EstimatesSettings(Settings):
    """Handed for "estimates"."""

    gradient: Gradient


class StepSettings(Settings):
    """Handed for "step"."""

    network: Network
    train: WholeStep
    penalty: Penalty


class RunSettings(Settings):
    """Handed for "run"."""

    network: Network
    train: Train
    penalty: Penalty


class PlainRunSettings(Settings):
    """Handed for "run" of plain training."""

    network: Size
    train: PlainRun


class PlainTimedSettings(Settings):
    """Handed for "timed" of plain training."""

    timed: Timed
    train: Precision


class TimedSettings(Settings):
    """Handed for "timed"."""

    network: Grid
    timed: Timed
    train: Timing


class PlainCountedSettings(Settings):
    """Handed for "counted" of plain training."""

    counted: Counted
    train: Precision


class CountedSettings(Settings):
    """Handed for "counted"."""

    network: Grid
    counted: Counted
    train: Timing


class ScaledSettings(Settings):
    """Handed for "scaled"."""

    network: Network
    train: Timing


class PlainScaledSettings(Settings):
    """Handed for "scaled" of plain training."""

    network: Network
    train: Precision
