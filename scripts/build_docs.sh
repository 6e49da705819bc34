#!/usr/bin/env bash
# Builds the documents' site into build/site, and fails on any warning: a dead link, a page that no menu has.
#
#   bash scripts/build_docs.sh [flags of mkdocs build]
#
# It has an environment of its own, build/docs_env, since it needs nothing of the program: the packages of the extra
# `docs` alone.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

environment=build/docs_env
python=$environment/bin/python
packages=$("${PYTHON:-python3}" - <<'PY'
import re

extra = re.search(r"^docs = \[(.*?)\]", open("pyproject.toml", encoding="utf-8").read(), re.M | re.S)[1]
print(*re.findall(r'"([^"]+)"', extra))
PY
)
[[ -x $python ]] || "${PYTHON:-python3}" -m venv "$environment"
# shellcheck disable=SC2086 # several packages
"$python" -m pip install -qq --disable-pip-version-check $packages
NO_MKDOCS_2_WARNING=1 "$python" -m mkdocs build --strict "$@" # not --quiet: it would not count warnings
