"""Options of every command: typed groups of fields that become flags, JSON keys and `cfg_args` entries.

A group is a dataclass whose fields are made by `option`. The precedence is explicit flag > JSON
(`--config_file`) > `cfg_args` of a run (only `parse_with_run`) > default, and every value is held to its type
and range whatever its source, so that a wrong one is reported before any work. All errors are `UserError`.
"""

from arguments.cfg_args import read_cfg_args, write_cfg_args
from arguments.groups import (
    MAX_CLASSES,
    NEWEST,
    OF_SAVED_MODEL,
    VIEWER_PORT,
    DeviceParams,
    EditParams,
    GradiSegParams,
    ModelParams,
    OptimizationParams,
    RepairParams,
    RunParams,
    final_iteration,
)
from arguments.options import names_of, option
from arguments.parse import parse, parse_with_run

__all__ = [
    "MAX_CLASSES",
    "NEWEST",
    "OF_SAVED_MODEL",
    "VIEWER_PORT",
    "DeviceParams",
    "EditParams",
    "GradiSegParams",
    "ModelParams",
    "OptimizationParams",
    "RepairParams",
    "RunParams",
    "final_iteration",
    "names_of",
    "option",
    "parse",
    "parse_with_run",
    "read_cfg_args",
    "write_cfg_args",
]
