"""A busy control plane for LASP_SOAK_SECONDS (60): jobs are submitted, cancelled, suspended and deleted, watched and
followed, while agents come and go, certificates and tokens are rotated and the store is backed up. Then: no event
lost, no stream stuck, no process left, and from ten minutes on memory, files, threads and the store flat, as
bounds.py says.

LASP_SOAK_RECORD names a folder for the record: resources.csv, a row every ten seconds; notes.log, what was done when;
result.json, the figures. `flatness.py FOLDER` judges a run that is not over."""
import collections
import contextlib
import json
import os
import random
import sqlite3
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
from api_stubs import StubsTest  # noqa: E402
from cluster import small_spec, wait_until  # noqa: E402
from credentials import Credentials  # noqa: E402

import flatness  # noqa: E402
import history  # noqa: E402
from access import Access, Calls, Tokens, quantiles  # noqa: E402
from bounds import BOUNDS  # noqa: E402
from console import Browser  # noqa: E402
from load import ENDED, Follower, Historian, Jobs, Submitter, Terminal  # noqa: E402
from operations import Operations  # noqa: E402
from resources import Sampler  # noqa: E402
from watchers import Newcomer, Watcher  # noqa: E402

SECONDS = float(os.environ.get("LASP_SOAK_SECONDS", "60"))
SEED = int(os.environ.get("LASP_TEST_SEED", time.time_ns() % 1_000_000))
# Below this a line through so few samples says nothing.
JUDGED_FROM = 600
LONG = SECONDS >= JUDGED_FROM
# Seconds. A bookmark comes every 30 where nothing else does.
MAX_SILENCE = 75
SUBMIT_EVERY, DISTURB_EVERY, ROTATE_EVERY, ROTATE_AUTHORITY_EVERY = (12, 45, 120, 900) if LONG else (4, 7, 15, 25)
BACK_UP_EVERY = 300 if LONG else 20
OVERLAP = 30 if LONG else 5


class SoakTest(StubsTest):
    def setUp(self):
        super().setUp()
        self.record = os.environ.get("LASP_SOAK_RECORD", self.folder)
        os.makedirs(self.record, exist_ok=True)
        self.notes = open(os.path.join(self.record, "notes.log"), "w", buffering=1)
        self.addCleanup(self.notes.close)
        self.begin = time.monotonic()
        self.note(f"{SECONDS:.0f} s, seed {SEED}")
        self.credentials = Credentials(os.path.join(self.folder, "credentials"), "127.0.0.1")
        self.tokens, self.calls, self.jobs = Tokens(), Calls(), Jobs()
        for user, role, projects in (("root", "admin", ["*"]), ("ada", "editor", ["red", "blue"]), ("bob", "viewer", ["*"])):
            self.tokens.set(user, self.credentials.token(role, *projects, name=user))
        self.token = self.tokens.get("root")
        self.agents = {}
        self.actors = []
        self.findings = []

    def note(self, text):
        self.notes.write(f"{time.monotonic() - self.begin:8.1f} {text}\n")

    # ---- the cluster -----------------------------------------------------------------------------

    def start_agent(self, name):
        # Logs small enough that what removes them is seen at work.
        return self.start_worker(name, slots=1 if name == "w1" else 2, retain_log_bytes=256 << 10)

    def access(self, user):
        return Access(self.server.api_address, self.credentials, self.tokens, user, self.calls)

    def lasp_again(self, *arguments):
        """A command of an operator, who tries again where credentials have just changed."""
        wait_until(lambda: self.lasp(*arguments, check=False).returncode == 0, 30, f"lasp {arguments}")

    def worker_state(self, name):
        done = self.lasp("workers", "-o", "json", check=False)
        found = json.loads(done.stdout) if done.returncode == 0 else []
        return next((worker["state"] for worker in found if worker["name"] == f"workers/{name}"), None)

    def works(self, token):
        return self.lasp("list", check=False, token=token).returncode == 0

    def running_programs(self):
        return {"server": self.server.pid, **{name: program.pid for name, program in self.agents.items() if program}}

    def start_actors(self):
        def add(kind, name, user, *arguments, **options):
            actor = kind(name, self.access(user), *arguments, seed=SEED, **options)
            self.actors.append(actor)
            return actor
        running = {"filter": "state=RUNNING", "selects": lambda state: state == "RUNNING"}
        self.watchers = [
            add(Watcher, "steady-all", "root", "projects/-"),
            add(Watcher, "steady-batched", "bob", "projects/-", batched=True),
            add(Watcher, "steady-red", "ada", "projects/red"),
            add(Watcher, "steady-running", "bob", "projects/-", **running),
            add(Watcher, "resuming-all", "root", "projects/-", patience=10),
            add(Watcher, "resuming-batched", "ada", "projects/-", batched=True, patience=20),
            add(Watcher, "resuming-running", "root", "projects/-", patience=7, **running)]
        add(Newcomer, "newcomer", "bob", 30 if LONG else 6)
        self.submitters = [add(Submitter, project, "ada", self.jobs, project, small_spec, SUBMIT_EVERY)
                           for project in ("red", "blue")]
        self.historian = add(Historian, "historian", "root", self.jobs)
        self.followers = [add(Follower, f"{what}-{i}", "bob", self.jobs, what) for what in ("metrics", "logs") for i in (1, 2)]
        self.terminal = Terminal("terminal", self.lasp, self.jobs, 20 if LONG else 5, seed=SEED)
        self.browser = Browser("browser", self.server.console_address, self.credentials, self.tokens, "bob", self.jobs,
                               4 if LONG else 1, seed=SEED)
        self.sampler = Sampler(os.path.join(self.record, "resources.csv"), 10 if LONG else 2, self.running_programs,
                               os.path.join(self.folder, "server"), {"w1": os.path.join(self.folder, "w1")}, self.more_figures)
        self.actors += [self.terminal, self.browser, self.sampler]
        for actor in self.actors:
            actor.start()
        self.addCleanup(self.stop, self.actors)

    def more_figures(self):
        return {"load.jobs": len(self.jobs.histories) + len(self.jobs.open), "load.open_jobs": len(self.jobs.open),
                "load.mutations": self.calls.mutations, "load.events": sum(watcher.events for watcher in self.watchers),
                "load.ranks": sum(len(self.ranks_of(program)) for program in list(self.agents.values()) if program),
                "load.silence": round(max(watcher.silence() for watcher in self.watchers), 1)}

    def stop(self, actors):
        for actor in actors:
            actor.stop()
        for actor in actors:
            actor.join(90)
            self.assertFalse(actor.is_alive(), f"{actor.name} does not end")

    # ---- the run -----------------------------------------------------------------------------------

    def test_a_busy_control_plane(self):
        # Few enough events that those kept in memory are all there before memory is judged.
        self.start_server(retain_finished="10m" if LONG else "20s", event_history=500)
        self.agents = {name: self.start_agent(name) for name in ("w1", "w2", "w3", "w4")}
        self.start_actors()
        operations = Operations(self, self.tokens, random.Random(SEED), self.note)
        self.operate(operations)
        self.note("winding down")
        self.stop(self.submitters + [self.terminal])
        operations.back = [(0, name) for _, name in operations.back]
        operations.later = [(0, what) for _, what in operations.later]
        self.watched(operations.follow_up)
        self.end_jobs()
        self.wait_for_watchers()
        self.stop(self.followers)
        self.stop(self.actors)
        figures, problems = self.figures(operations)
        problems += self.program_ends()
        problems += self.against_the_store()
        figures["problems"] = problems
        with open(os.path.join(self.record, "result.json"), "w") as file:
            json.dump(figures, file, indent=1)
        print(json.dumps({**figures, "problems": len(problems)}), flush=True)
        self.assertEqual(problems, [])
        self.assertGreater(figures["jobs"].get("SUCCEEDED", 0), 0)
        self.assertTrue(all(follower.followed for follower in self.followers) or not LONG)

    def operate(self, operations):
        end = self.begin + SECONDS
        due = {operations.disturb_an_agent: DISTURB_EVERY, lambda: operations.rotate(f"{OVERLAP}s"): ROTATE_EVERY,
               lambda: operations.rotate_authority(OVERLAP): ROTATE_AUTHORITY_EVERY, operations.back_up: BACK_UP_EVERY}
        times = {what: self.begin + every for what, every in due.items()}
        while (now := time.monotonic()) < end:
            self.watched(operations.follow_up)
            for what, every in due.items():
                if times[what] <= now:
                    times[what] = now + every * operations.random.uniform(0.7, 1.3)
                    self.watched(what)
            for name, program in self.agents.items():
                self.assertTrue(program is None or program.process.poll() is None, f"{name} has died")
            self.assertIsNone(self.server.process.poll(), "the coordinator has died")
            time.sleep(0.5)

    def watched(self, what):
        """Does it; what is then not as it should be is a finding, and the soak goes on."""
        try:
            what()
        except AssertionError as problem:
            self.note(f"FOUND: {problem}")
            self.findings.append(str(problem))

    def end_jobs(self):
        for name in self.jobs.unfinished():
            job, project = name.split("/")[3], name.split("/")[1]
            # 5: it has ended by itself.
            wait_until(lambda: self.lasp("cancel", job, "-p", project, check=False).returncode in (0, 5), 30, f"cancel {name}")
        wait_until(lambda: not self.jobs.unfinished(), 90, lambda: f"the end of {self.jobs.unfinished()}")

    def wait_for_watchers(self):
        """Until each has what a list gives."""
        def listed():
            return {job["name"]: job["state"] for job in self.lasp_json("list", "-A", "--all")}

        def all_agree():
            present = listed()
            for watcher in self.watchers:
                project = watcher.parent.split("/")[1]
                wanted = {name: state for name, state in present.items() if project in ("-", name.split("/")[1]) and
                          (watcher.selects is None or watcher.selects(state))}
                if watcher.copy_of_present() != wanted:
                    return False
            return True
        wait_until(all_agree, 60, lambda: "all watchers to have what is listed: " + ", ".join(
            f"{watcher.name}: {collections.Counter(watcher.copy_of_present().values())}" for watcher in self.watchers))

    # ---- the verdict -------------------------------------------------------------------------------

    def figures(self, operations):
        problems = self.findings + [problem for actor in self.actors for problem in actor.problems]
        total, streams, now = history.Verdict(), {}, time.monotonic()
        for watcher in self.watchers:
            streams[watcher.name] = {"ends": watcher.ends, "messages": watcher.events,
                                     "longest_silence": round(watcher.longest_silence, 1)}
            if watcher.longest_silence > MAX_SILENCE:
                problems.append(f"{watcher.name}: silent for {watcher.longest_silence:.0f} s while connected")
            over = now - operations.rotated.get(watcher.access.user, now) > OVERLAP + 10
            if over and watcher.patience is None and "UNAUTHENTICATED" not in watcher.ends:
                problems.append(f"{watcher.name}: its stream did not end with its token")
            if watcher.selects is not None:
                continue
            for job, moments in self.jobs.histories.items():
                if watcher.parent in ("projects/-", "/".join(job.split("/")[:2])):
                    total.add(history.judge(f"{watcher.name}: {job}", moments, watcher.seen.get(job, []), watcher.intervals))
        problems += total.problems
        series = flatness.read_series(self.record)
        flat, rising = flatness.judge(series, BOUNDS)
        problems += rising if LONG else []
        return {"seconds": SECONDS, "seed": SEED, "jobs": dict(self.jobs.ends), "restarts": self.jobs.restarts,
                "operations": operations.counts, "calls": self.calls.figures(), "streams": streams,
                "states": {"seen": total.seen, "passed_by": total.passed_by, "delay": quantiles(total.delays)},
                "followed": {follower.name: [follower.followed, follower.rows] for follower in self.followers},
                "commands": sum(self.terminal.commands.values()),
                "console": {str(code): count for code, count in self.browser.answers.items()}, "flat": flat}, problems

    def program_ends(self):
        problems = []
        for name, program in [*self.agents.items(), ("the coordinator", self.server)]:
            if program is None:
                continue  # told of already
            code = program.terminate(timeout=60)
            if code != 0:
                problems.append(f"{name} exited {code} after SIGTERM:\n{program.log_tail()}")
        return problems

    def against_the_store(self):
        """What Get said of the jobs that are still there, against the tables."""
        from lasp.v1.training_job_pb2 import TrainingJob, Transition
        with contextlib.closing(sqlite3.connect(f"file:{os.path.join(self.folder, 'server', 'store.sqlite')}?mode=ro",
                                                uri=True)) as store:
            stored = {name: [] for name, in store.execute("SELECT name FROM jobs")}
            for name, change in store.execute("SELECT name, transition FROM transitions JOIN jobs ON jobs.id = job_id "
                                              "ORDER BY transitions.revision"):
                state = Transition.FromString(change).to_state
                stored[name].append(TrainingJob.State.Name(state).removeprefix("STATE_"))
        told = {name: [moment.state for moment in moments] for name, moments in self.jobs.histories.items()}
        return [f"{name}: the store has {states}, Get said {told.get(name)}" for name, states in stored.items()
                if states != told.get(name) or states[-1] not in ENDED]


if __name__ == "__main__":
    unittest.main()
