"""Schemas of any shape and of every format that examples are made of, for property-based tests."""

from hypothesis import strategies as st

from schema_student.schema.instances.formats import FORMATS

NAMES = st.sampled_from(["a", "b", "c", "kind", "size"])
SMALL = st.integers(0, 4)


def leaf_schemas():
    bounds = st.tuples(st.integers(-50, 50), st.integers(0, 40))
    return st.one_of(
        st.just({"type": "string"}),
        st.just({"type": "boolean"}),
        st.just({"type": "null"}),
        st.just({}),
        bounds.map(lambda b: {"type": "integer", "minimum": b[0], "maximum": b[0] + b[1]}),
        bounds.map(lambda b: {"type": "number", "exclusiveMinimum": b[0], "exclusiveMaximum": b[0] + b[1] + 0.5}),
        st.integers(1, 9).map(lambda n: {"type": "integer", "multipleOf": n}),
        bounds.map(lambda b: {"type": "string", "minLength": b[1] // 4, "maxLength": b[1]}),
        st.sampled_from(sorted(FORMATS)).map(lambda name: {"type": "string", "format": name}),
        st.lists(st.integers() | st.text(max_size=3) | st.none(), min_size=1, max_size=4).map(lambda v: {"enum": v}),
        st.text(max_size=4).map(lambda v: {"const": v}),
        st.sampled_from(["^[A-Z]{2}-\\d{3}$", "^(ab|cd)+x?$", "[^a-z]", "^https?://", "\\w+@\\w+", "^\\p{Lu}"]).map(
            lambda pattern: {"type": "string", "pattern": pattern}
        ),
    )


def object_schemas(children):
    return st.tuples(st.dictionaries(NAMES, children, max_size=4), st.booleans(), st.booleans(), st.randoms()).map(
        lambda drawn: {
            "type": "object",
            "properties": drawn[0],
            "required": sorted(drawn[0])[: drawn[3].randint(0, len(drawn[0]))],
            **({"additionalProperties": False} if drawn[1] else {}),
            **({"minProperties": 1} if drawn[2] and drawn[0] else {}),
        }
    )


SCHEMAS = st.recursive(
    leaf_schemas(),
    lambda children: st.one_of(
        object_schemas(children),
        st.tuples(children, SMALL).map(lambda d: {"type": "array", "items": d[0], "maxItems": 2 + d[1]}),
        st.tuples(children, children).map(lambda d: {"type": "array", "prefixItems": list(d), "items": False}),
        st.lists(children, min_size=1, max_size=3).map(lambda options: {"anyOf": options}),
        st.tuples(children, children).map(
            lambda d: {"$defs": {"x": d[0]}, "type": "object", "properties": {"x": d[1]}, "description": "d"}
        ),
    ),
    max_leaves=8,
)
