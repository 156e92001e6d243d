"""The platforms and Pythons of the edge install, as pip's tags and as the environment of markers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

PYTHONS = ("3.10", "3.11", "3.12", "3.13")


class Refused(Exception):
    """Something that the person at the keyboard can mend; the message says how."""


def _manylinux(machine: str) -> tuple[str, ...]:
    """Tags of glibc 2.28, the floor (Debian 10, RHEL 8, JetPack 5 and later), down to the oldest in use."""
    return (*(f"manylinux_2_{minor}_{machine}" for minor in range(28, 16, -1)), f"manylinux2014_{machine}")


def _markers(system: str, sys_platform: str, os_name: str, machine: str) -> dict[str, str]:
    return {
        "os_name": os_name,
        "platform_machine": machine,
        "platform_system": system,
        "sys_platform": sys_platform,
    }


_TAGS = {
    "linux-x86_64": (*_manylinux("x86_64"), "manylinux2010_x86_64", "manylinux1_x86_64"),
    "linux-aarch64": _manylinux("aarch64"),
    "windows-x86_64": ("win_amd64",),
}
_MARKERS = {
    "linux-x86_64": _markers("Linux", "linux", "posix", "x86_64"),
    "linux-aarch64": _markers("Linux", "linux", "posix", "aarch64"),
    "windows-x86_64": _markers("Windows", "win32", "nt", "AMD64"),
}
PLATFORMS = tuple(_TAGS)


@dataclass(frozen=True)
class Target:
    """A machine to install on.

    Attributes
    ----------
    platform : str
        One of `PLATFORMS`.
    python : str
        One of `PYTHONS`.
    """

    platform: str
    python: str

    def __str__(self) -> str:
        return f"{self.platform}, Python {self.python}"

    @property
    def windows(self) -> bool:
        """Whether its shell is PowerShell."""
        return self.platform.startswith("windows")

    @property
    def extras(self) -> tuple[str, ...]:
        """Extras that are promised there, beside the edge install: engines, where their compiler is."""
        return {"windows-x86_64": ("rtx",), "linux-x86_64": ("tensorrt", "rtx")}.get(
            self.platform, ("tensorrt",)
        )

    @property
    def markers(self) -> dict[str, str]:
        """The environment in which a requirement's marker is evaluated (PyPA, dependency specifiers)."""
        return {
            **_MARKERS[self.platform],
            "implementation_name": "cpython",
            "implementation_version": f"{self.python}.0",
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_version": "",
            "python_full_version": f"{self.python}.0",
            "python_version": self.python,
            "extra": "",
        }

    @property
    def pip_options(self) -> list[str]:
        """What makes pip choose this target's wheels; it still evaluates markers for its own machine."""
        tags = [f"--platform={tag}" for tag in _TAGS[self.platform]]
        return ["--only-binary=:all:", "--implementation=cp", f"--python-version={self.python}", *tags]


def target(platform: str, python: str) -> Target:
    """Return the target of these names.

    Raises
    ------
    Refused
        If there is no such platform or Python.
    """
    cure = f"say, for example, PLATFORM={PLATFORMS[0]} PYTHON_VERSION={PYTHONS[-1]}"
    if not platform:
        raise Refused(f"PLATFORM is not given: expected one of {', '.join(PLATFORMS)}; {cure}")
    if platform not in PLATFORMS:
        raise Refused(f"platform {platform!r}: expected one of {', '.join(PLATFORMS)}; {cure}")
    if not python:
        raise Refused(f"PYTHON_VERSION is not given: expected one of {', '.join(PYTHONS)}; {cure}")
    if python not in PYTHONS:
        raise Refused(f"Python {python!r}: expected one of {', '.join(PYTHONS)}; {cure}")
    return Target(platform, python)


def every_target() -> Iterator[Target]:
    """Yield what PromptRay promises to install on."""
    for platform in PLATFORMS:
        for python in PYTHONS:
            yield Target(platform, python)
