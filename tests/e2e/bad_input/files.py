"""The corpora that bad_input/specs.json names: empty, cut short, lying, hostile."""
import os
import struct


def llmc(count, tokens, magic=20240520, version=1):
    header = struct.pack("<iii", magic, version, count).ljust(1024, b"\0")
    return header + struct.pack(f"<{tokens}H", *(i % 256 for i in range(tokens)))


def index(lengths, offsets, code=8, sequences=None):
    documents = list(range(len(lengths) + 1))
    return (b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, code, len(lengths) if sequences is None else sequences,
                                          len(documents)) +
            struct.pack(f"<{len(lengths)}i", *lengths) + struct.pack(f"<{len(offsets)}q", *offsets) +
            struct.pack(f"<{len(documents)}q", *documents))


def write_bad_files(folder):
    tokens = struct.pack("<1000H", *(i % 256 for i in range(1000)))
    files = {
        "empty.bin": b"",
        "short.bin": b"x" * 100,
        "odd.bin": b"x" * 1001,
        "header.bin": llmc(1000, 1000)[:700],
        "truncated.bin": llmc(1000, 900),
        "lying.bin": llmc(1000, 1100),
        "negative.bin": llmc(-1, 1000),
        "stray.bin": struct.pack("<1000H", *(65000 if i == 7 else 1 for i in range(1000))),
        "lonely.bin": tokens,
        "alien.bin": tokens, "alien.idx": b"x" * 100,
        "cut.bin": tokens, "cut.idx": index([1000], [0])[:20],
        "absurd.bin": tokens, "absurd.idx": index([1000], [0], sequences=2**62),
        "overlap.bin": tokens, "overlap.idx": index([500, 500], [0, 998]),
        "stranger.bin": tokens, "stranger.idx": index([999], [0]),
        "floats.bin": tokens, "floats.idx": index([1000], [0], code=6),
    }
    for name, content in files.items():
        with open(os.path.join(folder, name), "wb") as file:
            file.write(content)
    os.mkdir(os.path.join(folder, "folder"))
    os.mkfifo(os.path.join(folder, "fifo"))
    os.symlink("/etc/passwd", os.path.join(folder, "escape"))
