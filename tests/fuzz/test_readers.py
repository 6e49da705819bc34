"""A short run of the fuzzers; `tests/fuzz/run.py` is the long one. Every finding has become a test."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.mutations import damage
from tests.fuzz.targets import Target, targets

EXAMPLES = 150
NAMES = (
    "PLY",
    "COLMAP, binary",
    "COLMAP, text",
    "transforms JSON",
    "masks and pictures",
    "cfg_args",
    "checkpoint and classifier",
    "ids JSON",
)


@pytest.fixture(scope="module")
def by_name(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Target]:
    return {target.name: target for target in targets(tmp_path_factory.mktemp("seeds"))}


def test_all_readers_are_here(by_name: dict[str, Target]) -> None:
    assert tuple(by_name) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_whole_files_are_read(
    by_name: dict[str, Target], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes: list[bool] = []

    class Noting(suppress):
        """`suppress` that remembers what it let through: a reader that refuses whole files fuzzes nothing."""

        def __exit__(self, kind: Any, *rest: Any) -> bool:
            outcomes.append(kind is None)
            return bool(super().__exit__(kind, *rest))

    monkeypatch.setattr("tests.fuzz.targets.suppress", Noting)
    for case in by_name[name].cases:
        outcomes.clear()
        by_name[name].execute(tmp_path, case, measure=False)
        *single, whole = outcomes  # of the readers that are tried one by one, if they are
        assert whole and (any(single) or not single)
    for measure in (False, True):  # the first loads modules, which are not the file's memory
        for case in by_name[name].cases:
            by_name[name].execute(tmp_path, case, measure)


@pytest.mark.parametrize("name", NAMES)
def test_damaged_files_are_read_or_refused(by_name: dict[str, Target], name: str, tmp_path: Path) -> None:
    target = by_name[name]
    target.execute(tmp_path, target.cases[0], measure=False)  # loads modules, which are not the file's memory

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def run(data: st.DataObject) -> None:
        target.execute(tmp_path, damaged(target, lambda low, high: data.draw(st.integers(low, high))))

    run()


def damaged(target: Target, draw) -> dict[str, bytes]:
    """One of the target's cases with damage to one of its files."""
    case = target.cases[draw(0, len(target.cases) - 1)]
    names = list(target.damaged or case)
    name = names[draw(0, len(names) - 1)]
    others = [content for other in target.cases for content in other.values()]
    return {**case, name: damage(case[name], others, draw)}
