"""What the process that tests' programs are forked from imports: all that they need, before it is forked."""

import torch._dynamo  # noqa: F401
from trl import DPOTrainer, RLOOTrainer, SFTTrainer  # noqa: F401

import schema_student.training.alignment.stage
import schema_student.training.dpo.stage  # noqa: F401
from schema_student.training.local_workers import import_ahead

import_ahead()
