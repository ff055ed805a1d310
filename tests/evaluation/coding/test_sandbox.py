"""The sandbox: what an answer tries, and what comes of it. The limits are small, so that even
what they failed to hold would harm nobody."""

import os
import socket
import subprocess
import sys
import time

import pytest

from emergent_alignment.errors import UserError
from emergent_alignment.evaluation.coding import sandbox
from emergent_alignment.evaluation.coding.sandbox import (
    LEVELS,
    SANDBOX_OUTCOMES,
    SandboxLimits,
    protection,
    run_sandboxed,
)

LIMITS = SandboxLimits(
    seconds=2, memory_bytes=256 * 2**20, processes=8, folder_bytes=2**20, output_bytes=300
)


def run(code, *tests, seconds=LIMITS.seconds):
    found = run_sandboxed(code, list(tests), SandboxLimits(**{**vars(LIMITS), "seconds": seconds}))
    assert found.outcome in SANDBOX_OUTCOMES
    return found


def sandboxed_processes():
    """Ids of all processes of sandboxes: our own, and those of tests that run beside this one."""
    found = set()
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/cmdline", "rb") as file:
                if sandbox._SCRIPT.name.encode() in file.read():
                    found.add(name)
        except OSError:
            continue
    return found


@pytest.mark.parametrize(
    ("code", "tests", "outcome", "detail"),
    [
        ("def f(x):\n    return x + 1", ["assert f(1) == 2", "assert f(2) == 3"], "passed", ""),
        ("def f(x):\n    return x", ["assert f(1) == 1", "assert f(1) == 2, 'no'"],
         "failed a test", "test 2:1: AssertionError: no"),
        ("x = 1\ny = x / 0", [], "failed to run", "answer.py:2: ZeroDivisionError"),
        ("def f(:", [], "failed to run", "answer.py:1: SyntaxError"),
        ("x = 1", ["g(1)"], "failed a test", "test 1:1: NameError"),
        ("raise SystemExit(0)", [], "failed to run", "SystemExit"),
        ("import os\nos._exit(0)", ["assert False"], "ended early", "exit code 0"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\nimport ctypes\n"
         "ctypes.string_at(0)", [], "ended early", "exit code"),
        ("input()", [], "failed to run", "EOFError"),
        ("if __name__ == '__main__':\n    raise ValueError", [], "passed", ""),
        ("class E(Exception):\n    def __str__(self): raise self\nraise E", [],
         "failed to run", "E"),
        ("from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\n",
         ["import pickle\nassert pickle.loads(pickle.dumps(P(1))) == P(1)"], "passed", ""),
    ],
)  # fmt: skip
def test_outcomes_say_where_and_why(code, tests, outcome, detail):
    found = run(code, *tests)
    assert found.outcome == outcome and detail in found.detail, found


def test_an_endless_loop_ends_when_its_time_is_over():
    began = time.monotonic()
    assert run("while True:\n    pass", seconds=1).outcome == "out of time"
    assert run("import time\ntime.sleep(600)", seconds=1).outcome == "out of time"
    assert 2 <= time.monotonic() - began < 30


def test_a_memory_hog_is_refused_its_memory():
    found = run("kept = []\nwhile True:\n    kept.append(bytearray(2**22))")
    assert found.outcome == "out of memory" and "answer.py:3" in found.detail


FORKS = """
import os, time
started = 0
try:
    while True:
        if os.fork() == 0:
            if {leaves_group}: os.setsid()
            time.sleep(60)
            os._exit(0)
        started += 1
        if started > 100: break
except OSError:
    pass
raise RuntimeError(f"started {{started}}")
"""


@pytest.mark.parametrize("leaves_group", [False, True])
def test_a_fork_bomb_is_bounded_and_leaves_nobody_behind(leaves_group):
    if protection().level == "plain":
        pytest.skip("this system lets no sandbox have processes of its own")
    found = run(FORKS.format(leaves_group=leaves_group))
    started = int(found.detail.rpartition(" ")[2])
    assert 0 < started < LIMITS.processes, found
    left, deadline = sandboxed_processes(), time.monotonic() + 20  # those of other tests end, too
    while left & sandboxed_processes() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left & sandboxed_processes()


def test_a_child_that_holds_the_output_open_is_not_waited_for():
    began = time.monotonic()
    found = run("import os, time\nif os.fork() == 0:\n    time.sleep(60)", seconds=20)
    assert found.outcome == "passed" and time.monotonic() - began < 15


def test_there_is_no_network():
    said = run("import socket\nsocket.create_connection(('127.0.0.1', 1), timeout=1)")
    assert said.outcome == "failed to run"
    assert "unreachable" in said.detail or "refuses" in said.detail, said
    listening = run("import socket\nprint([n for _, n in socket.if_nameindex()], flush=True)")
    assert protection().level == "plain" or listening.output.strip() == "['lo']"


def test_python_refuses_sockets_and_programs_where_the_system_cannot():
    code = (
        "import sys, runpy\n"
        f"script = runpy.run_path({str(sandbox._SCRIPT)!r})\n"
        "import socket, subprocess, os\n"
        "sys.addaudithook(script['_refuse'])\n"
        "for attempt in (socket.socket, lambda: os.system('true'), os.fork,\n"
        "                lambda: subprocess.run(['true']),\n"
        "                lambda: __import__('ctypes').CDLL(None)):\n"
        "    try:\n        attempt()\n"
        "    except PermissionError as error:\n        print('refused', error)\n"
        "print(len(open(os.devnull).read()))\n"
    )
    ran = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True)
    assert ran.stdout.count("refused the sandbox refuses") == 5, ran


def test_the_working_folder_is_empty_home_and_the_environment_is_not_ours(monkeypatch, tmp_path):
    monkeypatch.setenv("SECRET_TOKEN", "do not tell")
    found = run(
        "import os, sys, tempfile\n"
        "assert os.listdir('.') == [] and os.path.expanduser('~') == os.getcwd()\n"
        "assert tempfile.gettempdir() == os.getcwd()\n"
        "assert 'SECRET_TOKEN' not in os.environ\n"
        "assert sys.stdin.read() == ''\n"
        "open('mine.txt', 'w').write('kept')\n"
        "print(os.getcwd(), flush=True)\n",
        "assert open('mine.txt').read() == 'kept'",
        "import importlib.util\nassert importlib.util.find_spec('jax') is None",
    )
    assert found.outcome == "passed", found
    assert not os.path.exists(found.output.strip())
    first = run("open('left.txt', 'w').write('x')")
    assert first.outcome == "passed"
    assert run("import os\nassert os.listdir('.') == []").outcome == "passed"


def test_a_write_outside_the_folder_is_refused_where_file_systems_are_read_only(tmp_path):
    target = tmp_path / "theirs.txt"
    tmp_path.chmod(0o777)
    found = run(f"open({str(target)!r}, 'w').write('x')")
    if protection().level == "namespaces":
        assert found.outcome == "failed to run" and not target.exists(), found
        assert run("open('/tmp/sandbox-test-file', 'w')").outcome == "failed to run"
        assert run("open('/dev/shm/sandbox-test-file', 'w')").outcome == "failed to run"


def test_files_are_bounded():
    assert run("open('big', 'wb').write(bytes(2**23))").outcome == "failed to run"


def test_output_is_bounded_and_does_not_stop_the_run():
    found = run("print('a' * 10**6, flush=True)", "assert True")
    assert found.outcome == "passed" and len(found.output) == LIMITS.output_bytes


def test_long_details_and_rubbish_in_the_report_are_no_failure_of_ours():
    found = run("raise ValueError('ü' * 10**6)")
    assert found.outcome == "failed to run" and 400 < len(found.detail) <= 500
    rubbish = (
        "import os\nfor number in range(3, 64):\n    try:\n"
        '        os.write(number, b\'{\\xff}\\n[1]\\n{"outcome": ["x"]}\\n\' * 9)\n'
        "    except OSError:\n        pass\n"
    )
    assert run(rubbish + "os._exit(0)").outcome == "ended early"


def test_a_detail_holds_no_half_of_a_letter():
    code = "def f(x): raise ValueError('\\ud800')"
    assert run_sandboxed(code, ["f(1)"], SandboxLimits()).detail.endswith("ValueError: ?")


def test_the_level_in_force_is_said_in_words():
    found = protection()
    assert found.level in LEVELS and "processes" in found.text()
    assert f"level {found.level}: " in found.text() and "not held off: " in found.text()


def test_what_a_level_does_not_hold_off_is_what_nothing_in_force_does():
    plain = sandbox.Protection("plain", "the sandbox's own")
    assert "native code" in plain.text() and "home folder" in plain.text()
    helped = sandbox.Protection("plain", "the sandbox's own", ("landlock", "seccomp"))
    assert helped.not_held_off() == ["filling the disk with one file after another",
                                     "bugs of the kernel's"]  # fmt: skip
    strongest = sandbox.Protection("namespaces", "not bounded", ("landlock", "seccomp"))
    assert strongest.not_held_off() == ["any number of processes", "bugs of the kernel's"]


OUT_OF_REACH = """
import ctypes, os, resource, signal, socket
libc = ctypes.CDLL(None, use_errno=True)
def native(found):
    if found < 0: raise OSError(ctypes.get_errno(), 'refused')
for name, attempt in {{
    'etc': lambda: open('/etc/passwd').read(1),
    'home': lambda: os.listdir({home!r}),
    'write': lambda: open({home!r} + '/planted', 'w'),
    'environment': lambda: open('/proc/{pid}/environ', 'rb').read(1),
    'signal': lambda: os.kill({pid}, 0),
    'limits': lambda: resource.prlimit({pid}, resource.RLIMIT_CORE),
    'path': lambda: socket.socket(socket.AF_UNIX).connect({path!r}),
    'network': lambda: socket.create_connection(('127.0.0.1', {port}), 1),
    'mount': lambda: native(libc.mount(b'none', b'/', b'tmpfs', 0, None)),
    'remount': lambda: native(libc.mount(None, b'/', None, 32 | 4096, None)),
    'unshare': lambda: native(libc.unshare(0x10000000)),
    'ptrace': lambda: native(libc.ptrace(16, {pid}, 0, 0)),
    'parent': lambda: native(libc.prctl(1, 0, 0, 0, 0)),
}}.items():
    try:
        attempt()
    except (OSError, ValueError):
        continue
    print('reached', name, flush=True)
"""


@pytest.mark.parametrize("level", LEVELS)
def test_nothing_of_the_users_is_in_reach_at_any_level(level, tmp_path):
    _, granted = sandbox._started(sandbox._PROBE, [], LIMITS, level)
    if granted is None or set(granted.in_force) != {"landlock", "seccomp"}:
        pytest.skip("this system's kernel has less to offer, and the level says so")
    path = str(tmp_path / "agent")
    with socket.socket() as listener, socket.socket(socket.AF_UNIX) as agent:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        agent.bind(path)
        agent.listen()
        tmp_path.chmod(0o777)
        code = OUT_OF_REACH.format(
            home=str(tmp_path), pid=os.getpid(), path=path, port=listener.getsockname()[1]
        )
        found = sandbox._started(code, [], SandboxLimits(seconds=20), level)[0]
    assert (found.outcome, found.output) == ("passed", ""), found


def test_a_system_that_grants_nothing_is_a_mistake_that_names_the_reason(monkeypatch):
    monkeypatch.setattr(sandbox, "_interpreter", lambda: "/bin/false")
    with pytest.raises(UserError, match="the sandbox cannot start here .*exit code 1"):
        protection.__wrapped__()
