"""How long `petlesion segment` goes on after Ctrl-C, with the paper's network, and what it leaves.

    python benchmarks/interrupt.py [--times 8] [--slices 326] [--precision auto]

Segments a simulated study of 400 × 400 voxels once to its end, then as many times again, interrupted at
moments spread evenly over that time: while it starts, reads, computes, and writes. Each time nothing may be
left but the folders that the command makes before it has a result. Weights are random.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import describe
from memory import PAPER, SPACING_MM, in_own_process, write_bundle


def start(study: Path, bundle: Path, out: Path, precision: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "petlesion", "segment", str(study), "-m", str(bundle), "-o", str(out)]
    # What a shell starts in the background is deaf to Ctrl-C, and so would be its children.
    return subprocess.Popen(
        [*command, "--precision", precision],
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def seconds_until_it_stops(process: subprocess.Popen[bytes], moment: float) -> float | None:
    """Interrupt a process after so many seconds; None if it had ended by then."""
    try:
        process.wait(timeout=moment)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        before = time.perf_counter()
        process.wait()
        return time.perf_counter() - before
    return None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=int, default=8)
    parser.add_argument("--slices", type=int, default=326)
    parser.add_argument("--precision", default="auto")
    options = parser.parse_args()
    print(describe(), flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        study = folder / "study"
        study.mkdir()
        in_own_process("write_study", study, SPACING_MM, options.slices)
        bundle = write_bundle(folder, PAPER, 128)
        before = time.perf_counter()
        assert start(study, bundle, folder / "whole", options.precision).wait() == 0
        whole = time.perf_counter() - before
        print(f"to its end: {whole:.1f} s", flush=True)
        for number in range(options.times):
            moment = (number + 0.5) / options.times * whole
            out = folder / f"out-{number}"
            seconds = seconds_until_it_stops(start(study, bundle, out, options.precision), moment)
            left = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
            told = "had ended" if seconds is None else f"stopped in {seconds:.2f} s"
            print(f"Ctrl-C after {moment:.1f} s: {told}; files left: {', '.join(left) or 'none'}", flush=True)


if __name__ == "__main__":
    main()
