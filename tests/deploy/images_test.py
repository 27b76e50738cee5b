"""deploy/images: that the Dockerfile's targets and the compose file are what they say they are."""
import os
import re
import unittest

import yaml

import image_file

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
IMAGES = os.path.join(ROOT, "deploy", "images")
STAGES = image_file.read(os.path.join(IMAGES, "Dockerfile"))
TARGETS = {"server": "lasp-server", "worker": "lasp-worker", "worker-cpu": "lasp-worker", "client": "lasp"}


def known_flags(path):
    with open(os.path.join(ROOT, path)) as file:
        return set(re.findall(r"ABSL_FLAG\(\s*[^,]+,\s*(\w+)", file.read()))


class DockerfileTest(unittest.TestCase):
    def test_every_target_runs_its_program_without_root(self):
        for target, program in TARGETS.items():
            image = image_file.Image(STAGES, target)
            self.assertEqual((image.base, image.user, image.entrypoint),
                             ("debian:12-slim", "65532:65532", [f"/usr/bin/{program}"]), target)

    def test_no_image_holds_a_compiler_or_package_lists(self):
        for target in TARGETS:
            for _, run in image_file.Image(STAGES, target).runs:
                self.assertNotRegex(run, r"g\+\+|cuda-nvcc|-dev\b", target)
                if "apt-get update" in run:
                    self.assertIn("rm -rf /var/lib/apt/lists/*", run)

    def test_compose_fits(self):
        with open(os.path.join(IMAGES, "compose.yaml")) as file:
            compose = yaml.safe_load(file)
        flags = {"lasp-server": known_flags("server/flags.cc"), "lasp-worker": known_flags("worker/agent/flags.cc")}
        for name, service in compose["services"].items():
            self.assertTrue(service["read_only"] and service["cap_drop"] == ["ALL"], name)
            build = service.get("build")
            if build:
                self.assertIn(build["target"], STAGES)
                self.assertEqual(os.path.normpath(os.path.join(IMAGES, build["context"])), ROOT)
                for argument in service["command"]:
                    flag, _, value = argument.removeprefix("--").partition("=")
                    self.assertIn(flag, flags[TARGETS[build["target"]]], name)
                    # On the host's network: loopback or nothing.
                    self.assertFalse(flag.endswith("_address") and not value.startswith("127."), argument)
            mounts = {}
            for volume in service["volumes"]:
                source, target = re.match(r"(\$\{[^}]*\}|[^:]+):([^:]+)", volume).groups()
                mounts[target] = source
                if source.startswith("."):
                    self.assertTrue(os.path.isdir(os.path.join(IMAGES, source)), source)
                elif not source.startswith("$"):
                    self.assertIn(source, compose["volumes"])
            for argument in service.get("command", []):
                value = argument.partition("=")[2]
                if value.startswith("/"):
                    self.assertTrue(any(value == m or value.startswith(m + "/") for m in mounts), argument)


if __name__ == "__main__":
    unittest.main()
