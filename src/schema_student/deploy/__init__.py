"""Take a student to where small models are run, and prove that it is the same one there.

Modules in reading order; each imports only from those above it (tests/test_architecture.py):

    source           which student of a run, how it is asked, what is known of its base and its rates
    trial            test prompts, answers to them, and whether those are the adapter's
    merging          base and adapter as one model, in float32, held against the adapter
    gguf_vocabulary  a tokenizer in the words of GGUF
    gguf_weights     weights by their names there, quantized
    gguf_file        a merged Gemma 3 -> a GGUF file
    llamacpp         a GGUF file in llama.cpp's server
    gguf_trial       GGUF files, each asked the test prompts
    turns            what stands around each turn in a chat template
    ollama           a GGUF file and its Modelfile
    adapter          an adapter alone, its own files
    vllm             a folder and its command line
    harnesses        test requests for lm-evaluation-harness and promptfoo
    card             README.md of an export
    targets          places where the student is, and their answers as rows
    parity           the adapter, its exports and an endpoint side by side
    smoke            whether a served student is well
    serving          a student behind OpenAI's chat API
    export           each kind made beside, loaded back, tried, then put in its place
"""
