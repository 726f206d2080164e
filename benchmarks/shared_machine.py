"""How fast does a model of the width of SmolLM2-135M go forward, alone and beside busy processes?

    python benchmarks/shared_machine.py

Threads of OpenMP wait for each other by spinning; beside other processes they spin while those compute. Prints passes
a second for each way of waiting and 0, 1 and 2 busy processes, and the ratio to the default, in one run.
"""

import os
import subprocess
import sys

WAYS = {
    "default": {},
    "OMP_WAIT_POLICY=PASSIVE (unteach)": {"OMP_WAIT_POLICY": "PASSIVE"},
    "OMP_NUM_THREADS=1": {"OMP_NUM_THREADS": "1"},
}
BUSY = "while True: pass"
PASSES = """
import time, torch
torch.manual_seed(0)
rows = torch.randn(512, 576)
layers = [(torch.randn(576, 1536), torch.randn(1536, 576)) for _ in range(8)]
def forward():
    states = rows
    for up, down in layers:
        states = torch.nn.functional.silu(states @ up) @ down / 100
forward()
began, passes = time.monotonic(), 0
while time.monotonic() - began < 6:
    forward()
    passes += 1
print(passes / (time.monotonic() - began))
"""


def main() -> None:
    """Measure each way beside each number of busy processes."""
    for count in (0, 1, 2):
        others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]
        try:
            found = {way: speed(given) for way, given in WAYS.items()}
        finally:
            for other in others:
                other.kill()
        for way, passes in found.items():
            print(f"{count} busy  {way:<36}{passes:6.2f} passes/s  {passes / found['default']:5.2f} × default")


def speed(given: dict[str, str]) -> float:
    """Return passes a second in a process with these variables set, and no others of OpenMP."""
    others = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    done = subprocess.run(
        [sys.executable, "-c", PASSES], env=others | given, capture_output=True, text=True, check=True
    )
    return float(done.stdout)


if __name__ == "__main__":
    main()
