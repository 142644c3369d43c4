"""The table against a naive one: any order of putting and removing, while it grows, compiled and interpreted."""

import importlib.util
import random
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from zignet.dns import name_table

MOST = 2_000


def interpreted():
    """The same file as it stands, whether or not it is compiled as well."""
    spec = importlib.util.spec_from_file_location(
        "interpreted_name_table", Path(name_table.__file__).parent / "name_table.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MODULES = {"as installed": name_table, "interpreted": interpreted()}


@pytest.fixture(params=MODULES)
def module(request):
    return MODULES[request.param]


def check(table, oracle, most=MOST):
    """Both ways, what is there and what is not."""
    assert len(table) == len(oracle)
    for number, (key, stamp) in oracle.items():
        assert table.find(key) == number
        assert table.found == stamp == table.stamp(number)
        assert table.key(number) == key
    for number in {1, most} - oracle.keys():
        assert table.key(number) == ""


@pytest.mark.parametrize("size", [1, 50, 51, 52, 59, 64, 254, 255, 256, 300])
@pytest.mark.parametrize("letter", ["a", "ü", "𝄞", "\0"])
def test_keys_of_any_length(module, size, letter):
    table = module.NameTable(9)
    key = letter * size
    table.put(7, key, 0xFFFFFFFF)
    table.put(8, key + "x", 1)
    check(table, {7: (key, 0xFFFFFFFF), 8: (key + "x", 1)}, 9)
    assert table.find(key[:-1]) == 0
    table.remove(7)
    assert (table.find(key), table.key(7), table.find(key + "x")) == (0, "", 8)


@pytest.mark.parametrize("number", [0, -1, 10, 1 << 40])
def test_numbers_that_it_has_not(module, number):
    table = module.NameTable(9)
    assert table.key(number) == ""
    table.remove(number)
    with pytest.raises(ValueError, match="can't be the number"):
        table.put(number, "a.example", 0)
    with pytest.raises(KeyError):
        table.stamp(number)
    with pytest.raises(KeyError):
        table.set_stamp(number, 1)


def test_a_number_with_a_key_gets_no_other(module):
    table = module.NameTable(9)
    table.put(9, "a.example", 0)
    with pytest.raises(ValueError, match="9 can't be"):
        table.put(9, "b.example", 0)
    with pytest.raises(ValueError, match="8 can't be"):
        table.put(8, "", 0)
    assert table.find("b.example") == 0


class Collisions:
    """A hash with few values: every probe is a long one, and wraps around."""

    def __init__(self, values):
        self.values = values

    def __call__(self, key):
        return (random.Random(key).randrange(self.values) - 2) & 0xFFFFFFFF  # the last places of a table, too


@pytest.mark.parametrize("values", [1, 5, 1 << 32])
def test_growing_and_shrinking_with_collisions(monkeypatch, values):
    module = MODULES["interpreted"]
    monkeypatch.setattr(module, "code_of", Collisions(values))
    monkeypatch.setattr(module, "SMALLEST", 4)
    monkeypatch.setattr(module, "MOVED", 2)
    chance = random.Random(values)
    table, oracle = module.NameTable(200), {}
    for turn in range(1_500):
        number = chance.randint(1, 200)
        if number in oracle:
            table.remove(number)
            del oracle[number]
        elif len(oracle) < 40 + turn // 20:
            oracle[number] = f"{turn}.example", turn
            table.put(number, *oracle[number])
        check(table, oracle, 200)


def test_many(module):
    """Through every doubling, with what was removed gone and the rest there."""
    table = module.NameTable(20_000)
    for number in range(1, 20_001):
        table.put(number, f"{number}.example", number)
        if number % 3 == 0:
            table.remove(number - 1)
    for number in range(1, 20_001):
        there = number % 3 != 2 or number == 20_000
        assert table.find(f"{number}.example") == (number if there else 0)


class Against(RuleBasedStateMachine):
    """A dictionary, and the table beside it."""

    @initialize(which=st.sampled_from(sorted(MODULES)))
    def start(self, which):
        self.table = MODULES[which].NameTable(MOST)
        self.oracle = {}

    @rule(number=st.integers(1, MOST), key=st.text(st.characters(codec="utf-8"), min_size=1, max_size=70))
    def put(self, number, key):
        if number in self.oracle or key in {each for each, _ in self.oracle.values()}:
            return
        self.table.put(number, key, number)
        self.oracle[number] = key, number

    @rule(count=st.integers(1, 600))
    def put_many(self, count):
        for number in range(1, MOST + 1):
            if count and number not in self.oracle:
                self.put(number, f"{len(self.oracle)}-{number}.example")
                count -= 1

    @rule(step=st.integers(1, 7))
    def remove_some(self, step):
        for number in list(self.oracle)[::step]:
            self.table.remove(number)
            del self.oracle[number]

    @rule(stamp=st.integers(0, 0xFFFFFFFF))
    def note(self, stamp):
        for number in list(self.oracle)[:5]:
            self.table.set_stamp(number, stamp)
            self.oracle[number] = self.oracle[number][0], stamp

    @invariant()
    def agree(self):
        check(self.table, self.oracle)


Against.TestCase.settings = settings(max_examples=25, stateful_step_count=12, deadline=None)
TestAgainst = Against.TestCase
