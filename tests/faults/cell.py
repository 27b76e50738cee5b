#!/usr/bin/python3
"""One cell of the fault matrix, in an isolation of its own: tests/faults/run starts it.

    cell.py NAME RESULT UNDISTURBED [LOGS]

NAME is a cell's, or undisturbed.SPxDP for the run that nothing happens to. RESULT is written in any case.
"""
import glob
import json
import os
import re
import signal
import sys
import threading
import time
import traceback
import unittest
from datetime import datetime

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "e2e")]
import isolation  # noqa: E402
from cells import DEADLY, all_cells  # noqa: E402
from cluster import children_of, wait_until  # noqa: E402
from fault_cluster import FAKETIME, HOSTS, STEPS, FaultCluster, keep_logs  # noqa: E402

CLOCK_JUMP_SECONDS = 3600


class Skipped(Exception):
    """This machine does not allow the cell."""


def seconds_of(timestamp):
    """Of a time as the command line prints it, with up to nine digits behind the dot."""
    whole, _, rest = timestamp.rstrip("Z").partition(".")
    return datetime.fromisoformat(whole + "+00:00").timestamp() + float(f"0.{rest or 0}")


class Undisturbed(FaultCluster):
    """What the losses are where nothing happens."""
    pace_ms = 0

    def __init__(self, shape):
        super().__init__("run_it")
        self.shape = shape
        self.result = {}

    def run_it(self):
        self.start_cluster()
        self.submit(self.spec(self.shape))
        self.wait_for_state("job", "SUCCEEDED", 120)
        rows = self.rows()
        self.assertEqual(sorted(rows), list(range(1, STEPS + 1)))
        self.result = {"rows": rows}


class FaultCell(FaultCluster):
    def __init__(self, cell, undisturbed):
        super().__init__("run_it")
        self.cell = cell
        self.undisturbed = undisturbed
        self.result = {"cell": cell.name, "fault": cell.fault, "place": cell.place, "position": cell.position}
        self.problems = []
        if cell.fault.startswith("partition"):
            self.pace_ms = 100  # what is cut off must not be done before it is missed
        if cell.place == "drain":
            self.interval_steps = 50
        if cell.fault == "out-of-memory":
            self.memory_limit = 200 << 20
        if "clock" in cell.fault:
            self.clock_of = "worker" if cell.fault.startswith("agent") else "server"
            if not os.path.exists(FAKETIME):
                raise Skipped("libfaketime is not installed")

    # ---- the cell ---------------------------------------------------------------------------------

    def run_it(self):
        begin = time.monotonic()
        self.start_cluster()
        self.inject()
        noticed = self.await_notice()
        self.heal()
        if noticed:
            self.await_end()
            self.judge()
        self.check_leaks()
        self.result.update(seconds=round(time.monotonic() - begin, 1), problems=self.problems)

    @property
    def rank_does_it(self):
        return self.cell.fault in (*DEADLY, "sigstop", "hang", "nan")

    def arm(self, place, after_step=0):
        """Has the rank do it there; or stop there, until what is done to it from outside has been."""
        kind = self.cell.fault if self.rank_does_it else "sigstop"
        path = os.path.join(self.data, "fault")
        with open(path + ".new", "w") as file:
            file.write(f"{kind} {place} {self.cell.rank} {after_step}\n")
        os.rename(path + ".new", path)

    def await_place(self):
        """The rank has come there."""
        path = os.path.join(self.data, "fault.done")
        wait_until(lambda: os.path.exists(path) and os.path.getsize(path) > 0, 60, lambda: f"the rank at its place; {self.job('job')}")
        with open(path) as file:
            monotonic, wall, step, generation, pid, address = file.read().split()
        self.host = next(host for host in HOSTS if self.hosts.rank_address(host) == address)
        if self.rank_does_it:
            self.mark(float(monotonic), float(wall), int(step), int(generation))
            return
        wait_until(lambda: open(f"/proc/{pid}/stat").read().split(")")[1].split()[0] == "T", 10, "it has stopped")
        try:
            self.mark(time.monotonic(), time.time(), int(step), int(generation))
            self.act()
        finally:
            os.kill(int(pid), signal.SIGCONT)

    def mark(self, monotonic, wall, step, generation):
        self.injected, self.injected_wall, self.generation = monotonic, wall, generation
        self.result["step"] = step

    def inject(self):
        place = self.cell.place
        spec = self.spec(self.cell.shape)
        if place in ("start-up", "forward", "backward", "gradient-sync", "checkpoint-write"):
            # The checkpoint of step 20 is committed by then.
            self.arm(place, 0 if place == "start-up" else 28)
            self.submit(spec)
            self.await_place()
        elif place == "commit":
            self.submit(spec)
            self.inject_at_commit()
        elif place == "restore":
            self.submit(spec)
            self.wait_for_step("job", 25)
            self.lasp("suspend", "job")
            self.wait_for_state("job", "SUSPENDED")
            if self.cell.fault in ("flipped-bit", "torn-manifest"):
                self.damage_newest()
                self.lasp("resume", "job")
            else:
                self.arm("restore")
                self.lasp("resume", "job")
                self.await_place()
        elif place == "drain":
            self.submit(spec)
            self.wait_for_checkpoint(self.interval_steps)
            self.arm("checkpoint-write")
            self.lasp("suspend", "job")
            self.await_place()
            if self.result["step"] % self.interval_steps == 0:
                raise AssertionError(f"the fault came with the checkpoint of step {self.result['step']}, not with the drain's")

    def inject_at_commit(self):
        """All shards are on the disk, and the coordinator has not heard of the last of them."""
        self.wait_for_checkpoint(self.interval_steps)
        self.server.signal(signal.SIGSTOP)
        known = set(glob.glob(os.path.join(self.checkpoint_disk.folder, "*", "*", "step-*")))
        world = self.cell.shape[0] * self.cell.shape[1]

        def written():
            folders = set(glob.glob(os.path.join(self.checkpoint_disk.folder, "*", "*", "step-*"))) - known
            return [f for f in folders if len(glob.glob(os.path.join(f, "rank-*.safetensors"))) == world]
        folder = wait_until(written, 30, "a checkpoint whose shards are written")[0]
        step = int(os.path.basename(folder).split(".")[0].split("-")[1])
        pid = self.pid_of(self.cell.rank)
        self.host = next((host for host, worker in self.workers_by_host.items() if pid in children_of(worker.pid)), "")
        self.injected, self.injected_wall, self.generation = time.monotonic(), time.time(), 1
        self.result["step"] = step
        numbers = {"sigkill": signal.SIGKILL, "sigsegv": signal.SIGSEGV, "sigstop": signal.SIGSTOP}
        if self.cell.fault in numbers:
            os.kill(pid, numbers[self.cell.fault])
        elif self.cell.fault == "out-of-memory":
            # It trains on while the coordinator does not hear.
            self.arm("gradient-sync")
            wait_until(lambda: pid not in children_of(self.workers_by_host[self.host].pid), 30, "the rank is out of memory")
        else:
            self.act()
        if self.server.process.poll() is None:
            if self.cell.fault != "store-full":
                # The coordinator can know from here on.
                self.injected, self.injected_wall = time.monotonic(), time.time()
            self.server.signal(signal.SIGCONT)

    def damage_newest(self):
        wait_until(lambda: len([c for c in self.checkpoints() if c["verify_time"]]) >= 2, 20, "two that are verified")
        newest = os.path.join(self.checkpoint_disk.folder, self.checkpoints()[0]["folder"])
        if self.cell.fault == "torn-manifest":
            path = os.path.join(newest, "manifest.json")
            os.truncate(path, os.path.getsize(path) // 2)
        else:
            with open(os.path.join(newest, f"rank-{self.cell.rank}.safetensors"), "r+b") as file:
                file.seek(-200, os.SEEK_END)
                byte = file.read(1)[0]
                file.seek(-1, os.SEEK_CUR)
                file.write(bytes([byte ^ 4]))
        self.result["step"] = int(self.checkpoints()[0]["step"])
        self.injected, self.injected_wall, self.generation, self.host = time.monotonic(), time.time(), 1, ""

    # ---- what is done from outside ----------------------------------------------------------------

    def act(self):
        fault = self.cell.fault
        if fault == "coordinator-kill":
            self.server.kill()
        elif fault == "store-full":
            self.store_disk.fill()
        elif fault == "store-read-only":
            # A disk cannot be made so while a file on it is open for writing.
            self.server.kill()
            self.store_disk.set_read_only(True)
        elif fault == "checkpoint-disk-full":
            self.checkpoint_disk.fill()
        elif fault == "partition-agent":
            self.hosts.cut(self.host, "control")
        elif fault == "partition-ranks":
            self.hosts.cut(self.host, "data")
        elif fault.startswith("slow"):
            self.slow_down()
        else:
            self.move_clock(-CLOCK_JUMP_SECONDS if fault.endswith("back") else CLOCK_JUMP_SECONDS)

    def slow_down(self):
        pid = self.pid_of(self.cell.rank)
        if self.cell.fault == "slow-quota":
            group = isolation.Cgroup(f"{self.cgroup_name}/slow").make()
            group.limit_cpu(0.1)
            group.add(pid)
            return

        def duty():
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline and self.stopped_duty.wait(0.05) is False:
                try:
                    os.kill(pid, signal.SIGSTOP)
                    self.stopped_duty.wait(0.2)
                    os.kill(pid, signal.SIGCONT)
                except ProcessLookupError:
                    return
        self.stopped_duty = threading.Event()
        self.duty = threading.Thread(target=duty, daemon=True)
        self.addCleanup(self.stopped_duty.set)
        self.duty.start()

    def heal(self):
        fault = self.cell.fault
        if fault == "coordinator-kill":
            begin = time.monotonic()
            self.restart_coordinator()
            self.result["coordinator_back_s"] = round(time.monotonic() - begin, 2)
        elif fault == "store-full":
            self.store_disk.empty()
        elif fault == "store-read-only":
            said = self.start_server(wait=False, **dict(self.server_flags(), worker_address=self.server.addresses["worker_address"]))
            code = said.process.wait(20)
            self.programs.remove(said)
            self.result["said"] = said.log_tail(1).strip()[-300:]
            if code == 0 or "ead-only" not in self.result["said"]:
                self.problems.append(f"on a read-only disk the coordinator exited {code} with: {self.result['said']}")
            said.kill()
            self.store_disk.set_read_only(False)
            self.restart_coordinator()
        elif fault == "checkpoint-disk-full":
            self.checkpoint_disk.empty()
        elif fault == "partition-agent":
            self.hosts.heal(self.host, "control")
        elif fault == "partition-ranks":
            self.hosts.heal(self.host, "data")

    # ---- what the service says of it ----------------------------------------------------------------

    def told(self):
        """Changes of the job since the fault: (seconds after it, state, reason, message)."""
        return [(seconds_of(t["time"]) - self.injected_wall, t["to_state"], t["reason"], t["message"])
                for t in self.job("job")["transitions"] if seconds_of(t["time"]) >= self.injected_wall]

    def events(self, reason):
        said = [event for event in self.lasp_json("events", "job") if event["reason"] == reason]
        return [(seconds_of(e["time"]) - self.injected_wall, reason, reason, e["message"]) for e in said
                if seconds_of(e["time"]) >= self.injected_wall]

    def notice(self):
        """How the service first said that something is wrong; None before."""
        fault = self.cell.fault
        if fault == "checkpoint-disk-full":
            found = self.events("CHECKPOINT_FAILED")
        elif fault in ("flipped-bit", "torn-manifest"):
            found = self.events("CHECKPOINT_CORRUPT")
        elif fault == "nan":
            rows = [row for row in self.metrics("job") if row["skipped"]]
            found = [(seconds_of(rows[0]["time"]) - self.injected_wall, "", "SKIPPED", f"step {rows[0]['step']}")] if rows else []
        else:
            ends = ("RECOVERING", "FAILED", "SUSPENDED") if self.cell.place == "drain" else ("RECOVERING", "FAILED")
            found = [told for told in self.told() if told[1] in ends]
        return found[0] if found else None

    def await_notice(self):
        """Whether the cell goes on to its end."""
        fault = self.cell.fault
        if fault in ("coordinator-kill", "store-full", "store-read-only"):
            time.sleep(2)  # the ranks train on meanwhile
            return True
        limit = self.cell.notice_limit
        if limit is None and fault not in ("checkpoint-disk-full", "flipped-bit", "torn-manifest", "nan"):
            return True
        patience = max(60.0, (limit or 0) + 25)
        try:
            wait_until(self.notice, patience, "noticed")
        except AssertionError:
            self.result["noticed_s"] = None
            self.problems.append(f"not noticed within {patience:.0f} s; the job is {self.job('job')['state']}")
            return False
        after, _, reason, message = self.notice()
        self.result.update(noticed_s=round(after, 2), reason=reason, message=message)
        if limit is not None and after > limit:
            self.problems.append(f"noticed after {after:.1f} s, not within {limit:.0f} s")
        self.result["culprit"] = self.names_culprit(message)
        if self.result["culprit"] is False:
            self.problems.append(f"rank {self.cell.rank} on {self.host} is not named: {message}")
        return True

    def names_culprit(self, message):
        """None where there is nobody to name."""
        rank, fault = self.cell.rank, self.cell.fault
        if fault in ("torn-manifest", "nan", "checkpoint-disk-full"):
            return None
        if fault == "flipped-bit":
            return f"rank-{rank}.safetensors" in message
        if fault == "partition-ranks":
            return None  # either side of the cut is as right
        if fault == "partition-agent":
            return re.search(rf"\bworkers/{self.host}\b", message) is not None
        return re.search(rf"\brank {rank} on (workers/)?{self.host}\b|\bwith rank {rank}\b", message) is not None

    def await_end(self):
        resumed = []

        def ended():
            job = self.job("job")
            if job["state"] == "SUSPENDED" and not resumed:
                resumed.append(True)
                self.lasp("resume", "job")
            if job["state"] in ("FAILED", "CANCELLED"):
                raise AssertionError(f"the job is {job['state']}: {job['reason']}: {job['message']}")
            return job["state"] == "SUCCEEDED"
        wait_until(ended, 180, lambda: f"the end of the job; it is {self.job('job')['state']}: {self.job('job')['message']}")

    def judge(self):
        job = self.job("job")
        ledger = [(g, s, t) for r, g, s, t in self.ledger() if r == 0]
        rows = self.rows()
        self.result["generations"] = int(job["generation"])
        self.result["steps_lost"] = len(ledger) - len({step for _, step, _ in ledger})
        restarted = self.cell.notice_limit is not None
        again = [t for g, _, t in ledger if t > self.injected and (g > self.generation or not restarted)]
        self.result["again_s"] = round(min(again) - self.injected, 2) if again else None
        if not restarted and self.cell.place not in ("restore", "drain", "start-up") and job["generation"] != 1:
            self.problems.append(f"it took {job['generation']} generations: {[t[1:] for t in self.told()]}")
        expected = {int(step): row for step, row in self.undisturbed["rows"].items()}
        if sorted(rows) != sorted(expected):
            self.problems.append("steps are missing from the metrics")
        different = [step for step in sorted(expected) if rows.get(step) != expected[step]]
        if self.cell.fault == "nan":
            # What is skipped changes all that follows.
            first = next(int(row["step"]) for row in self.metrics("job") if row["skipped"])
            different = [step for step in different if step < first]
        self.result["losses_equal"] = not different
        if self.cell.fault.startswith("slow"):
            # It costs time alone. Whether it is told of depends on how long it lasts.
            told = self.events("STRAGGLER")
            if told:
                self.result.update(noticed_s=round(told[0][0], 2), message=told[0][3], culprit=self.names_culprit(told[0][3]))
        if different:
            self.problems.append(f"the losses differ from step {different[0]} on")

    # ---- what is left behind --------------------------------------------------------------------------

    def check_leaks(self):
        leaks = []
        if self.problems and self.result.get("noticed_s", 0) is None:
            return  # it still runs
        try:
            wait_until(lambda: not any(children_of(w.pid) for w in self.workers_by_host.values()), 15, "no ranks")
        except AssertionError:
            leaks.append(f"processes of agents: {[children_of(w.pid) for w in self.workers_by_host.values()]}")
        for worker in self.workers_by_host.values():
            worker.terminate()
        self.server.terminate()
        left = self.orphans(timeout=5)
        if left:
            leaks.append(f"processes: {left}")
        if os.listdir("/dev/shm"):
            leaks.append(f"shared memory: {os.listdir('/dev/shm')}")
        listeners = self.hosts.listeners()
        if listeners:
            leaks.append(f"ports: {listeners}")
        self.result["leaks"] = leaks
        self.problems += [f"left behind: {leak}" for leak in leaks]


def main(name, result_path, undisturbed_path, logs=None):
    result = {"cell": name}
    test = None
    try:
        if name.startswith("undisturbed."):
            sp, dp = name.split(".")[1].split("x")
            test = Undisturbed((int(sp), int(dp)))
        else:
            cell = next(cell for cell in all_cells() if cell.name == name)
            result.update(fault=cell.fault, place=cell.place, position=cell.position)
            with open(undisturbed_path) as file:
                test = FaultCell(cell, json.load(file))
        if logs:
            # Before the cluster's folder is removed.
            original = test.tearDown

            def tear_down():
                if getattr(test, "problems", None) or test.has_failed():
                    keep_logs(test, logs)
                original()
            test.tearDown = tear_down
        outcome = unittest.TextTestRunner(verbosity=0, stream=sys.stderr).run(test)
        result.update(test.result)
        broken = outcome.errors + outcome.failures
        if broken:
            result.setdefault("problems", [])
            result["problems"] = list(getattr(test, "problems", [])) + [broken[0][1].strip().splitlines()[-1][:600]]
        result["verdict"] = "failed" if broken or result.get("problems") else "passed"
    except Skipped as why:
        result.update(verdict="skipped", problems=[str(why)])
    except Exception:
        result.update(verdict="failed", problems=[traceback.format_exc(limit=-3)])
    with open(result_path + ".new", "w") as file:
        json.dump(result, file, indent=1)
    os.rename(result_path + ".new", result_path)
    return 0 if result["verdict"] != "failed" else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
