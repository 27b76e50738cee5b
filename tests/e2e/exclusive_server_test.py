"""A second coordinator on the same folder or port is refused, and says who holds it."""
import unittest

from cluster import ADDRESSES, ClusterTest


class ExclusiveServerTest(ClusterTest):
    def refused(self, *wanted, **flags):
        second = self.start_server(wait=False, **flags)
        code = second.process.wait(20)
        self.assertNotEqual(code, 0)
        said = second.log_tail()
        for text in wanted:
            self.assertIn(text, said)

    def test_the_same_folder(self):
        first = self.start_server()
        self.refused("server", str(first.pid))

    def test_the_same_port(self):
        first = self.start_server()
        for flag in ADDRESSES:
            port = first.addresses[flag].rsplit(":", 1)[1]
            self.refused(port, str(first.pid), data_dir=f"other-{flag}", **{flag: first.addresses[flag]})
        self.assertEqual(self.lasp_json("list"), [])

    def test_plaintext_stays_on_loopback(self):
        for flag in ("api_address", "worker_address", "console_address"):
            self.refused("--tls_cert", "--token_file", data_dir=f"open-{flag}", **{flag: "0.0.0.0:0"})

    def test_a_restart_takes_the_same_ports(self):
        first = self.start_server()
        self.assertEqual(first.terminate(), 0)
        second = self.restart_server(first)
        self.assertEqual(second.addresses, first.addresses)


if __name__ == "__main__":
    unittest.main()
