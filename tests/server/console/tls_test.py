"""The console by HTTPS: the coordinator's own certificate, as it is now, and nothing in plaintext."""
import http.client
import os
import socket
import ssl
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "e2e"))
from cluster import ClusterTest, wait_until  # noqa: E402
from credentials import Credentials  # noqa: E402


class TlsTest(ClusterTest):
    def setUp(self):
        super().setUp()
        self.credentials = Credentials(os.path.join(self.folder, "credentials"), "127.0.0.1", "console.example")
        self.token = self.credentials.token("viewer", "*", name="vic")
        # TLS and tokens are what an address that is not loopback needs.
        self.start_server(console_address="0.0.0.0:0")
        self.port = int(self.server.console_address.rsplit(":", 1)[1])

    def context(self):
        return ssl.create_default_context(cafile=self.credentials.path("ca.crt"))

    def get(self, path, token=None, context=None, **headers):
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=context or self.context(), timeout=20)
        try:
            connection.request("GET", path, headers={**({"Authorization": f"Bearer {token}"} if token else {}), **headers})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def serial(self):
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as plain:
            with self.context().wrap_socket(plain, server_hostname="127.0.0.1") as secure:
                return secure.getpeercert()["serialNumber"]

    def test_https(self):
        self.assertEqual(self.get("/")[0], 200)
        self.assertEqual(self.get("/api/v1/server")[0], 401)
        self.assertEqual(self.get("/api/v1/server", token=self.token)[0], 200)
        # The names of the certificate are the console's.
        self.assertEqual(self.get("/", Host="console.example:443")[0], 200)
        self.assertEqual(self.get("/", Host="other.example")[0], 400)
        with self.assertRaises(ssl.SSLCertVerificationError):
            self.get("/", context=ssl.create_default_context())

    def test_no_plaintext_and_no_old_versions(self):
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            self.assertNotIn(b"HTTP", plain.recv(100))
        old = self.context()
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
        old.set_ciphers("ALL:@SECLEVEL=0")
        with self.assertRaises((ssl.SSLError, ConnectionError)):
            self.get("/", context=old)

    def test_a_new_certificate_without_a_restart(self):
        before = self.serial()
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as plain:
            with self.context().wrap_socket(plain, server_hostname="127.0.0.1") as open_before:
                self.credentials.run("rotate", "server")
                wait_until(lambda: self.serial() != before, 20, "the new certificate")
                open_before.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
                self.assertTrue(open_before.recv(100).startswith(b"HTTP/1.1 200"))

    def test_a_revoked_token(self):
        self.assertEqual(self.get("/api/v1/workers", token=self.token)[0], 200)
        self.credentials.run("revoke", "token", "vic")
        wait_until(lambda: self.get("/api/v1/workers", token=self.token)[0] == 401, 20, "the token to end")


if __name__ == "__main__":
    unittest.main()
