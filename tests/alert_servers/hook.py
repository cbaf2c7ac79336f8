"""An HTTP server over TLS: hook.py CERTIFICATE KEY DIRECTORY. Prints its port.

Requests go into DIRECTORY/requests, one JSON a line. DIRECTORY/mode holds the status that it answers with, or "hang"; 200 without.
"""
import json, os, ssl, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

certificate, key, directory = sys.argv[1:4]


def mode():
    try:
        with open(os.path.join(directory, "mode")) as file:
            return file.read().strip()
    except FileNotFoundError:
        return ""


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        wanted = mode()
        line = {"path": self.path, "headers": dict(self.headers), "body": body, "mode": wanted}
        with open(os.path.join(directory, "requests"), "a") as file:
            file.write(json.dumps(line) + "\n")
        if wanted == "hang":
            time.sleep(600)
        self.send_response(int(wanted or 200))
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
context.load_cert_chain(certificate, key)
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
server.serve_forever()
