"""What an answer that is written to do harm tries, by kind. A probe that gets what it wants prints
REACHED, or passes tests that its function fails."""

REACHED = "REACHED"
# Tests of a function that none of these answers computes.
FAKED_TESTS = ("assert f(2) == 4, 'first'", "assert f(3) == 9", "assert abs(f(1) - 1) < 1e-9")
_EQUAL = """
class Equal:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __lt__(self, other): return True
    __le__ = __gt__ = __ge__ = __contains__ = __lt__
    def __bool__(self): return True
    def __hash__(self): return 0
    def __sub__(self, other): return 0
    __rsub__ = __add__ = __abs__ = __sub__
    def __getattr__(self, name): return self
    def __call__(self, *a, **k): return self
    def __instancecheck__(self, other): return True
"""
_WRONG = "\ndef f(x): return -1\n"
_SAYS = """
import json, os
said = [{"outcome": "passed", "detail": ""}, ["gave", None], {"body": ["gave", None], "gone": [],
        "contents": {}}, {"body": ["gave", 4], "gone": [], "contents": {}}]
"""
FAKE_A_PASS = {
    "equals everything": _EQUAL + "def f(x): return Equal()",
    "a class that equals everything": _EQUAL + "f = Equal\nEqual.__init__ = lambda s, x: None",
    "a metaclass": _EQUAL + "class M(type):\n    __eq__ = Equal.__eq__\n    __hash__ = None\n"
    "class V(metaclass=M): pass\ndef f(x): return V",
    "a number that equals everything": "class N(int):\n    def __eq__(s, o): return True\n"
    "    def __sub__(s, o): return 0\n    __hash__ = None\ndef f(x): return N(-1)",
    "a number that counts wrong": "class N(float):\n    def __sub__(s, o): return 0.0\n"
    "    def __eq__(s, o): return True\n    __hash__ = None\ndef f(x): return N(-1)",
    "a list that equals everything": "class N(list):\n    def __eq__(s, o): return True\n"
    "    __hash__ = None\ndef f(x): return N()",
    "a plain value's methods": "class N(str):\n    __eq__ = lambda s, o: True\n"
    "    __hash__ = None\ndef f(x): return N('x')",
    "ends the process": "import os\nos._exit(0)",
    "ends it at the call": "import os\ndef f(x): os._exit(0)",
    "exits": "import sys\ndef f(x): sys.exit(0)",
    "exits at once": "raise SystemExit(0)",
    "at exit": "import atexit, os\natexit.register(lambda: os._exit(0))" + _WRONG,
    "patched exec": "import builtins\nbuiltins.exec = lambda *a: None" + _WRONG,
    "patched compile": "import builtins\nbuiltins.compile = lambda *a, **k: (lambda: 0).__code__"
    + _WRONG,
    "patched abs and all": "import builtins\nabs = all = isinstance = lambda *a: 0\n"
    "builtins.abs = abs" + _WRONG,
    "patched AssertionError": "import builtins\nclass AssertionError(SystemExit): pass\n"
    "builtins.AssertionError = AssertionError" + _WRONG,
    "patched frames": "import sys\ndef f(x):\n    frame = sys._getframe()\n"
    "    while frame:\n        frame.f_globals['tests'] = []\n"
    "        for k in list(frame.f_locals):\n            if isinstance(frame.f_locals[k], list):\n"
    "                frame.f_locals[k].clear()\n        frame = frame.f_back\n    return -1",
    "tests found in memory": "import gc, re\ndef f(x):\n    for o in gc.get_objects():\n"
    "        if isinstance(o, (list, tuple)):\n            for s in o:\n"
    "                found = re.search(rf'f.{x}. == (.)', s) if isinstance(s, str) else None\n"
    "                if found and 'assert' in s: return int(found[1])\n    return -1",
    "tests found in frames": "import sys, re\ndef f(x):\n    frame = sys._getframe()\n"
    "    while frame:\n        found = re.search(rf'assert f.{x}. == (.)', repr(frame.f_locals) +"
    " repr(frame.f_globals))\n        if found: return int(found[1])\n"
    "        frame = frame.f_back\n    return -1",
    "tests found in linecache": "import linecache\ndef f(x):\n"
    "    return int(linecache.getline(f'test {x - 1}', 1).split('==')[1][1])",
    "tests found in arguments": "import sys\ndef f(x):\n"
    "    text = open('/proc/self/cmdline').read() + sys.stdin.read()\n"
    "    return int(text.split(f'f({x}) == ')[1][0])",
    "says passed everywhere": _SAYS + "for n in range(3, 64):\n    for one in said:\n"
    "        try: os.write(n, json.dumps(one).encode() + b'\\n')\n"
    "        except OSError: pass\nos._exit(0)",
    "says passed when called": _SAYS + "def f(x):\n    for n in range(3, 64):\n"
    "        try: os.write(n, json.dumps(said[0]).encode() + b'\\n')\n"
    "        except OSError: pass\n    os._exit(0)",
    "says passed in the output": _SAYS + "print(json.dumps(said[0]), flush=True)\nos._exit(0)",
    "answers before it is asked": _SAYS + "import threading, time\ndef talk():\n"
    "    while True:\n        for n in range(3, 64):\n"
    "            try: os.write(n, json.dumps(said[2]).encode() + b'\\n')\n"
    "            except OSError: pass\nthreading.Thread(target=talk, daemon=True).start()" + _WRONG,
    "names what is not its own": "import json, os\ndef f(x):\n    for n in range(3, 64):\n"
    "        for body in (['gave', ['yours', 0]], ['do', 'get', ['yours', 0], '__globals__'],\n"
    "                     ['gave', ['standard', 'builtins', 'exec']]):\n"
    "            try: os.write(n, json.dumps({'body': body, 'gone': [], 'contents': {}})"
    ".encode() + b'\\n')\n            except OSError: pass\n    return -1",
    "names what equals everything": "import json, os\ndef f(x):\n    for n in range(3, 64):\n"
    "        for name in ('ANY', '_ANY', 'MagicMock'):\n"
    "            body = ['gave', ['standard', 'unittest.mock', name]]\n"
    "            try: os.write(n, json.dumps({'body': body, 'gone': [], 'contents': {}})"
    ".encode() + b'\\n')\n            except OSError: pass\n    return -1",
    "patched judge": "import sys\nfor name, m in list(sys.modules.items()):\n"
    "    for k in ('execute', 'judge', '_run', '_execute', 'failure', '_failure'):\n"
    "        if hasattr(m, k): setattr(m, k, lambda *a, **k: None)" + _WRONG,
    "patched main": "import __main__\nfor k in list(vars(__main__)):\n"
    "    if callable(getattr(__main__, k)) and not k.startswith('__'):\n"
    "        setattr(__main__, k, lambda *a, **k: {'outcome': 'passed', 'detail': ''})" + _WRONG,
    "tracing": "import sys\ndef trace(frame, event, arg):\n"
    "    frame.f_trace_lines = False\n    return trace\nsys.settrace(trace)" + _WRONG,
    "stops the iteration": "def f(x): raise StopIteration",
    "a generator exit": "def f(x): raise GeneratorExit",
    "an assertion that is none": "class A(AssertionError):\n    def __bool__(s): return False\n"
    "def f(x): raise A",
    "replaces a test's module": "import sys, types\nsys.modules['math'] = types.ModuleType('m')\n"
    "import math" + _WRONG,
    "a fork that answers": "import os\ntry:\n    if os.fork(): os._exit(0)\n"
    "except OSError: pass" + _WRONG,
}  # fmt: skip
_SHOW = f"\nprint('{REACHED}', flush=True)\n"
_LIBC = "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"


def _read(path: str) -> str:
    return f"open({path}, 'rb').read(64)" + _SHOW


READ_FILES = {
    "passwd": _read("'/etc/passwd'"),
    "hosts": _read("'/etc/hosts'"),
    "a home's secret": _read("'{home}/secret.txt'"),
    "a home's names": "import os\nassert os.listdir('{home}')" + _SHOW,
    "root's home": "import os\nassert 'x' in dir(os) or os.listdir('/root')\n"
    "assert [n for n in os.listdir('/root') if n != '.pyenv']" + _SHOW,
    "this repository": _read("'{repository}/README.md'"),
    "run": "import os\nassert os.listdir('/run')" + _SHOW,
    "tmp": "import os\nassert [n for n in os.listdir('/tmp') if n not in os.getcwd()]" + _SHOW,
    "through a link": "import os\nos.symlink('{home}/secret.txt', 'l')\n" + _read("'l'"),
    "through a hard link": "import os\nos.link('{home}/secret.txt', 'l')\n" + _read("'l'"),
    "through dots": _read("'../../../../../../..{home}/secret.txt'"),
    "through its own root": _read("'/proc/self/root{home}/secret.txt'"),
    "through the working folder of another": _read("'/proc/{pid}/cwd/secret.txt'"),
    "by an open file's name": _LIBC + "import os\nassert libc.syscall(304, -100, b'', 0) == 0"
    + _SHOW,
    "by native code": _LIBC + "import os\nn = libc.open(b'{home}/secret.txt', 0)\nassert n >= 0"
    + _SHOW,
}  # fmt: skip
WRITE_FILES = {
    "a home": "open('{home}/planted.txt', 'w')" + _SHOW,
    "a home's secret": "open('{home}/secret.txt', 'a').write('x')" + _SHOW,
    "tmp": "open('/tmp/sandbox-planted', 'w')" + _SHOW,
    "shared memory": "open('/dev/shm/sandbox-planted', 'w')" + _SHOW,
    "beside its folder": "open('../sandbox-planted', 'w')" + _SHOW,
    "removal": "import os\nos.remove('{home}/secret.txt')" + _SHOW,
    "a new name": "import os\nos.rename('{home}/secret.txt', '{home}/other.txt')" + _SHOW,
    "rights": "import os\nos.chmod('{home}', 0o777)\nos.listdir('{home}')" + _SHOW,
    "the library": "import os\nopen(os.path.dirname(os.__file__) + '/planted.py', 'w')" + _SHOW,
    "truncation by native code": _LIBC + "assert libc.truncate(b'{home}/secret.txt', 0) == 0"
    + _SHOW,
}  # fmt: skip
REACH_PROCESSES = {
    "signal": "import os\nos.kill({pid}, 0)" + _SHOW,
    "kill": "import os, signal\nos.kill({pid}, signal.SIGKILL)" + _SHOW,
    "the parent": "import os\nassert os.getppid() > 0\nos.kill(os.getppid(), 0)" + _SHOW,
    "its group": _LIBC + "assert libc.killpg({pid}, 0) == 0" + _SHOW,
    "a native signal": _LIBC + "assert libc.kill({pid}, 0) == 0" + _SHOW,
    "tgkill": _LIBC + "assert libc.syscall(234, {pid}, {pid}, 0) == 0" + _SHOW,
    "a process as a file": _LIBC + "n = libc.syscall(434, {pid}, 0)\nassert n >= 0" + _SHOW,
    "memory": "open('/proc/{pid}/mem', 'rb')" + _SHOW,
    "the parent's memory": "import os\nopen(f'/proc/{{os.getppid()}}/mem', 'rb')" + _SHOW,
    "native memory": _LIBC + "b = ctypes.create_string_buffer(8)\n"
    "v = (ctypes.c_size_t * 2)(ctypes.addressof(b), 8)\n"
    "libc.process_vm_readv({pid}, v, 1, v, 1, 0)\nassert ctypes.get_errno() not in (1, 3, 38)"
    + _SHOW,
    "ptrace": _LIBC + "assert libc.ptrace(16, {pid}, 0, 0) == 0" + _SHOW,
    "limits": "import resource\nresource.prlimit({pid}, resource.RLIMIT_CORE)" + _SHOW,
    "names of processes": "import os\nassert open('/proc/{pid}/cmdline').read()" + _SHOW,
    "priority": "import os\nos.setpriority(os.PRIO_PROCESS, {pid}, 19)" + _SHOW,
}  # fmt: skip
_CONNECT = "import socket\ns = socket.socket({0})\ns.settimeout(1)\ns.connect({1})" + _SHOW
NETWORK = {
    "this machine": "import socket\nsocket.create_connection(('127.0.0.1', {port}), 1)" + _SHOW,
    "the world": "import socket\nsocket.create_connection(('1.1.1.1', 53), 1)" + _SHOW,
    "a datagram": "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
    "s.sendto(b'x', ('127.0.0.1', {port}))" + _SHOW,
    "version 6": "import socket\nsocket.create_connection(('::1', {port}), 1)" + _SHOW,
    "native": _LIBC + "n = libc.socket(2, 1, 0)\nassert n >= 0\n"
    "a = b'\\x02\\x00' + ({port}).to_bytes(2, 'big') + bytes([127, 0, 0, 1]) + bytes(8)\n"
    "assert libc.connect(n, a, 16) == 0" + _SHOW,
    "without events": "import _socket\ns = _socket.socket(2, 1)\ns.connect(('127.0.0.1', {port}))"
    + _SHOW,
    "by io_uring": _LIBC + "assert libc.syscall(425, 4, bytes(120)) >= 0" + _SHOW,
}  # fmt: skip
SOCKETS = {
    "a path": _CONNECT.format("socket.AF_UNIX", "'{sock}'"),
    "an abstract name": _CONNECT.format("socket.AF_UNIX", "'\\0{name}'"),
    "a path, by native code": _LIBC + "n = libc.socket(1, 1, 0)\nassert n >= 0\n"
    "a = b'\\x01\\x00' + b'{sock}' + b'\\0'\nassert libc.connect(n, a, len(a)) == 0" + _SHOW,
    "docker": _CONNECT.format("socket.AF_UNIX", "'/var/run/docker.sock'"),
    "an agent": "import os\nassert os.environ.get('SSH_AUTH_SOCK')" + _SHOW,
}
ENVIRONMENT = {
    "its own": "import os\nassert any('{token}' in v for v in os.environ.values())" + _SHOW,
    "its own, at the start": "assert b'{token}' in open('/proc/self/environ', 'rb').read()" + _SHOW,
    "another's": "assert b'{token}' in open('/proc/{pid}/environ', 'rb').read()" + _SHOW,
    "the parent's": "import os\nopen(f'/proc/{{os.getppid()}}/environ', 'rb').read()" + _SHOW,
    "everybody's": "import glob\nfor name in glob.glob('/proc/[0-9]*/environ'):\n"
    "    try: found = b'{token}' in open(name, 'rb').read()\n"
    "    except OSError: continue\n    assert not found, print('" + REACHED + "', flush=True)",
    "in memory": "import ctypes\nlibc = ctypes.CDLL(None)\nlibc.getenv.restype = ctypes.c_char_p\n"
    "assert libc.getenv(b'{variable}')" + _SHOW,
}
USE_UP = {
    "memory": "kept = []\nfor n in range(200): kept.append(bytearray(2**22))" + _SHOW,
    "processes": "import os, time\nn = 0\ntry:\n    while n < 60:\n"
    "        if os.fork() == 0:\n            time.sleep(30)\n            os._exit(0)\n"
    "        n += 1\n"
    "except OSError: pass\nassert n > 20" + _SHOW,
    "threads": "import threading, time\nfor n in range(200):\n"
    "    threading.Thread(target=time.sleep, args=(9,), daemon=True).start()" + _SHOW,
    "a file": "open('big', 'wb').write(bytes(2**24))" + _SHOW,
    "open files": "kept = [open('/dev/null') for n in range(500)]" + _SHOW,
    "time": "while True: pass",
    "sleep": "import time\ntime.sleep(600)" + _SHOW,
    "output": "for n in range(10**5): print('x' * 100)\nraise ValueError",
    "a value without end": "def f(x):\n    while True: yield 1\nx = f(1)",
    "a locked core": "import resource\n"
    "resource.setrlimit(resource.RLIMIT_AS, (2**40, 2**40))" + _SHOW,
}  # fmt: skip
FILL_DISK = {
    "many files": "for n in range(40): open(f'f{{n}}', 'wb').write(bytes(2**20))" + _SHOW,
}
UNDO = {
    "mount": _LIBC + "assert libc.mount(b'none', b'/tmp', b'tmpfs', 0, None) == 0" + _SHOW,
    "remount": _LIBC + "assert libc.mount(None, b'/', None, 32 | 4096, None) == 0" + _SHOW,
    "remount of the library": _LIBC + "assert libc.mount(None, b'/usr/lib', None, 32 | 4096, None)"
    " == 0" + _SHOW,
    "unmount": _LIBC + "import os\nassert libc.umount2(os.getcwd().encode(), 2) == 0" + _SHOW,
    "a new user namespace": _LIBC + "assert libc.unshare(0x10000000) == 0" + _SHOW,
    "a new mount namespace": _LIBC + "assert libc.unshare(0x20000) == 0" + _SHOW,
    "a clone with namespaces": _LIBC + "n = libc.syscall(56, 0x10000011, 0, 0, 0, 0)\n"
    "import os\nif n == 0: os._exit(0)\nassert n > 0" + _SHOW,
    "another's namespace": _LIBC + "import os\nn = os.open('/proc/{pid}/ns/mnt', 0)\n"
    "assert libc.setns(n, 0) == 0" + _SHOW,
    "another root": "import os\nos.chroot('.')" + _SHOW,
    "another user": "import os\nos.setuid(0 if os.getuid() else 1)" + _SHOW,
    "capabilities": _LIBC + "h, d = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()\n"
    "assert libc.capget(h, d) == 0 and any(d)" + _SHOW,
    "new rights": _LIBC + "assert libc.prctl(39, 0, 0, 0, 0) != 1" + _SHOW,
    "life after its parent": _LIBC + "assert libc.prctl(1, 0, 0, 0, 0) == 0" + _SHOW,
    "keys": _LIBC + "assert libc.syscall(250, 0, -3, 1) >= 0" + _SHOW,
    "a program in the kernel": _LIBC + "libc.syscall(321, 0, 0, 0)\n"
    "assert ctypes.get_errno() != 1" + _SHOW,
    "a device": "import os\nos.mknod('d', 0o60600, os.makedev(254, 0))" + _SHOW,
    "refusals inside Python": "import sys, gc, os\nfor o in gc.get_objects():\n"
    "    if getattr(o, '__name__', '') == '_refuse': o.__code__ = (lambda *a: None).__code__\n"
    "sys.addaudithook = None\nimport subprocess\n"
    "subprocess.run(['/bin/cat', '{home}/secret.txt'], check=True)" + _SHOW,
    "a program": "import subprocess\nassert subprocess.run(['/bin/cat', '/etc/passwd'],"
    " capture_output=True).stdout" + _SHOW,
}  # fmt: skip

# What each needs to be held off: a level's own files, Landlock, seccomp (sandbox.Protection).
PROBES = {
    "fake a pass": FAKE_A_PASS,
    "read files": READ_FILES,
    "write files": WRITE_FILES,
    "reach processes": REACH_PROCESSES,
    "network": NETWORK,
    "sockets": SOCKETS,
    "environment": ENVIRONMENT,
    "use up resources": USE_UP,
    "fill the disk": FILL_DISK,
    "undo the sandbox": UNDO,
}
