#!/usr/bin/env python3
"""Writes the lists of LMCache's configuration keys that src/plan/lmcache_keys/ holds.

usage: scripts/list-lmcache-keys.py VERSION...      the oldest first; needs pip and PyPI, 15 MB a version

Of each version's wheel three things are read, without importing anything: the keys of the in-process
engine's file (`_CONFIG_DEFINITIONS` in lmcache/v1/config.py), the arguments of `lmcache server`
(`add_argument` in the modules that lmcache/cli/commands/server.py imports its argument groups from), and
the keys of the adapters behind `--l2-adapter` (what `from_dict` of each registered type asks for).
"""

import ast
import pathlib
import re
import subprocess
import sys
import tempfile
import zipfile

LISTS = pathlib.Path(__file__).resolve().parents[1] / "src/plan/lmcache_keys"
SERVER = "lmcache/cli/commands/server.py"
ADAPTERS = "lmcache/v1/distributed/l2_adapters/"


def in_process(wheel):
    tree = ast.parse(wheel.read("lmcache/v1/config.py"))
    for node in tree.body:
        names = [target.id for target in getattr(node, "targets", []) if isinstance(target, ast.Name)]
        if isinstance(node, ast.AnnAssign):
            names = [node.target.id]
        if "_CONFIG_DEFINITIONS" in names:
            return {key.value for key in node.value.keys}
    raise SystemExit("lmcache/v1/config.py has no _CONFIG_DEFINITIONS")


def server(wheel):
    """Flags without dashes; the `--no-` form too where there is one. None before it had the command."""
    if SERVER not in wheel.namelist():
        return None
    groups = {
        (node.module, alias.name)
        for node in ast.walk(ast.parse(wheel.read(SERVER)))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.name.startswith("add_") and alias.name.endswith("_args")
    }
    found, seen = {"help"}, set()
    # What every command of its command line has.
    groups.add(("lmcache.cli.commands.base", "_add_output_args"))
    while groups:
        module, name = groups.pop()
        seen.add((module, name))
        tree = ast.parse(wheel.read(module.replace(".", "/") + ".py"))
        functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
        imported = {
            alias.name: node.module
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module
            for alias in node.names
        }
        for node in ast.walk(functions[name]):
            if not isinstance(node, ast.Call):
                continue
            if isinstance(node.func, ast.Attribute) and node.func.attr == "add_argument":
                found |= flags(node, module)
            elif isinstance(node.func, ast.Name) and node.func.id.startswith(("add_", "_add_")):
                called = (module if node.func.id in functions else imported.get(node.func.id), node.func.id)
                if called[0] and called not in seen:
                    groups.add(called)
    return found


def flags(call, module):
    names = set()
    for argument in call.args:
        if not isinstance(argument, ast.Constant):
            raise SystemExit(f"{module}:{call.lineno}: an argument whose name is not written out")
        if argument.value.startswith("--"):
            names.add(argument.value[2:])
    action = [ast.unparse(word.value) for word in call.keywords if word.arg == "action"]
    if action and action[0].endswith("BooleanOptionalAction"):
        names |= {f"no-{name}" for name in names}
    return names


def adapters(wheel):
    """`TYPE.KEY` of every type of adapter. None before there were any."""
    found = set()
    for name in wheel.namelist():
        if not (name.startswith(ADAPTERS) and name.endswith("_adapter.py")):
            continue
        tree = ast.parse(wheel.read(name))
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        registered = [call.args for call in calls if getattr(call.func, "id", "") == "register_l2_adapter_type"]
        classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
        for kind, config in registered:
            for function in classes[config.id].body:
                if getattr(function, "name", "") == "from_dict":
                    found |= {f"{kind.value}.{key}" for key in asked(function)}
    return found or None


def asked(function):
    """Keys that `function` takes out of a dict: by a method, a helper of its own, or an index."""
    named = set()
    for node in ast.walk(function):
        arguments = node.args[:2] if isinstance(node, ast.Call) else []
        if isinstance(node, ast.Subscript):
            arguments = [node.slice]
        texts = {argument.value for argument in arguments if isinstance(argument, ast.Constant)}
        named |= {text for text in texts if isinstance(text, str) and re.fullmatch("[a-z][a-z0-9_]+", text)}
    return named


def write(name, what, versions, keys_of):
    """One key a line; where not every version has it, those that do behind it, as `FIRST-LAST`."""
    known = [version for version in versions if keys_of[version] is not None]
    lines = [
        f"# {what}",
        "# Read from the wheels on PyPI by scripts/list-lmcache-keys.py; behind a key, the versions that",
        "# have it where not all do.",
        "versions: " + " ".join(known),
    ]
    for key in sorted(set().union(*(keys_of[version] for version in known))):
        having = [index for index, version in enumerate(known) if key in keys_of[version]]
        first, last = having[0], having[-1]
        if having != list(range(first, last + 1)):
            raise SystemExit(f"{key} comes and goes: {[known[index] for index in having]}")
        some = len(having) < len(known)
        lines.append(f"{key} {known[first]}-{known[last]}" if some else key)
    (LISTS / name).write_text("\n".join(lines) + "\n")


def main():
    versions = sys.argv[1:]
    if not versions:
        raise SystemExit(__doc__)
    files, arguments, behind = {}, {}, {}
    for version in versions:
        with tempfile.TemporaryDirectory() as folder:
            pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:"]
            subprocess.run([*pip, "-d", folder, f"lmcache=={version}"], check=True)
            (path,) = pathlib.Path(folder).glob("*.whl")
            with zipfile.ZipFile(path) as wheel:
                files[version], arguments[version] = in_process(wheel), server(wheel)
                behind[version] = adapters(wheel)
    LISTS.mkdir(exist_ok=True)
    write("in_process.txt", "Keys of LMCache's configuration file, in-process: lmcache/v1/config.py.", versions, files)
    write("server.txt", f"Arguments of `lmcache server`: {SERVER} and what it imports.", versions, arguments)
    write("adapters.txt", f"Keys of `--l2-adapter` by its type: {ADAPTERS}*_adapter.py.", versions, behind)


main()
