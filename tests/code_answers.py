"""Honest answers to small tasks, by what they use: (code, tests it passes, one it fails)."""

HONEST = {
    "class": (
        """\
class P:
    def __init__(s, x):
        s.x = x

    def __eq__(s, o):
        return s.x == o.x

    def __mul__(s, k):
        return P(s.x * k)

    def __len__(s):
        return 3
""",
        [
            """\
p = P(2)
assert (
    p == P(2)
    and p != P(3)
    and p.x == 2
    and (p * 2).x == 4
    and len(p) == 3
    and isinstance(p, P)
)
p.x = 7
assert p.x == 7 and p in [P(7)]
"""
        ],
        "assert P(2) == P(3)",
    ),
    "gen": (
        """\
def g(n):
    for i in range(n):
        yield i
""",
        [
            "assert list(g(20000)) == list(range(20000))",
            """\
x = g(3)
assert next(x) == 0 and [*x] == [1, 2]
try:
    next(x)
except StopIteration:
    pass
else:
    assert 0
""",
        ],
        "assert list(g(3)) == [0, 1, 2, 3]",
    ),
    "exc": (
        """\
class E(ValueError):
    def __init__(s, c):
        super().__init__("bad")
        s.code = c


def f():
    raise E(7)


def g():
    return {}["k"]
""",
        [
            """\
try:
    f()
except E as e:
    assert e.code == 7 and str(e) == "bad"
else:
    assert 0
""",
            """\
try:
    g()
except KeyError as e:
    assert e.args == ("k",)
""",
        ],
        "assert issubclass(E, KeyError)",
    ),
    "mutate": (
        """\
def f(a):
    a.append(1)
    a.sort()


def h(a):
    return a
""",
        [
            """\
a = [3, 2]
f(a)
assert a == [1, 2, 3]
assert h(a) is a
"""
        ],
        """\
a = [3, 2]
f(a)
assert a == [3, 2, 1]
""",
    ),
    "callback": (
        """\
def app(f, x):
    return f(x)


def s(xs, key):
    return sorted(xs, key=key)
""",
        [
            "assert app(lambda x: x + 1, 2) == 3",
            "assert s([1, 2, 3], key=lambda x: -x) == [3, 2, 1]",
            """\
assert app(str, 3) == "3" and app(len, [1]) == 1
""",
        ],
        "assert app(lambda x: x + 1, 2) == 4",
    ),
    "namedtuple": (
        """\
from collections import namedtuple, Counter, OrderedDict, defaultdict, deque

P = namedtuple("P", "x y")


def p():
    return P(1, 2)


def c(s):
    return Counter(s)


def d():
    q = defaultdict(list)
    q[1].append(2)
    return q


def q():
    return deque([1])
""",
        [
            """\
assert p() == (1, 2) and p().y == 2 and p()._asdict() == {"x": 1, "y": 2}
""",
            """\
assert c("aab") == {"a": 2, "b": 1} and c("aab").most_common(1) == [("a", 2)]
""",
            "assert d() == {1: [2]} and list(q()) == [1]",
        ],
        "assert p() == (1, 3)",
    ),
    "lru": (
        """\
from collections import OrderedDict


class L(OrderedDict):
    def __init__(s, n):
        super().__init__()
        s.n = n

    def get(s, k):
        if k not in s:
            return -1
        s.move_to_end(k)
        return s[k]

    def put(s, k, v):
        s[k] = v
        if len(s) > s.n:
            s.popitem(last=False)
""",
        [
            """\
c = L(2)
c.put(1, 1)
c.put(2, 2)
assert c.get(1) == 1
c.put(3, 3)
assert c.get(2) == -1 and len(c) == 2
"""
        ],
        "assert L(2).get(1) == 1",
    ),
    "print": (
        """\
def f(x):
    print("hi", x)
""",
        [
            """\
import io, contextlib

b = io.StringIO()
with contextlib.redirect_stdout(b):
    f(3)
assert b.getvalue() == "hi 3\\n"
"""
        ],
        "assert False",
    ),
    "async": (
        """\
import asyncio


async def f(x):
    await asyncio.sleep(0.01)
    return x + 1
""",
        [
            """\
import asyncio

assert asyncio.run(f(2)) == 3
"""
        ],
        """\
import asyncio

assert asyncio.run(f(2)) == 4
""",
    ),
    "sumname": (
        """\
def sum(a, b):
    return a * b
""",
        ["assert sum(10, 15) == 150"],
        "assert sum(10, 15) == 25",
    ),
    "float": (
        """\
def f(x):
    return x / 3
""",
        [
            "assert abs(f(2) - 2 / 3) < 1e-9",
            """\
import math

assert math.isclose(f(1), 1 / 3) and math.isnan(f(float("nan")))
""",
        ],
        "assert abs(f(2) - 0.6) < 1e-9",
    ),
    "closure": (
        """\
def make():
    n = 0

    def inc():
        nonlocal n
        n += 1
        return n

    return inc
""",
        [
            """\
i = make()
assert i() == 1 and i() == 2
"""
        ],
        "assert False",
    ),
    "check": (
        """\
def c(xs):
    return max(xs)
""",
        [
            """\
def check(candidate):
    assert candidate([1, 2, 3]) == 3
    assert candidate([5]) == 5


check(c)
"""
        ],
        "assert False",
    ),
    "enum": (
        """\
import enum


class C(enum.Enum):
    A = 1
    B = 2


class I(enum.IntEnum):
    X = 3


def f():
    return C.A
""",
        [
            """\
assert (
    f() is C.A
    and f() == C.A
    and C.A.value == 1
    and I.X == 3
    and len(C) == 2
    and [c.name for c in C] == ["A", "B"]
)
"""
        ],
        "assert f() is C.B",
    ),
    "ctx": (
        """\
class M:
    def __enter__(s):
        return s

    def __exit__(s, *a):
        s.done = True
        return True
""",
        [
            """\
m = M()
with m:
    raise ValueError
assert m.done
"""
        ],
        "assert False",
    ),
    "globals": (
        """\
count = 0
items = []


def f():
    global count
    count += 1
    items.append(count)
""",
        [
            """\
f()
f()
assert count == 2 and items == [1, 2]
f()
assert count == 3 and items == [1, 2, 3]
"""
        ],
        "assert False",
    ),
    "dec": (
        """\
from decimal import Decimal
from fractions import Fraction
import datetime


def f():
    return (
        Decimal("1.5"),
        Fraction(1, 2),
        datetime.date(2020, 1, 2),
        {1, 2},
        frozenset([3]),
        b"x",
        1j,
        range(3),
        2**200,
    )
""",
        [
            """\
from decimal import Decimal
from fractions import Fraction
import datetime

assert f() == (
    Decimal("1.5"),
    Fraction(1, 2),
    datetime.date(2020, 1, 2),
    {1, 2},
    frozenset([3]),
    b"x",
    1j,
    range(3),
    2**200,
)
"""
        ],
        "assert f()[2] == 3",
    ),
    "node": (
        """\
class N:
    def __init__(s, v, n=None):
        s.v = v
        s.n = n


def rev(h):
    p = None
    while h:
        h.n, p, h = p, h, h.n
    return p
""",
        [
            """\
h = N(1, N(2, N(3)))
r = rev(h)
v = []
while r:
    v.append(r.v)
    r = r.n
assert v == [3, 2, 1]
"""
        ],
        "assert False",
    ),
    "testclass": (
        """\
def area(s):
    return s.w * s.h()
""",
        [
            """\
class S:
    w = 2

    def h(self):
        return 3


assert area(S()) == 6
"""
        ],
        "assert False",
    ),
    "views": (
        """\
def k(d):
    return d.keys()


def z(a, b):
    return zip(a, b)


def it(d):
    return d.items()
""",
        [
            """\
assert (
    k({"a": 1}) == {"a"}
    and list(k({"a": 1})) == ["a"]
    and dict(z([1], [2])) == {1: 2}
    and sorted(it({"b": 1, "a": 2})) == [("a", 2), ("b", 1)]
)
"""
        ],
        "assert False",
    ),
    "contains": (
        """\
class Trie:
    def __init__(s):
        s.w = set()

    def add(s, x):
        s.w.add(x)

    def __contains__(s, x):
        return x in s.w
""",
        [
            """\
t = Trie()
t.add("a")
assert "a" in t and "b" not in t
"""
        ],
        """\
assert "z" in Trie()
""",
    ),
    "answerimport": (
        """\
def f():
    return 1
""",
        [
            """\
import answer

assert answer.f() == 1
""",
            """\
from answer import f as g

assert g() == 1
""",
        ],
        "assert False",
    ),
    "math": (
        """\
import math


def f():
    return math.pi
""",
        ["assert math.isclose(f(), 3.14159265, rel_tol=1e-6)"],
        "assert False",
    ),
    "recursion": (
        """\
def f(n):
    return 1 if n < 2 else n * f(n - 1)
""",
        [
            """\
assert f(50) == 30414093201713378043612608166064768844377641568960512000000000000
"""
        ],
        "assert f(5) == 121",
    ),
    "dataclass": (
        """\
from dataclasses import dataclass


@dataclass
class P:
    x: int
    y: int = 2


def mk():
    return [P(1), P(2)]
""",
        [
            """\
assert (
    mk() == [P(1), P(2)]
    and repr(P(1)) == "P(x=1, y=2)"
    and str(P(1)) == repr(P(1))
    and mk()[0].y == 2
)
""",
            """\
import copy

a = P(1)
b = copy.deepcopy(a)
b.x = 5
assert a.x == 1
""",
        ],
        "assert False",
    ),
    "bigtree": (
        """\
def f(n):
    return {str(i): [i] * 3 for i in range(n)}
""",
        ["assert f(2000) == {str(i): [i] * 3 for i in range(2000)}"],
        "assert False",
    ),
    "threads": (
        """\
def f(x):
    return x * x
""",
        [
            """\
from concurrent.futures import ThreadPoolExecutor

with ThreadPoolExecutor(2) as p:
    assert list(p.map(f, range(50))) == [x * x for x in range(50)]
"""
        ],
        "assert False",
    ),
}
