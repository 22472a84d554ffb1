# One bucket of moto's S3, whatever host a request names; a line on standard output for each object that is
# written or read: `PUT BYTES` or `GET BYTES`.
# usage: s3.py PORT
import os
import sys

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple
from werkzeug.test import Client

app = DomainDispatcherApplication(create_backend_app)


def bucket(environ, start_response):
    environ["HTTP_HOST"] = "kv-cache.s3.amazonaws.com"
    method, is_object = environ["REQUEST_METHOD"], "@" in environ["PATH_INFO"]

    def start(status, headers, *more):
        sizes = {name.lower(): value for name, value in headers}
        size = environ.get("CONTENT_LENGTH") if method == "PUT" else sizes.get("content-length")
        if is_object and method in ("PUT", "GET") and status.startswith("2"):
            # In one piece: requests run in threads.
            os.write(1, f"{method} {size}\n".encode())
        return start_response(status, headers, *more)

    return app(environ, start)


Client(bucket).put("/")
run_simple("127.0.0.1", int(sys.argv[1]), bucket, threaded=True)
