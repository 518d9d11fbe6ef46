"""Train in one loop with several objectives: SFT, alignment by a chain of them, pretraining of the embedded student.

Modules in reading order; each imports only from those above it (tests/test_architecture.py):

    local_workers  several processes of one training script on a CPU
    distributed    values and gradients of all processes of a run
    sharding       gradients and the optimizer's state divided among processes: FSDP
    checks         a stop at what is not finite
    trackers       TensorBoard, Weights & Biases, trackio
    metrics_log    a row a step: to the file, the tracker, the terminal
    checkpoints    save, find, load, publish
    resuming       the checkpoint to go on from: the newest whole one, or one that a person names
    optimization   steps, AdamW, learning rate
    keeping        the newest checkpoints and the best stay
    batches        rows -> batches on the device
    loop           optimizer steps, validation, checkpoints, resume
    trl_trainers   the same run by trl's SFTTrainer and DPOTrainer
    trl_limits     what trl's trainers cannot do
    stage          the lock of a run's folder, run_config.json
    averaging      adapters -> their mean
    validation_answers  validation requests answered while training
    stopping       the best validation so far, and when to stop
    fine_tuning    what SFT does: rows, loss, choice of the checkpoint
    sft            corpus -> adapter
    rl             rewards, advantages and losses of policy gradients
    alignment      requests + an objective -> aligned adapter: what links of a chain share
    dpo            pairs + controller -> aligned adapter
    control        what an alignment is compared with: SFT that goes on
    chain          links one after another, and their control
    reward         pairs -> a model that scores answers
    pretraining    how the embedded student was made
"""
