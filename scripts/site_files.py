"""Hook of mkdocs.yml: the site has the repository's own layout, so that every link works on it as it stands.

The pages are all Markdown files, README.md of the root among them; what they link to, pictures, records,
scripts, is copied beside them.
"""

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("*.md", "docs/**/*.md", "data/demo/*.md", "submodules/*/*.md", "tests/cuda_shim/*.md")
LINK = re.compile(r"\]\(([^()\s#]+)")


def site_files() -> set[Path]:
    """Pages and what they link to, as paths below the root."""
    pages = {path for pattern in PAGES for path in ROOT.glob(pattern)}
    targets = {
        (page.parent / link).resolve()
        for page in pages
        for link in LINK.findall(page.read_text(encoding="utf-8"))
        if "://" not in link
    }
    return {path.relative_to(ROOT) for path in pages | targets if path.is_file()}


def on_files(files: Any, *, config: Any) -> Any:
    """Replaces the files of docs/ by those of `site_files`; the theme's own stay."""
    own = [*files.documentation_pages(), *files.media_files()]
    for file in own:
        files.remove(file)
    generated = type(own[0]).generated  # of mkdocs, which only the site's environment has
    for path in sorted(site_files()):
        files.append(generated(config, path.as_posix(), abs_src_path=str(ROOT / path)))
    return files
