"""schema_student: teach a small model to answer in JSON that obeys a schema.

Modules in reading order; each imports only from those above it (tests/test_architecture.py holds that):

    config            every setting, typed and documented once; JSON file + flags -> settings
    artifacts         JSONL and JSON in and out: atomic, resumable, stamped; where each artifact lies
    schemas           load and compile a JSON Schema; judge(text, schema) -> Verdict
    instances         a valid instance of a schema
    mutations         a valid instance -> broken ones, each of a known kind
    user_schemas      the user's own schemas: a folder or a JSONL file
    prompts           the one renderer of what the student and the teacher read
    phrasing          a truth -> words, from a bank of phrases
    embedded_teacher  a rule-based teacher that serves Ollama's API on loopback
    transport         HTTP with a deadline, a size limit, no redirects, typed faults
    answer_cache      the teacher's answers on disk; exported and imported
    teacher_api       what a server is asked, by Ollama's API or by OpenAI's
    dispatch          questions to hosts: bounded, least loaded first, failing ones set aside
    teacher           a teacher behind such an API: probe, retries, repairs, cache, what it cost
    domains           domain spec + operators + template -> JSON Schema
    novelty           is a request new: no repetition, no overlap of training and tests
    dataset           schemas and queries -> teacher -> judged rows
    description       what the rows hold: diversity and balance
    publishing        the dataset as others load it: splits and a card; pushed by request only
    corpus            rows -> prompt/completion, deduplicated, split by schema
    pretraining_data  the schemas and requests that the embedded student was made from
    student           load the base and an adapter; the embedded student
    cores             several processes of one training script on a CPU
    attention         how tokens attend along the branches of a tree, and to a long cache
    prompt_tree       many sequences that share prefixes -> one row, computed once
    batching          examples as ids, which of them share a batch, their log-probabilities
    training          what SFT and DPO share: processes, checkpoints, the Trainer that resumes
    pretraining       how the embedded student was made
    sft               corpus -> adapter
    generation        batched decoding, greedy or sampled
    evaluation        adapter -> one verdict row per prompt -> summary
    pairs             samples and verdicts -> chosen/rejected
    preferences       preference data of any origin -> chosen/rejected
    rollouts          k answers a prompt, scored -> preference data
    beta              the dynamic-beta controllers; pure Python, no torch
    alignment         pairs + controller -> aligned adapter
    commands          train-sft, train-dpo, train-beta-dpo: any model, any data
    comparison        verdict rows of several students -> what differs between them
    duels             two adapters, prompt by prompt, before the teacher: win, tie, loss
    figures           the plots of the report
    report            artifacts -> report.md, report.html, plots; only reads
    side_by_side      logs and evaluations of several DPO runs -> one page
"""

import os

__version__ = "0.1.0"

# Before libgomp is loaded: its threads spin where they wait, and two processes on two cores hardly move (a training
# step of 0.7 s took 8 s). Whoever has set these keeps what was set.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")
