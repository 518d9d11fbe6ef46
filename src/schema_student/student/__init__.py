"""Run a local model: choose and load it, text <-> tokens, prompt trees and their attention, generation, ask.

Modules in reading order; each imports only from those above it (tests/test_architecture.py):

    tokens          text <-> token ids, in one place
    embedded        the embedded student from nothing
    bases           what a name means, and fetching it: GGUF files, Ollama's store, packages, the hub
    choice          which base, how it loads, and why
    attention       attention along the branches of a tree, and to a long cache
    blockwise_head  log-probabilities of targets, block by block of the vocabulary
    prompt_tree     many sequences that share prefixes -> one row
    batching        examples as ids, which of them share a batch
    constraints     what a schema allows next: its grammar, masks, and what the grammar does not hold
    key_values      keys and values of prompts, and of the rows that are being written
    kept_prompts    prompts whose keys and values are kept for later ones that begin alike
    fused           what a small Gemma 3 writes next, in few operations
    sureness        how sure a student was of an answer
    decoding        rows written together, each making room for the next
    generated       one generated answer
    generation      answers to prompts, greedy or sampled
    ask             requests -> answers, each with its verdict
    full_weights    all weights of a base trained, saved and put back, in the files of an adapter
    loading         base and adapter -> Student
    reading         how likely a student finds right answers, and whether greedy decoding writes one
    reward_model    a base with a scalar head, which scores answers
"""
