"""Serve a GGUF as a teacher on loopback, for people without Ollama.

python scripts/serve_teacher.py qwen2.5-coder-1.5b-instruct-q4_k_m.gguf
"""

from schema_student.cli.main import run_verb

if __name__ == "__main__":
    run_verb("serve-teacher")
