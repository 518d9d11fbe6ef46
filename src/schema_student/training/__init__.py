"""One loop, several objectives: SFT, DPO with a dynamic beta, and how the embedded student was made.

Modules in reading order; each imports only from those above it (tests/test_architecture.py):

    local_workers  several processes of one training script on a CPU
    loop           run folders, planned batches, checkpoints, resume
    sft            corpus -> adapter
    dpo            pairs + controller -> aligned adapter
    pretraining    how the embedded student was made
"""
