"""The grammar: what is understood, what is refused, and where the refusal points."""

import pytest

from epochd_server.domain.errors import InvalidInput
from epochd_server.domain.expressions import MAX_SUPPORTED_DEPTH, ExpressionLimits
from epochd_server.engine.autodiff.parse import parse
from epochd_server.engine.autodiff.syntax import Apply, Load, Number

LIMITS = ExpressionLimits()


def postfix(expression):
    """The statements in postfix notation, ``~`` for unary minus."""
    words = []
    for statement in parse(expression, LIMITS).statements:
        if statement.target is not None:
            words.append(f"{statement.target} :=")
        for instruction in statement.code:
            match instruction:
                case Number(value=value):
                    words.append(f"{value:g}")
                case Load(name=name):
                    words.append(name)
                case Apply(operation="unary -"):
                    words.append("~")
                case Apply(operation=operation, count=count):
                    words.append(f"{operation}/{count}" if operation.isalpha() else operation)
    return " ".join(words)


def refusal(expression, limits=LIMITS):
    with pytest.raises(InvalidInput) as caught:
        parse(expression, limits)
    (violation,) = caught.value.violations
    assert violation.field == "expression"
    return violation.description


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("1 - 2 - 3", "1 2 - 3 -"),
        ("8 / 4 / 2", "8 4 / 2 /"),
        ("1 + 2 * 3", "1 2 3 * +"),
        ("2 ** 3 ** 2", "2 3 2 ** **"),
        ("-x ** 2", "x 2 ** ~"),
        ("2 ** -x * 3", "2 x ~ ** 3 *"),
        ("2 ** -x ** 3", "2 x 3 ** ~ **"),
        ("-x * y", "x ~ y *"),
        ("x - -y", "x y ~ -"),
        ("- - x", "x ~ ~"),
        ("2 * (x + 1)", "2 x 1 + *"),
        ("max(x, y + 1) * exp(0)", "x y 1 + max/2 0 exp/1 *"),
        ("f()", "f/0"),
        ("y = w**2; z = 2*y + 5", "y := w 2 ** z := 2 y * 5 +"),
        ("\n\ny = w\r\n;;\ny*2;\n", "y := w y 2 *"),
        ("(x +\n y)", "x y +"),
        ("max(\n  x,\n  y\n)", "x y max/2"),
        (".5 + 5. + 1e3 + 1.5E-2 + 2e+1", "0.5 5 + 1000 + 0.015 + 20 +"),
        ("x − 1", "x 1 -"),
    ],
)
def test_precedence_and_statements(expression, expected):
    assert postfix(expression) == expected


@pytest.mark.parametrize("expression", ["", "   ", "\n\n", ";;;", "\t\r\n;"])
def test_nothing_to_evaluate_is_refused_with_an_example(expression):
    assert refusal(expression) == "is empty; write one such as 2*w**2 + 5"


@pytest.mark.parametrize(
    ("expression", "line", "column", "hint"),
    [
        ("2w", 1, 2, "'w' follows a number without an operator"),
        ("0x10", 1, 2, "'x10' follows a number"),
        ("1_000", 1, 2, "'_000' follows a number"),
        ("2 w", 1, 3, "write * for a product"),
        ("w (3) 4", 1, 7, "write * for a product"),
        ("(1)(2)", 1, 4, "write * for a product"),
        ("1.2.3", 1, 4, "'.3' follows a value"),
        ("w +", 1, 4, "found the end of the expression"),
        ("a = 1;\nw +\n2", 2, 4, "found the end of the line"),
        ("* w", 1, 1, "found '*'"),
        ("+w", 1, 1, "found '+'"),
        ("w // 2", 1, 4, "found '/'"),
        ("w ** ** 2", 1, 6, "found '**'"),
        ("(w + 1", 1, 1, "'(' is never closed"),
        ("exp(w\n\n", 1, 4, "'(' is never closed"),
        ("w + 1)", 1, 6, "')' closes no parenthesis"),
        ("(w; 1)", 1, 3, "expected an operator or ')', found ';'"),
        ("()", 1, 2, "found ')'"),
        ("exp(w,)", 1, 7, "found ')'"),
        ("w, 1", 1, 2, "',' separates the arguments"),
        ("w == 1", 1, 4, "found '='"),
        ("2 = w", 1, 3, "no comparison"),
        ("a = b = w", 1, 7, "no comparison"),
        ("w ^ 2", 1, 3, "write ** for a power"),
        ("w²", 1, 2, "U+00B2; write **2"),
        ("a @ b", 1, 3, "write matmul(a, b)"),
        ("w.grad", 1, 2, "names have no attributes"),
        ("w[0]", 1, 2, "no indexing"),
        ("w # note", 1, 3, "no comments"),
        ("'w'", 1, 1, "unexpected character '''"),
        ("a\nb\n  ж", 3, 3, "unexpected character U+0436"),
        ("1e999", 1, 1, "larger than float64"),
        ("9" * 400, 1, 1, "larger than float64"),
        ("x" * 65, 1, 1, "a name longer than 64"),
        ("x" * 65 + " = 1", 1, 1, "a name longer than 64"),
    ],
)
def test_a_syntax_error_names_its_place_and_what_would_be_right(expression, line, column, hint):
    description = refusal(expression)
    assert description.startswith(f"line {line}, column {column}: "), description
    assert hint in description


HOSTILE = {
    "import": "__import__('os').system('true')",
    "dunder": "w.__class__.__mro__",
    "lambda": "lambda: 0",
    "walrus": "(w := 3)",
    "comprehension": "[w for w in w]",
    "f-string": 'f"{w}"',
    "star": "exp(*w)",
    "keyword": "exp(x=w)",
    "condition": "w if w else w",
    "null byte": "w\x00",
    "backslash": "w \\\n + 1",
    "form feed line": "w\x0b\x0c(",
    "surrogate": "\ud800",
    "bidi override": "w\u202e + 1",
    "zero width": "w\u200b",
    "no-break space": "w\u00a0+ 1",
    "fullwidth digits": "１ + １",
    "arabic digits": "٣",
    "fullwidth call": "ｅｘｐ(w)",
    "long s": "\u017fin(w)",
    "kelvin sign": "\u212a",
    "line separator": "w\u2028w",
    "await": "await w",
    "complex": "1j*w",
    "mega string": "w+" * 5_000_000,
    "mega parentheses": "(" * 10_000_000,
    "nested parentheses": "(" * 2000 + "w" + ")" * 2000,
    "nested minus": "-" * 4000 + "w",
    "nested powers": "**".join("w" * 1300),
    "nested calls": "exp(" * 1000 + "w" + ")" * 1000,
    "unclosed calls": "f(" * 2000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_refused(name):
    assert len(refusal(HOSTILE[name])) < 300


def nested(kind, depth):
    match kind:
        case "parentheses":
            return "(" * depth + "w" + ")" * depth
        case "minus":
            return "-" * depth + "w"
        case "powers":
            return "w" + "**w" * depth
        case "calls":
            return "exp(" * depth + "w" + ")" * depth
        case _:
            return "1+2*w**(" * (depth // 2) + "w" + ")" * (depth // 2)


@pytest.mark.parametrize("kind", ["parentheses", "minus", "powers", "calls", "mixed"])
def test_nesting_is_allowed_up_to_the_limit_and_no_further(kind):
    limits = ExpressionLimits(max_depth=MAX_SUPPORTED_DEPTH)
    parse(nested(kind, MAX_SUPPORTED_DEPTH), limits)
    assert "nested deeper than 100 levels" in refusal(nested(kind, MAX_SUPPORTED_DEPTH + 2), limits)


def test_a_long_sum_does_not_nest():
    assert len(parse("+".join("w" * 500), LIMITS).statements[0].code) == 999


def test_nodes_are_counted_over_all_statements():
    limits = ExpressionLimits(max_nodes=6)
    parse("a = w+1; a*2", limits)
    assert "more than 6 numbers, names and operations" in refusal("a = w+1; a*2-1", limits)


def test_statements_are_counted_without_blank_ones():
    limits = ExpressionLimits(max_statements=2)
    parse(";;a = 1;;;\n\na;;", limits)
    assert refusal("a=1;b=2;a", limits) == "line 1, column 9: more than 2 statements"


def test_length_is_checked_before_anything_is_read():
    assert refusal("\x00" * 4097) == "has 4097 characters, at most 4096 are allowed"


def test_a_name_may_be_as_long_as_the_limit():
    assert postfix("x" * 64) == "x" * 64
