"""A tap in a stdio server's line: `tap.py DIR -- COMMAND ARGS...` runs the command and passes every
line through as it is, and writes it into DIR/PID.lines behind `>` (to the server) or `<` (to the
client) before it passes it on. DIR/go appears once a line to the server says "slow"."""

import ctypes
import os
import signal
import subprocess
import sys
import threading

folder, command = sys.argv[1], sys.argv[3:]
os.makedirs(folder, exist_ok=True)
log = os.open(f"{folder}/{os.getpid()}.lines", os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def ends_with_its_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


server = subprocess.Popen(
    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0,
    preexec_fn=ends_with_its_parent,
)
signal.signal(signal.SIGTERM, lambda *_: server.terminate())


def to_server():
    for line in sys.stdin.buffer:
        os.write(log, b">" + line)
        if b"slow" in line:
            open(f"{folder}/go", "w").close()
        try:
            server.stdin.write(line)
        except OSError:
            break
    server.stdin.close()


threading.Thread(target=to_server, daemon=True).start()
for line in os.fdopen(os.dup(server.stdout.fileno()), "rb"):
    os.write(log, b"<" + line)
    try:
        os.write(1, line)
    except OSError:
        break
code = server.wait()
os._exit(code if code >= 0 else 128 - code)
