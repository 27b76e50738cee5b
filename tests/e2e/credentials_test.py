"""Certificates and tokens that change under a running cluster, and contexts of the command line."""
import os
import shutil
import stat
import subprocess
import unittest

import cluster
from cluster import LONG, ClusterTest, small_spec, wait_until
from credentials import Credentials


class CredentialsTest(ClusterTest):
    def setUp(self):
        super().setUp()
        self.credentials = Credentials(os.path.join(self.folder, "credentials"), "127.0.0.1")
        self.token = self.credentials.token("admin", "*", name="root")

    def works(self, **options):
        return self.lasp("list", check=False, **options).returncode == 0

    def test_everything_rotates_while_a_job_trains(self):
        first = self.start_server()
        worker = self.start_worker(slots=1)
        self.submit(small_spec(steps=LONG), "job")
        self.wait_for_step("job", 2)
        old_authority = os.path.join(self.folder, "old.crt")
        shutil.copy(self.credentials.path("ca.crt"), old_authority)
        old_token = self.token
        self.credentials.run("rotate", "ca")
        self.token = self.credentials.run("rotate", "token", "root", "--overlap", "1h")
        wait_until(lambda: "new certificates are in use" in first.log_tail(), 10, "new certificates")
        wait_until(self.works, 10, "the new token to be known")
        self.assertTrue(self.works(token=old_token))
        # Who has the old authority only does not believe the new certificate, the others all do.
        self.assertEqual(self.lasp("list", f"--tls_ca={old_authority}", check=False).returncode, 6)
        self.credentials.run("revoke", "ca")
        self.credentials.run("revoke", "token", "root-old")
        wait_until(lambda: not self.works(token=old_token), 10, "the old token to be refused")
        self.assertEqual(self.lasp("list", check=False, token=old_token).returncode, 4)
        # The agent dials anew, with what it finds then; the job has not noticed.
        step = self.job("job")["progress"]["step"]
        self.assertEqual(first.terminate(), 0)
        self.restart_server(first)
        wait_until(lambda: self.worker_state("w1") == "READY", 30, "the agent to come back")
        self.wait_for_step("job", step + 2)
        self.assertEqual(self.job("job")["generation"], 1)
        self.assertIn("new certificates are in use", worker.log_tail())

    def test_an_agent_of_no_credentials_waits_and_says_why(self):
        self.start_server()
        other = Credentials(os.path.join(self.folder, "other"), "127.0.0.1")
        worker = self.start_worker(**other.worker_flags("w1"))
        wait_until(lambda: "no connection to the coordinator" in worker.log_tail(), 30, "a line in the log")
        self.assertEqual(self.workers(), [])
        mistaken = self.start_worker("w2", **self.credentials.worker_flags("w1"))
        wait_until(lambda: "deploy/credentials worker" in mistaken.log_tail(), 30, "a line in the log")
        self.assertEqual(self.workers(), [])

    def test_tokens_without_tls_on_loopback(self):
        tokens = self.credentials.path("tokens")
        self.credentials = None
        self.start_server(token_file=tokens)
        self.assertTrue(self.works())
        refused = self.lasp("list", check=False, token="")
        self.assertEqual(refused.returncode, 4)
        self.assertIn("LASP_TOKEN", refused.stderr)
        self.start_worker(slots=1)
        self.submit(small_spec(steps=2), "job", "--wait")

    # ---- contexts --------------------------------------------------------------------------------

    def plain(self, *arguments, **environment):
        """lasp with nothing but what is given, and the contexts of this test."""
        done = subprocess.run([os.path.join(cluster.BIN, "lasp"), *arguments], stdin=subprocess.DEVNULL, text=True,
                              env={"XDG_CONFIG_HOME": self.folder, **environment}, timeout=60, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE)
        self.assertNotIn(self.token, done.stdout + done.stderr)
        return done

    def test_contexts(self):
        self.start_server()
        token = os.path.join(self.folder, "token")
        with open(token, "w") as file:
            file.write(self.token + "\n")
        os.chmod(token, 0o644)
        server, authority = self.server.api_address, self.credentials.path("ca.crt")
        flags = ("--server", server, "--tls_ca", authority, "--token_file", token)
        refused = self.plain("list", *flags)
        self.assertEqual(refused.returncode, 2)
        self.assertIn("0644", refused.stderr)
        os.chmod(token, 0o600)
        self.assertEqual(self.plain("list", *flags).returncode, 0)

        self.assertEqual(self.plain("config", "set-context", "prod", *flags, "-p", "nlp").returncode, 0)
        file = os.path.join(self.folder, "lasp", "config.yaml")
        self.assertEqual(stat.S_IMODE(os.stat(file).st_mode), 0o600)
        self.assertNotEqual(self.plain("list").returncode, 0)
        self.assertEqual(self.plain("list", "--context", "prod").returncode, 0)
        self.assertEqual(self.plain("list", LASP_CONTEXT="prod").returncode, 0)
        self.assertEqual(self.plain("config", "use-context", "prod").returncode, 0)
        self.assertEqual(self.plain("list").returncode, 0)
        self.assertIn("* prod", self.plain("config", "get-contexts").stdout)
        self.assertIn("project: nlp", self.plain("config", "view").stdout)
        # The environment goes before the context, a flag before both.
        self.assertEqual(self.plain("list", LASP_TOKEN="wrong").returncode, 4)
        self.assertEqual(self.plain("list", "--token_file", token, LASP_TOKEN="wrong").returncode, 0)
        # Another server does not get this one's token.
        elsewhere = self.plain("list", "-v", "--server", "localhost:" + server.rsplit(":", 1)[1])
        self.assertEqual(elsewhere.returncode, 6)
        self.assertEqual(self.plain("list", "--context", "test").returncode, 2)
        self.assertEqual(self.plain("config", "use-context", "test").returncode, 3)

        with open(file, "a") as out:
            out.write(f"  inline: {{server: {server}, tls_ca: {authority}, token: {self.token}}}\n")
        self.assertEqual(self.plain("list", "--context", "inline").returncode, 0)
        self.assertIn("(hidden)", self.plain("config", "view").stdout)
        os.chmod(file, 0o640)
        refused = self.plain("list")
        self.assertEqual(refused.returncode, 2)
        self.assertIn(file, refused.stderr)
        os.chmod(file, 0o600)
        self.assertEqual(self.plain("config", "delete-context", "prod").returncode, 0)
        self.assertEqual(self.plain("list", "--context", "prod").returncode, 2)
        with open(file, "w") as out:
            out.write("contexts: {prod: {tokn: " + self.token + "}}\n")
        broken = self.plain("list")
        self.assertEqual(broken.returncode, 2)
        self.assertIn("line 1: 'tokn'", broken.stderr)


if __name__ == "__main__":
    unittest.main()
