"""Define the settings in groups: type, meaning and bounds of each; its value stands in config/defaults.json.

A group holds what decides the same artifacts, because a stage's stamp is a dump of groups; `section` is its heading in
--help. Names are those of the flat configuration file and of the flags.
"""

from __future__ import annotations

import os.path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from schema_student.core.links import Objective
from schema_student.core.splits import Split

Share = Annotated[float, Field(ge=0, le=1)]
HostName = Annotated[str, Field(min_length=1)]
PathName = Annotated[str, AfterValidator(os.path.expanduser)]  # ~/x; a shell leaves it so in --flag=~/x
Folder = Annotated[PathName, Field(min_length=1)]
LATEST = "latest"
RUN_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"  # a folder's name has at most 255 bytes, of which others add some
RunName = Annotated[str, Field(pattern=f"^{RUN_NAME}$")]
Rate = Annotated[float, Field(gt=0)]
Day = Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")]


def setting(description: str, auto: bool = False, **bounds: Any) -> Any:
    """Define a field of a group: its meaning, whether it may be "auto" until that is resolved, its bounds."""
    return Field(description=description, json_schema_extra={"auto": True} if auto else None, **bounds)


class Group(BaseModel):
    """Settings that decide the same artifacts."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True, frozen=True)
    section: ClassVar[str]


class RunSettings(Group):
    """What a run is called, where its artifacts go, and the seed of every random choice."""

    section = "general"

    run: str = setting(
        'name of the run; "" = after --data-set, --adapter or --schemas, else "student"',
        pattern=f"^({RUN_NAME})?$",
    )
    output_dir: PathName = setting("folder that all artifacts go to", min_length=1)
    data_dir: PathName = setting('folder of the d_0* files; "" = output_dir, or output_dir/data/RUN for a named run')
    seed: int = setting("seed of every random choice", ge=0, le=2**32 - 1)
    overwrite: bool = setting("make artifacts again; each old one stands until its new one is whole")
    dry_run: bool = setting("check settings and inputs, say what would be written, do nothing", default=False)
    schemas: PathName = setting(
        "your own JSON Schemas: a folder of .json files or a JSONL file; skips the domain steps"
    )


class PartSettings(Group):
    """Whether a stage takes all of its rows, or a part to try it out; a stamp holds the limit of a part."""

    section = "general"

    max_samples: int = setting(
        "rows that a stage takes, to try it out: so many domains and schemas, and of each split so many requests, "
        "prompts or pairs, evenly spread; 0 = all. Without it what was made of a part is made again of all",
        ge=0,
    )


class OwnSchemasSettings(Group):
    """How the user's own schemas are read."""

    section = "general"

    openapi_nullable: bool = setting('read "nullable": true in your schemas as OpenAPI 3.0 does: null is valid as well')
    draft: Literal["", "4", "6", "7", "2019-09", "2020-12"] = setting(
        'draft of those of your schemas that have no "$schema"; "" = 2020-12'
    )


class DataSettings(Group):
    """Data of any origin to train on."""

    section = "data"

    data_set: PathName = setting(
        "your own data: a file, a folder, or a hub's data set, ID[@COMMIT][:CONFIG[:SPLIT]] (train-dpo --help)",
    )
    data_limit: int = setting("rows to take of it, evenly spread; 0 = all", ge=0)


class MixSettings(Group):
    """Which further data sets are mixed in."""

    section = "data"

    mix: list[Folder] = setting(
        "further data sets, each with its share of the rows: FILE:SHARE; --data-set has what is left of 1, and no set "
        "trains on what another holds out"
    )


class TrackerSettings(Group):
    """Where else training logs go."""

    section = "tracker"

    report_to: Literal["none", "tensorboard", "wandb", "trackio"] = setting(
        "where else training logs go, beside training_metrics.jsonl"
    )


class PromptSettings(Group):
    """How a prompt shows its schema."""

    section = "prompt"

    schema_rendering: Literal["json", "compact", "none"] = setting(
        "how a prompt shows the schema: as it is, a short line a property, or not at all: a student of one schema "
        "learns it by heart"
    )


class VerdictSettings(Group):
    """What is stripped off an answer before it is judged."""

    section = "prompt"

    strip_fences: bool = setting("take ```json fences off an answer before it is judged")


class TeacherSettings(Group):
    """Which teacher; a stamp holds what it resolves to."""

    section = "teacher"

    teacher_model: str = setting('"auto", "embedded-teacher", or a model of your Ollama', min_length=1)
    preferred_teacher: str = setting("what auto takes where Ollama has it", min_length=1)
    teacher_api: Literal["ollama", "openai"] = setting(
        "what the teacher's server speaks: Ollama's API, or OpenAI's as vLLM and llama.cpp do"
    )


class ServerSettings(Group):
    """Where the teacher's server is and how patiently it is asked: nothing here decides an answer."""

    section = "teacher"

    teacher_host: list[HostName] = setting(
        "the server's address, or several; none = OLLAMA_HOST (openai: OPENAI_BASE_URL), else this machine"
    )
    teacher_timeout: float = setting("seconds without a word after which an answer is given up", gt=0)
    teacher_deadline: float = setting("seconds that one answer may take in all", gt=0)
    teacher_retries: int = setting("tries after the first one that failed", ge=0)
    teacher_concurrency: int = setting("requests in flight at each host", ge=1)
    teacher_answers: PathName = setting(
        'JSONL file to export the teacher\'s answers to or import them from; "" = in output_dir'
    )


class AnswersSettings(Group):
    """What decides the teacher's answers, beside the question."""

    section = "teacher"

    teacher_repairs: int = setting("times that an invalid answer is shown its violations to mend them", ge=0)
    teacher_num_ctx: int = setting("context of the teacher, tokens", ge=512)
    teacher_num_predict: int = setting(
        "most tokens of one answer, thoughts included: a runaway holds a server for minutes; 0 = no limit is sent", ge=0
    )
    teacher_temperature: float = setting("temperature of the writing roles; the judge runs at 0", ge=0)
    teacher_think: Literal["", "low", "medium", "high", "true", "false"] = setting(
        'how long a reasoning teacher thinks, or whether it does; "" = not asked'
    )


class DomainsSettings(Group):
    """Which domains are asked for, and how many."""

    section = "dataset"

    domain_prompts: PathName = setting(
        "what your domains are, for the teacher: a file with a prompt a line, or of rows {prompt, domain?} (.jsonl); "
        '"" = data/domain_prompts.json'
    )
    domains: int = setting("number of domains to generate; auto = a domain a prompt of yours", auto=True, ge=1)


class OperatorsSettings(Group):
    """What the schemas of domains are built of."""

    section = "dataset"

    schema_template: PathName = setting(
        'your own template of these schemas, in the form of data/schema_template.json; "" = that'
    )
    operators: PathName = setting('your own catalog of operators, in the form of data/operators.json; "" = that')
    least_operators: int = setting("least operators of the catalog that a schema is given", ge=1)
    most_operators: int = setting("most operators of the catalog that a schema is given", ge=1)


class DatasetSettings(Group):
    """How many rows of what, on which days, and how new each must be."""

    section = "dataset"

    train_queries: int = setting("training queries a schema", auto=True, ge=1)
    pair_queries: int = setting(
        "further queries a training schema, for pairs alone: --pair-prompts of them, the hardest, are used",
        auto=True,
        ge=0,
    )
    eval_queries: int = setting("least number of prompts in each test split", auto=True, ge=1)
    own_variants: int = setting(
        "further training requests made of each of your own, the same words with other values", ge=0
    )
    refusal_fraction: Share = setting("share of queries that the schema cannot express")
    french_fraction: Share = setting("share of French queries")
    train_share: Share = setting("share of schemas trained on")
    validation_share: Share = setting("share of schemas for validation; what is left is test_unseen")
    teacher_grounding: bool = setting(
        "reject a language model's answer with a value that nobody gave, or that leaves out a number of its request"
    )
    teacher_agreement: int = setting(
        "independent answers to a request that must mean the same, else it is rejected; 1 = none beside the first", ge=1
    )
    schemas_at_once: int = setting(
        "schemas whose rows are asked for together: a hundred hosts are kept busy by 64; rows come in another order",
        ge=1,
    )
    date_start: Day = setting("first day that current_date is drawn from")
    date_end: Day = setting("last day that current_date is drawn from")
    near_duplicate: Share = setting(
        "share of word pairs in common (Jaccard, by MinHash) from which a request repeats another and is dropped; "
        "0 = only exact repeats are",
    )
    test_overlap: int = setting(
        "words in a row that a request of a test split and one for training may not share (a shorter one, of 8 at "
        "least, as a whole); 0 = any",
        ge=0,
    )


class ExtraTestsSettings(Group):
    """How many further test requests are written."""

    section = "dataset"

    extra_tests: int = setting(
        "fresh test requests to write as well, to d_03_extra_tests.jsonl, half on training schemas; they are disjoint "
        "from all others, and evaluate --eval-extra answers them",
        ge=0,
    )


class HubSettings(Group):
    """What the dataset's card says."""

    section = "dataset"

    dataset_licence: str = setting(
        'licence that the card names, as hubs call it (apache-2.0, cc-by-4.0); "" = apache-2.0 for what the embedded '
        "teacher wrote, else unknown",
        pattern=r"^[a-z0-9.-]*$",
    )


class PushSettings(Group):
    """Where a dataset or an export is uploaded."""

    section = "hub"

    push_to_hub: str = setting(
        "OWNER/NAME on the hub to push to: by generate the dataset, by rollouts and verbs of DPO what they "
        'made, by export the one kind of model; "" = nothing',
        pattern=r"^([\w.-]+/[\w.-]+)?$",
    )
    hub_public: bool = setting("make what is pushed for the first time public, not private")


class StudentBaseSettings(Group):
    """Which base and adapter, and by how many processes it is trained; stamps hold their digests."""

    section = "student"

    base_model: PathName = setting(
        '"auto", "embedded", "gemma", "gemma-it", or a causal model: folder, hub id (ID or ID@COMMIT), GGUF file, '
        "ollama:NAME:TAG",
        min_length=1,
    )
    adapter: PathName = setting(
        f'folder of an adapter; "" = the one of this run; "{LATEST}" = the newest of --output-dir, or of --run, for '
        "verbs that ask, serve or export"
    )
    processes: int = setting(
        "processes that share the training of a script on a CPU, no more than cores; on GPUs use torchrun",
        auto=True,
        ge=1,
    )


class LoadingSettings(Group):
    """How the base is loaded."""

    section = "student"

    load_in_4bit: bool = setting("load the base in 4 bits (GPU)")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = setting("number format of the base")


class LengthSettings(Group):
    """How long a sequence may be."""

    section = "student"

    max_seq_length: int = setting("longest prompt and completion, tokens", ge=16)


class GenerationSettings(Group):
    """How long a completion may be."""

    section = "student"

    max_new_tokens: int = setting("longest completion, tokens", auto=True, ge=1)


class BatchingSettings(Group):
    """How many tokens a batch computes."""

    section = "sft"

    batch_tokens: int = setting(
        "a batch of a device, of SFT or DPO, ends before so many tokens, shared ones counted once", ge=16
    )


class LoraSettings(Group):
    """What is trained: an adapter and its shape, or all weights."""

    section = "sft"

    fine_tuning: Literal["lora", "full"] = setting(
        "train a LoRA beside the base's weights, or all of these: in float32, 16 bytes a weight with gradient and "
        "optimizer (4.3 GB of Gemma 3 270M), 12 in each checkpoint (--keep-checkpoints); rates at auto are a tenth"
    )
    lora_r: int = setting("rank of LoRA", ge=1)
    lora_alpha: int = setting("scale of LoRA", ge=1)
    lora_dropout: float = setting("dropout of LoRA", ge=0, lt=1)
    lora_modules: Literal["all", "mlp", "attention"] = setting(
        "linear modules that a fresh LoRA is put on: all of a layer, those of its MLP, or those of its attention"
    )


class SFTSettings(Group):
    """Supervised fine-tuning."""

    section = "sft"

    sft_learning_rate: float = setting("peak learning rate", auto=True, gt=0)
    sft_epochs: float = setting("passes over the corpus", auto=True, gt=0)
    sft_max_steps: int = setting("optimizer steps; 0 = by epochs", ge=0)
    sft_share: float = setting(
        "share of the training rows to learn from, drawn by the seed; a larger share holds the rows of a smaller one",
        gt=0,
        le=1,
    )
    sft_batch_size: int = setting("sequences in a batch of a device", auto=True, ge=1)
    gradient_accumulation: int = setting("batches in an optimizer step of SFT", auto=True, ge=1)
    eval_every: int = setting("steps between validation losses", auto=True, ge=1)
    save_every: int = setting("steps between checkpoints", auto=True, ge=1)
    sft_checkpoint: Literal["least-loss", "answers", "last"] = setting(
        "which checkpoint is the final one: that of the least validation loss, that of most validation requests "
        "answered as asked, or the last",
        auto=True,
    )
    sft_eval_answers: int = setting(
        "validation requests that are answered at each validation, greedily; 0 = none", auto=True, ge=0
    )
    sft_patience: int = setting(
        "validations in a row without a better one, by loss or as --sft-checkpoint says by answers, after which "
        "training stops; 0 = never",
        ge=0,
    )
    sft_average: int = setting(
        "the mean of this many last checkpoints, saved every --save-every steps, is the final one instead; 0 = none",
        ge=0,
    )


class CheckpointSettings(Group):
    """Checkpoints of a run, and of what its passes compute: nothing here decides what is learned."""

    section = "sft"

    resume_from_checkpoint: Folder = setting(
        f'"{LATEST}": the newest whole checkpoint-N of the run\'s folder, else the start; or the folder of one, which '
        "is taken or refused with the reason"
    )
    keep_checkpoints: int = setting(
        "newest checkpoints to keep beside the best so far, each with its optimizer's state; 0 = all", ge=0
    )
    gradient_checkpointing: bool = setting(
        "compute each layer again in the backward pass instead of keeping what it computed: a third more time, for "
        "longer batches in the same memory; what is learned is the same"
    )


class OptimizerSettings(Group):
    """The optimizer of SFT, DPO and reward models."""

    section = "sft"

    trainer: Literal["own", "trl"] = setting(
        "who trains: our own loop, or trl's SFTTrainer, DPOTrainer (a fixed beta) and RewardTrainer (padded batches, "
        "one process), which Unsloth speeds up on a GPU"
    )

    lr_scheduler: Literal["linear", "cosine", "constant"] = setting(
        "how the learning rate falls after its rise: in a line, in half a cosine, or not at all"
    )
    lr_floor: Share = setting("share of the peak learning rate that it falls to")
    warmup_ratio: float = setting("share of steps of rising learning rate", ge=0, lt=1)
    weight_decay: float = setting("weight decay", ge=0)
    max_grad_norm: float = setting("gradients are clipped to this norm", gt=0)
    overlong: Literal["drop", "refuse"] = setting("a row above max_seq_length: drop and count it, or stop")


class EvaluatedSettings(Group):
    """Which student is evaluated, and whether its schemas constrain what it writes."""

    section = "eval"

    eval_student: Literal["auto", "base", "sft", "aligned", Objective, "control", "teacher"] = setting(
        "who is evaluated; auto = --adapter where named, else the base; aligned = each link of --align; teacher = what "
        "the student is distilled from, by its own answers"
    )
    eval_extra: bool = setting("answer the requests of generate --extra-tests instead, as an evaluation NAME-extra")
    eval_data: PathName = setting(
        "JSONL file of requests to answer instead, no run needed: rows as --schemas takes them, with or without "
        'answers, or a d_03 file, as an evaluation NAME-on-FILE; "" = none'
    )
    answer_all: bool = setting(
        "write every answer, also those that reading the right ones shows to be written: the same verdicts, later"
    )
    examples: int = setting(
        "answered training requests of the same schema that a prompt shows, as far as they fit, as an evaluation "
        "NAME-N-examples; 0 = none",
        ge=0,
    )
    decoding: Literal["free", "constrained", "both"] = setting(
        "whether answers are held to what the schema allows while they are written; both = one evaluation of each"
    )


class GateSettings(Group):
    """What an evaluation must reach, for a person's own CI: nothing here decides an answer."""

    section = "gate"

    fail_under: float = setting("end with 1 where fewer are right, percent (--fail-on); 0 = none", ge=0, le=100)
    fail_on: Literal["as_asked", "valid"] = setting("what the gates count: answers valid and as asked, or valid ones")
    not_worse_than: str = setting(
        "name of a run, or of an evaluation, on the same prompts: end with 1 where this one is worse beyond chance "
        '(exact McNemar test, P(truth)); "" = none',
        pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*)?$",
    )


class DecodingSettings(Group):
    """How many prompts are decoded at once."""

    section = "eval"

    eval_batch_size: int = setting("prompts decoded at once", auto=True, ge=1)


class EvalSettings(Group):
    """Which prompts are evaluated, and who judges."""

    section = "eval"

    eval_splits: list[Split] = setting("splits to evaluate", min_length=1)
    eval_limit: int = setting("prompts of each split; 0 = all", ge=0)
    judge_valid: bool = setting("ask the teacher whether a valid answer is what was asked")


class ConfidenceSettings(Group):
    """By which requests it is learnt how far a trained student's answers can be trusted."""

    section = "eval"

    calibration_requests: int = setting(
        "validation requests that a trained student answers, by which its confidence is calibrated; 0 = none", ge=0
    )


class RobustnessSettings(Group):
    """Whether requests that are said otherwise are answered as well."""

    section = "eval"

    robustness: int = setting(
        "test requests that are asked again with typos, in other case, with other forms of numbers and dates, and with "
        "an instruction slipped in; 0 = none",
        ge=0,
    )


class SamplingSettings(Group):
    """How many answers to how many prompts are sampled."""

    section = "pairs"

    samples_per_prompt: int = setting("answers sampled from the student for a prompt", auto=True, ge=1)
    sample_temperature: float = setting("temperature of these samples", gt=0)
    pair_prompts: int = setting("most prompts that are sampled, first those that it would get wrong", auto=True, ge=1)


class PairsSettings(Group):
    """How many pairs a prompt gives."""

    section = "pairs"

    pairs_per_prompt: int = setting("most pairs kept of a prompt", ge=1)


class MutationsSettings(Group):
    """How many rejected answers are right ones that were broken."""

    section = "pairs"

    mutations_per_prompt: int = setting("rejected answers made by breaking the right one", auto=True, ge=0)


class BetaSettings(Group):
    """The controller of DPO's beta."""

    section = "dpo"

    beta_controller: Literal["fixed", "risk", "hoeffding", "calibrated", "beta_dpo", "epsilon"] = setting(
        "how beta moves: calibrated rises while margins' upper tail moves up and comes back; fixed stays; risk, "
        "hoeffding (by p_hat), beta_dpo (by the batch, and drops outliers) and epsilon (by pair) as published",
    )
    beta: float = setting("beta at the start (beta_0): greater holds the student closer to its reference", gt=0)
    beta_min: float = setting("least beta; 0 only with --beta-published, as a beta of 0 learns nothing", ge=0)
    beta_max: float = setting(
        "greatest beta; calibrated answers a jump of margins by 1.5 times only where this is 4 to 5 times --beta or "
        "more, and stays fixed where they are equal",
        gt=0,
    )
    beta_delta: float = setting("calibrated, risk, hoeffding: share of margins expected above tau", gt=0, lt=1)
    beta_lambda: float = setting("risk, hoeffding: how fast tau follows the margins", gt=0, le=1)
    beta_alpha: float = setting("risk: largest step of log beta", gt=0)
    beta_gamma: float = setting("risk, hoeffding: steepness of beta's answer to u", gt=0)
    beta_warmup: int = setting("risk, hoeffding: steps that pool margins before tau_0 is set", ge=0)
    beta_hoeffding_alpha: float = setting("hoeffding: largest step of log beta", gt=0)
    beta_hoeffding_error: float = setting(
        "hoeffding: chance of a false alarm (eps_0); smaller makes a rise of beta rarer", gt=0, lt=1
    )
    beta_dpo_a: float = setting(
        "beta_dpo: change of beta, as a share of beta_0, for each nat of margin above the running mean", ge=0
    )
    beta_dpo_rho: float = setting("beta_dpo: share of a step's pairs left out, outliers first", ge=0, lt=1)
    beta_dpo_momentum: float = setting(
        "beta_dpo: what the running mean and deviation keep of the past at each step", ge=0, lt=1
    )
    beta_epsilon: float = setting(
        "epsilon: how far logits are moved to see which beta a pair wants; two more forward passes", gt=0, lt=1
    )


class AlignSettings(Group):
    """Which objectives a student is aligned by, one after another."""

    section = "align"

    align: list[Objective] = setting(
        "objectives that the SFT student is aligned by, in this order, each going on from the one before",
        auto=True,
        min_length=1,
    )
    dpo_rounds: int = setting(
        "rounds of dpo, each on fresh pairs of the student that the round before left, which is its reference", ge=1
    )


class ValidationSettings(Group):
    """How an alignment is validated: by reading right answers."""

    section = "align"

    align_requests: int = setting(
        "requests whose right answers are read to validate an alignment, half of them on schemas of validation",
        ge=0,
    )
    align_stop: float = setting(
        "an alignment stops where the likelihood of right answers has fallen by so many standard errors", gt=0
    )


class ControlSettings(Group):
    """How an alignment's control is tuned."""

    section = "align"

    control_learning_rates: list[Rate] = setting(
        "rates of the control, of which the best on validation is taken", auto=True, min_length=1
    )


class AskedControlSettings(Group):
    """Whether an alignment's control is trained."""

    section = "align"

    control: bool = setting(
        "train the control of the chain's first link as well, to RUN-control: SFT that goes on, for as many steps"
    )


class ExpectedRewardSettings(Group):
    """Alignment by the expected reward, exact where the right answers are known."""

    section = "align"

    expected_reward_learning_rate: float = setting("peak learning rate of expected_reward", auto=True, gt=0)
    expected_reward_max_steps: int = setting("optimizer steps of expected_reward", auto=True, ge=1)
    expected_reward_batch_size: int = setting("requests in a step of expected_reward", auto=True, ge=1)
    expected_reward_eval_every: int = setting(
        "steps between validations of expected_reward, each a checkpoint", auto=True, ge=1
    )


class OpenRequestsSettings(Group):
    """Requests that people have and nobody answered; a stamp holds the digest of the file."""

    section = "align"

    requests: PathName = setting(
        "JSONL file of further requests to sample answers to, rows {query, schema | schema_id, current_date?, answer?, "
        'accepted?}; where no answer is known, a valid one is rewarded; "" = none'
    )


class DrawsSettings(Group):
    """Which answers are drawn for rloo, grpo and rft."""

    section = "align"

    rl_prompts: int = setting(
        "rloo, grpo, ppo, rft: requests of the alignment split that answers are drawn to; 0 = none", auto=True, ge=0
    )
    rl_samples: int = setting(
        "rloo, grpo, ppo, rft: answers that are drawn to a request, at temperature 1", auto=True, ge=2
    )


class RLSettings(Group):
    """Alignment by the student's own samples, graded: rloo and grpo."""

    section = "align"

    rl_batch_size: int = setting("requests in a batch of a device, of rloo, grpo and ppo", auto=True, ge=1)
    rl_gradient_accumulation: int = setting("batches in an optimizer step of rloo, grpo and ppo", auto=True, ge=1)
    rl_learning_rate: float = setting("peak learning rate of rloo, grpo and ppo", auto=True, gt=0)
    rl_max_steps: int = setting("optimizer steps of rloo, grpo and ppo", auto=True, ge=1)
    rl_eval_every: int = setting("steps between validations of rloo, grpo and ppo, each a checkpoint", auto=True, ge=1)
    rl_reward_valid: Share = setting("reward of an answer that is valid but not as asked; as asked has 1, invalid 0")
    rl_reward_parts: Share = setting("further reward of such an answer, times the share of its parts that are right")
    rl_least_p: Share = setting("requests whose known right answers are less likely are left out", auto=True)
    rl_most_p: Share = setting("requests whose known right answers are likelier are left out: all would be right")
    rl_teacher_in_group: bool = setting("put the known right answer among those that were drawn")
    rl_kl_weight: float = setting("weight of KL to the student before, nats of an answer; 0 = none", ge=0)


class GRPOSettings(Group):
    """Which kind of GRPO."""

    section = "align"

    grpo_kind: Literal["grpo", "dr_grpo"] = setting(
        "GRPO as published, or Dr. GRPO: neither the deviation of a group's rewards nor an answer's length divides"
    )


class CorrectionsSettings(Group):
    """How much the teacher is asked about a student's answers to requests that nobody answered."""

    section = "align"

    teacher_questions: int = setting("correct: most questions to the teacher, judgements and corrections alike", ge=1)


class PPOSettings(Group):
    """Alignment by PPO, beside what rloo and grpo have in common with it."""

    section = "align"

    ppo_reward_model: PathName = setting(
        "ppo: reward model whose scores take the place of grades: RUN-reward/checkpoint-final, or a folder or hub id "
        'of a sequence classification model with one label; "" = grades'
    )
    ppo_epochs: int = setting("ppo: optimizer steps on the answers of a draw", ge=1)
    ppo_kl_weight: float = setting(
        "ppo: penalty for each nat that a token is likelier than to the student before", ge=0
    )
    ppo_clip: float = setting("ppo: how far the ratio of policy to sampler may go from 1", gt=0, lt=1)
    ppo_lambda: Share = setting("ppo: decay of generalized advantage estimation; 1 = the whole answer's reward")
    ppo_value_clip: float = setting("ppo: how far a value may move from that of the draw without a loss for it", gt=0)
    ppo_kl_limit: float = setting("ppo: stop above this KL to the student before, nats an answer", gt=0)
    ppo_entropy_share: Share = setting("ppo: stop where entropy is below this share of the first draw's; 0 = never")


class FurtherSFTSettings(Group):
    """Alignment by SFT on chosen rows: the best samples (rft), or hard requests (hard_sft)."""

    section = "align"

    further_sft_learning_rate: float = setting("peak learning rate of rft and hard_sft", auto=True, gt=0)
    further_sft_max_steps: int = setting("optimizer steps of rft and hard_sft", auto=True, ge=1)
    further_sft_batch_size: int = setting("rows in a step of rft and hard_sft", auto=True, ge=1)
    further_sft_eval_every: int = setting(
        "steps between validations of rft and hard_sft, each a checkpoint", auto=True, ge=1
    )


class HardSettings(Group):
    """Which requests are hard."""

    section = "align"

    hard_below: Share = setting("hard_sft: requests whose right answers are less likely are hard")
    hard_replay: float = setting("hard_sft: share of other requests among its rows", ge=0, lt=1)


class PublishedSettings(Group):
    """Bounds that published results need."""

    section = "dpo"

    beta_published: bool = setting("allow the published bounds, with beta_min 0")


class AlignedModulesSettings(Group):
    """Which part of the adapter an alignment trains."""

    section = "dpo"

    align_modules: Literal["all", "mlp", "attention"] = setting(
        "LoRA that an alignment trains: all of the adapter's, that of the MLP, or that of attention; the rest stays",
        auto=True,
    )


class DPOSettings(Group):
    """Direct preference optimization."""

    section = "dpo"

    dpo_sft_weight: float = setting(
        "weight of an SFT loss on the chosen answers (nats a token), which keeps them likely; 0 = none", auto=True, ge=0
    )
    anchors_per_pair: int = setting(
        "requests that the student answers right, for each pair: their SFT loss is added with the weight of "
        "--dpo-sft-weight",
        ge=0,
    )
    rejected_cut: bool = setting("take a rejected answer only up to its first wrong value; what follows agrees with it")
    dpo_credit: Literal["whole", "divergent"] = setting(
        "tokens that a margin is made of: those of the whole answers, or those in which the two of a pair differ"
    )
    loss_type: Literal[
        "sigmoid",
        "sigmoid_norm",
        "hinge",
        "ipo",
        "robust",
        "exo_pair",
        "nca_pair",
        "bco_pair",
        "sppo_hard",
        "aot",
        "aot_unpaired",
        "apo_zero",
        "apo_down",
        "discopop",
        "simpo",
    ] = setting("loss of pairs: sigmoid is DPO's; the others only by --trainer trl, for comparison")
    label_smoothing: float = setting(
        "share of pairs taken to be labelled the wrong way: of robust, exo_pair, aot and aot_unpaired", ge=0, lt=0.5
    )
    f_divergence: Literal["reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"] = setting(
        "f-DPO (arXiv 2309.16240): divergence from the reference that a loss of margins is made of; by --trainer trl"
    )
    dpo_positive_weight: float = setting(
        "DPO-positive (arXiv 2402.13228): penalty for each nat that a chosen answer falls below its reference, "
        "taken off its margin; the paper uses 50; 0 = none",
        ge=0,
    )
    dpo_chosen_fall: float = setting(
        "alarm where a step's chosen answers are on average this many nats less likely than at the start", gt=0
    )
    dpo_learning_rate: float = setting("peak learning rate of DPO", auto=True, gt=0)
    dpo_max_steps: int = setting("optimizer steps of DPO", auto=True, ge=1)
    dpo_batch_size: int = setting("pairs in a batch of a device", auto=True, ge=1)
    dpo_gradient_accumulation: int = setting(
        "batches in an optimizer step of DPO; above 1 each is read twice (but with fixed), because beta needs the "
        "margins of the whole step before its first loss",
        ge=1,
    )
    dpo_eval_every: int = setting("steps between validations of DPO, each a checkpoint", auto=True, ge=1)


class RewardSettings(Group):
    """A reward model."""

    section = "reward"

    reward_learning_rate: float = setting("peak learning rate of a reward model", auto=True, gt=0)
    reward_epochs: float = setting("passes over the pairs", auto=True, gt=0)
    reward_max_steps: int = setting("optimizer steps of a reward model; 0 = by epochs", ge=0)
    reward_batch_size: int = setting("pairs in an optimizer step of a device", auto=True, ge=1)
    reward_eval_every: int = setting("steps between looks at the held-out pairs, each a checkpoint", auto=True, ge=1)
    reward_margin: float = setting(
        "by how much the chosen answer's score is to be above the other's, for each rank that it is better (one where "
        "ranks are not known); 0 = any difference will do",
        ge=0,
    )
    reward_center: float = setting("weight of a term that keeps scores about 0 (arXiv 2312.09244); 0 = none", ge=0)
    reward_merged: bool = setting("write base, LoRA and head as one model too: student_runs/RUN-reward/merged")


class RolloutsSettings(Group):
    """Who answers the prompts of rollouts."""

    section = "rollouts"

    rollout_source: Literal["student", "teacher"] = setting(
        "who answers: the student (--base-model, --adapter), or the teacher's model behind its API"
    )


class ScoringSettings(Group):
    """What scores the answers of rollouts."""

    section = "rollouts"

    rollout_scorer: Literal["schema", "reward", "teacher"] = setting(
        "what scores answers: the schema's verdict, a reward model, or the teacher by comparing them"
    )
    reward_model: PathName = setting(
        "folder or hub id (ID or ID@COMMIT) of a sequence classification model with one label"
    )


class PairwiseSettings(Group):
    """Which two adapters are compared, and by whom."""

    section = "pairwise"

    adapters: list[Folder] = setting(
        "adapter folders: two to compare, or base and one, of which the first one's wins are counted; or those to "
        "average, for which names of runs do as well"
    )
    judge: Literal["teacher", "reward"] = setting(
        "who compares two answers: the teacher, in both orders, or --reward-model by its scores"
    )
    reward_tie: float = setting("judge reward: answers whose scores differ by no more than this are a tie", ge=0)


class AveragingSettings(Group):
    """How much each of the adapters to average counts."""

    section = "average"

    weights: list[Annotated[float, Field(gt=0)]] = setting(
        "how much each of --adapters counts, in their order; they are divided by their sum; none = all the same"
    )


class CompareSettings(Group):
    """Which runs stand side by side."""

    section = "report"

    runs: list[RunName] = setting("names of runs, or of evaluations, to put side by side (compare_runs.py)")


class ExportSettings(Group):
    """What a student is exported as."""

    section = "export"

    kind: list[Literal["merged", "gguf", "ollama", "vllm", "adapter", "lm-eval", "promptfoo"]] = setting(
        "what to export: merged (base and adapter as one model, for Transformers), gguf (for llama.cpp), ollama (GGUF "
        "and Modelfile), vllm (a folder and its command line), adapter (alone, for PEFT); lm-eval, promptfoo (the "
        "test requests for these)",
        min_length=1,
    )
    export_prompts: int = setting("test prompts that an export answers before it is finished", ge=1)
    gguf_types: list[Literal["F16", "Q8_0", "Q4_K_M"]] = setting("GGUF files to write, by their weights", min_length=1)
    ollama_type: Literal["F16", "Q8_0", "Q4_K_M"] = setting("weights of Ollama's GGUF file")
    system_schema: PathName = setting(
        "file with a JSON Schema that the Modelfile's system text fixes, so that requests are asked without one; "
        '"" = none'
    )
    ollama_create: str = setting(
        '[OWNER/]NAME[:TAG] to give the model to the local Ollama under, by `ollama create`; "" = it is not given',
        pattern=r"^(([A-Za-z0-9][A-Za-z0-9._-]*/)?[A-Za-z0-9][A-Za-z0-9._-]*(:[A-Za-z0-9][A-Za-z0-9._-]*)?)?$",
    )
    vllm_lora: bool = setting("vllm: serve the adapter on its base, not one merged model")


class ParitySettings(Group):
    """How a student's exports are compared with it."""

    section = "export"

    parity_prompts: int = setting("test prompts that the adapter and its exports are asked; 0 = all", ge=0)
    parity_tokens: int = setting("first tokens of an answer that are compared, greedy", ge=1)
    parity_tie: float = setting(
        "a place where the adapter's logit of its own token is above another's by so little is a tie", ge=0
    )
    parity_threshold: Share = setting(
        "least share of answers that are the adapter's (merged, F16), or of the same verdict (quantized, an endpoint)"
    )


class EndpointSettings(Group):
    """Where a student is served."""

    section = "endpoint"

    endpoint: str = setting('address of a server of the student; "" = none')
    endpoint_kind: Literal["openai", "ollama"] = setting(
        "what it speaks: OpenAI's API (schema-student serve, vLLM, llama.cpp) or Ollama's"
    )
    endpoint_model: str = setting('its model; "" = the only one that it has')


class ClusterSettings(Group):
    """Where work is done that is cut into chunks: nothing here decides an artifact."""

    section = "cluster"

    on: str = setting(
        '"here", or "ray[:ADDRESS]": teacher data, evaluation and rollouts in chunks by the workers of a Ray cluster',
        pattern=r"^(here|ray(:.+)?)$",
    )
    workers: int = setting("chunks at once on Ray; 0 = as many as it has cores", ge=0)
