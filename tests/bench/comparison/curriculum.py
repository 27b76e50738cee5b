"""Trains one model through jobs of growing sequences, each from the weights that the one before has left, and looks at what
came out by position."""
import dataclasses
import json
import os
import subprocess
import time


@dataclasses.dataclass(frozen=True)
class Phase:
    # Tokens of a sequence; sequences a step.
    length: int
    batch: int
    steps: int
    learning_rate: float

    def tokens(self):
        return self.length * self.batch * self.steps


@dataclasses.dataclass(frozen=True)
class Machine:
    device: str
    ranks: int = 1
    # Tokens that a rank takes at a time; longer sequences are streamed in parts of so many.
    rows: int = 8192

    def memory(self, length):
        if length <= self.rows * self.ranks:
            return {}
        return {"activations": "STREAM", "stream_chunk_tokens": self.rows}

    def micro_batch(self, phase):
        most = max(1, self.rows * self.ranks // phase.length)
        return max(size for size in range(1, phase.batch + 1) if phase.batch % size == 0 and size <= most)


def spec(model, phase, data, machine, optimizer):
    return {
        "model": model,
        "data": {**data, "sequence_length": phase.length},
        "optimizer": {"learning_rate": phase.learning_rate, "min_learning_rate": phase.learning_rate / 10,
                      "warmup_steps": max(1, phase.steps // 8), "schedule": "COSINE", **optimizer},
        "parallelism": {"sequence_parallel": {"method": "LASP", "size": machine.ranks}, "data_parallel": {"size": 1}},
        "global_batch_size": phase.batch, "micro_batch_size": machine.micro_batch(phase), "max_steps": phase.steps, "seed": 1,
        "device": machine.device, "memory": machine.memory(phase.length),
    }


def run_phase(case, name, job_spec, initial, timeout):
    """Trains a job from the weights in the folder `initial` of the data, if that is given. Returns the losses, and leaves the
    trained model in the folder `name` there."""
    if initial:
        job_spec["model"] = {**job_spec["model"], "initial_weights": {"path": initial}}
    case.submit(job_spec, name, "--wait", timeout=timeout)
    losses = [row["loss"] for row in sorted(case.metrics(name), key=lambda row: int(row["step"]))]
    deadline = time.monotonic() + 120
    while not any(one["state"] == "COMMITTED" for one in case.lasp_json("checkpoints", "list", name)):
        if time.monotonic() > deadline:
            raise OSError(f"{name} has no committed checkpoint after 120 s")
        time.sleep(0.1)
    case.lasp("checkpoints", "export", name, "--to", os.path.join(case.data, name), timeout=300)
    return losses


def look(programs, device, *arguments):
    """What model_positions says; `programs` is a bundle, or the folder of what was built."""
    name = "model_positions" if device == "CPU" else "model_positions_gpu"
    places = [os.path.join(programs, name), os.path.join(programs, "..", "tests", "bench", name)]
    path = next((place for place in places if os.path.exists(place)), None)
    if path is None:
        raise OSError(f"there is no {name} in {programs}")
    done = subprocess.run([path, *map(str, arguments)], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    if done.returncode != 0:
        raise OSError(f"{name} exited {done.returncode}: {done.stderr.strip()}")
    return json.loads(done.stdout)
