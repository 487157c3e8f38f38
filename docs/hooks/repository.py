"""Files of the repository that a page links to: they become part of the site, and nothing is copied in git.

A page links to a file outside `docs` by its path in the repository, such as `../../results/reference/REPORT.md`, which
also works where the page is read in the repository. In the site

    *.md            is a page of its own,
    images          are files beside the pages,
    anything else   is a page that shows the text.

A link to a file that does not exist stays as it is, and `mkdocs build --strict` fails on it. The report's page of each
task is added to the navigation.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?(\))")
IMAGES = {".png", ".svg", ".jpg"}
LANGUAGES = {".py": "python", ".toml": "toml", ".yml": "yaml"}
FOLDERS = {"results/reference": "results"}
"""Where a folder of the repository is found in the site, if not under its own path."""


def on_config(config: MkDocsConfig) -> None:
    """Add the report's page of each task to the section "Results", by its title up to a colon."""
    (results,) = (section["Results"] for section in config.nav if "Results" in section)
    listed = {path for page in results for path in page.values()}
    for path in sorted((Path(config.config_file_path).parent / "results/reference").glob("REPORT-*.md")):
        uri = _uri(Path("results/reference") / path.name)
        if uri not in listed:
            title = path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
            results.append({title.partition(":")[0]: uri})


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add every file that a page links to, and those that the added pages link to."""
    docs, root = Path(config.docs_dir), Path(config.config_file_path).parent
    waiting = [Path(file.abs_src_path) for file in files.documentation_pages() if file.abs_src_path]
    while waiting:
        page = waiting.pop()
        for target in _targets(page):
            if target.is_relative_to(docs) or not target.is_relative_to(root) or not target.is_file():
                continue
            added = _file(target.relative_to(root), target, config)
            if files.get_file_from_path(added.src_uri) is None:
                files.append(added)
                if target.suffix == ".md":
                    waiting.append(target)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links that leave `docs` at the files that were added."""
    if page.file.abs_src_path is None:
        return markdown
    source, here = Path(page.file.abs_src_path), posixpath.dirname(page.file.src_uri)
    docs, root = Path(config.docs_dir), Path(config.config_file_path).parent

    def there(found: re.Match[str]) -> str:
        target = _resolved(source, found[2])
        if not target.is_relative_to(root):
            return found[0]
        inside = target.relative_to(docs).as_posix() if target.is_relative_to(docs) else _uri(target.relative_to(root))
        if files.get_file_from_path(inside) is None:
            return found[0]
        return f"{found[1]}{posixpath.relpath(inside, here or '.')}{found[3] or ''}{found[4]}"

    return "".join(_outside_code(markdown, lambda line: LINK.sub(there, line)))


def _targets(page: Path) -> Iterator[Path]:
    found: list[Path] = []

    def note(line: str) -> str:
        found.extend(_resolved(page, match[2]) for match in LINK.finditer(line))
        return line

    for _ in _outside_code(page.read_text(encoding="utf-8"), note):
        pass
    yield from found


def _resolved(page: Path, link: str) -> Path:
    return Path(os.path.normpath(page.parent / link))


def _uri(path: Path) -> str:
    """The path in the site of a file of the repository."""
    uri = path.as_posix()
    for folder, name in FOLDERS.items():
        if uri.startswith(f"{folder}/"):
            uri = name + uri.removeprefix(folder)
    return uri if path.suffix in {".md", *IMAGES} else f"source/{uri}.md"


def _file(path: Path, target: Path, config: MkDocsConfig) -> File:
    if path.suffix in {".md", *IMAGES}:
        return File.generated(config, _uri(path), abs_src_path=str(target))
    language, text = LANGUAGES.get(path.suffix, "text"), target.read_text(encoding="utf-8")
    content = f"# {path.as_posix()}\n\n`````{language}\n{text}\n`````\n"
    return File.generated(config, _uri(path), content=content)


def _outside_code(markdown: str, change: Callable[[str], str]) -> Iterator[str]:
    """The lines, changed where they are not in a fenced block."""
    fence = ""
    for line in markdown.splitlines(keepends=True):
        mark = re.match(r"\s*(`{3,}|~{3,})", line)
        if mark and (not fence or mark[1].startswith(fence)):
            fence = "" if fence else mark[1]
            yield line
        else:
            yield line if fence else change(line)
