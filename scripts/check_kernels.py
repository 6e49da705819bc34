"""Compiles every CUDA kernel of submodules/ with nvcc, shows what each takes, and fails if hot ones spill.

    python scripts/check_kernels.py                          # the architectures that are built by default
    python scripts/check_kernels.py --architectures all      # every one from 75 that this nvcc knows

It needs no GPU. Flags and defaults are read from `cuda.cmake`, with which the packages are built.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

from utils.errors import UserError, run_command
from utils.json_files import write_json

ROOT = Path(__file__).resolve().parents[1]
OLDEST = 75
REGISTERS, WARPS, WARP = 65_536, 64, 32  # of a multiprocessor; 8.6, 8.9 and 12.x hold 48 warps
# Tile kernels are compiled per number of channels, padded to 4, and searches per 32 neighbours; 3 + 16
# channels and up to 32 neighbours are what has to be fast.
COLD = re.compile(r"_tiles<float, (?!20\b)|scan_kernel<(?!1\b)")
ENTRY = re.compile(
    r"Compiling entry function '(?P<name>\w+)' for 'sm_(?P<architecture>\d+)'.*?"
    r"(?P<stack>\d+) bytes stack frame, "
    r"(?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
    r"Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
    re.DOTALL,
)


@dataclass(frozen=True)
class Kernel:
    """What ptxas says of one kernel on one architecture; sizes in bytes."""

    name: str
    architecture: int
    registers: int
    shared: int
    stack: int
    spilled: int

    @property
    def warps(self) -> int:
        """Warps that fit a multiprocessor as far as registers go, which are given out by 8 a thread."""
        return min(WARPS, REGISTERS // (WARP * -(-self.registers // 8) * 8))


def find_nvcc() -> Path | None:
    """The nvcc that `cuda.cmake` would take: CUDACXX, CUDA_HOME, this Python's wheels, the path."""
    if os.environ.get("CUDACXX"):
        return Path(os.environ["CUDACXX"])
    homes = [Path(os.environ[name]) for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    wheels = sorted(Path(sysconfig.get_path("purelib"), "nvidia").glob("cu*/"))
    for home in [*homes, *wheels]:
        if (home / "bin" / "nvcc").is_file():
            return home / "bin" / "nvcc"
    found = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
    return Path(found) if found else None


def sources() -> list[Path]:
    """The files that hold kernels."""
    return sorted((ROOT / "submodules").glob("*/csrc/cuda/*.cu"))


def setting(pattern: str) -> str:
    """A value that stands in `cuda.cmake`."""
    text = (ROOT / "submodules/diff-gaussian-rasterization/cuda.cmake").read_text(encoding="utf-8")
    match = re.search(pattern, text)
    assert match is not None, f"cuda.cmake: no {pattern}"
    return match[1]


def architectures(nvcc: Path, wanted: str) -> list[int]:
    """`80 90+PTX` or `all` as numbers."""
    if wanted == "all":
        wanted = subprocess.run([nvcc, "--list-gpu-arch"], capture_output=True, text=True, check=True).stdout
    numbers = sorted(int(number) for number in re.findall(r"\d+", wanted))
    return [number for number in numbers if number >= OLDEST]


def compile_source(nvcc: Path, source: Path, architecture: int) -> list[Kernel]:
    """The kernels of a file.

    Raises:
        UserError: it does not compile.
    """
    flags = [*setting(r"set\(NVCC_FLAGS (.*)\)").split(), f"-arch=sm_{architecture}", "-Xptxas=-v", "-cubin"]
    with tempfile.TemporaryDirectory() as folder:
        paths = ["-I", str(source.parents[1]), "-o", f"{folder}/kernels.cubin", str(source)]
        done = subprocess.run([nvcc, *flags, *paths], capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"{source.relative_to(ROOT)} for sm_{architecture}: {done.stderr.strip()}")
    return parse(done.stderr)


def parse(output: str) -> list[Kernel]:
    """The kernels in what `ptxas -v` printed."""
    return [
        Kernel(
            demangle(entry["name"]),
            int(entry["architecture"]),
            int(entry["registers"]),
            sum(map(int, re.findall(r"(\d+) bytes smem", entry["rest"]))),
            int(entry["stack"]),
            int(entry["stores"]) + int(entry["loads"]),
        )
        for entry in ENTRY.finditer(output)
    ]


def demangle(name: str) -> str:
    """The C++ name without its arguments, as it is where c++filt is not installed."""
    if shutil.which("c++filt") is None:
        return name
    text = subprocess.run(["c++filt", name], capture_output=True, text=True, check=True).stdout.strip()
    depth, start = 0, len(text)
    for start in range(len(text) - 1, -1, -1):  # back to the parenthesis that opens the arguments
        depth += {")": 1, "(": -1}.get(text[start], 0)
        if depth == 0:
            break
    return text[:start].removeprefix("void ").replace("(anonymous namespace)::", "") or text


def check(nvcc: Path, numbers: Sequence[int]) -> list[Kernel]:
    """Compile everything; the kernels by name and architecture."""
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        jobs = [pool.submit(compile_source, nvcc, *job) for job in product(sources(), numbers)]
        kernels = [kernel for job in jobs for kernel in job.result()]
    return sorted(kernels, key=lambda kernel: (kernel.name, kernel.architecture))


def table(kernels: Sequence[Kernel]) -> str:
    """One line per kernel and architecture."""
    width = max((len(kernel.name) for kernel in kernels), default=6)
    lines = [f"{'kernel':<{width}}   sm  registers  warps  shared  stack  spilled"]
    lines += [
        f"{k.name:<{width}}  {k.architecture:>3}  {k.registers:>9}  {k.warps:>5}  {k.shared:>6}  {k.stack:>5}"
        f"  {k.spilled:>7}"
        for k in kernels
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Compile, print, judge."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--architectures", help="such as '75 90', or all (default: those of cuda.cmake)")
    parser.add_argument("--json", type=Path, help="where the figures go, too")
    options = parser.parse_args(argv)
    nvcc = find_nvcc()
    if nvcc is None:
        raise UserError("no nvcc found. Put it on the path, set CUDA_HOME, or see docs/gpu.md.")
    wanted = options.architectures or setting(r'GRADISEG_CUDA_ARCHITECTURES "([^"]+)" architectures')
    kernels = check(nvcc, architectures(nvcc, wanted))
    print(table(kernels))
    if options.json:
        write_json(options.json, [asdict(kernel) | {"warps": kernel.warps} for kernel in kernels])
    spilling = {kernel.name for kernel in kernels if kernel.spilled and not COLD.search(kernel.name)}
    if spilling:
        raise UserError(
            f"registers spill in {', '.join(sorted(spilling))}. Keep less alive in these kernels."
        )


if __name__ == "__main__":
    run_command(main)
