"""The devices of this machine."""

from typing import List, NamedTuple

from . import _native


class Device(NamedTuple):
    """A device in words."""

    name: str
    """Its name; any part of it chooses the device."""
    kind: str
    """``native CPU``, ``discrete GPU``, ``integrated GPU``, ``virtual GPU``, ``software GPU`` or ``unknown``."""
    backend: str
    """``native``, ``vulkan``, ``metal`` or ``dx12``."""
    driver: str
    """Driver name and version; the instruction set for the CPU."""


def devices() -> List[Device]:
    """All devices, the CPU first."""
    return [Device(*words) for words in _native.devices()]
