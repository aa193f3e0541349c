"""`volback.toml`: what is read from it, and that each problem is named with file, line, key and what was expected."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from volback.config.loading import find_files, load_config
from volback.config.model import Config, Job, JobLimits, Sources
from volback.config.secrets import UnreadableSecret
from volback.config.toml import write_toml
from volback.errors import NotFoundError, UsageError
from volback.jobs.open_config import check_config, environment_of, open_config
from volback.policy.durations import CalendarDuration
from volback.policy.hooks import Hook
from volback.policy.keep import UNLIMITED, KeepRules
from volback.settings import standard_files
from volback.store.locate import keys_of

GOOD = """\
[repositories.main]
url = "/srv/backups"
[notifications.ops]
urls = "json://localhost"
"""
LINES = GOOD.count("\n")

Load = Callable[..., Config]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Loads texts, each as a file of its own: a.toml, b.toml, ..."""

    def load(*texts: str | bytes, environment: dict[str, str] | None = None) -> Config:
        files = []
        for name, text in zip("abcdef", texts, strict=False):
            files.append(tmp_path / f"{name}.toml")
            files[-1].write_bytes(text if isinstance(text, bytes) else text.encode())
            files[-1].chmod(0o600)
        return load_config(files, environment or {}, keys_of=keys_of)

    return load


def reported(config: Config, directory: Path) -> list[str]:
    return [str(problem).replace(f"{directory}/", "") for problem in check_config(config)]


def test_a_job_with_every_key(load: Load) -> None:
    config = load(
        GOOD
        + """\
[repositories.offsite]
url = "s3://bucket/${PREFIX}"
access_key_id = "id"
secret_access_key = "${SECRET}"
environment = { VOLBACK_S3_REGION = "eu" }
[jobs.nightly]
volumes = ["db", "uploads"]
all = true
label = "backup=yes"
project = "shop"
containers = ["pg"]
directories = ["/srv/www/"]
exclude = "*.log"
level = 9
tags = ["nightly"]
shrink_ratio = 0
full = true
full_every = "30d"
reread = true
reread_every = "1w"
ignore_inode = true
ignore_ctime = true
quiesce = "pause"
two_pass = false
stop_timeout = 30
exec_pre = [{ container = "pg", command = "dump", user = "postgres", timeout = "1h 30m" }]
exec_post = { container = "pg", command = "clean $${X}" }
repository = ["main", "offsite"]
reencrypt = true
keep = { last = 1, hourly = 2, daily = 3, weekly = 4, monthly = 5, yearly = 6, within = "2d", tags = ["keep"] }
verify_subset = "1/7"
grace = "2d"
repack = false
max_repack = "1GiB"
repack_below = "30%"
schedule = "30  2 * * mon-fri"
timezone = "Europe/Berlin"
jitter = "5m"
wait = "30m"
limits = { cpus = 1.5, memory = "512MiB", io_class = "idle", bandwidth = "10 MiB/s" }
notify = "ops"
[metrics]
textfile = "/var/lib/volback.prom"
""",
        environment={"PREFIX": "here", "SECRET": "hush"},
    )
    assert config.problems == ()
    assert config.jobs["nightly"] == Job(
        name="nightly",
        repositories=("main", "offsite"),
        sources=Sources(("db", "uploads"), True, ("backup=yes",), ("shop",), ("pg",), ("/srv/www",)),
        excludes=("*.log",),
        level=9,
        tags=("nightly",),
        shrink_ratio=0.0,
        full=True,
        full_every_s=30 * 86_400.0,
        reread=True,
        reread_every_s=7 * 86_400.0,
        ignore_inode=True,
        ignore_ctime=True,
        quiesce="pause",
        two_pass=False,
        stop_timeout_s=30.0,
        hooks_pre=(Hook("pg", "dump", "postgres", 5400.0),),
        hooks_post=(Hook("pg", "clean ${X}"),),
        reencrypt=True,
        keep=KeepRules(1, 2, 3, 4, 5, 6, CalendarDuration(days=2), ("keep",)),
        verify_parts=7,
        grace_s=2 * 86_400,
        repack=False,
        max_repack_bytes=1024**3,
        repack_below=0.3,
        schedule="30 2 * * mon-fri",
        timezone="Europe/Berlin",
        jitter_s=300.0,
        wait_s=1800.0,
        limits=JobLimits(1.5, 512 * 1024**2, "idle", 10 * 1024**2),
        notify=("ops",),
    )
    offsite = config.repositories["offsite"]
    assert offsite.url == "s3://bucket/here"
    assert {key: secret.reveal() for key, secret in offsite.credentials.items()} == {
        "access_key_id": "id",
        "secret_access_key": "hush",
    }
    assert "hush" not in repr(config)
    assert environment_of(offsite, {"VOLBACK_S3_REGION": "us", "A": "b"}) == {"VOLBACK_S3_REGION": "eu", "A": "b"}
    assert config.metrics is not None
    assert config.notifications["ops"].on == ("failure", "warning")


def test_the_least_job(load: Load) -> None:
    config = load(GOOD + '[jobs.n]\nrepository = "main"\n')
    assert config.jobs["n"] == Job(name="n", repositories=("main",))


@pytest.mark.parametrize("count", ["-1", '"unlimited"'])
def test_a_job_keeps_all_as_labels_and_options_do(load: Load, count: str) -> None:
    config = load(GOOD + f'[jobs.n]\nrepository = "main"\nkeep = {{ daily = 7, yearly = {count} }}\n')
    assert config.jobs["n"].keep == KeepRules(daily=7, yearly=UNLIMITED)


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("[jobs.n]\n", 1, "jobs.n: has no repository"),
        ("[jobs.n]\nrepository = 'main'\nlevel = 0", 3,
         "jobs.n.level: expected a whole number from 1 to 19, not 0"),
        ("[jobs.n]\nrepository = 'main'\nshrink_ratio = 1.5", 3,
         "jobs.n.shrink_ratio: expected a number from 0 to 1, such as 0.2, not 1.5"),
        ("[jobs.n]\nrepository = 'main'\nreencrypt = true", 3,
         "jobs.n.reencrypt: has no effect without a second repository, into which backups are copied"),
        ("[jobs.n]\nrepository = 'main'\nverify_subset = '3/7'", 3,
         'jobs.n.verify_subset: "3/7" is not a part of the data: write it like 1/7, up to 1/366'),
        ("[jobs.n]\nrepository = 'main'\nlevel = true", 3,
         "jobs.n.level: expected a whole number from 1 to 19, not true"),
        ("[jobs.n]\nrepository = 'main'\n\nquiesce = 'freeze'", 4,
         'jobs.n.quiesce: expected stop, pause or none, not "freeze"'),
        ("[jobs.n]\nrepository = 'main'\nstop-timeout = '1s'", 3,
         "jobs.n.stop-timeout: is unknown; did you mean stop_timeout?"),
        ("[jobs.n]\nrepository = 'main'\nstop_timeout = 'soon'", 3,
         'jobs.n.stop_timeout: "soon" is not a duration: '
         "write a number and a unit, such as 90s, 30m, 24h, 2d or 1h30m"),
        ("[jobs.n]\nrepository = 'main'\nexec_pre = { container = 'c', command = 'x', timeout = 0 }", 3,
         "jobs.n.exec_pre[0].timeout: 0 is not a time limit: write a time above 0, such as 10m"),
        ("[jobs.n]\nrepository = 'main'\nkeep = { last = 1, daily = 'some' }", 3,
         'jobs.n.keep.daily: "some" is not a number of backups: write 0 or more, or unlimited'),
        ("[jobs.n]\nrepository = 'main'\nschedule = '30 2 * *'", 3,
         'jobs.n.schedule: expected a cron expression such as "30 2 * * *" or @daily, not "30 2 * *"'),
        ("[jobs.n]\nrepository = 'main'\nschedule='@daily'\ntimezone = 'Europe/Berlim'", 4,
         'jobs.n.timezone: expected a time zone such as Europe/Berlin, not "Europe/Berlim"'),
        ("[jobs.n]\nrepository = 'main'\njitter = '5m'", 3, "jobs.n.jitter: has no effect without a schedule"),
        ("[jobs.n]\nrepository = 'mian'", 2,
         "jobs.n.repository: no [repositories.mian] is defined; there are main"),
        ("[jobs.n]\nrepository = 'main'\nnotify = ['ops', 'boss']", 3,
         "jobs.n.notify: no [notifications.boss] is defined; there are ops"),
        ("[jobs.n]\nrepository = 'main'\nvolumes = [1]", 3,
         "jobs.n.volumes: expected a text, or a list of texts, not a list that holds something else"),
        ("[jobs.n]\nrepository = 'main'\ndirectories = 'www'", 3,
         'jobs.n.directories: expected an absolute path, or a list of them, not "www"'),
        ("[jobs.n]\nrepository = 'main'\nall = 'yes'", 3, 'jobs.n.all: expected true or false, not "yes"'),
        ("[jobs.n]\nrepository = 'main'\n[jobs.n.keep]\nlats = 3\nlast = 2", 4,
         "jobs.n.keep.lats: is unknown; did you mean last?"),
        ("[jobs.n]\nrepository = 'main'\nkeep = {}", 3,
         "jobs.n.keep: keeps nothing: give one rule at least, such as last = 7"),
        ("[jobs.n]\nrepository = 'main'\nkeep = 7", 3, "jobs.n.keep: expected a table, not 7"),
        ("[jobs.n]\nrepository = 'main'\nlimits.memory = '1MiB'", 3,
         'jobs.n.limits.memory: expected a size of 6 MiB or more, such as 512MiB, not "1MiB"'),
        ("[jobs.n]\nrepository = 'main'\nlimits.io_class = 'realtime'", 3,
         'jobs.n.limits.io_class: expected idle or best-effort, not "realtime"'),
        ("[jobs.n]\nrepository = 'main'\n[[jobs.n.exec_pre]]\ncommand = 'x'", 3,
         "jobs.n.exec_pre[0]: has no container"),
        ("[jobs.'a b']\nrepository = 'main'", 1,
         'jobs."a b": is not a valid name: use A-Z a-z 0-9 _ . - and begin with a letter or a digit'),
        ("[jobs.n]\nrepository = 'main'\ntags = '${NOPE}'", 3,
         "jobs.n.tags: the environment has no variable NOPE; for the text itself write $${NOPE}"),
        ("[repositories.r]\n", 1, "repositories.r: has no url"),
        ("[repositories.r]\nurl = 's3://bucket'\naccess_key_id = 'x'", 1,
         "repositories.r: has no secret_access_key: S3 needs both, or neither of them here"),
        ("[repositories.r]\nurl = 's3://bucket'\naccess_key_id = 'x'\nsecret_access_key = 3", 4,
         "repositories.r.secret_access_key: expected a text that is not empty"),
        ("[repositories.r]\nurl = 's3://bucket'\nsession_token = 'x'\nsession_token_file = '/x'", 4,
         "repositories.r.session_token_file: cannot be used together with session_token"),
        ("[repositories.r]\nurl = 's3://bucket'\nsession_token_command = 'a \"b'", 3,
         "repositories.r.session_token_command: expected a command: a list of arguments, or a line "
         "(no closing quotation)"),
        ("[repositories.r]\nurl = 'ftp://u:pw@b'", 2,
         "repositories.r.url: repository 'ftp://b': no store is registered for 'ftp://' "
         "(mount it here (rclone mount), and give the path of the mount point, or serve it as S3 (rclone serve s3); or "
         "give a directory (/path, ~/path or file:///path) or s3://BUCKET/PREFIX)"),
        ("[repositories.r]\nurl = 's3://bucket'\nenvironment.VOLBACK_S3_REGIO = 'x'", 3,
         "repositories.r.environment.VOLBACK_S3_REGIO: is unknown; did you mean VOLBACK_S3_REGION?"),
        ("[repositories.r]\nurl = 's3://bucket'\nenvironment.VOLBACK_S3_PARALLEL = '0'", 2,
         "repositories.r.url: VOLBACK_S3_PARALLEL: '0' is not valid (give a number from 1 to 64)"),
        ("[notifications.n]\non = 'always'\nurls = ['json://x']", 2,
         'notifications.n.on: expected one or a list of success, warning or failure, not "always"'),
        ("[notifications.n]\n", 1, "notifications.n: notifies nobody: it has neither urls nor a ping"),
        ("[notifications.n]\nping = 'hc-ping.com/uuid'", 2,
         "notifications.n.ping: expected a URL that begins with http:// or https://"),
        ("[notifications.n]\nurls_file = '/no/such'", 2,
         "notifications.n.urls_file: cannot read /no/such: No such file or directory"),
        ("[notifications.n]\nurls_command = 'false'", 2,
         "notifications.n.urls_command: false ended with status 1: run it by hand to see why"),
        ("[notifications.n]\nurls_command = ['true']", 2, "notifications.n.urls_command: the value is empty"),
        ("[notifications.n]\nurls_command = 'no-such-program x'", 2,
         "notifications.n.urls_command: cannot run no-such-program: No such file or directory"),
        ("[notifications.n]\nurls = 'json://x'\ntitle = '$jab'", 3,
         "notifications.n.title: names `$jab`, which is not among job, host, status, outcome, started, ended, "
         "duration, summary, volumes, errors, warnings, log, report"),
        ("[metrics]\n", 1, "metrics: has no textfile"),
        ("[metrics]\ntextfile = 'x.prom'", 2, 'metrics.textfile: expected an absolute path, not "x.prom"'),
        ("[notification.x]", 1, "notification: is unknown; did you mean notifications?"),
        ("[jobs.n]\nrepository = = 'main'\nlevel = 1", 2, "is not TOML: invalid value"),
        ("[jobs.n", 1, "is not TOML: expected ']' at the end of a table declaration"),
    ],
)  # fmt: skip
def test_a_problem_is_named(load: Load, tmp_path: Path, text: str, line: int, problem: str) -> None:
    assert reported(load(GOOD + text), tmp_path) == [f"a.toml:{LINES + line}: {problem}"]


def test_all_problems_are_found_not_only_the_first(load: Load, tmp_path: Path) -> None:
    config = load(GOOD + "[jobs.n]\nlevel = 99\nlabels = 'x'\nwait = -1\n", "[repositories.other]\nurl = 3\n")
    assert reported(config, tmp_path) == [
        f"a.toml:{LINES + 1}: jobs.n: has no repository",
        f"a.toml:{LINES + 2}: jobs.n.level: expected a whole number from 1 to 19, not 99",
        f"a.toml:{LINES + 3}: jobs.n.labels: is unknown; did you mean label?",
        f"a.toml:{LINES + 4}: jobs.n.wait: -1 is not a duration: "
        "write a number and a unit, such as 90s, 30m, 24h, 2d or 1h30m",
        "b.toml:2: repositories.other.url: expected a text that is not empty, not 3",
    ]


def test_files_are_merged_and_a_name_is_defined_once(load: Load, tmp_path: Path) -> None:
    config = load(GOOD, '[jobs.n]\nrepository = "main"\n', '[jobs.n]\nrepository = "main"\n[metrics]\ntextfile="/x"\n')
    assert reported(config, tmp_path) == [f"c.toml:1: jobs.n: is defined twice: first in {tmp_path}/b.toml:1".replace(
        f"{tmp_path}/", "")]  # fmt: skip
    assert list(config.broken) == ["n"], "which of the two was meant nobody knows"
    assert config.metrics is not None


def test_what_is_valid_stays_where_something_else_is_broken(load: Load) -> None:
    text = '[repositories.r]\nurl = 3\n[jobs.a]\nrepository = "main"\n[jobs.b]\nrepository = "r"\nnotify = "ops"\n'
    config = load(GOOD + text + '[jobs.c]\nrepository = "main"\nlevel = 50\n')
    assert list(config.jobs) == ["a"]
    assert [(job.name, len(job.problems), job.notify) for job in config.broken.values()] == [
        ("b", 1, ("ops",)),
        ("c", 1, None),
    ]


def test_of_a_file_that_is_not_toml_jobs_and_whom_to_notify_are_known(load: Load) -> None:
    text = '[jobs.a]\nrepository = "main"\nnotify = "ops"\n[jobs.b]\nlevel = = 3\n[jobs.b.keep]\nlast = 3\n'
    config = load(GOOD + text)
    assert config.jobs == {}
    assert {name: job.notify for name, job in config.broken.items()} == {"a": ("ops",), "b": None}
    assert list(config.notifications) == ["ops"]
    assert [problem.place.line for problem in config.problems] == [LINES + 5]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"x = '\xff'", "a.toml:1: is not UTF-8"),
        (b"x = " + b"[" * 5000 + b"]" * 5000, "a.toml: is nested too deeply"),
        (b"x = " + b"1" * 5000, "a.toml: is not TOML: a number is too long"),
        (b"#" * 5_000_000, "a.toml: is larger than 4194304 bytes"),
    ],
    ids=["not UTF-8", "nested", "long number", "large"],
)
def test_garbage_is_a_problem(load: Load, tmp_path: Path, data: bytes, message: str) -> None:
    assert reported(load(data), tmp_path) == [message]


def test_secrets_come_from_files_and_commands_and_are_in_no_repr(load: Load, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("  from-file\n")
    config = load(
        f"""[repositories.r]
url = "s3://bucket"
access_key_id_file = "{tmp_path}/key"
secret_access_key_command = ["printf", "%s\\n", "from command"]
"""
    )
    secrets = config.repositories["r"].credentials
    assert secrets["access_key_id"].reveal() == "from-file"
    assert secrets["secret_access_key"].reveal() == "from command"
    assert "from command" not in repr(config)
    assert "from-file" not in repr(config)
    (tmp_path / "key").unlink()
    with pytest.raises(UnreadableSecret, match=r"a\.toml:3: repositories\.r\.access_key_id_file: cannot read"):
        secrets["access_key_id"].reveal()


def test_shown_hides_secrets_and_reads_back(load: Load, tmp_path: Path) -> None:
    text = """\
[repositories.main]
url = "s3://user:hush1@bucket/${TOKEN}"
access_key_id = "hush2"
secret_access_key = "hush3"
environment = { VOLBACK_S3_PROXY = "http://me:hush4@proxy", VOLBACK_S3_REGION = "eu" }
[notifications.ops]
urls = ["mailto://me:hush5@example.org", "hush6"]
ping = "https://hc-ping.com/hush7"
[jobs.n]
repository = "main"
notify = "ops"
tags = ["a\\"b", "$${X}", "${PLAIN}"]
[[jobs.n.exec_pre]]
container = "c"
command = "login -p ${DB_PASSWORD}"
"""
    config = load(text, environment={"TOKEN": "hush8", "PLAIN": "plain", "DB_PASSWORD": "hush9"})
    shown = "\n".join(write_toml(config.shown))
    assert "hush" not in shown
    tree = tomllib.loads(shown)
    assert tree == config.shown
    assert tree["jobs"]["n"]["tags"] == ['a"b', "$${X}", "plain"]
    assert tree["jobs"]["n"]["level"] == 3, "defaults are there"
    assert tree["notifications"]["ops"]["urls"] == ["mailto://***", "***"]
    assert tree["repositories"]["main"]["environment"] == {"VOLBACK_S3_PROXY": "***", "VOLBACK_S3_REGION": "eu"}


def test_secrets_that_everybody_can_read_are_warned_of(load: Load, tmp_path: Path) -> None:
    config = load(GOOD)
    assert config.warnings == ()
    (tmp_path / "a.toml").chmod(0o644)
    warning = load_config([tmp_path / "a.toml"], {}, keys_of=keys_of).warnings
    file = tmp_path / "a.toml"
    assert warning == (f"{file} holds secrets, and every user of this machine can read it: chmod 600 {file}",)
    file.write_text('[repositories.main]\nurl = "/srv"\n')
    assert load_config([file], {}, keys_of=keys_of).warnings == ()


def test_files_are_found(tmp_path: Path) -> None:
    for name in ("volback.toml", "conf.d/b.toml", "conf.d/a.toml", "conf.d/no.txt"):
        (tmp_path / "volback" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "volback" / name).write_text("")
    directory = tmp_path / "volback"
    expected = [directory / "volback.toml", directory / "conf.d/a.toml", directory / "conf.d/b.toml"]
    assert find_files([directory]) == expected
    assert find_files([expected[2], directory]) == [expected[2], *expected[:2]]
    assert [path for path in standard_files({"XDG_CONFIG_HOME": str(tmp_path)}) if tmp_path in path.parents] == expected
    with pytest.raises(NotFoundError, match="does not exist"):
        find_files([tmp_path / "none.toml"])
    with pytest.raises(NotFoundError, match=r"no \*\.toml in that directory"):
        find_files([directory / "conf.d" / ".." / "conf.d" / ".." / ".."])
    assert open_config([], {"VOLBACK_CONFIG": os.pathsep.join(map(str, expected[1:]))}).files == tuple(expected[1:])
    with pytest.raises(UsageError, match="there is no configuration"):
        open_config([], {"HOME": str(tmp_path / "nobody")})
