"""The tree in docs/design.md names the packages and modules that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {path.parent.relative_to(ROOT).as_posix() for path in ROOT.glob("sweep/**/__init__.py")}
MODULES = {
    path.relative_to(ROOT).as_posix() for path in ROOT.glob("sweep/**/*.py") if path.name != "__init__.py"
}

PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"))
    if path.name not in ("log.md", "CHANGELOG.md")  # they name files of their time
)


def tree(page: str) -> list[str]:
    """Return the lines of the code block that draws `sweep/`, up to the next directory of the project."""
    lines = (ROOT / page).read_text().splitlines()
    first = lines.index("    sweep/")
    n_lines = next(n for n, line in enumerate(lines[first + 1 :]) if not line.startswith("      "))
    return lines[first : first + 1 + n_lines]


def listed(lines: list[str]) -> tuple[list[str], list[str]]:
    """Return the packages and modules that a tree lists, by their indentation."""
    packages: list[str] = []
    modules: list[str] = []
    for line in lines:
        names, depth = re.findall(r"\w+(?:/|\.py)(?= |$)", line), (len(line) - len(line.lstrip()) - 4) // 2
        if line.lstrip().startswith(f"{names[0]}") and names[0].endswith("/"):
            above = [path for path in packages if path.count("/") < depth]
            parent = f"{above[-1]}/" if above else ""
            packages.append(parent + names[0].rstrip("/"))
        else:
            inside = "sweep" if depth == 1 else packages[-1]
            modules += [f"{inside}/{name}" for name in names]
    return packages, modules


def test_the_tree_in_design_lists_every_package_and_module_once():
    packages, modules = listed(tree("docs/design.md"))
    drawn, existing = {*packages, *modules}, PACKAGES | MODULES
    assert drawn - existing == set(), "docs/design.md lists what does not exist"
    assert existing - drawn == set(), "docs/design.md does not list these"
    assert len(drawn) == len(packages) + len(modules)


def test_a_tree_is_read_by_its_indentation():
    lines = ["    sweep/", "      fit/     laws", "               fit.py predict.py"]
    lines += [
        "        table/     rows",
        "                   points.py",
        "      plan/    runs",
        "      flops.py",
    ]
    assert listed(lines) == (
        ["sweep", "sweep/fit", "sweep/fit/table", "sweep/plan"],
        ["sweep/fit/fit.py", "sweep/fit/predict.py", "sweep/fit/table/points.py", "sweep/flops.py"],
    )


@pytest.mark.parametrize("page", PAGES)
def test_files_named_by_a_page_exist(page):
    text = (ROOT / page).read_text()
    names = re.findall(r"`((?:sweep|tests|scripts|configs|docs)/[\w./-]+)`", text)
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    missing = [name for name in names if "NAME" not in name and not (ROOT / name).exists()]
    missing += [link for link in links if link and not ((ROOT / page).parent / link).exists()]
    assert not missing
