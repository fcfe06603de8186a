"""Makes a component of a plugin: puts its modules and this SDK into a Python interpreter, by componentize-py.

    python3 build.py --project DIR --source FILE --out FILE.wasm --componentize-py PROGRAM [-- ARGUMENTS]

What goes in is every file below the project's folder, without those whose path has a name that begins with a dot, without
`tests`, and without virtual environments and what installers put into a folder. Links are followed: what they lead to goes
in, each folder once. The same files and the same tool give the same component, so that one which is there is kept as it is.
Exit: 0 built, 1 a mistake in the plugin, 2 anything else.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

SDK = Path(__file__).resolve().parent
LEFT_OUT = {"tests", "__pycache__", "site-packages", "node_modules"}
# A virtual environment has it, whatever its name.
ENVIRONMENT = "pyvenv.cfg"
# More than this is not meant to be in a plugin, of which a file has 64 MiB at most.
STAGED_BYTES_MAX = 32 << 20


def main():
    parser = argparse.ArgumentParser()
    for name in ("project", "source", "out", "componentize-py"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("arguments", nargs="*", help="for `componentize-py componentize`")
    given = parser.parse_args()
    project, out = Path(given.project).resolve(), Path(given.out).resolve()
    source = project / given.source
    if not source.is_file() or source.suffix != ".py":
        stop(1, f"there is no {given.source} in {project}: `source` of plugin.toml says which file to build")
    module = source.relative_to(project).with_suffix("").parts
    if not all(name.isidentifier() for name in module):
        stop(1, f"{given.source}: the name of a module has letters, digits and `_` alone")
    work = SDK.parent / "build"
    staged, made = work / "python", work / "python-made"
    stage(project, staged)
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    (made / "quipu_source.py").write_text(f'MODULE = "{".".join(module)}"\n')
    key, made_of = work / "python-made.sha256", digest([made, SDK, staged], [given.componentize_py, *given.arguments])
    if out.is_file() and key.is_file() and key.read_text() == made_of:
        return
    key.unlink(missing_ok=True)
    part = out.with_name(out.name + ".part")
    command = [given.componentize_py, "-q", "-d", SDK / "wit" / "0.1.0", "-w", "plugin", "componentize", "--stub-wasi"]
    for folder in (made, SDK, staged):
        command += ["-p", folder]
    # The tool takes in what is installed on this machine, unless a virtual environment says what to take: an empty one, or
    # the same project would be another plugin elsewhere.
    nothing = work / "python-packages"
    (nothing / "site-packages").mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "VIRTUAL_ENV": str(nothing), "RUST_BACKTRACE": "0", "RUST_LIB_BACKTRACE": "0"}
    command += [*given.arguments, "quipu_handler", "-o", part]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        stop(1, readable(done.stdout + done.stderr))
    # Whoever reads the file meanwhile sees the old one or the new one.
    os.replace(part, out)
    key.write_text(made_of)


def digest(folders, command):
    """Of all that a component is made from: the files' paths and bytes, the tool as it is installed, its arguments."""
    tool = os.stat(command[0])
    sha256 = hashlib.sha256(repr([command, tool.st_size, tool.st_mtime_ns]).encode())
    for root in folders:
        for file in sorted(path for path in root.rglob("*") if path.is_file()):
            content = file.read_bytes()
            sha256.update(f"{file.relative_to(root)}\0{len(content)}\0".encode())
            sha256.update(content)
    return sha256.hexdigest()


def stage(project, staged):
    """Copies what goes in: tools look through whole folders, and a project's may hold a gigabyte of them."""
    shutil.rmtree(staged, ignore_errors=True)
    left, known = STAGED_BYTES_MAX, {os.path.realpath(project)}
    for folder, folders, files in os.walk(project, followlinks=True):
        folders[:] = [name for name in folders if goes_in(Path(folder) / name, known)]
        to = staged / Path(folder).relative_to(project)
        to.mkdir(parents=True, exist_ok=True)
        for name in files:
            # A link may lead nowhere.
            if name.startswith(".") or name.endswith((".wasm", ".ndjson")) or not (Path(folder) / name).is_file():
                continue
            left -= os.path.getsize(Path(folder) / name)
            if left < 0:
                stop(1, f"the project has more than {STAGED_BYTES_MAX >> 20} MiB of files; move data out of {project}")
            shutil.copyfile(Path(folder) / name, to / name)


def goes_in(folder, known):
    """Whether a folder is the project's own, and no link has led to it before."""
    real = os.path.realpath(folder)
    if folder.name.startswith(".") or folder.name in LEFT_OUT or (folder / ENVIRONMENT).exists() or real in known:
        return False
    known.add(real)
    return True


def readable(said):
    """What the SDK says of a module that fails as it loads; of any other failure, all that the tool says."""
    _, begin, rest = said.partition("-- quipu: begin\n")
    shown, end, _ = rest.partition("\n-- quipu: end")
    return shown if begin and end else said


def stop(code, text):
    print(text, file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
