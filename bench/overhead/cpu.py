"""What processes have used: CPU to the microsecond, memory; as Linux tells it."""

from __future__ import annotations

from pathlib import Path


def cpu_us(pid: int) -> float:
    """Microseconds of CPU that all threads of a process have used."""
    return sum(_thread_us(task) for task in Path(f"/proc/{pid}/task").iterdir())


def _thread_us(task: Path) -> float:
    try:
        return int((task / "schedstat").read_text().split()[0]) / 1000
    except (FileNotFoundError, ProcessLookupError):  # it has just ended
        return 0.0


def memory_kb(pid: int) -> float:
    """Resident memory of a process that it has for itself, in KB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("RssAnon")))
