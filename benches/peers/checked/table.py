"""Prints a Markdown table of reports of `idem check`: `table.py DIRECTORY NAME...`. See `run`."""

import json
import re
import sys
from pathlib import Path

HERE = Path(__file__).parent


def version(name: str) -> str:
    """Reads the version of a peer from the file that pins it."""
    pins = [
        ("../../../Cargo.lock", rf'name = "{name}"\nversion = "([^"]+)"'),
        ("node/package.json", rf'"{name}": "([^"]+)"'),
        ("python/requirements.txt", rf"(?m)^{name}==(\S+)$"),
    ]
    for file, pattern in pins:
        if found := re.search(pattern, (HERE / file).read_text()):
            return found[1]
    raise SystemExit(f"{name} has no version")


def cell(check: dict | None) -> str:
    if check is None:
        return ""
    kind = check["outcome"]["kind"]
    if kind == "kept":
        return "note" if check["findings"] else "kept"
    return {"broken": "**broken**", "skipped": "skipped", "failed": "could not check"}[kind]


def main() -> None:
    directory, *names = sys.argv[1:]
    reports = []
    for name in names:
        text = Path(directory, re.sub("[@/]", "_", name) + ".json").read_text()
        reports.append({check["name"]: check for check in json.loads(text)["checks"]})
    checks = list(dict.fromkeys(name for report in reports for name in report))
    rows = [["check", *(f"{name} {version(name)}" for name in names)], ["---"] * (len(names) + 1)]
    rows += [[f"`{check}`", *(cell(report.get(check)) for report in reports)] for check in checks]
    # What no plan has asked for is no row.
    rows = [cells for cells in rows if set(cells[1:]) != {"skipped"}]
    for cells in rows:
        print("| " + " | ".join(cells) + " |")


main()
