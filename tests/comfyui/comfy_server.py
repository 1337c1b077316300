"""A real ComfyUI server on the CPU, with this pack installed the way a user installs it."""

import asyncio
import contextlib
import functools
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from comfyui_location import ROOT, find_comfyui

# People clone under the repository's name, whose hyphen no Python package may have.
FOLDER = "comfyui-crossframe"
START_TIMEOUT = 300  # seconds, for a machine that is busy
RUN_TIMEOUT = 600


@dataclass
class Outcome:
    """What a client saw of one run: messages as (type, data), previews as image bytes.

    texts: what was last written on each node while it ran.
    """

    prompt_id: str
    messages: list[tuple[str, dict]] = field(default_factory=list)
    previews: list[bytes] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)

    def take(self, message: bytes) -> None:
        """Take in a binary message."""
        event = int.from_bytes(message[:4], "big")
        if event == _PREVIEW:
            self.previews.append(message[8:])  # after event and image type
        elif event == _TEXT:
            start = 8 + int.from_bytes(message[4:8], "big")
            self.texts[message[8:start].decode()] = message[start:].decode()

    @property
    def end(self) -> str:
        """The type of the last message: execution_success, _error or _interrupted."""
        return self.messages[-1][0]

    def of_type(self, kind: str) -> list[dict]:
        return [data for name, data in self.messages if name == kind]

    def progress(self, node: int | str) -> list[tuple[int, int]]:
        """The states of a node's progress bar, as (value, max)."""
        states = (data for data in self.of_type("progress") if data["node"] == str(node))
        return [(data["value"], data["max"]) for data in states]


class Server:
    """A running server. `folder` has its input, output, models and custom_nodes."""

    def __init__(self, folder: Path, port: int, process: subprocess.Popen) -> None:
        self.folder = folder
        self.address = f"127.0.0.1:{port}"
        self._process = process

    @property
    def log(self) -> str:
        return log_file(self.folder).read_text(errors="replace")

    def get(self, path: str):
        """GET a path and return the JSON of the answer."""
        with urllib.request.urlopen(f"http://{self.address}{path}", timeout=30) as answer:
            return json.load(answer)

    def post(self, path: str, body: dict | None = None):
        """POST JSON to a path; a refusal raises AssertionError with the server's reasons."""
        request = urllib.request.Request(
            f"http://{self.address}{path}",
            json.dumps(body or {}).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.loads(answer.read() or "null")
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{path}: {error.read().decode()}") from error

    def run(
        self,
        prompt: dict,
        workflow: dict | None = None,
        on_message: Callable[[str, dict], None] | None = None,
    ) -> Outcome:
        """Queue a prompt as the page does and follow it to its end.

        workflow: the UI-format workflow, stored with the output. on_message: called with the
        type and data of every message as it comes.
        """
        return asyncio.run(asyncio.wait_for(self._run(prompt, workflow, on_message), RUN_TIMEOUT))

    async def _run(self, prompt, workflow, on_message) -> Outcome:
        import aiohttp  # ComfyUI brings it

        client = uuid.uuid4().hex
        extra = {"extra_pnginfo": {"workflow": workflow}} if workflow else {}
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(
                f"ws://{self.address}/ws?clientId={client}", max_msg_size=0
            ) as socket_,
        ):
            body = {"prompt": prompt, "client_id": client, "extra_data": extra}
            answer = await asyncio.to_thread(self.post, "/prompt", body)
            outcome = Outcome(answer["prompt_id"])
            async for message in socket_:
                if message.type == aiohttp.WSMsgType.BINARY:
                    outcome.take(message.data)
                    continue
                event = json.loads(message.data)
                if event["data"].get("prompt_id") != outcome.prompt_id:
                    continue
                outcome.messages.append((event["type"], event["data"]))
                if on_message is not None:
                    await asyncio.to_thread(on_message, *outcome.messages[-1])
                if event["type"] in _ENDS:
                    break
        return outcome

    def history(self, outcome: Outcome) -> dict:
        """What the server keeps of a run; it does so a moment after its last message."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            found = self.get(f"/history/{outcome.prompt_id}")
            if outcome.prompt_id in found:
                return found[outcome.prompt_id]
            time.sleep(0.1)
        raise TimeoutError(f"{outcome.prompt_id} is not in the history")

    def outputs(self, outcome: Outcome, node: int | str) -> list[Path]:
        """The files that a node of a run has saved."""
        return [
            self.folder / file["type"] / file["subfolder"] / file["filename"]
            for files in self.history(outcome)["outputs"][str(node)].values()
            for file in files
            if isinstance(file, dict)
        ]


_PREVIEW, _TEXT = 1, 3  # among ComfyUI's binary events
_ENDS = ("execution_success", "execution_error", "execution_interrupted")


def log_file(folder: Path) -> Path:
    return folder / "server.log"


@contextlib.contextmanager
def running_server(folder: Path, *options: str) -> Iterator[Server]:
    """Install the pack under `folder`, start ComfyUI on it, and end it afterwards.

    A pack that is already there is left as it is. options: more command line options for
    ComfyUI. What the server printed is printed when the block fails, for pytest to show.
    """
    make_base_directory(folder)
    if not any((folder / "custom_nodes").iterdir()):
        install_pack(folder / "custom_nodes" / FOLDER)
    port = _free_port()
    with log_file(folder).open("wb") as log:
        process = subprocess.Popen(
            _command(folder, port, options),
            cwd=folder,
            # Small models gain nothing by threads, which wait for each other on busy cores.
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    server = Server(folder, port, process)
    try:
        _wait_until_ready(server, process)
        yield server
    except BaseException:
        print(server.log)
        raise
    finally:
        _end(process)


def make_base_directory(folder: Path) -> None:
    """Create the folders that ComfyUI expects in a --base-directory."""
    for name in ("custom_nodes", "models", "input", "output", "user", "temp"):
        (folder / name).mkdir(parents=True, exist_ok=True)


def install_pack(target: Path) -> None:
    """Copy what a clone of this repository would bring, and install its requirements."""
    copy_pack(target)
    requirements = target / "requirements.txt"
    if requirements.is_file():
        _install(tuple(requirements.read_text().split("\n")))


@functools.cache
def _install(lines: tuple[str, ...]) -> None:
    """Install what the lines of a requirements file name, once in a session."""
    packages = [line for line in lines if line.strip() and not line.startswith("#")]
    if packages:
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", *packages], check=True)


def copy_pack(target: Path) -> None:
    """Copy what a clone of this repository would bring.

    Files that are not committed yet come along, so that tests see work in progress.
    """
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():  # not one that is deleted but still in the index
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def _command(folder: Path, port: int, options: tuple[str, ...]) -> list[str]:
    return [
        sys.executable,
        str(find_comfyui() / "main.py"),
        "--cpu",
        "--base-directory",
        str(folder),
        "--database-url",
        f"sqlite:///{folder / 'user' / 'comfyui.db'}",  # the default lies in ComfyUI's folder
        "--listen",
        "127.0.0.1",
        "--port",
        str(port),
        "--disable-auto-launch",
        "--disable-api-nodes",
        *options,
    ]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_until_ready(server: Server, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"ComfyUI ended at start with exit code {process.returncode}")
        with contextlib.suppress(OSError):
            server.get("/system_stats")
            return
        time.sleep(0.2)
    raise TimeoutError(f"ComfyUI was not ready after {START_TIMEOUT} seconds")


def _end(process: subprocess.Popen) -> None:
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
