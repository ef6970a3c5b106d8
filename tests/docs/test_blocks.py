"""Everything that the documentation shows is tried: commands, Python, job files, JSON.

Each page has a folder and a local registry of its own, and a shell whose variables go from block to
block, as a reader's would.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml
from blocks import LANGUAGES, ROOT, Block, blocks_of, pages, without_blocks
from chosen import asked_for
from elsewhere import HOSTS, elsewhere
from support import require_program
from world import World, world

from asyncpush.job.load import load_job

SECONDS = 120
"""What a block may take; it takes two or three where nothing else runs."""

PAGES = [
    page for page in pages() if any(b.language != "text" and not b.excuse for b in blocks_of(page))
]
PROGRAMS = re.compile(r"(?:^|[|(;&])\s*(aws|skopeo|timeout)\b", re.MULTILINE)
"""What pages use of other programs; a page is skipped where one is missing, and fails in CI."""
JOB = next(b.text for b in blocks_of(ROOT / "README.md") if b.file == "job.yaml")
SETTINGS = {"build": "42"}


def test_every_block_is_of_a_kind_that_is_tried_or_has_an_excuse() -> None:
    blocks = [block for page in pages() for block in blocks_of(page)]

    assert len(blocks) > 20
    assert [f"{b}: {b.language!r}" for b in blocks if b.language not in LANGUAGES] == []
    ours = re.compile(r"^(?:\$ )?(?:python -m )?asyncpush ", re.MULTILINE)
    assert [str(b) for b in blocks if b.language == "text" and ours.search(b.text)] == []
    indented = re.compile(r"^ {4,}(?:\$ |asyncpush )", re.MULTILINE)
    assert [page.name for page in pages() if indented.search(without_blocks(page))] == []
    files = [b for b in blocks if b.file and not b.file.startswith("examples/")]
    assert [str(b) for b in files if not _is_used(b)] == []


def _is_used(file: Block) -> bool:
    """Whether a command of its page names a file, which otherwise nobody would try."""
    assert file.file is not None
    name = file.file.rpartition("/")[2]
    return name == "conftest.py" or any(
        name in block.text
        for block in blocks_of(ROOT / file.page)
        if block.language == "sh" and block.line > file.line and not block.excuse
    )


@pytest.fixture(scope="module")
def runs(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[Path, Future[None]]]:
    """The pages that were asked for, as many at once as there are processors."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield {
            page: pool.submit(run_page, page, tmp_path_factory.mktemp(page.stem))
            for page in asked_for(request.session, test_page_does_what_it_says, "page")
        }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_page_does_what_it_says(page: Path, runs: dict[Path, Future[None]]) -> None:
    for block in blocks_of(page):
        if block.language == "sh" and not block.excuse:
            for program in PROGRAMS.findall(block.text):
                require_program(program)
    runs[page].result()


def run_page(page: Path, folder: Path) -> None:
    """Try all blocks of a page, in its order; an assertion tells which of them fails, and how."""
    with ExitStack() as stack:
        reader = stack.enter_context(world(folder))
        hosts = {}
        if any(host in block.text for block in blocks_of(page) for host in HOSTS[:1]):
            address = stack.enter_context(elsewhere(folder, reader))
            hosts = dict.fromkeys(HOSTS, address)
        (reader.folder / "job.yaml").write_text(JOB)
        shell = Shell(reader, hosts)
        try:
            for block in blocks_of(page):
                if not block.excuse:
                    shell.take(block)
        finally:
            shell.end()
        if page == ROOT / "README.md":
            _check_readme(reader)


def _check_readme(reader: World) -> None:
    tags = {
        (account, region): set(reader.ecr.tags("team/app", account=account, region=region))
        for account in ("111122223333", "444455556666")
        for region in ("eu-central-1", "us-east-1")
    }
    bulk = {f"{name}{suffix}" for name in ("v1", "v1.2", "v2") for suffix in ("", "-42")}
    assert tags.pop(("111122223333", "eu-central-1")) == bulk | {"stable"}
    assert all(found == bulk for found in tags.values())
    assert json.loads((reader.folder / "report.json").read_text())["outcome"] == "pushed"


class Shell:
    """The reader's shell: what blocks do, each in a process of its own."""

    def __init__(self, reader: World, hosts: Mapping[str, str]) -> None:
        self._hosts = hosts
        self._reader = reader
        self._environment = dict(reader.environment)
        self._servers: list[subprocess.Popen[str]] = []
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = str(probe.getsockname()[1])

    def take(self, block: Block) -> None:
        """Do with a block what a reader does with it."""
        if block.new_shell:
            self._environment = dict(self._reader.environment)
        text = self._here(block.text)
        if block.file and block.file.startswith("examples/"):
            assert block.text == (ROOT / block.file).read_text(), f"{block}: not as in {block.file}"
            return  # test_examples has it
        if block.file:
            path = self._reader.folder / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        match block.language:
            case "sh" if text.startswith("asyncpush serve "):
                self._serve(block, text)
            case "sh":
                self._run(block, text)
            case "python" if not block.file:
                (self._reader.folder / "block.py").write_text(text)
                self._run(block, f"{sys.executable} -W error block.py")
            case "yaml":
                self._load(block, text)
            case "json":
                json.loads(text)

    def _here(self, text: str) -> str:
        """A block's text for this machine: another port than 5000, no folder of all, no registry of
        others."""
        for host, address in self._hosts.items():
            text = text.replace(f"docker://{host}/", f"docker://{address}/")
        folder = f"{self._reader.folder}/tmp/"
        return re.sub(r"(?<![\w.])/tmp/", folder, re.sub(r"\b5000\b", self._port, text))

    def _load(self, block: Block, text: str) -> None:
        document = yaml.safe_load(text)
        if isinstance(document, dict) and {"version", "sources", "targets"} <= document.keys():
            path = self._reader.folder / (block.file or "block.yaml")
            path.write_text(text)
            assert list(load_job(path, SETTINGS, self._environment).items())
        else:
            assert block.file, f"{block}: neither a job nor a file that a command uses"

    def _run(self, block: Block, script: str) -> None:
        variables = self._reader.folder.parent / "variables"
        try:
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", f"trap 'env -0 > {variables}' EXIT\n{script}"],
                cwd=self._reader.folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as exc:
            pytest.fail(f"{block}: not done after {exc.timeout} s: {exc.output!r} {exc.stderr!r}")
        told = f"{block}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert done.returncode == 0, told
        assert "Traceback" not in done.stderr, told
        pairs = (line.partition("=") for line in variables.read_text().split("\0") if line)
        self._environment = {name: value for name, _, value in pairs}

    def _serve(self, block: Block, command: str) -> None:
        process = subprocess.Popen(
            ["bash", "-c", f"exec {command}"],
            cwd=self._reader.folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._servers.append(process)
        assert process.stdout is not None
        assert "listens on" in process.stdout.readline(), f"{block}: the server does not start"

    def end(self) -> None:
        """End the servers that the page has started."""
        for process in self._servers:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=SECONDS)
            assert process.returncode == 0
