"""Workspaces that are fetched: `workspace: {git: URL}`, and how the result comes back."""

import base64
import os
import socket
import subprocess
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from orchestrator.errors import InputError
from orchestrator.events import Changes, Error, Event, Notice, Outcome
from orchestrator.journal import list_runs, read_record
from orchestrator.supervisor import Supervisor
from orchestrator.task import Source, Task, TaskFile
from tests.scripted_adapter import DONE, PerTask, Step, say, scripted_config
from tests.workspace.https import PASSWORD, USER, served

pytestmark = pytest.mark.anyio

EDIT: Step = {"edit": "file.txt", "old": "one", "new": "two"}


def git(folder: Path, *arguments: str) -> str:
    env = {"PATH": os.environ["PATH"], "HOME": str(folder.parent), "GIT_CONFIG_NOSYSTEM": "1"}
    named = ("-c", "user.name=u", "-c", "user.email=u@localhost", "-c", "init.defaultBranch=main")
    argv = ["git", *named, *arguments]
    done = subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    """A bare repository that somebody serves, with the branches main and other."""
    made = tmp_path / "made"
    made.mkdir()
    git(made, "init", "-q")
    (made / "file.txt").write_text("one\n")
    git(made, "add", ".")
    git(made, "commit", "-qm", "first")
    git(made, "switch", "-qc", "other")
    (made / "other.txt").write_text("x\n")
    git(made, "add", ".")
    git(made, "commit", "-qm", "second")
    git(made, "switch", "-q", "main")
    git(tmp_path, "clone", "-q", "--bare", str(made), "origin.git")
    return tmp_path / "origin.git"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def of(origin: Path, ref: str | None = None) -> Source:
    return Source(url=f"file://{origin}", ref=ref)


def fix(source: Source, **more: object) -> Task:
    task = Task(prompt="p", kind="edit", source=source, check="grep -q two file.txt")
    return replace(task, **more)  # type: ignore[arg-type]


async def run(
    state: Path, task: Task, *steps: Step, environ: dict[str, str] | None = None
) -> tuple[Outcome, list[Event]]:
    environ = environ or {"PATH": os.environ["PATH"], "HOME": str(state.parent)}
    config = scripted_config(state, *(steps or (EDIT, say("done"), DONE)), environ=environ)
    events: list[Event] = []
    async with Supervisor(config) as supervisor:
        return await supervisor.run(task, events.append), events


def changes(outcome: Outcome) -> Changes:
    assert outcome.changes is not None
    return outcome.changes


def told(events: list[Event]) -> str:
    return "\n".join(each.update.text for each in events if isinstance(each.update, Notice | Error))


@pytest.mark.parametrize("ref", [None, "main", "other", "COMMIT"])
async def test_a_task_works_on_what_was_fetched(origin: Path, state: Path, ref: str | None) -> None:
    commit = git(origin, "rev-parse", "other" if ref == "other" else "main")
    outcome, events = await run(state, fix(of(origin, commit if ref == "COMMIT" else ref)))
    outcome.check()
    assert changes(outcome).files == ["file.txt"]
    assert f"commit {commit[:12]}" in told(events)
    (record,) = map(read_record, list_runs(state / "runs"))
    assert record.tree is not None
    assert record.tree.upon == commit
    assert record.task.source == of(origin, commit if ref == "COMMIT" else ref)
    assert not list((state / "trees").glob("0*"))  # what the agent worked in is gone
    assert git(record.task.workspace, "show", f"{changes(outcome).branch}:file.txt") == "two"
    assert git(origin, "for-each-ref", "refs/heads/orchestrate") == ""


async def test_what_came_later_is_fetched_and_a_commit_that_is_there_is_not(
    origin: Path, state: Path
) -> None:
    first = git(origin, "rev-parse", "main")
    (await run(state, fix(of(origin))))[0].check()
    made = origin.parent / "made"
    (made / "file.txt").write_text("one and more\n")
    git(made, "commit", "-qam", "third")
    git(made, "push", "-q", str(origin), "main")
    outcome, _ = await run(state, fix(of(origin), check="grep -q 'two and more' file.txt"))
    outcome.check()
    origin.rename(origin.with_name("away.git"))
    (await run(state, fix(of(origin, first))))[0].check()
    with pytest.raises(InputError, match="cannot fetch main"):
        await run(state, fix(of(origin, "main")))


async def test_many_that_fetch_the_same_take_turns(origin: Path, state: Path) -> None:
    config = scripted_config(
        state, EDIT, DONE, environ={"PATH": os.environ["PATH"], "HOME": str(state.parent)}
    )
    outcomes: list[Outcome] = []

    async def one() -> None:
        async with Supervisor(config) as supervisor:
            outcomes.append(await supervisor.run(fix(of(origin))))

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(one)
    assert [outcome.status for outcome in outcomes] == ["succeeded"] * 3
    assert len(list((state / "repositories").iterdir())) == 1


async def test_push_brings_the_branch_to_where_it_was_fetched(origin: Path, state: Path) -> None:
    outcome, _ = await run(state, fix(of(origin), deliver="push"))
    outcome.check()
    found = changes(outcome)
    assert found.delivered is not None
    assert found.delivered.form == "push"
    assert git(origin, "rev-parse", f"refs/heads/{found.branch}") == found.commit
    assert git(origin, "show", f"{found.branch}:file.txt") == "two"


async def test_a_bundle_comes_back_in_the_outcome(origin: Path, state: Path) -> None:
    outcome, events = await run(state, fix(of(origin), deliver="bundle"))
    found = changes(outcome)
    assert found.delivered is not None
    assert found.delivered.base == git(origin, "rev-parse", "main")
    file = state.parent / "work.bundle"
    file.write_bytes(base64.b64decode(found.delivered.content or ""))
    made = state.parent / "made"
    git(made, "fetch", "-q", str(file), f"{found.branch}:got")
    assert git(made, "rev-parse", "got") == found.commit
    assert git(made, "show", "got:file.txt") == "two"
    # A job's own last event has no copy of it.
    assert (found.delivered.content or "?") not in repr(events[-1])


async def test_a_patch_comes_back_whole_also_of_binary_files(origin: Path, state: Path) -> None:
    blob: Step = {"write": "blob", "text": "\x00\x01\x02 blob"}
    outcome, _ = await run(state, fix(of(origin), deliver="patch"), EDIT, blob, DONE)
    delivered = changes(outcome).delivered
    assert delivered is not None
    file = state.parent / "work.patch"
    file.write_bytes(base64.b64decode(delivered.content or ""))
    made = state.parent / "made"
    git(made, "apply", str(file))
    assert (made / "file.txt").read_text() == "two\n"
    assert (made / "blob").read_bytes() == b"\x00\x01\x02 blob"


async def test_the_last_task_delivers_the_work_of_all(origin: Path, state: Path) -> None:
    first = Task(id="a", prompt="p", kind="edit", source=of(origin), deliver="push")
    second = replace(first, id="b", needs=("a",))
    steps = {"a": [EDIT, DONE], "b": [{"write": "new", "text": "x"}, DONE]}
    config = scripted_config(
        state,
        adapter=PerTask(steps=steps),
        environ={"PATH": os.environ["PATH"], "HOME": str(state.parent)},
    )
    async with Supervisor(config) as supervisor:
        outcome = await supervisor.run(TaskFile(tasks=(first, second)))
    outcome.check()
    branches = git(origin, "for-each-ref", "--format=%(refname)", "refs/heads/orchestrate")
    (branch,) = branches.splitlines()
    assert git(origin, "show", f"{branch}:file.txt") == "two"
    assert git(origin, "show", f"{branch}:new") == "x"


# --- what is refused


@pytest.mark.parametrize("deliver", ["push", "bundle", "patch"])
async def test_a_key_does_not_leave_the_machine_in_the_work(
    origin: Path, state: Path, deliver: str
) -> None:
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(state.parent),
        "MY_API_KEY": "sk-12345678abc",
    }
    task = fix(of(origin), deliver=deliver, env_from=("MY_API_KEY",))
    leak: Step = {"write": "leak", "text": "sk-12345678abc"}
    outcome, _ = await run(state, task, EDIT, leak, DONE, environ=environ)
    assert outcome.status == "conflict"
    assert outcome.error is not None
    assert outcome.error.text == "not delivered: the work holds the value of a key"
    assert changes(outcome).delivered is None
    assert git(origin, "for-each-ref", "refs/heads/orchestrate") == ""


async def test_what_is_too_large_for_an_outcome_stays_where_it_is(
    origin: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.workspace.deliver.RESULT", 10)
    outcome, _ = await run(state, fix(of(origin), deliver="bundle"))
    assert outcome.status == "conflict"
    assert outcome.error is not None
    assert "10 go" in outcome.error.text
    assert "branch orchestrate/" in (outcome.error.hint or "")


async def test_a_push_that_is_refused_is_no_success(origin: Path, state: Path) -> None:
    hook = origin / "hooks/pre-receive"
    hook.write_text("#!/bin/sh\necho not you >&2\nexit 1\n")
    hook.chmod(0o755)
    outcome, _ = await run(state, fix(of(origin), deliver="push"))
    assert outcome.status == "conflict"
    assert outcome.error is not None
    assert "not you" in outcome.error.text


async def test_what_an_agent_plants_in_the_cache_is_not_executed(
    origin: Path, state: Path, tmp_path: Path
) -> None:
    trap = tmp_path / "trapped"
    (await run(state, fix(of(origin))))[0].check()
    (cache,) = (state / "repositories").iterdir()
    (cache / ".git/config").write_text(
        f"[core]\n\tsshCommand = touch {trap}\n\tfsmonitor = touch {trap}\n"
        f'[credential]\n\thelper = "!touch {trap}"\n[url "ext::touch {trap}"]\n'
        f"\tinsteadOf = file://\n[uploadpack]\n\tpackObjectsHook = touch {trap}\n"
    )
    hooks = cache / ".git/hooks"
    hooks.mkdir()
    for name in ("pre-push", "post-checkout", "reference-transaction", "post-index-change"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch {trap}\n")
        (hooks / name).chmod(0o755)
    outcome, _ = await run(state, fix(of(origin), deliver="push"))
    outcome.check()
    assert not trap.exists()


async def test_a_transport_that_runs_programs_is_not_spoken_whatever_a_configuration_says(
    origin: Path, state: Path, tmp_path: Path
) -> None:
    trap = tmp_path / "trapped"
    (tmp_path / ".gitconfig").write_text(
        f'[protocol]\n\tallow = always\n[url "ext::touch {trap} "]\n\tinsteadOf = file://\n'
    )
    with pytest.raises(InputError, match=r"transport 'ext' not allowed"):
        await run(state, fix(of(origin)))
    assert not trap.exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"source": Source(url="ext::sh -c x")}, "begins with https://"),
        ({"source": Source(url="http://h/r.git")}, "begins with https://"),
        ({"source": Source(url="--upload-pack=x")}, "begins with https://"),
        ({"source": Source(url="ssh://-oProxyCommand=x/r")}, "begins with https://"),
        ({"source": Source(url="https://u:p@h/r.git")}, "no name or password"),
        ({"source": Source(url="file:///r", ref="--help")}, "name of a branch"),
        ({"source": Source(url="file:///r", ref="a:b")}, "name of a branch"),
        ({"deliver": "apply"}, "no files of yours"),
        ({"isolation": "none"}, "work trees alone"),
        ({"copy": (".env",)}, "no untracked files"),
        ({"source": None, "deliver": "push"}, "where the workspace was fetched"),
    ],
)
async def test_what_cannot_be_fetched_or_delivered_is_refused_before_anything_is_started(
    origin: Path, state: Path, more: dict[str, object], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        await run(state, replace(fix(of(origin)), **more))  # type: ignore[arg-type]
    assert not (state / "jobs").exists()


async def test_over_https_the_users_own_credentials_fetch_and_push(
    origin: Path, state: Path, tmp_path: Path
) -> None:
    with served(tmp_path) as (address, certificate):
        source = Source(url=f"{address}/origin.git")
        own = tmp_path / ".gitconfig"
        own.write_text(f"[http]\n\tsslCAInfo = {certificate}\n")
        with pytest.raises(InputError, match="could not read Username") as error:
            await run(state, fix(source))  # nobody is asked for a password
        assert "its credentials are used" in (error.value.hint or "")
        helper = f'"!f() {{ echo username={USER}; echo password={PASSWORD}; }}; f"'
        own.write_text(f"{own.read_text()}[credential]\n\thelper = {helper}\n")
        outcome, events = await run(state, fix(source, deliver="push"))
        outcome.check()
    assert git(origin, "show", f"{changes(outcome).branch}:file.txt") == "two"
    assert PASSWORD not in told(events)


async def test_a_server_that_cannot_be_reached_by_ssh_is_told_in_sshs_own_words(
    state: Path, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    source = Source(url=f"ssh://127.0.0.1:{port}/r.git")
    with pytest.raises(InputError, match="Connection refused"):
        await run(state, fix(source))
    (tmp_path / "ssh").write_text(
        "#!/bin/sh\necho 'Permission denied (publickey).' >&2\nexit 255\n"
    )
    (tmp_path / "ssh").chmod(0o755)
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "GIT_SSH": str(tmp_path / "ssh")}
    with pytest.raises(InputError, match=r"Permission denied \(publickey\)"):
        await run(state, fix(source), environ=environ)


async def test_a_ref_that_is_not_there_is_told_in_gits_own_words(origin: Path, state: Path) -> None:
    with pytest.raises(InputError, match="find remote ref nowhere") as error:
        await run(state, fix(of(origin, "nowhere")))
    assert "git ls-remote" in (error.value.hint or "")
