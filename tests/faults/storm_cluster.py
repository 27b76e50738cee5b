#!/usr/bin/python3
"""One cluster of the storm, in an isolation of its own: tests/faults/storm starts it.

    storm_cluster.py FOLDER UNDISTURBED SEED SECONDS MEAN

Jobs run one after another while faults come at random times. FOLDER keeps what must not be lost between calls: a line of
JSON for every fault in faults.jsonl, for every job that has ended in jobs.jsonl.
"""
import collections
import glob
import heapq
import itertools
import json
import os
import random
import signal
import sys
import threading
import time
import traceback
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "e2e")]
from cluster import small_spec  # noqa: E402
from fault_cluster import HOSTS, FaultCluster, keep_logs  # noqa: E402

STEPS = 600
SHAPES = ((2, 2), (4, 1))
# What comes, and how often against the others.
WEIGHTS = {"kill-rank": 3, "pause-rank": 2, "kill-agent": 2, "kill-coordinator": 2, "cut-control": 1, "cut-data": 1,
           "fill-checkpoint-disk": 1, "flip-bit": 1}
# A job that has not ended by then hangs.
PATIENCE_SECONDS = 900


def storm_spec(shape):
    sp, dp = shape
    return small_spec(sp=sp, dp=dp, steps=STEPS, batch=2, checkpoint={"interval_steps": 10},
                      recovery={"max_restarts": 1000})


def judge(rows, ledger, undisturbed, committed):
    """What is wrong with a job that has succeeded. `rows`: its metrics. `ledger`: how often each (generation, step) was
    trained. `committed`: (generation begun, the newest committed step before, the step it went on after)."""
    problems = []
    expected = {int(step): row for step, row in undisturbed.items()}
    if [int(row["step"]) for row in rows] != sorted(expected):
        problems.append("the metrics have not each step once")
    different = [int(row["step"]) for row in rows
                 if [row["loss"], row["gradient_norm"], row["learning_rate"]] != expected.get(int(row["step"]))]
    if different:
        problems.append(f"the losses differ from the undisturbed run's, from step {different[0]} on")
    generations = [int(row["generation"]) for row in rows]
    if generations != sorted(generations):
        problems.append("a step of an older generation stands behind one of a newer")
    for row in rows:
        times = ledger.get((int(row["generation"]), int(row["step"])), 0)
        if times != 1:
            problems.append(f"step {row['step']} was trained {times} times in generation {row['generation']}, whose it is")
            break
    for generation, newest, restored in committed:
        if restored < newest:
            problems.append(f"generation {generation} went on after step {restored}, and step {newest} was committed")
    return problems


def trained(lines):
    """How often each (generation, step) was trained, of the lines (rank, generation, step) that ranks wrote. Most often by
    any of them: one may be killed when its part is done, and left to the others, but its line not yet written."""
    by_rank = collections.Counter(lines)
    most = {}
    for (_, generation, step), times in by_rank.items():
        most[generation, step] = max(times, most.get((generation, step), 0))
    return most


class StormCluster(FaultCluster):
    pace_ms = 40

    def __init__(self, folder, undisturbed, seed, seconds, mean):
        super().__init__("storm")
        self.state = folder
        self.undisturbed_folder = undisturbed
        self.random = random.Random(seed)
        self.seconds = float(seconds)
        self.mean = float(mean)
        self.over = threading.Event()
        self.undo = []  # (when, order, what), soonest first
        self.order = itertools.count()
        self.flipped = set()

    # ---- jobs -------------------------------------------------------------------------------------

    def storm(self):
        os.makedirs(self.state, exist_ok=True)
        self.start_cluster()
        self.end = time.monotonic() + self.seconds
        # What starts programs is this thread: they end with the thread that started them.
        jobs = threading.Thread(target=self.run_jobs, daemon=True)
        jobs.start()
        self.make_faults()
        jobs.join(60)

    def run_jobs(self):
        path = os.path.join(self.state, "jobs.jsonl")
        number = sum(1 for _ in open(path)) if os.path.exists(path) else 0
        try:
            while time.monotonic() < self.end:
                number += 1
                self.one_job(f"storm-{number}", SHAPES[number % len(SHAPES)])
        except Exception:
            self.report(traceback.format_exc(limit=-3))
        finally:
            self.over.set()

    def report(self, problem):
        self.record("problems.jsonl", {"problem": problem})
        self.keep("last-problem")

    def patient(self, *arguments):
        """A call that outlives the coordinator's deaths."""
        deadline = time.monotonic() + 300
        while True:
            try:
                done = self.lasp(*arguments, check=False, timeout=30)
                if done.returncode == 0 or "exists already" in done.stderr:
                    return done.stdout
                said = done.stderr
            except Exception as error:  # a time-out
                said = str(error)
            if time.monotonic() > deadline:
                raise AssertionError(f"lasp {' '.join(arguments)}: {said}")
            self.over.wait(0.5)

    def one_job(self, name, shape):
        ledger_path = os.path.join(self.data, "ledger")
        if os.path.exists(ledger_path):
            os.unlink(ledger_path)
        self.flipped.clear()
        path = os.path.join(self.folder, f"{name}.json")
        with open(path, "w") as file:
            json.dump({"display_name": name, "spec": storm_spec(shape)}, file)
        begin = time.monotonic()
        self.patient("submit", "-f", path, f"--id={name}")
        newest, generation, committed, problems = 0, 0, [], []
        while True:
            job = json.loads(self.patient("get", "job", name, "-o", "json"))
            step = int(job["checkpoint_step"])
            if int(job["generation"]) > generation:
                if generation > 0:
                    lost = [s for s in self.flipped if s >= newest]
                    committed.append((int(job["generation"]), 0 if lost else newest, int(job["restored_step"])))
                generation = int(job["generation"])
            if step < newest and not any(s > step for s in self.flipped):
                problems.append(f"the newest committed checkpoint was step {newest}, and is step {step}")
            newest = step
            if job["state"] in ("SUCCEEDED", "FAILED", "CANCELLED"):
                break
            if time.monotonic() - begin > PATIENCE_SECONDS:
                problems.append(f"has not ended within {PATIENCE_SECONDS} s: {job['state']}, {job['reason']}: {job['message']}")
                self.keep(name)
                self.patient("cancel", name)
                break
            if time.monotonic() > self.end + 240:
                return  # cut short: it does not count
            time.sleep(1)
        seconds = time.monotonic() - begin
        ledger = trained((r, g, s) for r, g, s, _ in self.ledger())
        if job["state"] == "SUCCEEDED":
            rows = json.loads(self.patient("metrics", name, "-o", "json"))
            with open(os.path.join(self.undisturbed_folder, f"undisturbed.{shape[0]}x{shape[1]}.json")) as file:
                problems += judge(rows, ledger, json.load(file)["rows"], committed)
        else:
            problems.append(f"{job['state']}: {job['reason']}: {job['message']}")
        if problems:
            self.keep(name)
        self.record("jobs.jsonl", {
            "job": name, "shape": shape, "state": job["state"], "seconds": round(seconds, 1), "generations": generation,
            "steps": STEPS, "trained": sum(ledger.values()), "problems": problems,
            "reasons": [t["reason"] for t in job["transitions"] if t["to_state"] in ("RECOVERING", "FAILED")]})

    def keep(self, name):
        keep_logs(self, os.path.join(self.state, "logs", name))

    def record(self, name, row):
        with open(os.path.join(self.state, name), "a") as file:
            file.write(json.dumps(dict(row, time=round(time.time(), 3))) + "\n")

    # ---- faults -----------------------------------------------------------------------------------

    def make_faults(self):
        due = time.monotonic() + self.random.expovariate(1 / self.mean)
        while True:
            soonest = min([due, *(when for when, _, _ in self.undo)])
            if self.over.wait(max(0.0, soonest - time.monotonic())):
                break
            try:
                if self.undo and self.undo[0][0] <= time.monotonic():
                    self.put_back(heapq.heappop(self.undo)[2])
                elif due <= time.monotonic():
                    due = time.monotonic() + self.random.expovariate(1 / self.mean)
                    if time.monotonic() < self.end:
                        self.one_fault()
            except Exception:
                self.report(traceback.format_exc(limit=-3))
        while self.undo:
            heapq.heappop(self.undo)[2]()

    def put_back(self, what, tries=5):
        """On a busy machine a program may take longer to start than it is given."""
        try:
            what()
        except AssertionError:
            if tries == 1:
                raise
            self.later(1, lambda: self.put_back(what, tries - 1))

    def later(self, seconds, what):
        heapq.heappush(self.undo, (time.monotonic() + seconds, next(self.order), what))

    def one_fault(self):
        kind = self.random.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        host = self.random.choice(HOSTS)
        seconds = self.random.uniform(0.5, 5)
        on = getattr(self, kind.replace("-", "_"))(host, seconds)
        if on is not None:
            self.record("faults.jsonl", {"kind": kind, "on": on, "seconds": round(seconds, 2)})

    def ranks(self):
        return [pid for worker in self.workers_by_host.values() if worker.process.poll() is None for pid in self.ranks_of(worker)]

    def kill_rank(self, _host, _seconds):
        ranks = self.ranks()
        if not ranks:
            return None
        pid = self.random.choice(ranks)
        os.kill(pid, signal.SIGKILL)
        return f"pid {pid}"

    def pause_rank(self, _host, seconds):
        ranks = self.ranks()
        if not ranks:
            return None
        pid = self.random.choice(ranks)
        os.kill(pid, signal.SIGSTOP)

        def go_on():
            if pid in self.ranks():
                os.kill(pid, signal.SIGCONT)
        self.later(seconds, go_on)
        return f"pid {pid}"

    def kill_agent(self, host, seconds):
        worker = self.workers_by_host[host]
        if worker.process.poll() is not None:
            return None
        worker.kill()
        self.programs.remove(worker)
        self.later(seconds, lambda: self.start_host(host))
        return host

    def kill_coordinator(self, _host, seconds):
        if self.server.process.poll() is not None:
            return None
        self.server.kill()
        self.programs.remove(self.server)
        self.later(seconds, self.restart_coordinator)
        return "coordinator"

    def cut_control(self, host, seconds):
        return self._cut(host, "control", 3 * seconds)

    def cut_data(self, host, seconds):
        return self._cut(host, "data", 3 * seconds)

    def _cut(self, host, plane, seconds):
        self.hosts.cut(host, plane)
        self.later(seconds, lambda: self.hosts.heal(host, plane))
        return host

    def fill_checkpoint_disk(self, _host, seconds):
        self.checkpoint_disk.fill()
        self.later(seconds, self.checkpoint_disk.empty)
        return "checkpoints"

    def flip_bit(self, _host, _seconds):
        def step_of(path):
            return int(os.path.basename(os.path.dirname(path)).split(".")[0].split("-")[1])
        manifests = sorted(glob.glob(os.path.join(self.checkpoint_disk.folder, "*", "*", "step-*", "manifest.json")),
                           key=lambda path: (os.stat(path).st_mtime, step_of(path)))
        shards = glob.glob(os.path.join(os.path.dirname(manifests[-1]), "rank-*.safetensors")) if manifests else []
        if not shards:
            return None
        shard = self.random.choice(sorted(shards))
        self.flipped.add(step_of(manifests[-1]))
        try:
            with open(shard, "r+b") as file:
                file.seek(-self.random.randint(1, 4000), os.SEEK_END)
                byte = file.read(1)[0]
                file.seek(-1, os.SEEK_CUR)
                file.write(bytes([byte ^ (1 << self.random.randrange(8))]))
        except FileNotFoundError:
            return None  # collected in the meantime
        return os.path.relpath(shard, self.checkpoint_disk.folder)


class Undisturbed(StormCluster):
    """The run that nothing happens to, of each shape."""
    pace_ms = 0

    def storm(self):
        self.start_cluster()
        for shape in SHAPES:
            path = os.path.join(self.undisturbed_folder, f"undisturbed.{shape[0]}x{shape[1]}.json")
            if os.path.exists(path):
                continue
            name = f"undisturbed-{shape[0]}x{shape[1]}"
            self.submit(storm_spec(shape), name)
            self.wait_for_state(name, "SUCCEEDED", 600)
            with open(path + ".new", "w") as file:
                json.dump({"rows": self.rows(name)}, file)
            os.rename(path + ".new", path)


def main(folder, undisturbed, seed, seconds, mean):
    kind = Undisturbed if folder == "undisturbed" else StormCluster
    outcome = unittest.TextTestRunner(verbosity=0, stream=sys.stderr).run(kind(folder, undisturbed, seed, seconds, mean))
    return 0 if outcome.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
