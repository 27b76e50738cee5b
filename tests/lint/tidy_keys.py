"""Writes a compilation database that clang-tidy can read and prints "KEY FILE" for files on stdin.

Only files that the build compiles are printed. A file's key covers everything its verdict rests on
within the repository: the file, the headers of ours that it includes, directly or not, those generated
from protos, its command, the checks and the tool's version.
"""

import hashlib
import json
import os
import re
import sys

INCLUDE = re.compile(rb'^\s*#\s*include\s*"([^"]+)"', re.MULTILINE)


def clang_command(command):
    """clang cannot read gcc's precompiled headers, and without them it sees what a file forgot to include."""
    # The compiler cache's launcher stands before the compiler.
    command = re.sub(r"^.*?(\S+/(?:c\+\+|g\+\+\S*|clang\+\+\S*)) ", r"\1 ", command)
    return re.sub(r"-Winvalid-pch|-fpch-preprocess|-include \S+cmake_pch\.hxx", "", command)


class Contents:
    """The digest of a file and the headers of ours that it includes, each file read once."""

    def __init__(self, folders):
        self.folders = folders
        self.known = {}

    def _read(self, path):
        if path not in self.known:
            with open(path, "rb") as file:
                text = file.read()
            found = (next((p for p in (os.path.join(f, name.decode()) for f in self.folders) if os.path.isfile(p)), None)
                     for name in INCLUDE.findall(text))
            self.known[path] = (hashlib.sha256(text).hexdigest(), [p for p in found if p])
        return self.known[path]

    def of(self, path):
        seen, waiting = set(), [path]
        while waiting:
            path = waiting.pop()
            if path not in seen:
                seen.add(path)
                waiting.extend(self._read(path)[1])
        return sorted(self._read(path)[0] for path in seen)


def checks_of(path):
    """The texts of the .clang-tidy files above a file, the outermost first."""
    folders = os.path.dirname(path).split("/")
    for depth in range(len(folders) + 1):
        name = os.path.join(*folders[:depth], ".clang-tidy")
        if os.path.isfile(name):
            with open(name) as file:
                yield file.read()


def main():
    build, database = os.path.abspath(sys.argv[1]), sys.argv[2]
    root = os.getcwd()
    with open(os.path.join(build, "compile_commands.json")) as file:
        commands = json.load(file)
    for entry in commands:
        entry["command"] = clang_command(entry["command"])
    with open(database, "w") as file:
        json.dump(commands, file)
    by_file = {os.path.relpath(entry["file"], root): entry["command"] for entry in commands}
    contents = Contents([root, os.path.join(build, "proto")])
    for path in sys.stdin.read().splitlines():
        if path in by_file:
            # Another checkout or build folder with the same contents has the same verdict.
            command = by_file[path].replace(build, "BUILD").replace(root, "ROOT")
            parts = [path, command, *checks_of(path), os.environ["VERSION"], *contents.of(path)]
            print(hashlib.sha256("\0".join(parts).encode()).hexdigest(), path)


if __name__ == "__main__":
    main()
