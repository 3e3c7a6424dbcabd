"""`agents install`: what is installed, what is left alone, what stays behind when it fails."""

import base64
import hashlib
import json
import os
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from types import MappingProxyType

import anyio
import pytest

from orchestrator.adapter import About, Adapter, Install, Program
from orchestrator.config import Config
from orchestrator.discovery import survey
from orchestrator.discovery.survey import survey_with
from orchestrator.errors import ConfigError, OrchestrateError
from orchestrator.install import Installed, install
from orchestrator.process import open_reaper
from tests.scripted_adapter import Scripted, scripted_config

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]

NPM = """#!/bin/sh
set -e
[ "$1 $2" = "ci --prefix" ]
env >{log}/env
echo x >>{log}/calls
{before}
mkdir -p "$3/node_modules/.bin"
printf '#!/bin/sh\\necho tiny {version}\\n' >"$3/node_modules/.bin/tiny"
chmod +x "$3/node_modules/.bin/tiny"
"""
PROGRAM = Program(name="tiny")


@dataclass
class Place:
    """A machine with nothing but a program called npm, which does what a test wants."""

    folder: Path
    said: list[str] = field(default_factory=list[str])

    def npm(self, *, before: str = "", version: str = "1.2.3") -> None:
        path = self.folder / "bin/npm"
        path.parent.mkdir(exist_ok=True)
        path.write_text(NPM.format(log=self.folder, before=before, version=version))
        path.chmod(0o755)

    @property
    def calls(self) -> int:
        file = self.folder / "calls"
        return len(file.read_text().split()) if file.exists() else 0

    @property
    def agents(self) -> Path:
        return self.folder / "data/agents"

    @property
    def versions(self) -> list[Path]:
        return sorted(path for path in (self.agents / ".versions").iterdir() if path.is_dir())

    def about(self, **fields: object) -> About:
        lock = self.folder / "package-lock.json"
        lock.write_text("{}")
        lock.with_name("package.json").write_text("{}")
        how = Install(kind="npm", lock=str(lock), megabytes=1, minutes=1)
        given = {"program": PROGRAM, "tested": ("1.2.3",), "install": how, **fields}
        return About(name="tiny", title="Tiny", **given)  # type: ignore[arg-type]

    async def install(
        self,
        about: About | None = None,
        *,
        name: str = "tiny",
        force: bool = False,
        environ: Mapping[str, str] | None = None,
    ) -> Installed:
        adapter: Adapter = Scripted(about=about or self.about())
        path = os.pathsep.join((str(self.folder / "bin"), "/usr/bin", "/bin"))
        config = Config(
            adapters=MappingProxyType({"tiny": adapter}),
            state=self.folder / "state",
            agents_folder=self.agents,
            environ={"PATH": path, "HOME": str(self.folder), **(environ or {})},
        )
        return await install(name, config, self.said.append, force=force)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = Place(tmp_path)
    made.npm()
    return made


async def test_size_and_time_are_said_first_then_it_is_there_with_its_version(place: Place) -> None:
    done = await place.install()
    assert (done.version, done.fresh) == ("1.2.3", True)
    assert place.said[0].startswith("Tiny 1.2.3 takes about 1 MB on disk and a minute")
    assert (place.agents / "tiny/node_modules/.bin/tiny").samefile(done.path)


async def test_what_is_there_in_a_tested_version_is_left_alone(place: Place) -> None:
    await place.install()
    again = await place.install()
    assert (again.fresh, place.calls) == (False, 1)
    assert again.path.startswith(str(place.agents))


async def test_one_on_path_in_a_tested_version_is_left_alone_too(place: Place) -> None:
    tiny = place.folder / "bin/tiny"
    tiny.write_text("#!/bin/sh\necho 1.2.3\n")
    tiny.chmod(0o755)
    assert await place.install() == Installed(path=str(tiny), version="1.2.3", fresh=False)
    assert place.calls == 0


async def test_an_untested_version_is_replaced(place: Place) -> None:
    tiny = place.folder / "bin/tiny"
    tiny.write_text("#!/bin/sh\necho 0.9.9\n")
    tiny.chmod(0o755)
    assert (await place.install()).fresh


async def test_force_makes_a_new_one_and_removes_the_old_one(place: Place) -> None:
    await place.install()
    (first,) = place.versions
    assert (await place.install(force=True)).fresh
    assert first not in place.versions
    assert len(place.versions) == 1


async def test_an_old_one_that_somebody_runs_stays_until_nobody_does(place: Place) -> None:
    place.npm(before='mkdir -p "$3/bin"; cp /bin/sleep "$3/bin/sleep"')
    await place.install()
    (old,) = place.versions
    async with await anyio.open_process([str(old / "bin/sleep"), "60"]) as process:
        await place.install(force=True)
        assert old in place.versions
        process.kill()
    await place.install(force=True)
    assert old not in place.versions


async def test_a_failure_tells_the_tools_last_words_and_leaves_what_was_there(place: Place) -> None:
    first = await place.install()
    place.npm(before="echo no such package; exit 7")
    with pytest.raises(OrchestrateError, match=r"npm failed \(7\):\nno such package") as caught:
        await place.install(force=True)
    assert not isinstance(caught.value, ConfigError)
    assert len(place.versions) == 1
    assert (await place.install()).path == first.path


async def test_another_version_than_the_tested_one_is_not_taken(place: Place) -> None:
    place.npm(version="9.9")
    with pytest.raises(OrchestrateError, match=r"it is 9\.9, 1\.2\.3 was expected"):
        await place.install()
    place.npm(version="")
    with pytest.raises(OrchestrateError, match=r"it does not run, 1\.2\.3 was expected"):
        await place.install()
    assert place.versions == []
    assert not (place.agents / "tiny").exists()


async def test_an_interrupted_one_leaves_no_process_and_no_file(place: Place) -> None:
    place.npm(before=f"echo $$ >{place.folder}/pid; mkdir -p $3/x; sleep 60")
    pid = place.folder / "pid"
    with anyio.move_on_after(30) as scope:
        async with anyio.create_task_group() as group:
            group.start_soon(place.install)
            while not pid.exists() or not pid.read_text():
                await anyio.sleep(0.02)
            group.cancel_scope.cancel()
    assert not scope.cancelled_caught
    assert not Path("/proc", pid.read_text().strip()).exists()
    assert place.versions == []
    place.npm()
    assert (await place.install()).fresh


async def test_what_a_killed_one_left_is_swept_by_the_next_and_nobody_elses(place: Place) -> None:
    versions = place.agents / ".versions"
    left, others = versions / "tiny-1.2.2-0123abcd", versions / "tiny-er-1.0-0123abcd"
    left.mkdir(parents=True)
    others.mkdir()
    await place.install()
    assert not left.exists()
    assert others.exists()


async def test_two_at_once_install_it_once(place: Place) -> None:
    place.npm(before="sleep 1")
    done: list[Installed] = []

    async def one() -> None:
        done.append(await place.install())

    async with anyio.create_task_group() as group:
        group.start_soon(one)
        group.start_soon(one)
    assert sorted(each.fresh for each in done) == [False, True]
    assert place.calls == 1
    assert "tiny is being installed already; waiting for that" in place.said


async def test_a_folder_that_somebody_else_put_there_gives_way(place: Place) -> None:
    (place.agents / "tiny/bin").mkdir(parents=True)
    assert (await place.install()).fresh
    assert (place.agents / "tiny").is_symlink()


async def test_tools_get_their_own_settings_and_no_key(place: Place) -> None:
    settings = {"npm_config_registry": "r", "HTTPS_PROXY": "p", "PIP_CERT": "c"}
    await place.install(environ={**settings, "OPENAI_API_KEY": "k", "PIP_TARGET": "t"})
    env = (place.folder / "env").read_text()
    for line in ("npm_config_registry=r", "HTTPS_PROXY=p", "PIP_CERT=c"):
        assert f"{line}\n" in env
    assert "API_KEY" not in env
    assert "PIP_TARGET" not in env


async def test_what_cannot_be_installed_says_why(place: Place, monkeypatch) -> None:
    with pytest.raises(ConfigError, match=r"no adapter 'tyni' \(known: tiny\)"):
        await place.install(name="tyni")
    with pytest.raises(ConfigError) as caught:
        await place.install(place.about(install="get it"))
    assert caught.value.hint == "get it"
    how = Install(kind="npm", lock="/gone", megabytes=1, minutes=1)
    with pytest.raises(ConfigError, match="its lock is not there: /gone"):
        await place.install(place.about(install=how))
    with pytest.raises(ConfigError, match="npm is not installed"):
        await place.install(environ={"PATH": str(place.folder / "nothing")})
    pip = Install(kind="pip", lock=__file__, megabytes=1, minutes=1, python_below=(3, 11))
    with pytest.raises(ConfigError, match=r"it needs Python 3\.11 to 3\.10"):
        await place.install(place.about(install=pip))
    large = Install(kind="npm", lock=__file__, megabytes=10**9, minutes=1)
    with pytest.raises(OrchestrateError, match="about 1000000000 MB are needed"):
        await place.install(place.about(install=large))
    (place.folder / "file").write_text("")
    monkeypatch.setattr(Place, "agents", place.folder / "file/agents")
    with pytest.raises(OrchestrateError, match="cannot make"):
        await place.install()


# --- the real pip and npm, with a package that needs no registry


def wheel(folder: Path) -> str:
    """A wheel with a program `tiny`; its hash."""
    info = "tiny-1.2.3.dist-info"
    files = {
        "tiny.py": "def main():\n    print('1.2.3')\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: tiny\nVersion: 1.2.3\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[console_scripts]\ntiny = tiny:main\n",
        f"{info}/RECORD": "",
    }
    path = folder / "tiny-1.2.3-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return hashlib.sha256(path.read_bytes()).hexdigest()


async def test_pip_installs_what_the_lock_says_by_its_hash_alone(place: Place) -> None:
    """With an interpreter that is old enough: ours, where ours is not too new."""
    below = (3, 12) if sys.version_info < (3, 12) else None
    digest = wheel(place.folder)
    lock = place.folder / "requirements.txt"
    lock.write_text(f"tiny==1.2.3 --hash=sha256:{digest}\n")
    how = Install(kind="pip", lock=str(lock), megabytes=1, minutes=1, python_below=below)
    about = place.about(install=how)
    local = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(place.folder)}
    done = await place.install(about, environ=local)
    assert (done.version, done.fresh) == ("1.2.3", True)
    lock.write_text(f"tiny==1.2.3 --hash=sha256:{'0' * 64}\n")
    with pytest.raises(OrchestrateError, match="DO NOT MATCH THE HASHES"):
        await place.install(about, force=True, environ=local)
    assert len(place.versions) == 1


async def test_npm_installs_what_the_lock_says_and_runs_no_script(place: Place) -> None:
    npm = place.folder / "bin/npm"
    npm.unlink()
    package = {"name": "tiny", "version": "1.2.3", "bin": {"tiny": "tiny.sh"}}
    scripts = {"postinstall": f"touch {place.folder}/ran"}
    files = {
        "package/package.json": json.dumps({**package, "scripts": scripts}),
        "package/tiny.sh": "#!/bin/sh\necho 1.2.3\n",
    }
    tarball = place.folder / "tiny.tgz"
    with tarfile.open(tarball, "w:gz") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(text), 0o755
            archive.addfile(entry, BytesIO(text.encode()))
    digest = base64.b64encode(hashlib.sha512(tarball.read_bytes()).digest()).decode()
    wants = {"name": "all", "dependencies": {"tiny": f"file:{tarball}"}}
    locked = {"version": "1.2.3", "resolved": f"file:{tarball}", "integrity": f"sha512-{digest}"}
    about = place.about()
    assert isinstance(about.install, Install)
    lock = Path(about.install.lock)
    lock.with_name("package.json").write_text(json.dumps(wants))
    packages = {"": wants, "node_modules/tiny": {**locked, "bin": package["bin"]}}
    lock.write_text(json.dumps({"name": "all", "lockfileVersion": 3, "packages": packages}))
    done = await place.install(about, environ={"npm_config_offline": "true"})
    assert (done.version, done.fresh) == ("1.2.3", True)
    assert not (place.folder / "ran").exists()


async def test_a_program_that_states_no_version_is_a_problem_in_the_list(tmp_path: Path) -> None:
    program = tmp_path / "bin" / "scripted-cli"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho native binary not installed >&2; exit 1\n")
    program.chmod(0o755)
    about = About(
        name="scripted",
        title="Scripted",
        program=Program(name="scripted-cli"),
        tested=("2.0",),
        install="make it",
    )
    environ = {"PATH": f"{program.parent}:/usr/bin:/bin"}
    adapter = Scripted(about=about)
    config = scripted_config(tmp_path / "state", adapter=adapter, environ=environ)
    (found,) = (await survey(config)).adapters
    assert found.problem == f"{program} states no version; does it run? (make it)"


async def test_who_is_in_a_hurry_takes_the_word_of_the_package(tmp_path: Path) -> None:
    program = tmp_path / "node_modules/@its/cli/bin/scripted-cli"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\necho 2.0\n")
    program.chmod(0o755)
    package = tmp_path / "node_modules/@its/cli/package.json"
    about = About(name="scripted", title="Scripted", program=Program(name="scripted-cli"))
    config = scripted_config(
        tmp_path / "state",
        adapter=Scripted(about=about),
        environ={"PATH": f"{program.parent}:/usr/bin:/bin"},
    )

    async def stated(limit_s: float) -> str | None:
        async with open_reaper() as reaper:
            surveyed = await survey_with(config, reaper, limit_s=limit_s)
        shutil.rmtree(tmp_path / "state", ignore_errors=True)
        return surveyed.adapters[0].version

    package.write_text('{"version": "1.0.0"}')
    assert [await stated(20), await stated(30)] == ["1.0.0", "2.0"]
    for no_plain_version in ('{"version": "1.0.0-linux-x64"}', '{"version": 1}', "[]", "rubbish"):
        package.write_text(no_plain_version)
        assert await stated(20) == "2.0"
    package.unlink()
    assert await stated(20) == "2.0"
