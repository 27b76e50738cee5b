"""HTTP/2 by hand over TLS, for what no client library would send."""
import socket
import ssl
import struct

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS, ACK = 1, 4, 1
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind, flags=0, stream=0, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def literal(name, value):
    """A header that enters no table; lengths below 16,384."""
    def text(data):
        size = len(data)
        head = bytes([size]) if size < 127 else bytes([127, (size - 127) % 128 | 128, (size - 127) // 128])
        return head + data
    return b"\0" + text(name) + text(value)


def request_headers(method, token=None, *more):
    headers = [(b":method", b"POST"), (b":scheme", b"https"), (b":path", method.encode()), (b":authority", b"x"),
               (b"content-type", b"application/grpc"), (b"te", b"trailers")]
    headers += [(b"authorization", b"Bearer " + token.encode())] if token else []
    return b"".join(literal(*header) for header in headers + list(more))


def message(size, compressed=False):
    """The head of a gRPC message."""
    return struct.pack(">BI", compressed, size)


class Http2Client:
    """A connection that has greeted. What the other end sends is read only where it is asked for."""

    def __init__(self, address, authority, settings=b"", source=None, timeout=30, greets=True):
        host, port = address.rsplit(":", 1)
        context = ssl.create_default_context(cadata=authority.decode())
        context.set_alpn_protocols(["h2"])
        plain = socket.create_connection((host, int(port)), timeout=timeout, source_address=source)
        self.socket = context.wrap_socket(plain, server_hostname=host)
        if greets:
            self.socket.sendall(PREFACE + frame(SETTINGS, payload=settings))
        self.stream = -1

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def open(self, method, token=None, *more, flags=END_HEADERS):
        """The bytes that open a stream."""
        self.stream += 2
        return frame(HEADERS, flags, self.stream, request_headers(method, token, *more))

    def send(self, data):
        """False once the other end has hung up."""
        try:
            self.socket.sendall(data)
            return True
        except OSError:
            return False

    def is_hung_up_on(self, timeout):
        """Reads until the other end hangs up; False where it does not in time."""
        self.socket.settimeout(timeout)
        try:
            while self.socket.recv(65536):
                pass
        except TimeoutError:
            return False
        except OSError:
            pass
        return True
