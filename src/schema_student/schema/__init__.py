"""JSON Schema alone, no model: compile, judge, explain, compare meanings, render, draw instances.

Modules in reading order; each imports only from those above it (tests/test_architecture.py):

    parsing       text -> JSON value, strictly by RFC 8259
    structure     what a $ref names; shape; order of properties
    explaining    why a value is not valid: path, keyword, message, rank
    rules         what JSON Schema cannot say: x-rules
    compiling     compile a schema once, or say why it cannot be used
    judging       judge(text, schema) -> Verdict
    meaning       whether two answers mean the same
    query_dsl     the query DSL: built from a domain, read back from a schema
    rendering     how a prompt shows a schema
    prompts       the prompt and the completion of a student
    instances     a random valid instance of any schema
    mutations     a valid instance -> broken ones of known kinds
    user_schemas  the user's own schemas: a folder or a JSONL file
"""
