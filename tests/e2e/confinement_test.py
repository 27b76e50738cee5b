"""What a rank gets of its host, and what of its host a job can name: through the real programs."""
import os
import re
import unittest

from cluster import LONG, ClusterTest, small_spec

ALLOWED = re.compile(r"(PATH|LD_LIBRARY_PATH|(NCCL|CUDA|OMP|OPENBLAS)_\w+)=")
# Of builds with sanitizers.
SANITIZERS = re.compile(r"(ASAN|LSAN|TSAN|UBSAN)_OPTIONS=")


def status_of(pid):
    with open(f"/proc/{pid}/status") as file:
        return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)


class ConfinementTest(ClusterTest):
    def test_the_agents_roots_bind_its_ranks(self):
        """The coordinator allows more: its check is only the early answer."""
        elsewhere = os.path.join(self.folder, "elsewhere")
        os.mkdir(elsewhere)
        os.rename(os.path.join(self.data, "corpus.txt"), os.path.join(elsewhere, "corpus.txt"))
        self.start_server(path_roots=f"{self.data},{elsewhere}")
        self.start_worker(slots=2)
        for job_id, path in (("relative", "corpus.txt"), ("absolute", os.path.join(elsewhere, "corpus.txt"))):
            spec = small_spec()
            spec["data"]["train_paths"] = [path]
            self.submit(spec, job_id)
            job = self.wait_for_state(job_id, "FAILED")
            self.assertEqual((job["reason"], job["restart_count"]), ("WRONG_CONFIGURATION", 0))
            self.assertIn("corpus.txt", job["message"])
            self.assertIn(self.data, job["message"])

    def test_a_link_swapped_under_a_running_job_changes_nothing(self):
        link = os.path.join(self.data, "link.txt")
        os.symlink("corpus.txt", link)
        self.start_server()
        self.start_worker(slots=2)
        spec = small_spec(sp=2, steps=LONG)
        spec["data"]["train_paths"] = ["link.txt"]
        self.submit(spec)
        self.wait_for_step("job", 2)
        os.symlink("/etc/passwd", link + ".new")
        os.rename(link + ".new", link)
        # Far beyond what was read ahead.
        self.wait_for_step("job", int(self.job("job")["progress"]["step"]) + 50)
        # A job that comes now finds the way out closed.
        done = self.lasp("submit", "-f", os.path.join(self.folder, "job.json"), "--id=late", check=False)
        self.assertIn("leads out of the --path_roots", done.stderr)
        self.assertEqual(self.job("job")["generation"], 1)

    def test_a_rank_gets_little(self):
        self.start_server()
        worker = self.start_worker(slots=1, prefix=("env", "LASP_TOKEN=secret", "AWS_SECRET_ACCESS_KEY=secret"))
        self.submit(small_spec(steps=LONG))
        self.wait_for_step("job", 1)
        (pid,) = self.ranks_of(worker)
        status = status_of(pid)
        self.assertEqual((status["NoNewPrivs"], status["Umask"]), ("1", "0077"))
        self.assertEqual(os.stat(f"/proc/{pid}/environ").st_uid, 0, "others may look into the rank")
        if os.geteuid() != 0:
            with self.assertRaises(PermissionError):
                os.listdir(f"/proc/{pid}/fd")
            return
        with open(f"/proc/{pid}/environ") as file:
            entries = [entry for entry in file.read().split("\0") if entry]
        self.assertIn("OMP_WAIT_POLICY=passive", entries)
        self.assertEqual([e for e in entries if not ALLOWED.match(e) and not SANITIZERS.match(e)], [])
        files = {fd: os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
        self.assertEqual(files["0"], "/dev/null")
        self.assertTrue(files["3"].startswith("socket:"), files)
        # What it opened itself: its corpus, sockets, events; nothing of the agent's folder.
        own = os.path.join(self.folder, "w1")
        self.assertEqual([path for path in files.values() if path.startswith(own)], [])


if __name__ == "__main__":
    unittest.main()
