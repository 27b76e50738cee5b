"""Runs the exchange of states between processes of this machine: what it sends, and how long it takes over slow links."""
import json
import os
import statistics
import subprocess
import time

RANKS = (2, 3, 4, 6, 8, 12, 16)
# The cost is fitted to the small groups and held to the others.
FITTED = (2, 3, 4, 6)
# Latency in ms, bytes a second in millions.
LINKS = ((5, 10), (10, 5), (10, 20))
# States of 32 and 128 KiB.
HEADS = (2, 8)
LAYERS, COMPUTE_MS = 4, 20


def key(ranks, link, heads):
    return f"{ranks} ranks, {link[0]} ms, {link[1]} MB/s, {heads} heads"


def cells():
    return [(ranks, link, heads) for ranks in RANKS for link in LINKS for heads in HEADS]


def call(program, *arguments):
    done = subprocess.run([program, *map(str, arguments)], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    if done.returncode != 0:
        raise OSError(f"{os.path.basename(program)} exited {done.returncode}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def write(path, content):
    with open(path + ".new", "w") as file:
        json.dump(content, file, indent=1)
        file.write("\n")
    os.replace(path + ".new", path)


def read(path):
    if not os.path.exists(path):
        return None
    with open(path) as file:
        return json.load(file)


def run(programs, folder, commit, minutes):
    """How many cells are still to be run when the time is over."""
    os.makedirs(folder, exist_ok=True)
    write(os.path.join(folder, "traffic.json"), {"commit": commit, **call(os.path.join(programs, "exchange_traffic"))})
    path = os.path.join(folder, "cost.json")
    content = read(path) or {"commit": commit, "runs": {}}
    deadline = time.monotonic() + 60 * minutes
    left = [cell for cell in cells() if key(*cell) not in content["runs"]]
    while left and time.monotonic() < deadline:
        cell = left.pop(0)
        ranks, link, heads = cell
        content["runs"][key(*cell)] = call(os.path.join(programs, "exchange_cost"), ranks, *link, heads, LAYERS, COMPUTE_MS)
        write(path, content)
        print(f"{key(*cell)}: " + ", ".join(f"{method} {exchange_of(method, content['runs'][key(*cell)]):.1f} ms"
                                             for method in content["runs"][key(*cell)]["methods"]), flush=True)
    return len(left)


def exchange_of(method, one):
    """The median of a run's exchanges, both ways."""
    said = one["methods"][method]
    return statistics.median(said["forward_ms"] + said["backward_ms"])


def step_of(method, one):
    return statistics.median(one["methods"][method]["step_ms"])
