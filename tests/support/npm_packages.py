"""Packages of npm that a test needs, pinned by a lock file and fetched once, into this user's cache."""
import hashlib
import os
import shutil
import subprocess
import tempfile


class PackagesMissing(Exception):
    """npm is not here, or could not fetch the packages."""


def install(source, name):
    """A folder, called after `name`, with node_modules as package.json and package-lock.json in the folder
    `source` say."""
    if not shutil.which("npm") or not shutil.which("node"):
        raise PackagesMissing("npm is not here: run deploy/install-dependencies tests")
    with open(os.path.join(source, "package-lock.json"), "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()[:16]
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = os.path.join(cache, "lasp", f"{name}-{digest}")
    if os.path.isdir(folder):
        return folder
    os.makedirs(os.path.dirname(folder), exist_ok=True)
    scratch = tempfile.mkdtemp(prefix=f".{name}-", dir=os.path.dirname(folder))
    try:
        for file in ("package.json", "package-lock.json"):
            shutil.copy(os.path.join(source, file), scratch)
        done = subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=scratch, text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300)
        if done.returncode != 0:
            raise PackagesMissing(f"npm ci failed: {done.stdout[-2000:]}")
        try:
            # A rename is whole or not there, for another run beside this one.
            os.rename(scratch, folder)
        except OSError:
            if not os.path.isdir(folder):
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder
