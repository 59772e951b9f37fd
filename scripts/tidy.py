"""What STYLE asks of every file that a machine can check: length, scripts, leftovers, foreign paths.

Looks at the files git knows (or would add); prints each finding as `file:line: what`.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINES_MAX = 800
SHELL_LINES_MAX = 40
SOURCES = {".rs", ".py", ".js", ".go", ".sh", ".adn", ".toml", ".md", ".proto"}
# Spelled in pieces, so that this file does not find itself.
LEFTOVERS = [
    (re.compile(r"\b(to" r"do|unimple" r"mented)!\("), "a macro that stands for unwritten code"),
    (re.compile(r"\b(FIX" r"ME|XX" r"X)\b"), "a leftover marker"),
]
FOREIGN = re.compile(r"(?<![\w.])/(work|home|root|Users)/[\w.]+")


def files():
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True
    ).stdout.decode()
    return [Path(name) for name in listed.split("\0") if name and (ROOT / name).is_file()]


def findings(path):
    text = (ROOT / path).read_text(encoding="utf-8", errors="replace")
    lines = text.splitlines()
    shell = path.suffix == ".sh" or text.startswith(("#!/bin/sh", "#!/usr/bin/env bash", "#!/bin/bash"))
    limit = SHELL_LINES_MAX if shell else LINES_MAX
    if len(lines) > limit and "generated" not in "".join(lines[:5]).lower():
        yield len(lines), f"{len(lines)} lines, more than {limit}"
    for number, line in enumerate(lines, 1):
        if path.suffix == ".rs":
            for pattern, what in LEFTOVERS:
                if pattern.search(line):
                    yield number, what
        found = FOREIGN.search(line)
        if found:
            yield number, f"a path of one machine: {found.group(0)}"


def main():
    count = 0
    for path in files():
        if path.suffix not in SOURCES and not path.name.startswith("run"):
            continue
        for number, what in findings(path):
            print(f"{path}:{number}: {what}")
            count += 1
    print(f"tidy: {count} findings")
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
