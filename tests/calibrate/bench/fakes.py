"""A clock that only moves when it is told to, and systems that take the time they are given."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping


class FakeClock:
    """Seconds from 0; sleeping moves it."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += max(seconds, 0.0)


class FakeSystem:
    """Scores an image in the seconds that a function of the number of calls so far gives."""

    def __init__(self, clock: FakeClock, seconds: Callable[[int], float], images: int = 3) -> None:
        self.clock, self.seconds, self.images = clock, seconds, images
        self.asked: list[int] = []

    def one(self, image: int) -> Mapping[str, float]:
        taken = self.seconds(len(self.asked))
        self.asked.append(image)
        self.clock.sleep(taken)
        return {"read": 250 * taken, "image": 500 * taken}

    def several(self, images: Iterable[int]) -> int:
        before = len(self.asked)
        for image in images:
            self.one(image)
        return len(self.asked) - before


class CountingClock:
    """Ten milliseconds later each time it is read: nothing depends on how quick this machine is."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        self.time += 0.01
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += max(seconds, 0.0)
