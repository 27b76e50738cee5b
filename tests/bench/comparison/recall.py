"""Whether length is used: values are told at a sequence's start and asked for at its end, so far behind that nothing
but the carried state can know them."""
import array
import os
import random
import time

from comparison import curriculum
from comparison.curriculum import Machine, Phase

KEYS, VALUES = 8, 8
# Questions of a sequence that is trained on, of which the first KEYS are for a key each.
TRAINED_ASKS = 64
# Token numbers: what says that a key has a value, a question for a key, an answer, the start, and what lies between.
TOLD, ASK, ANSWER = 0, KEYS * VALUES, KEYS * VALUES + KEYS
START = ANSWER + VALUES
BETWEEN = START + 1
VOCABULARY = 96
TESTED = 50


def told_times(distance):
    """How often each value is told: in four times as many tokens as the first layer remembers, so that most are told behind
    others, and before long distances in a quarter as many tokens. What those leave in the state is then no larger beside
    what was told than at short distances."""
    return max(128, distance // (4 * KEYS))


def length_of(distance, asks=KEYS):
    """Of a sequence in which every question is asked at least so many tokens behind what it asks for."""
    return 1 + KEYS * told_times(distance) + distance + 2 * asks


def sequence(distance, asks, draw):
    values = [draw.randrange(VALUES) for _ in range(KEYS)]
    told = array.array("H", [TOLD + key * VALUES + value for key, value in enumerate(values)])
    made = array.array("H", [START]) + told * told_times(distance) + array.array("H", [BETWEEN]) * distance
    for key in draw.sample(range(KEYS), KEYS) + draw.choices(range(KEYS), k=asks - KEYS):
        made.extend((ASK + key, ANSWER + values[key]))
    return made


def write_corpus(path, distance, asks, sequences, seed):
    """UINT16: so many sequences, and one token more, which is the last one's label."""
    draw = random.Random(seed)
    with open(path, "wb") as file:
        for _ in range(sequences):
            sequence(distance, asks, draw).tofile(file)
        array.array("H", [START]).tofile(file)


def model(hidden_size):
    """Two layers: the second one's states hardly decay. One head: of 64 or 128."""
    return {"architecture": "TRANSNORMER", "layers": 2, "hidden_size": hidden_size, "heads": 1, "glu_size": 2 * hidden_size,
            "vocab_size": VOCABULARY, "init_std": 0.1}


# Hidden size, machine, and of each phase: distance, batch, steps, learning rate. What is learned at 4,096 holds at any
# distance behind it: there little is left to learn, by small steps.
SMALL = (64, Machine("CPU", rows=4096),
         ((16, 8, 400, 3e-3), (256, 8, 60, 1e-3), (1024, 8, 60, 7e-4), (4096, 8, 40, 3e-4), (16384, 2, 5, 3e-5)))
FULL = (128, Machine("GPU", rows=65536),
        ((16, 64, 600, 2e-3), (256, 64, 200, 1e-3), (1024, 64, 300, 7e-4), (4096, 32, 300, 3e-4), (32768, 8, 60, 5e-5),
         (131072, 4, 40, 3e-5), (524288, 2, 40, 2e-5)))
OPTIMIZER = {"beta2": 0.99, "epsilon": 1e-15}  # an answer is a small part of a long sequence's mean loss


def phases(schedule):
    return [Phase(length_of(distance, TRAINED_ASKS), batch, steps, rate) for distance, batch, steps, rate in schedule]


def run(case, programs, profile, done, keep):
    """Goes through a profile's distances; `done` gets a result of each, and `keep` is told."""
    hidden_size, machine, schedule = profile
    before = ""
    for number, ((distance, *_), phase) in enumerate(zip(schedule, phases(schedule))):
        begin = time.monotonic()
        name = f"recall-{distance}"
        write_corpus(os.path.join(case.data, "train.bin"), distance, TRAINED_ASKS, phase.batch * phase.steps, number + 1)
        job = curriculum.spec(model(hidden_size), phase, {"train_paths": ["train.bin"], "format": "UINT16"}, machine, OPTIMIZER)
        losses = curriculum.run_phase(case, name, job, before, timeout=3600)
        before = name
        test = os.path.join(case.data, "test.bin")
        write_corpus(test, distance, KEYS, TESTED, 10_000 + number)
        length = length_of(distance)
        said = curriculum.look(programs, machine.device, "answers", os.path.join(case.data, name), "UINT16", test, length, TESTED,
                               length - 2 * KEYS)
        done.append({"distance": distance, "sequence_length": phase.length, "batch": phase.batch, "steps": phase.steps,
                     "learning_rate": phase.learning_rate, "plan": machine.memory(phase.length).get("activations", "KEEP"),
                     "first_loss_of_a_sequence": losses[0] * phase.length, "last_loss_of_a_sequence": losses[-1] * phase.length,
                     "seconds": time.monotonic() - begin, **{name: said[name] for name in ("asked", "right", "right_when_cut")}})
        keep()
        print(f"{distance:,} tokens back: {said['right']} of {said['asked']} right, {said['right_when_cut']} without the state "
              f"({done[-1]['seconds']:.0f} s)", flush=True)
