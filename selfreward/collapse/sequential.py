"""Detectors of change in a sequence. Pure: numbers in, the moment of change out.

M0..M3 is four points, and no detector works on four points; inside a stage there are hundreds of prompts.
Groups of 20 of them are standardised by all groups before (Hawkins 1987, self-starting CUSUM: the residuals
of a healthy sequence are independent whatever its mean and spread), so that no baseline has to be known.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

GROUP = 20  # prompts
WARM_UP = 3  # groups before the first that is held against those before it
# What these cost in false alarms and catch in rows is measured in docs/collapse.md.
SLACK, BOUND = (
    0.5,
    10.0,
)  # of the CUSUM, in standard errors of a group: looks for shifts of about one and more
CREEP_SLACK, CREEP_BOUND = 0.25, 20.0  # of Page-Hinkley: for what grows slowly


class Detector(Protocol):
    """What is fed standardised values and knows when there are too many of one sign."""

    def add(self, z: float) -> bool:
        """Whether this value takes it over its bound."""

    @property
    def began(self) -> int:
        """The place of the first value since it last stood at rest."""

    @property
    def rising(self) -> bool:
        """Whether the change is upwards."""


def first_alarm(detector: Detector, values: Iterable[float]) -> tuple[int, int] | None:
    """Where the change began and where it was seen, as places in `values`."""
    for at, value in enumerate(values):
        if detector.add(value):
            return detector.began, at
    return None


@dataclass
class Cusum:
    """S⁺ ← max(0, S⁺ + z − k), S⁻ ← max(0, S⁻ − z − k), alarm when either passes h (Page 1954).

    Without `falls` the lower side is not watched.
    """

    slack: float = SLACK
    bound: float = BOUND
    falls: bool = True
    up: float = 0.0
    down: float = 0.0
    n: int = 0
    rest_up: int = 0
    rest_down: int = 0

    def add(self, z: float) -> bool:
        """Whether this value takes it over the bound."""
        self.n += 1
        self.up = max(0.0, self.up + z - self.slack)
        self.down = max(0.0, self.down - z - self.slack) if self.falls else 0.0
        self.rest_up = self.n if self.up == 0 else self.rest_up
        self.rest_down = self.n if self.down == 0 else self.rest_down
        return max(self.up, self.down) > self.bound

    @property
    def began(self) -> int:
        """The place after the last one at which the side that leads stood at 0."""
        return self.rest_up if self.rising else self.rest_down

    @property
    def rising(self) -> bool:
        """Whether the upper side leads."""
        return self.up >= self.down


@dataclass
class PageHinkley:
    """m ← m + (z − mean so far − δ), alarm when m passes its least by λ (Page 1954, Hinkley 1971)."""

    slack: float = CREEP_SLACK
    bound: float = CREEP_BOUND
    mean: float = 0.0
    total: float = 0.0
    least: float = 0.0
    n: int = 0
    began: int = 0
    rising: bool = True

    def add(self, z: float) -> bool:
        """Whether this value takes it over the bound."""
        self.n += 1
        self.mean += (z - self.mean) / self.n
        self.total += z - self.mean - self.slack
        if self.total < self.least:
            self.least, self.began = self.total, self.n
        return self.total - self.least > self.bound


@dataclass
class Series:
    """One number a prompt, watched in groups by its detectors.

    `floor` is the least standard deviation that is believed. A share that was 0 so far would be believed to
    have no spread: `share` adds the variance 1 / (n + 2) that a share of 0 in n may still have. `only_up`
    leaves falls out. `places` says where in the stage each value stands.
    """

    floor: float = 0.0
    share: bool = False
    only_up: bool = False
    values: list[float] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    detectors: list[Detector] = field(default_factory=list)
    known: int = 0  # values in the mean and the squares
    mean: float = 0.0
    squares: float = 0.0
    alarmed: Detector | None = None

    def __post_init__(self) -> None:
        self.detectors = [Cusum(falls=False), PageHinkley()] if self.only_up else [Cusum()]

    def add(self, value: float, place: int) -> bool:
        """Takes a prompt's value; whether the group it completes gives the alarm."""
        self.values.append(value)
        self.places.append(place)
        group = self.values[self.known :]
        if len(group) < GROUP:
            return False
        if self.known >= WARM_UP * GROUP:
            z = self._z(group)
            over = [d for d in self.detectors if d.add(z)]
            self.alarmed = over[0] if over else None
        for x in group:  # Welford 1962
            self.known += 1
            before = self.mean
            self.mean += (x - before) / self.known
            self.squares += (x - before) * (x - self.mean)
        return self.alarmed is not None

    def _z(self, group: Sequence[float]) -> float:
        n = self.known
        variance = self.squares / (n - 1) + (1 / (n + 2) if self.share else 0.0)
        sd = max(math.sqrt(variance), self.floor)
        return (math.fsum(group) / len(group) - self.mean) / (sd * math.sqrt(1 / len(group) + 1 / n))

    def began(self) -> int:
        """The place the change began at: of all cuts near the detector's own, the one that parts best."""
        assert self.alarmed is not None
        group = (WARM_UP + self.alarmed.began) * GROUP
        low = max(0, group - GROUP)
        before, after = self.values[:low] or self.values[:1], self.values[-GROUP:]
        middle = (math.fsum(before) / len(before) + math.fsum(after) / len(after)) / 2
        sign = 1 if self.alarmed.rising else -1
        least, best, total = 0.0, low, 0.0
        for i in range(low, len(self.values) - 1):
            total += sign * (self.values[i] - middle)
            if total <= least:  # of equally good cuts the last: it leaves nothing healthy after it
                least, best = total, i + 1
        return self.places[best]

    def since(self, place: int) -> Series:
        """A new series whose baseline starts at a place: the change is known, the next is looked for."""
        fresh = Series(self.floor, self.share, self.only_up)
        for value, at in zip(self.values, self.places, strict=True):
            if at >= place:
                fresh.add(value, at)
        return fresh
