"""JSON files: what is written comes back, and what cannot be read is named."""

from pathlib import Path

import pytest

from utils.errors import UserError
from utils.json_files import read_json, write_json


def test_a_record_comes_back_from_a_folder_that_was_not_there(tmp_path: Path) -> None:
    record = {"a": [1, 2.5, None], "ü": {"b": True}}
    write_json(tmp_path / "new" / "a.json", record)
    assert read_json(tmp_path / "new" / "a.json") == record
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.json"]


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", None])
def test_what_cannot_be_read_is_named_with_its_remedy(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.json: cannot be read as JSON \(.*\)\. Delete it\.$"):
        read_json(path, "Delete it.")
    with pytest.raises(UserError, match=r"\)\.$"):
        read_json(path)
