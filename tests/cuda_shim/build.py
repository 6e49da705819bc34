"""Builds .cu sources against the shim of this folder and loads them; README.md says how to use it in a test.

shim = build.extension("_cuda", [csrc / "cuda/bindings.cpp", csrc / "cuda/kernels.cu"], include=[csrc])
with shim.watch(points, order=2):
    shim.module.nearest(points.data_ptr(), ...)
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.machinery
import importlib.util
import os
import re
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

HERE = Path(__file__).parent
CACHE = Path(tempfile.gettempdir()) / f"cuda-shim-{os.getuid()}"
_GAP = 64  # bytes
_VARIABLES = "bBdDvVuU"  # kinds of symbols, as nm names them

_COMMON = ["-std=c++17", "-fPIC", "-O2", "-g1", "-fno-gnu-unique", "-Wall", "-Wextra"]
# No contraction: the results do not depend on the host's instruction set.
_KERNEL = ["-x", "c++", "-include", "cuda_runtime.h", "-ffp-contract=off", "-fno-strict-aliasing"]
_KERNEL += ["-Wno-unknown-pragmas", "-Wno-attributes", "-Wno-psabi", "-Wno-unused-but-set-variable"]
# The switches after the sanitizer's keep the compiler from merging or hoisting loads before it sees them.
_CHECKED = ["-fsanitize=thread", "--param", "tsan-instrument-func-entry-exit=0"]
_CHECKED += [
    "--param",
    "tsan-distinguish-volatile=1",
    "-fno-tree-vectorize",
    "-fno-tree-pre",
    "-fno-code-hoisting",
]
_CHECKED += ["-fno-tree-loop-im", "-fno-ssa-phiopt", "-fno-ipa-reference", "-fno-ipa-pure-const"]


class ShimError(AssertionError):
    """What the shim's checks found in a kernel."""


class Shim:
    """One built library, as `module` (an extension) or `library` (plain ctypes), and its checks."""

    def __init__(self, path: Path, objects: Sequence[Path], module: ModuleType | None) -> None:
        self.path = path
        self.library = ctypes.CDLL(str(path))
        self._module = module
        self.library.shim_error.restype = ctypes.c_char_p
        self.library.shim_register.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
        self.library.shim_order.argtypes = [ctypes.c_uint64]
        self.library.shim_symbols(_symbols(path, objects).encode())

    @property
    def module(self) -> Any:
        """The extension module."""
        assert self._module is not None, "built by build.library(): use .library"
        return self._module

    def register(self, tensor: Tensor, name: str = "") -> None:
        """Let kernels touch the tensor's storage."""
        storage = tensor.untyped_storage()
        name = name or f"tensor {tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
        self.library.shim_register(storage.data_ptr(), storage.nbytes(), name.encode())

    @contextmanager
    def watch(self, *tensors: Tensor, order: int = 0) -> Iterator[None]:
        """Check all launches inside: kernels may touch only `tensors` and what torch makes or reads inside.

        order: of blocks, and of threads between barriers; 0 as numbered, 1 backwards, others seed a shuffle.
        Raises: ShimError with all findings.
        """
        self.library.shim_clear()
        self.library.shim_forget_buffers()
        self.library.shim_order(order)
        for tensor in tensors:
            self.register(tensor)
        self.library.shim_strict(1)
        try:
            with _Registering(self):
                yield
        except RuntimeError as error:  # a launcher's own; our findings say why
            self.check(error)
            raise
        finally:
            self.library.shim_strict(0)
            findings = self._findings()
            self.library.shim_clear()
            self.library.shim_forget_buffers()
        if findings:
            raise ShimError(findings)

    def check(self, cause: BaseException | None = None) -> None:
        """Raises: ShimError where a launch since the last `watch` or `check` failed."""
        findings = self._findings()
        self.library.shim_clear()
        if findings:
            raise ShimError(findings) from cause

    def statistics(self) -> dict[str, int]:
        """Totals since the library was loaded."""
        counts = (ctypes.c_uint64 * 4)()
        self.library.shim_statistics(counts)
        return dict(zip(("launches", "blocks", "threads", "accesses"), counts, strict=True))

    def _findings(self) -> str:
        text = self.library.shim_error().decode()
        return re.sub(r"\{pc:([0-9a-f]+)\}", lambda match: _line_of(self.path, match[1]), text)


class _Registering(TorchDispatchMode):
    """Registers every tensor that passes through a torch operation."""

    def __init__(self, shim: Shim) -> None:
        super().__init__()
        self.shim = shim

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves((args, kwargs, result)):
            if isinstance(leaf, Tensor) and leaf.device.type == "cpu":
                self.shim.register(leaf)
        return result


def library(
    sources: Sequence[Path], include: Sequence[Path] = (), defines: Sequence[str] = (), checked: bool = True
) -> Shim:
    """Compile .cu and .cpp sources into one shared library for ctypes (functions `extern "C"`)."""
    return _load(None, tuple(sources), tuple(include), tuple(defines), checked)


def extension(
    name: str,
    sources: Sequence[Path],
    include: Sequence[Path] = (),
    defines: Sequence[str] = (),
    checked: bool = True,
) -> Shim:
    """Compile .cu and .cpp sources, one of them with NB_MODULE(name, m), into a nanobind module."""
    return _load(name, tuple(sources), tuple(include), tuple(defines), checked)


@cache
def _load(
    name: str | None,
    sources: tuple[Path, ...],
    include: tuple[Path, ...],
    defines: tuple[str, ...],
    checked: bool,
) -> Shim:
    flags = [*(f"-I{path}" for path in [HERE, *include]), *(f"-D{define}" for define in defines)]
    kernel = [*_COMMON, *_KERNEL, *(_CHECKED if checked else []), *flags]
    host = [*_COMMON, *_python_flags(), *flags] if name else [*_COMMON, *flags]
    inputs = [(source, kernel if source.suffix == ".cu" else host) for source in sources]
    inputs.append((HERE / "runtime.cpp", [*_COMMON, *flags]))
    headers = _hash(*(path for root in [HERE, *include] for path in sorted(root.rglob("*.h"))))
    objects = [_compile(source, flags, headers) for source, flags in inputs]
    if name:
        nanobind = _nanobind_root() / "src/nb_combined.cpp"
        objects.append(
            _compile(nanobind, ["-std=c++17", "-fPIC", "-O1", "-DNDEBUG", "-w", *_python_flags()], "")
        )
    path = CACHE / f"{name or 'kernels'}-{hashlib.sha256(str(objects).encode()).hexdigest()[:16]}.so"
    if not path.exists():
        _run(["g++", "-shared", "-Wl,-Bsymbolic", *map(str, objects), "-ldl", "-o"], path)
    module = _import(name, path) if name else None
    return Shim(
        path, [o for o, source in zip(objects, sources, strict=False) if source.suffix == ".cu"], module
    )


def _import(name: str, path: Path) -> ModuleType:
    loader = importlib.machinery.ExtensionFileLoader(name, str(path))
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def _compile(source: Path, flags: Sequence[str], headers: str) -> Path:
    """-> the object, from the cache where the same text was compiled in the same way before."""
    key = hashlib.sha256(" ".join([_hash(source, Path(__file__)), headers, *flags]).encode()).hexdigest()[:16]
    target = CACHE / f"{source.stem}-{key}.o"
    if target.exists():
        return target
    CACHE.mkdir(mode=0o700, exist_ok=True)
    if source.suffix != ".cu":
        _run(["g++", *flags, "-c", str(source), "-o"], target)
        return target
    # A gap behind each __shared__ variable, so that an overrun does not land in the next one.
    assembly = target.with_suffix(f".{os.getpid()}.s")
    _run(["g++", *flags, "-fdata-sections", "-S", str(source), "-o"], assembly)
    gap = re.compile(r"^(_ZZ\S+:\n\s*\.zero\s+)(\d+)$", re.MULTILINE)
    assembly.write_text(gap.sub(lambda m: f"{m[1]}{int(m[2]) + _GAP}", assembly.read_text()))
    _run(["g++", "-c", str(assembly), "-o"], target)
    assembly.unlink()
    return target


def _hash(*paths: Path) -> str:
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in paths)).hexdigest()


def _run(command: Sequence[str], target: Path) -> None:
    """Run a compiler that writes `target`, which appears only when it is complete."""
    partial = target.with_name(f"{target.stem}.{os.getpid()}{target.suffix}")
    result = subprocess.run([*command, str(partial)], capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(result.stderr)
    partial.rename(target)


def _nanobind_root() -> Path:
    import nanobind

    return Path(nanobind.__file__).parent


def _python_flags() -> list[str]:
    root = _nanobind_root()
    paths = [sysconfig.get_path("include"), root / "include", root / "ext/robin_map/include"]
    return [f"-I{path}" for path in paths]


def _symbols(path: Path, objects: Sequence[Path]) -> str:
    """What shim_symbols of runtime.cpp reads; __shared__ variables are function-local statics."""
    known = {line[3] for line in _nm(*objects) if len(line) == 4 and line[2] in _VARIABLES}
    found = [line for line in _nm(path) if len(line) == 4]
    variables = [line for line in found if line[3] in known and line[2] in _VARIABLES]
    readable = _demangled([line[3] for line in variables])
    kinds = ["s" if line[3].startswith("_ZZ") else "v" for line in variables]
    rows = [f"{k} {v[0]} {v[1]} {name}" for k, v, name in zip(kinds, variables, readable, strict=True)]
    end = max(int(line[0], 16) + int(line[1], 16) for line in found)
    return "\n".join([*rows, f"i 0 {end:x} image"])


def _nm(*paths: Path) -> list[list[str]]:
    if not paths:
        return []
    command = ["nm", "-S", "--defined-only", *map(str, paths)]
    return [
        line.split() for line in subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
    ]


def _demangled(names: Sequence[str]) -> list[str]:
    text = subprocess.run(
        ["c++filt", *names], capture_output=True, text=True, stdin=subprocess.DEVNULL
    ).stdout
    return [re.sub(r"^.*::", "", line) for line in text.splitlines()] if names else []


def _line_of(path: Path, offset: str) -> str:
    """File and line of a return address: the instruction before it, outside the shim's own header."""
    command = ["addr2line", "-i", "-e", str(path), f"{int(offset, 16) - 1:x}"]
    lines = subprocess.run(command, capture_output=True, text=True).stdout.split("\n")
    places = [
        line.split(" (")[0] for line in lines if line and not line.startswith(str(HERE / "cuda_runtime.h"))
    ]
    return places[0] if places else "an unknown place"
