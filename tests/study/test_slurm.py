"""The study on a Slurm of its own on this machine: real daemons, real jobs, two kinds of remote."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Project, slow

DAEMONS = ("munged", "slurmctld", "slurmd")
MISSING = [name for name in DAEMONS if not shutil.which(name, path="/usr/sbin:/usr/local/sbin")]

needs_slurm = pytest.mark.skipif(
    bool(MISSING), reason="needs Debian's packages slurm-wlm and munge"
)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="slurmd starts jobs as root only")

# Nothing is measured, bound to cores or shared, so that it runs in a container.
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_interval=1
ReturnToService=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
NodeName={host} NodeAddr=127.0.0.1 CPUs=2
PartitionName=all Nodes=ALL Default=YES
"""


def until(done, what, seconds=60.0):
    """What `done` returns, as soon as that is something."""
    end = time.monotonic() + seconds
    while not (result := done()):
        assert time.monotonic() < end, what()
        time.sleep(0.05)
    return result


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [open_.getsockname()[1] for open_ in sockets]
    for open_ in sockets:
        open_.close()
    return ports


def write_configuration(folder):
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(128))
    controller, node = free_ports(2)
    host = socket.gethostname().partition(".")[0]
    path = folder / "slurm.conf"
    path.write_text(
        CONFIGURATION.format(folder=folder, host=host, controller=controller, node=node),
        encoding="utf-8",
    )
    return path


def commands(folder, configuration):
    """Of the daemons, in the foreground, with all files in the folder."""
    names = {"socket": "socket", "key-file": "key", "log-file": "log", "pid-file": "pid"}
    names["seed-file"] = "seed"
    munge = [f"--{option}={folder}/munge.{name}" for option, name in names.items()]
    # Forced, since the socket lies in a folder that is closed to others.
    yield ["munged", "--foreground", "--force", *munge]
    yield ["slurmctld", "-D", "-f", str(configuration)]
    yield ["slurmd", "-D", "-f", str(configuration)]


@pytest.fixture
@slow
def slurm(tmp_path_factory) -> Iterator[dict[str, str]]:
    """A Slurm with one node; the environment in which its commands find it."""
    folder = tmp_path_factory.mktemp("slurm")
    configuration = write_configuration(folder)
    environment = {"SLURM_CONF": str(configuration)}
    path = {"PATH": "/usr/local/sbin:/usr/sbin:" + os.environ["PATH"]}
    log = folder / "daemons.log"
    daemons: list[subprocess.Popen[bytes]] = []

    def output_of(*command: str) -> str:
        done = subprocess.run(
            command, env=os.environ | environment, check=False, capture_output=True, text=True
        )
        return done.stdout

    try:
        with log.open("wb") as output:
            for command in commands(folder, configuration):
                daemons.append(
                    subprocess.Popen(
                        command,
                        env=os.environ | path | environment,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                    )
                )
                if command[0] == "munged":
                    until((folder / "munge.socket").exists, log.read_text)
        until(lambda: "idle" in output_of("sinfo", "--noheader", "--format=%T"), log.read_text)
        yield environment
        output_of("scancel", "--user=root")
        until(lambda: not output_of("squeue", "--noheader"), log.read_text)
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(30)


@pytest.fixture
def store(tmp_path) -> Iterator[tuple[str, Path]]:
    """The URL of a store over SSH, and the key to it."""
    command = [sys.executable, str(Path(__file__).with_name("sftp_server.py")), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            port = server.stdout.readline().strip()
            yield f"ssh://somebody@127.0.0.1:{port}/remote", tmp_path / "key"
        finally:
            server.terminate()


class Study:
    """A clone of a study in a folder from which it is submitted."""

    def __init__(self, origin: Project, folder: Path, slurm: dict[str, str]) -> None:
        origin.run("git", "clone", "--quiet", str(origin.folder), str(folder))
        self.origin, self.project, self.slurm = origin, Project(folder), slurm

    def submit(self) -> None:
        """Send the chain, with one core for each job, so that two jobs run side by side."""
        self.project.run("cluster/slurm/submit", "--cpus-per-task=1", **self.slurm)

    def jobs(self) -> str:
        return self.project.run("squeue", "--noheader", "--format=%j %T %r", **self.slurm)

    def wait(self) -> None:
        until(lambda: not self.jobs(), lambda: f"{self.jobs()}\n{self.logs('')}", seconds=300)

    def logs(self, job: str) -> dict[str, str]:
        paths = sorted((self.project.folder / ".slurm").glob(f"{job}*.log"))
        return {path.name: path.read_text(encoding="utf-8") for path in paths}

    def trained(self, job: str) -> list[str]:
        """Stages that train, and that jobs of this name ran."""
        text = "".join(self.logs(job).values())
        return sorted(re.findall(r"Running stage '(train@\w+|sampled)'", text))

    def check_that_the_head_has_what_others_trained(self) -> None:
        """It trained nothing, and has the bytes of the origin, which trained all by itself."""
        [head] = self.logs("head").values()
        assert self.trained("head") == []
        assert "Running stage 'evaluate@L2'" in head
        results = ("dvc.lock", "metrics", "plots", "models")
        ours, theirs = self.project.content(*results), self.origin.content(*results)
        assert len(ours) > 10
        assert ours == theirs

    def task_of(self, stage: str) -> str | None:
        """The number of the array's task that runs the stage now."""
        for name, text in self.logs("train").items():
            if f"Running stage '{stage}'" in text:
                return re.sub(r"train-(\d+_\d+)\.log", r"\1", name)
        return None


@needs_slurm
@needs_root
def test_a_study_goes_over_machines_and_only_what_died_is_done_again(few, slurm, tmp_path):
    folder = tmp_path / "study"
    study = Study(few, folder, slurm)
    study.project.run("dvc", "remote", "add", "--local", "--default", "r", str(tmp_path / "remote"))

    study.submit()
    task = until(lambda: study.task_of("train@L2"), lambda: study.logs(""))
    study.project.run("scancel", "--signal=KILL", "--full", task, **slurm)
    study.wait()
    assert study.trained("train") == ["sampled", "train@L1", "train@L2"]
    assert not study.logs("head")  # it does not start where models are missing
    shutil.rmtree(folder / ".slurm")

    study.submit()
    study.wait()
    assert len(study.logs("train")) == 3
    assert study.trained("train") == ["train@L2"]
    study.check_that_the_head_has_what_others_trained()
    assert not list((folder / ".checkpoints").iterdir())


@needs_slurm
@needs_root
def test_the_remote_may_be_reached_over_ssh(few, slurm, store, tmp_path):
    url, key = store
    study = Study(few, tmp_path / "study", slurm)
    study.project.run("dvc", "remote", "add", "--local", "--default", "r", url)
    study.project.run("dvc", "remote", "modify", "--local", "r", "keyfile", str(key))
    study.submit()
    study.wait()
    assert study.trained("train") == ["sampled", "train@L1", "train@L2"]
    study.check_that_the_head_has_what_others_trained()
    assert (tmp_path / "store/remote/runs").is_dir()


RELATIVE = "error: the DVC remote has a relative path"


@pytest.mark.parametrize(
    ("settings", "changed", "message"),
    [
        ({}, False, "error: no DVC remote that all machines reach: run 'dvc remote add"),
        ({"url": "../remote"}, False, RELATIVE),
        ({"url": "ssh://host/remote", "keyfile": "key"}, False, RELATIVE),
        ({"url": "/remote"}, True, "error: jobs work on clones without the uncommitted changes"),
    ],
)
def test_what_the_jobs_would_not_see_is_not_submitted(few, tmp_path, settings, changed, message):
    folder = tmp_path / "study"
    few.run("git", "clone", "--quiet", str(few.folder), str(folder))
    project = Project(folder)
    if settings:
        project.run("dvc", "remote", "add", "--local", "--default", "r", settings["url"])
    if "keyfile" in settings:
        project.run("dvc", "remote", "modify", "--local", "r", "keyfile", settings["keyfile"])
    if changed:
        (folder / "params.yaml").write_text("", encoding="utf-8")
    with pytest.raises(AssertionError, match=message):
        project.run("cluster/slurm/submit")
    assert not (folder / ".slurm").exists()
