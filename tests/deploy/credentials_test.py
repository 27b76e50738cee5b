"""deploy/credentials: certificates that openssl accepts for their purpose only, tokens by hash, rights."""
import base64
import hashlib
import os
import re
import stat
import subprocess
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class CredentialsTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = os.path.join(folder.name, "credentials")
        self.run_ok("init")

    def run_script(self, command, *arguments, folder=None):
        return subprocess.run([os.path.join(ROOT, "deploy", "credentials"), command, folder or self.folder, *arguments],
                              stdin=subprocess.DEVNULL, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def run_ok(self, *arguments):
        done = self.run_script(*arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def path(self, *parts):
        return os.path.join(self.folder, *parts)

    def read(self, *parts):
        with open(self.path(*parts)) as file:
            return file.read()

    def verifies(self, purpose, *certificate):
        done = subprocess.run(["openssl", "verify", "-CAfile", self.path("ca.crt"), "-purpose", purpose,
                               self.path(*certificate)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return done.returncode == 0

    def names(self, *certificate):
        text = subprocess.run(["openssl", "x509", "-in", self.path(*certificate), "-noout", "-ext", "subjectAltName"],
                              check=True, text=True, stdout=subprocess.PIPE).stdout
        return text.splitlines()[1].strip()

    def tokens(self):
        return {line.split()[0]: line.split()[1:] for line in self.read("tokens").splitlines() if line[0] != "#"}

    def test_certificates(self):
        self.run_ok("server", "--host", "lasp.example.org", "--host", "10.0.0.1", "--host", "::1")
        self.run_ok("worker", "gpu_host.1")
        self.assertEqual(self.names("server", "tls.crt"),
                         "DNS:lasp.example.org, IP Address:10.0.0.1, IP Address:0:0:0:0:0:0:0:1")
        self.assertEqual(self.names("workers", "gpu_host.1", "tls.crt"), "DNS:gpu_host.1")
        for purpose, server, worker in (("sslserver", True, False), ("sslclient", False, True)):
            self.assertEqual(self.verifies(purpose, "server", "tls.crt"), server)
            self.assertEqual(self.verifies(purpose, "workers", "gpu_host.1", "tls.crt"), worker)
        key = subprocess.run(["openssl", "pkey", "-in", self.path("server", "tls.key"), "-noout", "-text"], check=True,
                             text=True, stdout=subprocess.PIPE).stdout
        self.assertIn("NIST CURVE: P-256", key)

    def test_only_certificates_are_readable_by_others(self):
        self.run_ok("server", "--host", "localhost")
        self.run_ok("worker", "w1")
        self.run_ok("token", "--role", "viewer", "--project", "default")
        self.run_ok("rotate", "ca")
        for path, _, names in os.walk(self.folder):
            self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o700, path)
            for name in names:
                public = name == "tls.crt" or os.path.join(path, name) == self.path("ca.crt")
                mode = stat.S_IMODE(os.stat(os.path.join(path, name)).st_mode)
                self.assertEqual(mode, 0o644 if public else 0o600, name)

    def test_a_token_is_shown_once_and_kept_as_its_hash(self):
        token = self.run_ok("token", "--role", "editor", "--project", "default", "--project", "nlp", "--name", "ann",
                            "--expires", "30d").strip()
        self.assertRegex(token, r"^lasp_[A-Za-z0-9_-]{43}$")
        self.assertEqual(len(base64.urlsafe_b64decode(token[5:] + "=")), 32)
        role, projects, end, digest = self.tokens()["ann"]
        self.assertEqual((role, projects), ("editor", "default,nlp"))
        self.assertRegex(end, r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
        self.assertEqual(digest, hashlib.sha256(token.encode()).hexdigest())
        self.assertNotIn(token, self.read("tokens"))
        self.assertNotEqual(self.run_script("token", "--role", "viewer", "--project", "a", "--name", "ann").returncode, 0)

    def test_rotation_of_a_token_leaves_the_old_one_a_while(self):
        self.run_ok("token", "--role", "admin", "--project", "*", "--name", "root")
        old = self.tokens()["root"]
        self.run_ok("rotate", "token", "root", "--overlap", "2h")
        self.assertEqual(self.tokens()["root-old"][3], old[3])
        self.assertNotEqual(self.tokens()["root-old"][2], "never")
        self.assertEqual(self.tokens()["root"][:3], ["admin", "*", "never"])
        self.assertNotEqual(self.tokens()["root"][3], old[3])
        self.run_ok("rotate", "token", "root")  # the older one is over now
        self.assertEqual(sorted(self.tokens()), ["root", "root-old"])
        self.run_ok("revoke", "token", "root-old")
        self.assertEqual(sorted(self.tokens()), ["root"])

    def test_a_token_whose_old_name_would_be_too_long_is_not_rotated(self):
        # One name that no coordinator takes, and it takes the file no more.
        for length, taken in ((59, True), (60, False)):
            name = "a" * length
            self.run_ok("token", "--role", "viewer", "--project", "default", "--name", name)
            before = self.tokens()[name]
            done = self.run_script("rotate", "token", name)
            self.assertEqual(done.returncode, 0 if taken else 1, done.stderr)
            self.assertEqual(name + "-old" in self.tokens(), taken)
            self.assertEqual(self.tokens()[name] == before, not taken)
        self.assertIn("make a token with another name", done.stderr)

    def test_rotation_of_the_authority(self):
        self.run_ok("server", "--host", "localhost")
        for worker in ("kept", "lost"):
            self.run_ok("worker", worker)
        stolen = self.read("workers", "lost", "tls.crt")
        before = self.read("workers", "kept", "tls.crt")
        self.run_ok("revoke", "worker", "lost")
        with open(self.path("stolen.crt"), "w") as file:
            file.write(stolen)
        with open(self.path("before.crt"), "w") as file:
            file.write(before)
        # Until the new files are everywhere both authorities are trusted.
        for certificate in (("stolen.crt",), ("before.crt",), ("workers", "kept", "tls.crt")):
            self.assertTrue(self.verifies("sslclient", *certificate), certificate)
        self.assertTrue(self.verifies("sslserver", "server", "tls.crt"))
        self.run_ok("revoke", "ca")
        self.assertFalse(self.verifies("sslclient", "stolen.crt"))
        self.assertTrue(self.verifies("sslclient", "workers", "kept", "tls.crt"))
        self.assertEqual(self.names("workers", "kept", "tls.crt"), "DNS:kept")
        self.assertTrue(self.verifies("sslserver", "server", "tls.crt"))

    def test_secrets_for_kubernetes(self):
        self.assertIn("server", self.run_script("kubernetes").stderr)
        self.run_ok("server", "--host", "lasp-api.lasp.svc")
        secrets = {}
        for document in self.run_ok("kubernetes", "--namespace", "lasp", "--agents", "3").split("---\n")[1:]:
            self.assertIn("  namespace: lasp\n", document)
            entries = dict(re.findall(r"^  (\S+): (\S+)$", document.split("\ndata:\n")[1], re.MULTILINE))
            secrets[re.search(r"^  name: (\S+)$", document, re.MULTILINE).group(1)] = {
                key: base64.b64decode(value).decode() for key, value in entries.items()}
        self.assertEqual({name: sorted(entries) for name, entries in secrets.items()}, {
            "lasp-server-tls": ["ca.crt", "tls.crt", "tls.key"], "lasp-agent-tls": ["ca.crt", "tls.crt", "tls.key"],
            "lasp-tokens": ["tokens"]})
        self.assertEqual(secrets["lasp-server-tls"]["tls.key"], self.read("server", "tls.key"))
        self.assertEqual(self.names("workers", "lasp-agent-0", "tls.crt"),
                         "DNS:lasp-agent-0, DNS:lasp-agent-1, DNS:lasp-agent-2")
        self.assertEqual(secrets["lasp-tokens"]["tokens"], self.read("tokens"))

    def test_wrong_usage(self):
        for arguments in (("server",), ("server", "--host", "a b"), ("worker",), ("worker", "../w"), ("worker", "w", "-x"),
                          ("token", "--role", "root", "--project", "a"), ("token", "--role", "viewer"),
                          ("token", "--role", "viewer", "--project", "A"), ("unknown",), ("rotate",), ("revoke", "all"),
                          ("token", "--role", "viewer", "--project", "a", "--expires", "soon"),
                          ("token", "--role", "viewer", "--project", "a", "--name", "two words")):
            done = self.run_script(*arguments)
            self.assertEqual(done.returncode, 2, arguments)
            self.assertEqual(done.stdout, "")
            self.assertIn("--help", done.stderr)
        self.assertEqual(self.tokens(), {})
        self.assertEqual(self.run_script("init").returncode, 1)
        missing = self.run_script("worker", "w1", folder=self.path("nowhere"))
        self.assertEqual(missing.returncode, 1)
        self.assertIn("init", missing.stderr)
        usage = subprocess.run([os.path.join(ROOT, "deploy", "credentials"), "--help"], text=True, stdout=subprocess.PIPE)
        self.assertEqual(usage.returncode, 0)
        self.assertEqual([line for line in usage.stdout.splitlines() if len(line) > 120], [])
        self.assertEqual([name for name in os.listdir(self.folder) if name.startswith(".staging")], [])


if __name__ == "__main__":
    unittest.main()
