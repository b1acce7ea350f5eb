#!/usr/bin/env python3
"""Installs the real parts that the story tests run: `setup.py DEST`, and what few of them need:
`setup.py DEST PART`.

Node 22, MCP servers, MCP clients and an OIDC provider come from the npm registry and PyPI, every
package and its dependencies pinned by version and hash (package-lock.json, requirements*.txt). A
second run finds the stamp of the first and is done in milliseconds; runs at the same time wait for
one another. No install script of any package is run.

Prints one JSON line: {"dir", "node", "python", "python1", "ci", "missing": {part: reason}}. What cannot be
installed is named in "missing" with the reason, so that the tests which need it can say why they
were skipped.

With a PART it prints {"python", "missing": reason} of that part alone.

`setup.py --relock` writes package-lock.json anew after a change of package.json.
"""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
# What the scripts and the Inspector need; see "engines" in their package.json.
NODE_AT_LEAST = (22, 19)
# The scripts run from copies beside node_modules: ES modules resolve imports from where they lie.
SCRIPTS = ("*.mjs", "*.cjs", "*.py")


class Missing(Exception):
    """A part cannot be had; the text says why."""


def run(what, command, cwd):
    """Runs a quiet command; its last words become the reason when it fails."""
    env = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "NO_UPDATE_NOTIFIER": "1"}
    try:
        done = subprocess.run(command, cwd=cwd, env=env, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              timeout=900)
    except FileNotFoundError:
        raise Missing(f"{command[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise Missing(f"{what} did not end within 15 minutes") from None
    if done.returncode != 0:
        lines = [line for line in done.stdout.splitlines() if line.strip()]
        print(done.stdout, file=sys.stderr)
        raise Missing(f"{what} failed: {lines[-1].strip() if lines else done.returncode}")


def stamped(folder, pins, install):
    """Calls `install` unless `folder` carries the stamp of exactly these pins."""
    stamp = folder / ".stamp"
    wanted = hashlib.sha256(b"\0".join((HERE / pin).read_bytes() for pin in pins)).hexdigest()
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    started = time.monotonic()
    print(f"installing test parts into {folder} …", file=sys.stderr)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    install(folder)
    # Written last: a run that was killed half-way leaves no stamp and is done again.
    stamp.write_text(wanted)
    print(f"… done in {time.monotonic() - started:.0f} s", file=sys.stderr)


def install_npm(folder):
    for name in ("package.json", "package-lock.json"):
        shutil.copy(HERE / name, folder / name)
    run("npm ci", ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund",
                   "--loglevel=error"], folder)


def install_venv(folder, requirements):
    run("python3 -m venv", [sys.executable, "-m", "venv", "venv"], folder)
    pip = str(folder / "venv/bin/python")
    run("pip install", [pip, "-m", "pip", "install", "--quiet", "--require-hashes",
                        "--only-binary=:all:", "-r", str(HERE / requirements)], folder)


def find_node(folder):
    """The pinned Node, or where npm has none for this machine, a new enough one on PATH."""
    for node in sorted(folder.glob("node_modules/node-*/bin/node")):
        if subprocess.run([node, "--version"], capture_output=True).returncode == 0:
            return str(node)
    node = shutil.which("node")
    if node:
        version = subprocess.run([node, "--version"], capture_output=True, text=True).stdout
        if tuple(int(n) for n in version.strip().lstrip("v").split(".")[:2]) >= NODE_AT_LEAST:
            return node
    raise Missing("no Node 22.19 or newer for this machine")


def copy_scripts(folder):
    for pattern in SCRIPTS:
        for source in HERE.glob(pattern):
            target = folder / source.name
            if not target.is_file() or target.read_bytes() != source.read_bytes():
                partial = folder / f".{source.name}.{os.getpid()}"
                shutil.copy(source, partial)
                partial.replace(target)


def setup(dest):
    dest.mkdir(parents=True, exist_ok=True)
    found = {"dir": str(dest / "npm"), "node": None, "python": None, "python1": None,
             "ci": None, "missing": {}}
    with open(dest / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            stamped(dest / "npm", ("package.json", "package-lock.json"), install_npm)
            found["node"] = find_node(dest / "npm")
        except Missing as reason:
            found["missing"]["node"] = str(reason)
        # What needs version 1 of the package mcp lives apart from what needs version 2.
        for part, pins, place in [("python", "requirements.txt", "pypi"),
                                  ("python1", "requirements-mcp1.txt", "pypi1"),
                                  ("ci", "requirements-ci.txt", "pypi-ci")]:
            try:
                stamped(dest / place, (pins,), lambda folder: install_venv(folder, pins))
                found[part] = str(dest / place / "venv/bin/python")
            except Missing as reason:
                found["missing"][part] = str(reason)
        (dest / "npm").mkdir(exist_ok=True)
        copy_scripts(dest / "npm")
    print(json.dumps(found))


# Parts that are large and needed by few: each a Python of its own.
EXTRA = {"secrets": "requirements-secrets.txt"}


def extra(dest, part):
    dest.mkdir(parents=True, exist_ok=True)
    found = {"python": None, "missing": None}
    with open(dest / f".lock-{part}", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            pins = EXTRA[part]
            stamped(dest / part, (pins,), lambda folder: install_venv(folder, pins))
            found["python"] = str(dest / part / "venv/bin/python")
        except Missing as reason:
            found["missing"] = str(reason)
    print(json.dumps(found))


def relock():
    """A lock file that names no host: one line a package, without addresses and advertisements."""
    work = HERE / ".relock"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    shutil.copy(HERE / "package.json", work)
    run("npm install", ["npm", "install", "--package-lock-only", "--ignore-scripts", "--no-audit",
                        "--no-fund", "--omit-lockfile-registry-resolved"], work)
    lock = json.loads((work / "package-lock.json").read_text())
    shutil.rmtree(work)
    packages = lock.pop("packages")
    for package in packages.values():
        for noise in ("funding", "deprecated", "resolved"):
            package.pop(noise, None)
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(p)}" for name, p in packages.items())
    head = json.dumps(lock)[:-1]
    (HERE / "package-lock.json").write_text(f'{head}, "packages": {{\n{lines}\n}}}}\n')


if __name__ == "__main__":
    if sys.argv[1:] == ["--relock"]:
        relock()
    elif len(sys.argv) == 2:
        setup(Path(sys.argv[1]).resolve())
    elif len(sys.argv) == 3 and sys.argv[2] in EXTRA:
        extra(Path(sys.argv[1]).resolve(), sys.argv[2])
    else:
        sys.exit("usage: setup.py DEST [PART] | --relock")
