"""A Dockerfile, as far as ours goes: its stages, and what one target comes to."""
import json
import re


def read(path):
    """{stage: (its base, [(instruction, rest)])}, continued lines joined."""
    with open(path) as file:
        lines = [line for line in file.read().splitlines() if not re.match(r"\s*(#|$)", line)]
    stages, name = {}, None
    text = re.sub(r"\\\n\s*", "", "\n".join(lines))
    for line in text.splitlines():
        instruction, _, rest = line.partition(" ")
        if instruction == "FROM":
            base, _, name = rest.partition(" AS ")
            stages[name] = (base, [])
        else:
            stages[name][1].append((instruction, rest))
    return stages


class Image:
    """What a target comes to: the distribution it begins with, its steps, its environment, user and entry point."""

    def __init__(self, stages, target):
        base, self.steps = target, []
        while base in stages:
            base, instructions = stages[base]
            self.steps = instructions + self.steps
        self.base = base
        self.user, self.entrypoint, self.runs, self.environment = "0:0", None, [], {}
        for instruction, rest in self.steps:
            if instruction == "USER":
                self.user = rest
            elif instruction == "ENTRYPOINT":
                self.entrypoint = json.loads(rest)
            elif instruction == "ENV":
                self.environment.update(pair.split("=", 1) for pair in rest.split())
            elif instruction == "RUN":
                mounts = re.findall(r"--mount=(\S+) +", rest)
                self.runs.append(([dict(p.split("=", 1) for p in m.split(",")) for m in mounts],
                                  re.sub(r"--mount=\S+ +", "", rest)))
            elif instruction not in ("LABEL", "EXPOSE", "ARG", "ADD", "COPY"):
                raise ValueError(f"{instruction} is not known here")
        self.copies = [rest for instruction, rest in self.steps if instruction in ("ADD", "COPY")]
