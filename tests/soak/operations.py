"""What an operator does to a cluster while it is used, and what must hold right after. On the thread that made the
programs: they end with it."""
import os
import signal
import subprocess
import time

from cluster import is_alive, wait_until


class Operations:
    def __init__(self, test, tokens, seed_random, note):
        """`test`: the ClusterTest, with `agents`, {id: Program or None}, of which w1 is left alone."""
        self.test, self.tokens, self.random, self.note = test, tokens, seed_random, note
        self.back = []      # (time, id): agents that come back
        self.later = []     # (time, what): what follows a rotation
        self.counts = {}
        self.rotated = {}   # user: when their first token was succeeded by another

    def _counted(self, what):
        self.counts[what] = self.counts.get(what, 0) + 1
        self.note(what)

    def follow_up(self):
        """What is due by now."""
        now = time.monotonic()
        for entry in [entry for entry in self.back if entry[0] <= now]:
            self.back.remove(entry)
            self.back.append((now + 10, entry[1]))  # again, if it does not start
            self.test.agents[entry[1]] = self.test.start_agent(entry[1])
            self.back.pop()
            self.note(f"{entry[1]} is back")
        for entry in [entry for entry in self.later if entry[0] <= now]:
            self.later.remove(entry)
            entry[1]()

    # ---- agents --------------------------------------------------------------------------------

    def disturb_an_agent(self):
        running = [name for name, program in self.test.agents.items() if program and name != "w1"]
        if not running:
            return
        name = self.random.choice(running)
        self.random.choice([self.end, self.kill, self.drain, self.kill_a_rank, self.rotate_agent])(name)

    def _away(self, name):
        """The program of this agent, which is to end and will come back."""
        program, self.test.agents[name] = self.test.agents[name], None
        self.back.append((time.monotonic() + self.random.choice([2, 5, 30]), name))
        return program

    def end(self, name):
        self._counted("an agent ended and came back")
        program = self._away(name)
        code = program.terminate(timeout=60)
        self.test.assertEqual(code, 0, f"{name} after SIGTERM:\n{program.log_tail()}")

    def kill(self, name):
        self._counted("an agent was killed and came back")
        program = self._away(name)
        ranks = self.test.ranks_of(program)
        program.kill()
        wait_until(lambda: not any(map(is_alive, ranks)), 10, f"the ranks of {name}, which was killed, are gone")

    def drain(self, name):
        self._counted("an agent was drained and undrained")
        self.test.lasp_again("drain", name)
        wait_until(lambda: not self.test.ranks_of(self.test.agents[name]), 60, f"{name} is drained of its ranks")
        wait_until(lambda: self.test.worker_state(name) == "DRAINED", 30, f"{name} is drained")
        self.test.lasp_again("drain", name, "--undo")

    def kill_a_rank(self, name):
        ranks = self.test.ranks_of(self.test.agents[name])
        if ranks:
            self._counted("a rank was killed")
            try:
                os.kill(self.random.choice(ranks), signal.SIGKILL)
            except ProcessLookupError:
                pass  # it was done

    def rotate_agent(self, name):
        self._counted("an agent's certificate was rotated, and the agent ended and came back")
        self.test.credentials.run("rotate", "worker", name)
        self.end(name)

    # ---- the store -------------------------------------------------------------------------------

    def back_up(self):
        """A backup of the live store, which is whole; those before it go, as an operator's script would have it."""
        self._counted("the store was backed up")
        backup = self.test.lasp_json("backup")
        folder, name = os.path.split(backup["path"])
        check = subprocess.run(["sha256sum", "--check", "--strict", f"{name}.sha256"], cwd=folder, capture_output=True,
                               text=True)
        self.test.assertEqual(check.returncode, 0, f"the backup {name}: {check.stdout}{check.stderr}")
        for other in os.listdir(folder):
            if not other.startswith(name):
                os.unlink(os.path.join(folder, other))

    # ---- credentials ---------------------------------------------------------------------------

    def rotate(self, overlap):
        """The coordinator's certificate, and a user's token."""
        self._counted("the coordinator's certificate was rotated")
        self.test.credentials.run("rotate", "server")
        user = self.random.choice(["root", "ada", "bob"])
        self._counted("a token was rotated")
        self.tokens.set(user, self.test.credentials.run("rotate", "token", user, "--overlap", overlap))
        self.rotated.setdefault(user, time.monotonic())
        self.test.token = self.tokens.get("root")
        self._counted("a token was made, used and revoked")
        token = self.test.credentials.token("viewer", "*", name="guest")
        wait_until(lambda: self.test.works(token), 15, "a new token is known")
        self.test.credentials.run("revoke", "token", "guest")
        wait_until(lambda: not self.test.works(token), 15, "a revoked token is refused")

    def rotate_authority(self, overlap_seconds):
        self._counted("the authority was rotated")
        self.test.credentials.run("rotate", "ca")

        def revoke():
            self.note("the old authority is revoked")
            self.test.credentials.run("revoke", "ca")
        self.later.append((time.monotonic() + overlap_seconds, revoke))
