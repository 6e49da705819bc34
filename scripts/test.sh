#!/usr/bin/env bash
# Everything that a change must pass, its environment included. Arguments go to pytest: bash scripts/test.sh -k masks
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup_env.sh

python=.venv/bin/python
$python -m ruff check .
$python -m ruff format --check .
$python -m mypy
$python -m pytest -q "$@"
