"""What a test must look like, read from its source: it can fail, and asks what it says it asks."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).parent
FILES = sorted(p for p in TESTS.rglob("*.py") if "strangers" not in p.parts)
TREES = {path: ast.parse(path.read_text()) for path in FILES}
RAISES = ("raises", "warns", "fail", "xfail", "skip")  # of pytest
NEVER_FALSE = ("invoke", "subprocess.run", "Popen", "mkdtemp", "Path", "CliRunner")  # is returned
REFUSES = "any exception but BadInput fails it"
WHOLE = "what it goes over is made by the test, or is the whole of something that is never empty"
SURE = {  # tests whose checks are in loops and branches of data, and why one of them is reached
    "test_whatever_is_spelled_is_read_or_refused": REFUSES,
    "test_whatever_is_said_of_shifts_and_cells_is_read_or_refused": REFUSES,
    "test_whatever_a_suite_says_is_read_or_refused": REFUSES,
    "test_whatever_a_record_says_is_read_or_refused": REFUSES,
    "test_whatever_lies_beside_records_is_read_or_refused": REFUSES,
    "test_any_other_text_is_refused_with_bad_input_alone": REFUSES,
    "test_whatever_a_key_of_a_suite_holds_is_read_or_refused": REFUSES,
    "test_a_broken_archive_of_a_store_is_told": REFUSES,
    "test_a_broken_bundle_is_told": REFUSES,
    "test_operations_of_randaugment_are_torchvisions": WHOLE,
    "test_every_check_has_a_defect_that_it_catches": WHOLE,
    "test_what_comes_close_and_what_stays_apart_differ_where_no_view_is_taken": WHOLE,
    "test_all_that_is_generated_is_a_function_of_the_other_files": WHOLE,
    "test_the_whole_path_reaches_scikit_learns_objective": WHOLE,
    "test_every_print_is_most_like_what_matplotlib_draws_for_its_label": WHOLE,
    "test_glyphs_are_as_high_and_where_their_plan_says_and_none_is_cut_off": WHOLE,
    "test_turned_images_are_those_of_rot90": WHOLE,
    "test_a_year_goes_to_its_period_and_other_is_no_continent": WHOLE,
    "test_a_group_is_named_after_its_class_and_its_confounder": WHOLE,
    "test_a_gradient_is_that_of_finite_differences": WHOLE,
    "test_a_network_trained_with_others_is_the_one_trained_alone": WHOLE,
    "test_mistakes_survive_the_store_bit_for_bit": WHOLE,
    "test_mistakes_are_those_that_a_loop_over_scores_counts": WHOLE,
    "test_class_and_domain_share_directions_only_if_beta_is_below_gamma": WHOLE,
    "test_preconditioned_averages_by_the_length_of_the_walk": WHOLE,
    "test_what_k_features_hold_is_what_their_columns_span": WHOLE,
    "test_a_field_of_a_stage_wherever_it_is_said": WHOLE,
    "test_both_ends_of_every_range_are_accepted": WHOLE,
    "test_two_processes_have_the_losses_of_one": WHOLE,
    "test_no_group_is_on_two_sides_of_a_split": WHOLE,
}
PLAIN = {"extension/constants", "extension/errors"}  # what all others are written in
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def every_test() -> Iterator[tuple[Path, ast.FunctionDef]]:
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, FUNCTIONS) and node.name.startswith("test_"):
                yield path, node


def called(node: ast.AST) -> str:
    """The last name of what is called; of `subprocess` with that."""
    if not isinstance(node, ast.Call):
        return ""
    if isinstance(node.func, ast.Attribute):
        of = getattr(node.func.value, "id", "")
        return f"subprocess.{node.func.attr}" if of == "subprocess" else node.func.attr
    return getattr(node.func, "id", "")


def checks(node: ast.AST, helpers: frozenset[str]) -> bool:
    """Whether this very statement or expression fails where something is wrong."""
    plain = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    ours = plain and node.func.id in helpers
    return isinstance(node, ast.Assert | ast.Raise) or called(node) in RAISES or ours


def helpers_by_file() -> dict[Path, frozenset[str]]:
    """Functions of a file, or imported from another, that assert, or call one that does."""
    stems = {path.stem: path for path in FILES}
    found: dict[Path, frozenset[str]] = dict.fromkeys(FILES, frozenset())
    while True:
        more = {}
        for path, tree in TREES.items():
            own = {
                node.name
                for node in ast.walk(tree)
                if isinstance(node, FUNCTIONS) and not node.name.startswith("test_")
                if any(checks(each, found[path]) for each in ast.walk(node))
            }
            taken = {
                alias.asname or alias.name
                for node in ast.walk(tree)
                if isinstance(node, ast.ImportFrom) and node.module in stems
                for alias in node.names
                if alias.name in found[stems[node.module]]
            }
            more[path] = frozenset(own | taken)
        if more == found:
            return found
        found = more


HELPERS = helpers_by_file()


@dataclass
class Reader:
    """Whether a check of some statements is reached, whatever the data are."""

    helpers: frozenset[str]
    known: dict[str, ast.expr | None]  # names, and what they were given; None: it is not empty

    def always(self, body: list[ast.stmt]) -> bool:
        return any(self.reached(statement) for statement in body)

    def reached(self, statement: ast.stmt) -> bool:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            self.known[statement.targets[0].id] = statement.value
        if isinstance(statement, ast.If):
            return self.always(statement.body) and self.always(statement.orelse)
        if isinstance(statement, ast.For):
            return not self.may_be_empty(statement.iter) and self.always(statement.body)
        if isinstance(statement, ast.With):
            return any(map(self.checks, statement.items)) or self.always(statement.body)
        if isinstance(statement, ast.Try):
            ends = [statement.orelse, *(handler.body for handler in statement.handlers)]
            return (
                self.always(statement.body)
                or self.always(statement.finalbody)
                or all(map(self.always, ends))
            )
        if isinstance(statement, ast.While | ast.ClassDef | ast.FunctionDef):
            return False
        return self.checks(statement)

    def checks(self, node: ast.AST) -> bool:
        return any(checks(each, self.helpers) for each in ast.walk(node))

    def may_be_empty(self, values: ast.expr) -> bool:
        """Of what a loop goes over: not a fixture, nor a constant of a module, in capitals."""
        if isinstance(values, ast.Tuple | ast.List | ast.Set):
            return not values.elts
        if isinstance(values, ast.Dict):
            return not values.keys
        if isinstance(values, ast.Constant):
            return not values.value
        if isinstance(values, ast.Name):
            if values.id in self.known:
                value = self.known.pop(values.id)
                return value is not None and self.may_be_empty(value)
            return not values.id.isupper()
        if isinstance(values, ast.Attribute):
            return not (values.attr.isupper() or values.attr in ("domain_names", "__all__"))
        if isinstance(values, ast.Starred | ast.Subscript):
            return self.may_be_empty(values.value)
        name = called(values)
        if name in ("zip", "product"):
            strict = any(k.arg == "strict" for k in values.keywords)
            return (all if strict else any)(map(self.may_be_empty, values.args))
        if name in (
            "range",
            "linspace",
            "random_blocks",
            "split",
            "rstrip",
        ):  # of a number, or of a text
            return False
        if name in ("enumerate", "sorted", "reversed", "list", "tuple", "set", "map", "pairwise"):
            return self.may_be_empty(values.args[-1])
        if name in ("items", "values", "keys") and isinstance(values.func, ast.Attribute):
            return self.may_be_empty(values.func.value)
        return True


def reader(path: Path, test: ast.FunctionDef) -> Reader:
    """Its arguments are fixtures, and what hypothesis draws."""
    return Reader(HELPERS[path], {argument.arg: None for argument in test.args.args})


def place(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(TESTS).as_posix()}:{node.lineno}"


def test_every_test_checks_something():
    silent = [
        place(path, test)
        for path, test in every_test()
        if test.name not in SURE and not reader(path, test).checks(test)
    ]
    assert silent == []


def test_no_test_passes_because_its_data_are_none():
    """Where all asserts are in branches and loops, one of them is reached for certain."""
    maybe = {test.name: place(path, test) for path, test in every_test()
             if not reader(path, test).always(test.body)}  # fmt: skip
    assert sorted(where for name, where in maybe.items() if name not in SURE) == []
    assert sorted(SURE.keys() - maybe.keys()) == [], "these need no excuse any more"


def test_nothing_is_asserted_that_is_always_true():
    found = []
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Assert):
                test = node.test.operand if isinstance(node.test, ast.UnaryOp) else node.test
                full = isinstance(test, ast.Tuple | ast.GeneratorExp | ast.Lambda | ast.JoinedStr)
                if full or called(test) in NEVER_FALSE:
                    found.append(place(path, node))
    assert found == []


def test_what_is_one_or_the_other_says_why():
    """An `or` in an assert has a message, or a comment beside it or above it."""
    found = []
    for path, tree in TREES.items():
        lines = path.read_text().splitlines()
        for node in ast.walk(tree):
            if not isinstance(node, ast.Assert) or node.msg:
                continue
            parts = node.test.values if isinstance(node.test, ast.BoolOp) else [node.test]
            either = isinstance(node.test, ast.BoolOp) and isinstance(node.test.op, ast.Or)
            either |= any(isinstance(p, ast.BoolOp) and isinstance(p.op, ast.Or) for p in parts)
            around = lines[node.lineno - 2 : node.end_lineno]
            if either and not any("# " in line for line in around):
                found.append(place(path, node))
    assert found == []


def test_a_suite_that_is_changed_in_a_test_is_one_that_notices():
    """`str.replace` says nothing where nothing matches; that of `tiny.Text` raises."""
    found = []
    for path, tree in TREES.items():
        made = {
            node.targets[0].id: node.value
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        }
        for node in ast.walk(tree):
            if called(node) == "replace" and isinstance(node.func, ast.Attribute):
                name = root_of(node.func.value)
                while name in made and (below := root_of(made[name])) and below != name:
                    name = below
                plain = name in made and not isinstance(made[name], ast.Call) and name.isupper()
                if plain or called(node.func.value) == "read_text":
                    found.append(f"{place(path, node)} {name}")
    assert found == []


def test_no_test_imports_from_a_file_of_tests():
    """What several files need is in helpers/, where children of tests find it too."""
    found = []
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            found += [f"{place(path, node)} {n}" for n in names
                      if n and n.rpartition(".")[2].startswith("test_")]  # fmt: skip
    assert found == []


def test_the_table_of_tests_is_whole():
    """Of tests/README.md: every file of tests once, every module somewhere, nothing else."""
    text = (TESTS / "README.md").read_text()
    rows = re.findall(r"^\| `([\w/]*test_\w+\.py)` \| (.*?) \| (.+?) \|$", text, re.MULTILINE)
    files = [p.relative_to(TESTS).as_posix() for p in FILES if p.name.startswith("test_")]
    assert sorted(name for name, _, _ in rows) == sorted(files)
    assert [name for name, _, _ in rows] == sorted(files, key=lambda f: (f.count("/"), f))
    named = {n for _, of, _ in rows for n in re.findall("`(.*?)`", of)}
    core = TESTS.parent / "benchbench"
    modules = {p.relative_to(core).with_suffix("").as_posix() for p in core.rglob("*.py")
               if not p.name.startswith("__") and "templates" not in p.parts}  # fmt: skip
    plugins = {p.name for p in (TESTS.parent / "plugins").iterdir() if p.is_dir()}
    assert sorted((modules | plugins) - named - PLAIN) == [], "no file says that it tests these"
    others = named - modules - plugins
    there = {n for n in others if (TESTS.parent / n).exists() or (core / n).exists()}
    assert sorted(others - there - {"mutants.toml"}) == []
    for name in re.findall(r"`([\w/]+\.(?:py|toml))", text):
        assert (TESTS / name).exists() or (TESTS.parent / name).exists(), name


def test_children_of_tests_get_this_checkout():
    """Who gives a process another PYTHONPATH than that of checkout.py keeps what is in it."""
    found = []
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and node.value == "PYTHONPATH":
                found.append(path.relative_to(TESTS).as_posix())
    assert {name: found.count(name) for name in found} == {
        "checkout.py": 2,
        "conftest.py": 1,  # takes it away, where an installed wheel is what is tested
        "faults/test_rows_02_10_stopped.py": 2,  # adds to it
        "test_mutants.py": 1,  # a copy of the checkout, which it asserts is what is imported
        "test_tests.py": 1,
    }
    script = "import benchbench, tiny; print(benchbench.__file__, tiny.MODULES[0].__file__)"
    told = subprocess.run([sys.executable, "-c", script], cwd="/", capture_output=True, text=True)
    for place in told.stdout.split():
        assert Path(place).is_relative_to(TESTS.parent), told.stdout
    assert len(told.stdout.split()) == 2, told.stderr


def root_of(node: ast.AST) -> str:
    """The name that an expression begins with."""
    while not isinstance(node, ast.Name):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            node = node.func.value
        elif isinstance(node, ast.BinOp):
            node = node.left
        else:
            return ""
    return node.id
