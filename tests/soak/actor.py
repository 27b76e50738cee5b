"""A thread of a soak that does one thing until it is told to stop."""
import random
import threading
import traceback


class Actor(threading.Thread):
    """What it finds wrong is in `problems`."""

    def __init__(self, name, seed=0):
        super().__init__(name=name)
        self.random = random.Random(f"{seed} {name}")
        self.problems = []
        self._stopped = threading.Event()

    def stop(self):
        self._stopped.set()

    def stopped(self):
        return self._stopped.is_set()

    def pause(self, seconds):
        """Waits; whether to go on."""
        return not self._stopped.wait(seconds)

    def run(self):
        try:
            self.act()
        except Exception:  # whatever it was is a finding, and the soak goes on to its end
            self.problems.append(f"{self.name}: {traceback.format_exc(limit=-4)}")

    def act(self):
        raise NotImplementedError
