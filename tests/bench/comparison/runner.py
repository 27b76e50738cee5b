"""Runs cells on the GPUs at hand and keeps what came out, a file a machine."""
import json
import os
import subprocess
import time

from comparison import grid

# What is kept of train_step_cuda's answer.
KEPT = ("tokens_per_gpu", "layers", "macro_chunks", "chunk_tokens", "step_ms", "tokens_per_second_per_gpu", "used_gib",
        "planned_gib", "gradient_sync_ms", "sp_wait_ms", "first_loss", "last_loss")


class Results:
    """The file of one kind of machine; cells that are there are not run again, but those that failed."""

    def __init__(self, path, commit):
        self.path, self.commit = path, commit
        self.content = {"cells": {}}
        if os.path.exists(path):
            with open(path) as file:
                self.content = json.load(file)

    def has(self, cell):
        said = self.content["cells"].get(cell.key(), {})
        return said.get("commit") == self.commit and "error" not in said

    def put(self, cell, result):
        self.content["cells"][cell.key()] = {
            "table": cell.table, "gpus": cell.gpus, "tokens": cell.tokens, "sp_method": cell.sp_method,
            "data_parallel": cell.data_parallel, "plans": list(cell.plans), "commit": self.commit,
            **({"without": cell.without} if cell.without else {}), **result}
        with open(self.path + ".new", "w") as file:
            json.dump(self.content, file, indent=1)
        os.replace(self.path + ".new", self.path)


def run_plan(program, cell, plan):
    """What one activation plan gave: figures, out_of_memory, or an error."""
    arguments = cell.arguments(plan)
    try:
        done = subprocess.run([*program, *arguments], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False,
                              env={**os.environ, **cell.environment()}, timeout=cell.timeout_seconds())
    except subprocess.TimeoutExpired:
        return {"plan": plan, "error": f"not within {cell.timeout_seconds():.0f} s"}
    if done.returncode == 0:
        said = json.loads(done.stdout)
        return {"plan": plan, **{name: said[name] for name in KEPT if name in said}}
    if "RESOURCE_EXHAUSTED" in done.stderr or "cannot allocate" in done.stderr:
        return {"plan": plan, "out_of_memory": True}
    return {"plan": plan, "error": done.stderr.strip()[-600:]}


def run_cell(program, cell):
    for plan in cell.plans:
        result = run_plan(program, cell, plan)
        if "out_of_memory" not in result:
            break
    return result


def said_of(result):
    if "tokens_per_second_per_gpu" in result:
        return f"{result['plan']} {result['tokens_per_second_per_gpu']:,} tokens/s a GPU, {result['used_gib']:.1f} GiB"
    return "out of memory" if result.get("out_of_memory") else result["error"]


def run(program, results, gpus, tables, minutes):
    """How many cells are still to be run when the time is over."""
    deadline = time.monotonic() + minutes * 60
    cells = [cell for name in tables for cell in grid.TABLES[name](gpus) if not results.has(cell)]
    while cells and time.monotonic() < deadline:
        cell = cells.pop(0)
        begin = time.monotonic()
        result = run_cell(program, cell)
        results.put(cell, result)
        print(f"{cell.key()}: {said_of(result)} ({time.monotonic() - begin:.0f} s)", flush=True)
    return len(cells)
