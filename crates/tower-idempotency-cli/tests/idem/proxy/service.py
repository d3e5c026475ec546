"""A service that knows nothing of idempotency: each order is a line of a file, its effect. `service.py ADDRESS FILE`"""

import json
import socketserver
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

HOST, PORT = sys.argv[1].rsplit(":", 1)
FILE = sys.argv[2]


class Orders(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        key = self.headers.get("idempotency-key", "none")
        with open(FILE, "a") as file:
            file.write(key + "\n")
        # Services do more after their effect, and may be killed then.
        time.sleep(0.02)
        self.answer(201, {"key": key})

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(socketserver.ThreadingMixIn, HTTPServer):
    daemon_threads = True
    request_queue_size = 128


Server((HOST, int(PORT)), Orders).serve_forever()
