#!/usr/bin/env python3
"""Stands in for vLLM with LMCache in its process, with its own tier of files, or with a connector
of nobody's: no model, a real disk and a real Redis.

Its answers are a hash of the prompt and of the KV that it loaded. A chunk of KV is `KV_BYTES` a
token, as the model's config.json in the test has it; it is written to and read from the tier that
the LMCache configuration names, past the page cache.
"""

import hashlib
import json
import mmap
import os
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KV_BYTES = 1024
BLOCK = 16


def option(name):
    return sys.argv[sys.argv.index(name) + 1]


def configuration():
    """Top-level `key: value` lines of the LMCache configuration."""
    found = {}
    for line in open(os.environ["LMCACHE_CONFIG_FILE"], encoding="utf-8"):
        key, colon, value = line.strip().partition(": ")
        if colon and not key.startswith("#"):
            found[key] = value.strip().strip("\"'")
    return found


def kv_of(key, tokens):
    """The KV of a chunk: bytes that only its text gives."""
    seed = hashlib.sha256(key.encode()).digest()
    return seed * (tokens * KV_BYTES // len(seed))


class Disk:
    def __init__(self, folder):
        self.folder = folder
        os.makedirs(folder, exist_ok=True)

    def path(self, key):
        return os.path.join(self.folder, key)

    def has(self, key):
        return os.path.exists(self.path(key))

    def put(self, key, data):
        buffer = mmap.mmap(-1, len(data))
        buffer.write(data)
        file = os.open(self.path(key), os.O_CREAT | os.O_WRONLY | os.O_DIRECT, 0o600)
        os.write(file, buffer)
        os.close(file)

    def get(self, key):
        size = os.stat(self.path(key)).st_size
        buffer = mmap.mmap(-1, size)
        file = os.open(self.path(key), os.O_RDONLY | os.O_DIRECT)
        os.readv(file, [buffer])
        os.close(file)
        return bytes(buffer)


class Files(Disk):
    """vLLM's own tier: RAM, and files behind it, which it finds again after a restart."""

    def __init__(self, folder):
        super().__init__(folder)
        self.ram = {}
        self.stored, self.loaded = 0, 0

    def path(self, key):
        digest = key.split("-")[1]
        folder = os.path.join(self.folder, "m_c0ffee_r0", digest[:3], f"{digest[3:5]}_g0")
        return os.path.join(folder, f"{digest}.bin")

    def has(self, key):
        return key in self.ram or super().has(key)

    def put(self, key, data):
        os.makedirs(os.path.dirname(self.path(key)), exist_ok=True)
        super().put(key, data)
        self.ram[key] = data
        self.stored += len(data)

    def get(self, key):
        if key not in self.ram:
            self.ram[key] = super().get(key)
        self.loaded += len(self.ram[key])
        return self.ram[key]

    def own_metrics(self):
        """Counters of a connector that only its author knows."""
        return [
            f'standin_loaded_bytes_total{{rank="0"}} {self.loaded}',
            f'standin_stored_bytes_total{{rank="0"}} {self.stored}',
        ]

    def metrics(self):
        return [
            f'vllm:kv_offload_store_bytes_total{{engine="0"}} {self.stored}',
            f'vllm:kv_offload_load_bytes_total{{engine="0"}} {self.loaded}',
        ]


class Wire(Files):
    """A store behind a TCP port, with RAM before it."""

    def __init__(self, port, chunk):
        self.port, self.chunk = port, chunk
        self.ram = {}
        self.stored, self.loaded = 0, 0
        self.loads = socket.create_connection(("127.0.0.1", port))

    def ask(self, connection, verb, key, size, data=b""):
        connection.sendall(f"{verb} {key} {size}\n".encode() + data)
        file = connection.makefile("rb")
        return file.read(int(file.readline()))

    def once(self, *asked):
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            return self.ask(connection, *asked)

    def has(self, key):
        return key in self.ram or self.once("HAS", key, 0) != b""

    def put(self, key, data):
        if "STAND_IN_FORGETS" not in os.environ:
            self.once("PUT", key, len(data), data)
        self.ram[key] = data
        self.stored += len(data)

    def get(self, key):
        if key not in self.ram:
            whole = kv_of(key, self.chunk)
            size = len(whole) // (2 if "STAND_IN_HALVES" in os.environ else 1)
            self.ram[key] = self.ask(self.loads, "GET", key, size) + whole[size:]
        self.loaded += len(self.ram[key])
        return self.ram[key]


class Redis:
    def __init__(self, url):
        host, _, port = url.split("://")[1].split("/")[0].rpartition(":")
        self.connection = socket.create_connection((host, int(port)))
        self.file = self.connection.makefile("rb")

    def ask(self, *words):
        words = [word if isinstance(word, bytes) else word.encode() for word in words]
        parts = [b"*%d\r\n" % len(words)]
        parts += [b"$%d\r\n%s\r\n" % (len(word), word) for word in words]
        self.connection.sendall(b"".join(parts))
        kind, _, rest = self.file.readline().strip().partition(b" ")
        head = kind + rest
        if head[:1] != b"$" or head == b"$-1":
            return head
        data = self.file.read(int(head[1:]) + 2)
        return data[:-2]

    def has(self, key):
        return self.ask("EXISTS", key) == b":1"

    def put(self, key, data):
        self.ask("SET", key, data)

    def get(self, key):
        return self.ask("GET", key)


class Engine:
    def __init__(self):
        transfer = json.loads(option("--kv-transfer-config"))
        extra = transfer.get("kv_connector_extra_config", {})
        own = extra.get("secondary_tiers")
        self.foreign = transfer["kv_connector"] == "StandInConnector"
        config = {} if own or self.foreign else configuration()
        self.chunk = int(config.get("chunk_size", BLOCK))
        if self.foreign:
            self.chunk = extra["chunk"]
            if "STAND_IN_WIRE" in os.environ:
                self.tier = Wire(extra["port"], self.chunk)
            else:
                self.tier = Files(extra["folder"])
                # As a connector that needs its store: it is there before vLLM is.
                socket.create_connection(("127.0.0.1", extra["port"])).close()
        elif own:
            self.chunk = int(transfer["kv_connector_extra_config"]["block_size"])
            self.tier = Files(own[0]["root_dir"])
            print(f"INFO 11-30 [spec.py:216] Created secondary tier #0 ({own[0]['type']})")
        elif "local_disk" in config:
            self.tier = Disk(config["local_disk"].removeprefix("file://"))
        else:
            self.tier = Redis(config["remote_url"])
        self.lock = threading.Lock()
        self.gpu = set()
        self.sources = {"local_compute": 0, "local_cache_hit": 0, "external_kv_transfer": 0}
        self.generated = 0

    def keys(self, prompt, size):
        """A key for each whole part of `size` tokens, which all tokens before it are in."""
        found, digest = [], hashlib.sha256()
        for start in range(0, len(prompt) // size * size, size):
            digest.update(repr(prompt[start : start + size]).encode())
            found.append(f"{size}-{digest.hexdigest()[:32]}")
        return found

    def answer(self, prompt, count):
        """Token ids of the answer, and how many prompt tokens came from a cache."""
        with self.lock:
            blocks, chunks = self.keys(prompt, BLOCK), self.keys(prompt, self.chunk)
            # The last token is always computed.
            most = (len(prompt) - 1) // BLOCK
            local = 0
            while local < min(most, len(blocks)) and blocks[local] in self.gpu:
                local += 1
            held = 0
            while held < len(chunks) and self.tier.has(chunks[held]):
                held += 1
            from_gpu = local * BLOCK
            loaded = max(0, min(held * self.chunk, len(prompt) - 1) - from_gpu)
            seen = hashlib.sha256(repr(prompt).encode())
            for number in range(from_gpu // self.chunk, held if loaded else 0):
                if self.tier.get(chunks[number]) != kv_of(chunks[number], self.chunk):
                    seen.update(b"other KV")
            for number, key in enumerate(chunks):
                if number >= held:
                    self.tier.put(key, kv_of(key, self.chunk))
            self.gpu.update(blocks)
            self.sources["local_cache_hit"] += from_gpu
            self.sources["external_kv_transfer"] += loaded
            self.sources["local_compute"] += len(prompt) - from_gpu - loaded
            self.generated += count
            state = seen.digest()
            ids = [int.from_bytes(state[i % 28 : i % 28 + 4], "big") % 900 + 50 for i in range(count)]
            return ids, from_gpu + loaded

    def metrics(self):
        with self.lock:
            name = "vllm:prompt_tokens_by_source_total"
            lines = [
                f'{name}{{engine="0",source="{source}"}} {tokens}'
                for source, tokens in self.sources.items()
            ]
            lines.append(f'vllm:prompt_tokens_total{{engine="0"}} {sum(self.sources.values())}')
            lines.append(f'vllm:generation_tokens_total{{engine="0"}} {self.generated}')
            if self.foreign:
                lines += self.tier.own_metrics()
            elif isinstance(self.tier, Files):
                lines += self.tier.metrics()
            return "\n".join(lines) + "\n"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def send(self, body, kind="application/json"):
        body = body.encode()
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        model = {"id": MODEL, "object": "model", "max_model_len": 8192}
        answers = {
            "/health": "",
            "/version": json.dumps({"version": "0.32.0"}),
            "/v1/models": json.dumps({"object": "list", "data": [model]}),
        }
        if self.path == "/metrics":
            self.send(ENGINE.metrics(), "text/plain; version=0.0.4")
        elif self.path in answers:
            self.send(answers[self.path])
        else:
            self.send_error(404)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"] or 0))
        if self.path.startswith("/reset_prefix_cache"):
            with ENGINE.lock:
                ENGINE.gpu.clear()
                wanted = "reset_external=true" in self.path
                if wanted and "STAND_IN_KEEPS_RAM" not in os.environ:
                    ENGINE.tier.ram.clear()
            self.send("")
        elif self.path == "/v1/completions":
            self.complete(json.loads(body))
        else:
            self.send_error(404)

    def complete(self, asked):
        prompt = asked["prompt"]
        if isinstance(prompt, str):
            prompt = list(prompt.encode())
        count = asked.get("max_tokens", 16)
        ids, cached = ENGINE.answer(prompt, count)
        usage = {
            "prompt_tokens": len(prompt),
            "completion_tokens": count,
            "total_tokens": len(prompt) + count,
            "prompt_tokens_details": {"cached_tokens": cached},
        }

        def choice(ids, last):
            found = {"index": 0, "text": "".join(f" {one}" for one in ids), "logprobs": None}
            if asked.get("logprobs") is not None:
                values = [-0.001 * one for one in ids]
                tokens = [f" {one}" for one in ids]
                found["logprobs"] = {
                    "tokens": tokens,
                    "token_logprobs": values,
                    "top_logprobs": [{t: v} for t, v in zip(tokens, values)],
                }
            if asked.get("return_token_ids"):
                found["token_ids"] = ids
            found["finish_reason"] = "length" if last else None
            return found

        def event(choices, **more):
            named = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": MODEL}
            return json.dumps({**named, "choices": choices, **more})

        if not asked.get("stream"):
            self.send(event([choice(ids, True)], usage=usage))
            return
        events = [event([choice([one], at + 1 == count)]) for at, one in enumerate(ids)]
        events += [event([], usage=usage), "[DONE]"]
        self.send("".join(f"data: {one}\n\n" for one in events), "text/event-stream")


MODEL = option("--served-model-name")
ENGINE = Engine()
print("Application startup complete.", flush=True)
ThreadingHTTPServer((option("--host"), int(option("--port"))), Handler).serve_forever()
