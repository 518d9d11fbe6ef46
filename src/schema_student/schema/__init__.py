"""Work with JSON Schema alone, no model: compile, judge, grade, render, draw instances.

Modules in reading order; each imports only from those above it (tests/test_architecture.py):

    ranks         how far from right an answer is, and what each rank is called
    parsing       text -> JSON value, strictly by RFC 8259
    structure     what a $ref names; shape; order of properties
    conditions    if/then/else as alternatives
    dynamic_references  $dynamicRef and $recursiveRef as plain references
    limits        numbers beyond a double, references that only name each other
    sizes         how large the instances of a schema are at least
    drafts        by which draft a schema is read, and what that makes of it
    violations    what is wrong with a value: path, keyword, message, rank
    subschemas    the parts of a schema, each with its validator
    unions        which alternative of a union tells best why none is obeyed
    applicators   what is wrong with a value keyword by keyword
    explaining    why a value is not valid, within a budget
    rules         what JSON Schema cannot say: x-rules
    compiling     compile a schema once, or say why it cannot be used
    judging       judge(text, schema) -> Verdict
    query_dsl     the query DSL: built from a domain, read back from a schema
    dialect       the template and operators that it is built of: the shipped ones, or the user's own
    free_text     what is noise in a text, which words of a refusal name what is missing, and in which language
    canonical     one text for all answers that say the same
    accepted      alternatives to the target of a request
    parts         an answer and its target, condition by condition or property by property
    grading       grade(text, schema, target) -> Grade: the one judgement of an answer to a request
    first_fault   where in its text an answer first goes wrong
    compact       a schema as lines from which its verdicts can be told
    rendering     how a prompt shows a schema
    answers       right answers to a request as texts: its target, and what its alternatives come to
    prompts       the prompt of a student
    instances     a random valid instance of any schema
    mutations     a valid instance -> broken ones of known kinds
    tool_choice   several tools -> the schema of a call of one of them
    envelopes     tool definitions, response formats, OpenAPI documents -> the schema in them; nullable
    openapi       the operations of an OpenAPI document as tools
    bundling      files that refer to each other -> schemas that stand alone
    yaml_files    YAML read as JSON
    user_schemas  the user's own schemas: a folder or a JSONL file
"""
