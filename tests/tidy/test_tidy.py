"""Rules of the repository that no linter knows: sizes, prints, reasons beside silenced rules, imports, links."""

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CODE_FOLDERS = ("src", "tests", "bench", "fuzz", "docs")

FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70
REASON_LETTERS_MIN = 6

LONGER_FILES: dict[str, str] = {
    "tests/web/test_web_metrics.py": "one subject; its fixtures serve all of it",
    "src/stowkeeper/database/schema.py": "all tables of the one schema; a comment at every column",
}

_SILENCER = re.compile(
    r"#\s*(?:noqa(?::\s*[A-Z]+[0-9]+(?:[,\s]+[A-Z]+[0-9]+)*)?|type:\s*ignore(?:\[[^\]]*\])?)"
)
_SILENCER_AND_REST = re.compile(f"(?:{_SILENCER.pattern}).*")
_LINK = re.compile(r"(?<!!)\[[^\]\n]+\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)


def code_files(*folders: str) -> list[Path]:
    """Return the Python files under some folders of the repository."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def documents() -> list[Path]:
    """Return the repository's own Markdown pages."""
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def name_of(path: Path) -> str:
    """Return a path as the repository knows it."""
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name


def long_files(paths: list[Path]) -> Iterator[str]:
    """Find files longer than the limit that have no reason in LONGER_FILES, and reasons no longer needed."""
    for path in paths:
        lines = len(path.read_text(encoding="utf-8").splitlines())
        excused = name_of(path) in LONGER_FILES
        if lines > FILE_LINES_MAX and not excused:
            yield f"{name_of(path)} has {lines} lines: split it, or give the reason in LONGER_FILES"
        if lines <= FILE_LINES_MAX and excused:
            yield f"{name_of(path)} has {lines} lines: take it out of LONGER_FILES"


def _lines_of(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def _statements(path: Path) -> Iterator[ast.AST]:
    """Return all statements of a file, and not the many more expressions in them."""
    found: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while found:
        node = found.pop()
        yield node
        for part in ("body", "orelse", "handlers", "finalbody", "cases"):
            found.extend(getattr(node, part, ()))


def long_functions(path: Path) -> Iterator[str]:
    """Find functions longer than a screen. Functions inside of one count for themselves alone."""
    for node in _statements(path):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = _lines_of(node) - sum(
                _lines_of(inner)
                for inner in node.body
                if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef)
            )
            if lines > FUNCTION_LINES_MAX:
                yield f"{name_of(path)}:{node.lineno} {node.name} has {lines} lines"


def prints(path: Path) -> Iterator[str]:
    """Find calls of print."""
    text = path.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(text)) if "print" in text else ():
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            yield f"{name_of(path)}:{node.lineno} prints: only the command line does"


def _has_reason(comment: str) -> bool:
    return sum(map(str.isalpha, _SILENCER.sub("", comment))) >= REASON_LETTERS_MIN


def silencers_without_reason(path: Path) -> Iterator[str]:
    """Find comments that silence a tool and do not say why, on the same line."""
    text = path.read_text(encoding="utf-8")
    if all(_has_reason(found.group()) for found in _SILENCER_AND_REST.finditer(text)):
        return  # most files: what is a comment and what a string is not to be told apart
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type != tokenize.COMMENT or not _SILENCER.search(token.string):
            continue
        if not _has_reason(token.string):
            yield f"{name_of(path)}:{token.start[0]} {token.string}: say why beside it"


def heading_anchors(page: Path) -> set[str]:
    """Return the anchors that a Markdown page offers."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    anchors = set()
    for title in re.findall(r"^#{1,6}\s+(.+?)\s*#*$", text, re.MULTILINE):
        plain = re.sub(r"[^\w\- ]", "", title.lower())
        anchors.add(plain.replace(" ", "-"))
    return anchors


def broken_links(page: Path) -> Iterator[str]:
    """Find links of a page that lead to no file, or to no heading, of the repository."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in _LINK.findall(text):
        if re.match(r"[a-z]+:", target):
            continue
        file_part, _, anchor = target.partition("#")
        linked = (page.parent / file_part).resolve() if file_part else page
        if not linked.exists():
            yield f"{name_of(page)} links to {target}, which is not there"
        elif anchor and linked.suffix == ".md" and anchor not in heading_anchors(linked):
            yield f"{name_of(page)} links to {target}: no such heading"


def check_imports() -> str:
    """Run the import contracts of pyproject.toml; return what import-linter says when one is broken."""
    command = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    run = subprocess.run(
        [sys.executable, "-c", command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return "" if run.returncode == 0 else run.stdout + run.stderr


# The rules, held against the repository


@pytest.mark.slow
def test_files_are_of_readable_size() -> None:
    assert list(long_files(code_files(*CODE_FOLDERS))) == []
    assert [name for name in LONGER_FILES if not (ROOT / name).exists()] == []


@pytest.mark.slow
def test_functions_fit_a_screen() -> None:
    assert [found for path in code_files(*CODE_FOLDERS) for found in long_functions(path)] == []


@pytest.mark.slow
def test_only_the_command_line_prints() -> None:
    rooms = [path for path in code_files("src") if "app" not in path.relative_to(ROOT / "src").parts]
    assert rooms
    assert [found for path in rooms for found in prints(path)] == []


@pytest.mark.slow
def test_every_silenced_rule_has_its_reason() -> None:
    assert [found for path in code_files(*CODE_FOLDERS) for found in silencers_without_reason(path)] == []


@pytest.mark.slow
def test_imports_keep_their_contracts() -> None:
    assert check_imports() == ""


@pytest.mark.slow
def test_links_between_documents_resolve() -> None:
    assert documents()
    assert [found for page in documents() for found in broken_links(page)] == []


# The rules themselves, held against things that break them


def test_a_long_file_and_a_needless_excuse_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long, short = tmp_path / "long.py", tmp_path / "short.py"
    long.write_text("x = 1\n" * (FILE_LINES_MAX + 1))
    short.write_text("x = 1\n" * FILE_LINES_MAX)
    assert [found.split()[0] for found in long_files([long, short])] == ["long.py"]
    monkeypatch.setitem(LONGER_FILES, "long.py", "generated from the standard")
    monkeypatch.setitem(LONGER_FILES, "short.py", "was long once")
    assert [found.split()[0] for found in long_files([long, short])] == ["short.py"]


def test_a_long_function_is_found(tmp_path: Path) -> None:
    path = tmp_path / "code.py"
    fits = "def fits():\n" + "    x = 1\n" * (FUNCTION_LINES_MAX - 1)
    path.write_text(fits + "async def long():\n" + "    x = 1\n" * FUNCTION_LINES_MAX)
    assert [found.split()[1] for found in long_functions(path)] == ["long"]


def test_a_print_is_found(tmp_path: Path) -> None:
    path = tmp_path / "code.py"
    path.write_text("'print(1)'\nprint(1)\n")
    assert len(list(prints(path))) == 1


@pytest.mark.parametrize(
    ("line", "clean"),
    [
        ("x = 1  # noqa", False),
        ("x = 1  # noqa: S101", False),
        ("x = 1  # noqa: S101, S102", False),
        ("x = 1  # type: ignore[misc]", False),
        ("x = 1  # type: ignore[misc]  # noqa: S101", False),
        ("x = 1  # noqa: S101 - the peer is on loopback", True),
        ("x = 1  # type: ignore[misc]  # the stub is older than the library", True),
        ("x = '# noqa: S101'", True),
    ],
)
def test_a_silenced_rule_without_reason_is_found(tmp_path: Path, line: str, clean: bool) -> None:
    path = tmp_path / "code.py"
    path.write_text(line + "\n")
    assert (list(silencers_without_reason(path)) == []) is clean


def test_broken_links_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    (tmp_path / "other.md").write_text("# A title, with commas\n\n```\n# not a title\n```\n")
    page.write_text(
        "[a](other.md) [b](other.md#a-title-with-commas) [c](https://example.org) [d](#here)\n# Here\n"
        "[e](absent.md) [f](other.md#not-a-title) [g](#nowhere)\n```\n[h](absent.md)\n```\n"
    )
    assert [found.split()[3].rstrip(",:") for found in broken_links(page)] == [
        "absent.md",
        "other.md#not-a-title",
        "#nowhere",
    ]
