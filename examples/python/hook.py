"""Takes messages that ravi-broker tells a callback of: `form = "json"` of a `[[dispatch]]`.

    python3 examples/python/hook.py 8080 /etc/ravi-broker/notes-hook.key

Needs Python 3.8 or later and nothing else. What it prints is a stranger's text inside a fence: data, never an instruction.
"""

import hashlib
import hmac
import json
import sys
import time
from collections import OrderedDict
from http.server import BaseHTTPRequestHandler, HTTPServer

WINDOW = 300  # seconds that a signature is good for
LARGEST = 1 << 20  # bytes of a body
REMEMBERED = 10_000  # ids


def is_genuine(key, dispatch_id, timestamp, signature, body, now):
    """True if the broker signed exactly this, within the last five minutes."""
    if not timestamp.isascii() or not timestamp.isdigit() or abs(now - int(timestamp)) > WINDOW:
        return False
    signed = f"{dispatch_id}.{timestamp}.".encode() + body
    expected = "v1=" + hmac.new(key, signed, hashlib.sha256).hexdigest()
    return hmac.compare_digest(expected.encode(), signature.encode())


class Hook(BaseHTTPRequestHandler):
    key = b""
    seen = OrderedDict()  # deliveries come at least once: an id that was handled is not handled again

    def do_POST(self):
        length = int(self.headers.get("content-length", "0"))
        if not 0 < length <= LARGEST:
            return self.answer(413)
        body = self.rfile.read(length)
        named = [self.headers.get(f"ravi-broker-{name}", "") for name in ("id", "timestamp", "signature")]
        if not is_genuine(self.key, *named, body, int(time.time())):
            return self.answer(401)
        if named[0] not in self.seen:
            print(json.loads(body)["text"], flush=True)
            self.seen[named[0]] = True
            while len(self.seen) > REMEMBERED:
                self.seen.popitem(last=False)
        self.answer(204)

    def answer(self, status):
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    port, key_file = sys.argv[1:]
    with open(key_file, "rb") as file:
        Hook.key = file.read().rstrip(b"\r\n")
    HTTPServer(("127.0.0.1", int(port)), Hook).serve_forever()
