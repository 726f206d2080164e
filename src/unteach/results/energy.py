"""The energy that this machine reports: graphics cards by NVML, processors by RAPL."""

from pathlib import Path
from typing import Any

import torch

RAPL = Path("/sys/class/powercap")


class EnergyMeter:
    """Counts joules from the moment it is made.

    The counters are the whole machine's, other programs included. With a GPU, it counts the visible cards and not the
    processor; without one, the processor packages, whose counters most machines show to root only.
    """

    def __init__(self) -> None:
        self._cards = _cards()
        self._packages = [] if self._cards else [p for p in sorted(RAPL.glob("intel-rapl:*")) if p.name.count(":") == 1]
        self._before = self._read()
        self._joules: float | None = None if self._before is None else 0.0

    def joules(self) -> float | None:
        """Return the joules since the meter was made, None where the machine reports none.

        Ask at least every few minutes: RAPL's counters overflow.
        """
        now = self._read()
        if now is None or self._before is None or self._joules is None:
            return None
        for place, (value, before) in enumerate(zip(now, self._before, strict=True)):
            self._joules += value - before if value >= before else value - before + self._range(place)
        self._before = now
        return self._joules

    def _read(self) -> list[float] | None:
        """Read every counter in joules; None where there is none or one cannot be read."""
        try:
            if self._cards:
                import pynvml  # type: ignore[import-not-found,import-untyped,unused-ignore]

                return [pynvml.nvmlDeviceGetTotalEnergyConsumption(card) / 1e3 for card in self._cards]
            return [int((package / "energy_uj").read_text()) / 1e6 for package in self._packages] or None
        except Exception:  # not permitted, an old card, a virtual machine
            return None

    def _range(self, place: int) -> float:
        """Return the joules after which a counter starts again at 0."""
        if self._cards:
            return 0.0
        return int((self._packages[place] / "max_energy_range_uj").read_text()) / 1e6


def _cards() -> list[Any]:
    """Return NVML's handles of the visible cards; none without a GPU or without `pynvml`."""
    if not torch.cuda.is_available():
        return []
    try:
        import pynvml  # type: ignore[import-not-found,import-untyped,unused-ignore]

        pynvml.nvmlInit()
        uuids = [str(torch.cuda.get_device_properties(n).uuid) for n in range(torch.cuda.device_count())]
        return [pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}") for uuid in uuids]
    except Exception:  # no pynvml, no driver that it knows
        return []
