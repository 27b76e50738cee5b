"""Who changed what: the audit log of a coordinator with tokens and of one without."""
import os
import unittest

from cluster import LONG, ClusterTest, small_spec, wait_until
from credentials import Credentials


class AuditTest(ClusterTest):
    def told(self, *arguments, **options):
        """(principal, method, resource) of each record, oldest first."""
        return [(r["principal"], r["method"].split(".")[-1], r["resource"].split("/")[-1])
                for r in self.lasp_json("audit", *arguments, **options)]

    def test_tokens_have_names_in_the_log(self):
        self.credentials = Credentials(os.path.join(self.folder, "credentials"), "127.0.0.1")
        root = self.token = self.credentials.token("admin", "*", name="root")
        ann = self.credentials.token("editor", "default", name="ann")
        vic = self.credentials.token("viewer", "default", name="vic")
        server = self.start_server()
        self.start_worker(slots=1)
        self.submit(small_spec(steps=LONG), "job", token=ann)
        self.wait_for_state("job", "RUNNING")
        self.assertEqual(self.lasp("cancel", "job", token=vic, check=False).returncode, 4)
        self.assertNotEqual(self.lasp("list", token="0" * 64, check=False).returncode, 0)
        # Refused again and again, it is one record a minute.
        for _ in range(5):
            self.lasp("cancel", "job", token=vic, check=False)
        self.lasp("cancel", "job", token=ann)
        self.wait_for_state("job", "CANCELLED")
        self.lasp("drain", "w1")
        wait_until(lambda: len(self.told()) >= 5, 10, lambda: self.told())
        self.assertEqual(sorted(self.told()), sorted([
            ("ann", "CreateTrainingJob", "job"), ("vic", "CancelTrainingJob", "job"),
            ("", "ListTrainingJobs", ""), ("ann", "CancelTrainingJob", "job"), ("root", "DrainWorker", "w1")]))
        refused = self.lasp_json("audit", "--refused", "--principal", "vic")
        self.assertEqual([(r["reason"], r["role"], r["code"]) for r in refused], [("ROLE_TOO_LOW", "viewer", 7)])
        self.assertEqual(self.told("--resource", "projects/default", "--principal", "ann"),
                         [("ann", "CreateTrainingJob", "job"), ("ann", "CancelTrainingJob", "job")])
        self.assertEqual(self.told("--since", "2000-01-01T00:00:00Z", "--limit", "1"), [("root", "DrainWorker", "w1")])
        self.assertEqual([t["actor"] for t in self.job("job")["transitions"]][0], "user/ann")
        # Not for everybody, and it holds no token.
        self.assertEqual(self.lasp("audit", token=ann, check=False).returncode, 4)
        text = self.lasp("audit", "-o", "wide").stdout
        self.assertIn("PERMISSION_DENIED: ROLE_TOO_LOW", text)
        self.assertIn("ipv4:127.0.0.1", text)
        for secret in (root, ann, vic, "0" * 64):
            self.assertNotIn(secret, self.lasp("audit", "-o", "json").stdout)
        # What was counted meanwhile is written by the stop.
        self.assertEqual(server.terminate(), 0)
        self.restart_server(server)
        again = self.lasp_json("audit", "--principal", "vic")
        self.assertEqual(sum(r["count"] for r in again), 6)

    def test_without_tokens_it_is_whoever_is_here(self):
        server = self.start_server()
        self.submit(small_spec(), "job")
        server.kill()
        self.restart_server(server)
        record, = self.lasp_json("audit")
        self.assertEqual((record["principal"], record["role"], record["code"]), ("local", "admin", 0))
        self.assertEqual(record["uid"], self.job("job")["uid"])


if __name__ == "__main__":
    unittest.main()
