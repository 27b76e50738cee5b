"""A backup of a busy coordinator, and what comes of a cluster whose store is set back to it."""
import glob
import json
import os
import shutil
import subprocess
import threading
import unittest

from cluster import BIN, LONG, ClusterTest, is_alive, small_spec, wait_until


class BackupTest(ClusterTest):
    def restore(self, backup, *arguments):
        return subprocess.run([os.path.join(BIN, "lasp-server"), f"--data_dir={self.folder}/server",
                               f"--restore_from={backup}", *arguments], text=True, capture_output=True, timeout=60)

    def back_up_while_busy(self):
        """The backup, and how many of the jobs busy-0, busy-1, … were there before it began."""
        stop, made = threading.Event(), []

        def submit():
            while not stop.is_set():
                self.submit(small_spec(steps=LONG), f"busy-{len(made)}")
                self.lasp("cancel", f"busy-{len(made)}")
                made.append(None)
        busy = threading.Thread(target=submit)
        busy.start()
        try:
            wait_until(lambda: len(made) >= 5, 60, "the coordinator is busy")
            count = len(made)
            return self.lasp_json("backup"), count
        finally:
            stop.set()
            busy.join()

    def test_a_cluster_is_set_back(self):
        server = self.start_server()
        workers = {name: self.start_worker(name, slots=slots) for name, slots in (("w1", 2), ("w2", 1), ("w3", 1))}
        # `stays` goes on as it is, `restarts` will have been started anew, `ends` will have ended.
        self.submit(small_spec(sp=2, steps=LONG), "stays")
        self.submit(small_spec(steps=LONG), "restarts")
        self.submit(small_spec(steps=LONG), "ends")
        for job in ("stays", "restarts", "ends"):
            self.wait_for_step(job, 3)
        backup, count = self.back_up_while_busy()
        self.assertEqual(backup["path"], os.path.join(self.folder, "server", "backups", os.path.basename(backup["path"])))
        check = subprocess.run(["sha256sum", "--check", "--strict", os.path.basename(backup["path"]) + ".sha256"],
                               cwd=os.path.dirname(backup["path"]), capture_output=True, text=True)
        self.assertEqual(check.returncode, 0, check.stderr)
        self.assertIn(backup["sha256"], self.lasp("backup", "list", "-o", "wide").stdout)

        # What the backup does not know of. `restarts` has a second and a third generation.
        place = {name: self.job(name)["placements"][0]["worker"].split("/")[1] for name in ("restarts", "ends")}
        self.assertNotIn("w1", place.values())
        for generation in (2, 3):
            rank, = self.ranks_of(workers[place["restarts"]])
            os.kill(rank, 9)
            wait_until(lambda: self.job("restarts")["generation"] == generation
                       and self.job("restarts")["state"] == "RUNNING", 30, f"generation {generation}")
        self.lasp("cancel", "ends")
        self.wait_for_state("ends", "CANCELLED")
        self.submit(small_spec(steps=LONG), "unknown")
        self.wait_for_step("unknown", 3)
        stranger, = self.ranks_of(workers[place["ends"]])
        stale, = self.ranks_of(workers[place["restarts"]])
        staying = self.ranks_of(workers["w1"])
        step = int(self.job("stays")["progress"]["step"])

        # A store that serves is never replaced, one that is there only on request.
        self.assertIn("held by", self.restore(backup["path"], "--replace_store").stderr)
        server.kill()
        refused = self.restore(backup["path"])
        self.assertEqual(refused.returncode, 1)
        self.assertIn("--replace_store", refused.stderr)
        done = self.restore(backup["path"], "--replace_store")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stdout, "^restored [0-9]+ jobs as of 20")
        self.assertEqual(len(glob.glob(f"{self.folder}/server/store.sqlite.replaced-*")), 1)
        self.restart_server(server)

        # The agents come back. Its ranks are the same: the job goes on.
        wait_until(lambda: all(self.worker_state(name) == "READY" for name in workers), 30, "the agents are back")
        self.assertEqual([(r["principal"], r["method"]) for r in self.lasp_json("audit", "--limit", "1")],
                         [("operator", "restore")])
        # One of them may have been copied before it was cancelled, and would keep a slot.
        for i in range(count + 1):
            self.lasp("cancel", f"busy-{i}", check=False)
        self.wait_for_step("stays", step + 3)
        stays = self.job("stays")
        self.assertEqual((stays["state"], stays["generation"]), ("RUNNING", 1))
        self.assertEqual(self.ranks_of(workers["w1"]), staying)
        # The rank of a generation that is not known any more is stopped, and the next one has a number of its own.
        wait_until(lambda: not is_alive(stale) and not is_alive(stranger), 30, "ranks of the lost history are stopped")
        again = wait_until(lambda: self.job("restarts")["generation"] > 1 and self.job("restarts"), 90, "restarts")
        self.assertGreater(again["generation"], 1_700_000_000)
        self.wait_for_step("restarts", 3)
        # One that had ended since runs again; one that came since is not there.
        wait_until(lambda: self.job("ends")["generation"] > 1_700_000_000, 90, "a new generation of ends")
        self.wait_for_step("ends", 1, timeout=90)
        self.assertEqual(self.lasp("get", "job", "unknown", check=False).returncode, 3)
        known = [job["name"].split("/")[-1] for job in self.lasp_json("list", "--all")]
        self.assertLessEqual({f"busy-{i}" for i in range(count)}, set(known))
        # Names and metrics work on; the lost history's steps are not mixed in.
        steps = [int(s["step"]) for s in self.metrics("restarts") if int(s["generation"]) == again["generation"]]
        self.assertEqual(steps[0], 1)

    def test_checkpoints_that_are_newer_than_the_backup_are_found(self):
        root = os.path.join(self.folder, "checkpoints")
        os.mkdir(root)
        server = self.start_server(checkpoint_root=root)
        worker = self.start_worker("w1", slots=2, checkpoint_root=root)
        spec = small_spec(sp=2, steps=LONG, checkpoint={"interval_steps": 10})
        path = os.path.join(self.folder, "trains.json")
        with open(path, "w") as file:
            json.dump({"spec": spec, "checkpoint_retention": {"keep_last": 100}}, file)
        self.lasp("submit", "-f", path, "--id=trains")
        wait_until(lambda: int(self.job("trains")["checkpoint_step"]) >= 10, 60, "a checkpoint")
        backup = self.lasp_json("backup")
        known = int(self.job("trains")["checkpoint_step"])
        wait_until(lambda: int(self.job("trains")["checkpoint_step"]) >= known + 20, 60, "more of them")
        # Of a second generation too, which the backup does not know.
        os.kill(self.ranks_of(worker)[0], 9)
        wait_until(lambda: self.job("trains")["generation"] == 2 and self.job("trains")["state"] == "RUNNING", 30, "generation 2")
        wait_until(lambda: any(c["generation"] == 2 and c["state"] == "COMMITTED"
                               for c in self.lasp_json("checkpoints", "list", "trains")), 60, "one of generation 2")
        # Nothing goes on while the store is set back, so that what is found is known.
        server.kill()
        worker.kill()
        wait_until(lambda: not self.orphans(), 30, "the ranks are gone")
        folder, = glob.glob(os.path.join(root, "*", "*"))
        committed = {os.path.basename(os.path.dirname(path)) for path in glob.glob(os.path.join(folder, "*", "manifest.json"))}
        # What is not whole is passed over: no manifest, one that was changed, a shard that is cut off, another's place.
        os.mkdir(os.path.join(folder, "step-999990.gen-2"))
        newest = max(committed, key=lambda name: int(name.split(".")[0].split("-")[1]))
        for name, damage in (("step-999991.gen-2", "manifest.json"), ("step-999992.gen-2", "rank-0.safetensors"), ("step-999993.gen-2", None)):
            copy = os.path.join(folder, name)
            shutil.copytree(os.path.join(folder, newest), copy)
            if damage:
                os.truncate(os.path.join(copy, damage), os.path.getsize(os.path.join(copy, damage)) - 1)
        done = self.restore(backup["path"], "--replace_store")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.restart_server(server, checkpoint_root=root)
        found = {os.path.basename(c["folder"]) for c in self.lasp_json("checkpoints", "list", "trains") if c["state"] == "COMMITTED"}
        self.assertEqual(found, committed)
        step = int(newest.split(".")[0].split("-")[1])
        self.assertEqual(int(self.job("trains")["checkpoint_step"]), step)
        self.assertIn("found on the disk", self.lasp("events", "trains").stdout)
        # It goes on from there, and what was found is read back like all others.
        self.start_worker("w1", slots=2, checkpoint_root=root)
        wait_until(lambda: int(self.job("trains")["restored_step"]) == step, 60, "a generation from the newest one")
        self.wait_for_step("trains", step + 1)
        wait_until(lambda: all(c["verify_time"] for c in self.lasp_json("checkpoints", "list", "trains")
                               if os.path.basename(c["folder"]) in committed), 60, "all that was found is verified")
        # Once: the next start looks at the store alone.
        self.server.kill()
        again = self.restart_server(self.server, checkpoint_root=root)
        self.assertIn("store restored", again.log_tail(1000))
        self.assertNotIn("checkpoints committed after the backup", again.log_tail(1000))


if __name__ == "__main__":
    unittest.main()
