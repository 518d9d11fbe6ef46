"""Small faults of a source file: mutmut's mutations at the places where one changes what the code computes.

Not mutated: docstrings, annotations and type aliases, imports, decorators, blocks under `if TYPE_CHECKING`, what is
raised or logged, texts (of messages, help, pages: strings with a space), names of encodings, and the `strict` of zip.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from difflib import unified_diff
from pathlib import Path

import libcst as cst
from libcst import matchers as m
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation.mutators import mutation_operators, operator_arg_removal, operator_string

SPEAKERS = m.Name("log") | m.Name("print") | m.Name("say") | m.Name("warn") | m.Attribute(value=m.Name("log"))
TYPES = m.Name("Literal") | m.Name("TypeVar") | m.Name("cast")
NOT_MUTATED = (
    m.Annotation()
    | m.Import()
    | m.ImportFrom()
    | m.Decorator()
    | m.Raise()
    | m.If(test=m.Name("TYPE_CHECKING"))
    | m.Call(func=SPEAKERS | TYPES | m.Name("len") | m.Name("isinstance"))
    | m.Subscript(value=TYPES)
    | m.Expr(value=m.SimpleString() | m.ConcatenatedString())
    | m.Assign(targets=[m.AssignTarget(target=m.Name(value=m.MatchRegex(r"__all__|[A-Z][a-z]\w*|[A-Z]")))])
    | m.Assign(value=m.MatchIfTrue(lambda value: is_text(value)))
)
UNTOUCHED = ("encoding", "strict", "description", "help")  # arguments, by keyword
WORD = re.compile(r"\w?[\"'][\w./:-]+[\"']")
Site = tuple[int, int, cst.CSTNode, cst.CSTNode]  # line, that of its statement or 0, what stands there, and instead


@dataclass(frozen=True)
class Mutant:
    """One fault: its file in the repository, its line, that of its statement, the change, and the whole new text.

    `statement` is 0 outside of functions: it runs on import. That of an argument's default is the function's first one.
    """

    file: str
    line: int
    statement: int
    before: str
    after: str
    text: str


class SiteVisitor(cst.CSTVisitor):
    """Collects the places of a file and what mutmut would put there."""

    METADATA_DEPENDENCIES = (PositionProvider,)

    def __init__(self) -> None:
        super().__init__()
        self.sites: list[Site] = []
        self.statement = self.functions = 0

    def on_visit(self, node: cst.CSTNode) -> bool:
        if m.matches(node, NOT_MUTATED) or (isinstance(node, cst.Arg) and is_untouched(node)):
            return False
        if isinstance(node, cst.FunctionDef):  # whoever runs it shows what its defaults are
            self.statement = self.line(first_statement(node))
        elif isinstance(node, cst.SimpleStatementLine | cst.BaseCompoundStatement):
            self.statement = self.line(node)
        self.functions += isinstance(node, cst.FunctionDef)
        for kind, operator in mutation_operators:
            if isinstance(node, kind) and (operator is not operator_string or is_word(node)):
                here = self.line(node), self.statement if self.functions else 0, node
                self.sites += [(*here, changed) for changed in mutations(operator, node)]
        return True

    def on_leave(self, original_node: cst.CSTNode) -> None:
        self.functions -= isinstance(original_node, cst.FunctionDef)

    def line(self, node: cst.CSTNode) -> int:
        position = self.get_metadata(PositionProvider, node, None)
        return position.start.line if position else 0


def first_statement(function: cst.FunctionDef) -> cst.CSTNode:
    """The first statement of a function's body that is not its docstring; the function where there is no other."""
    docstring = m.SimpleStatementLine(body=[m.Expr(m.SimpleString() | m.ConcatenatedString()), m.ZeroOrMore()])
    return next((each for each in function.body.body if not m.matches(each, docstring)), function)


def is_untouched(argument: cst.Arg) -> bool:
    """Tell whether an argument says nothing that is computed: a text, or one of UNTOUCHED."""
    return bool(argument.keyword and argument.keyword.value in UNTOUCHED) or is_text(argument.value)


def is_text(node: cst.CSTNode) -> bool:
    """Tell whether a string is more than one word: a message, help, a page."""
    return m.matches(node, m.SimpleString() | m.ConcatenatedString() | m.FormattedString()) and not is_word(node)


def is_word(node: cst.CSTNode) -> bool:
    """Tell whether a string is one word: a name, a key, a path."""
    return isinstance(node, cst.SimpleString) and bool(WORD.fullmatch(node.value))


def mutations(operator: Callable, node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    """What an operator makes of a node: of words one spelling, of calls nothing that changes an untouched argument."""
    for changed in list(operator(node))[: 1 if operator is operator_string else None]:
        if operator is operator_arg_removal:
            kept = {id(argument) for argument in changed.args}
            if any(id(argument) not in kept and is_untouched(argument) for argument in node.args):
                continue
        yield changed


def draw_mutants(root: Path, package: str, count: int, seed: int) -> list[Mutant]:
    """Draw mutants of a package: each of another line, all lines alike, and of its mutations any."""
    rng = random.Random(f"{seed} {package}")
    files = sorted((root / "src" / "schema_student" / package).rglob("*.py"))
    wrappers = {path: MetadataWrapper(cst.parse_module(path.read_text(encoding="utf-8"))) for path in files}
    places: dict[tuple[Path, int], list[Site]] = defaultdict(list)
    for path, wrapper in wrappers.items():
        visitor = SiteVisitor()
        wrapper.visit(visitor)
        for site in visitor.sites:
            places[path, site[0]].append(site)
    drawn = [(path, rng.choice(places[path, line])) for path, line in rng.sample(sorted(places), len(places))]
    mutants = (mutant(root, path, wrappers[path].module, site) for path, site in drawn)
    return [found for found, _ in zip((found for found in mutants if found), range(count), strict=False)]


def mutant(root: Path, path: Path, module: cst.Module, site: Site) -> Mutant | None:
    """Put what a site has into its file; None where it is no Python any more."""
    line, statement, before, after = site
    text = module.deep_replace(before, after).code
    try:
        compile(text, str(path), "exec")
    except SyntaxError:
        return None
    _, _, *marks = unified_diff(module.code.splitlines(), text.splitlines(), n=0)
    lines = {mark: " ".join(entry[1:].strip() for entry in marks if entry[0] == mark) for mark in "-+"}
    return Mutant(path.relative_to(root).as_posix(), line, statement, lines["-"], lines["+"], text)
