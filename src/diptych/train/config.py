"""The settings of a whole run: what is trained, on what, towards what, for how long, and how it is judged."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from diptych.core.config import Config
from diptych.data.loader import LoaderConfig
from diptych.evals.eval import EvalConfig
from diptych.models.model import ModelConfig
from diptych.objectives.objective import ObjectiveConfig
from diptych.train.lora import LoraConfig

Chosen = BeforeValidator(lambda value: None if value == "auto" else value)
ChosenCount = BeforeValidator(lambda value: 0 if value == "auto" else value)


class TrainConfig(Config):
    """How a run trains. All lengths are in samples; 0 for a cadence means: chosen from the budget.

    samples_seen        the budget; rounded up to whole batches
    global_batch        pairs a step, over all processes; 0 or "auto": chosen from the number of records, and said
    micro_batch         pairs in memory at once on each process; 0: all; -1: as many as a measurement before the first
                        step finds room for. The gradient stays that of the global batch
    checkpoint_activations  keep only each block's input and compute the rest again in the backward pass
    only                all that trains: "image", "text", a part's name ("connector"), or patterns of parameter names
                        ("image_tower.blocks.?.*"); empty: everything
    freeze              what does not train, in the same words; it goes before `only`
    rates               (pattern, factor) on rate and so on decay of what it names, in the same words, for each
                        parameter the last that fits: (("image", 0.1), ("image_tower.projection.*", 1.0))
    lora                adapters beside linear maps; everything else is then frozen but what `only` names
    frozen              "cached": a wholly frozen tower is computed once and read from a table; "live": at every step
    cached_dtype        of that table; "float16" takes half the disk and is an approximation
    cached_crops        augmented views of each image in that table, of which one is drawn; 0: one, not augmented
    sharding            "ddp": every process holds all weights; "fsdp": each holds a part (FSDP2)
    lr, warmup_samples  None or "auto": chosen from model, batch and budget, and said
    weight_decay        None or "auto": chosen from the number of epochs, and said (docs/reference/starting-values.md)
    save_every_samples  0: a tenth of the budget, and half an hour at most
    schedule            "cosine" to 0, or "constant" with a linear fall over the last `cooldown_samples`
    optimizer           "adamw"; "muon": Muon for the matrices inside, AdamW for the rest, with rate and decay alike
    grad_clip           largest norm of the whole gradient; 0: never clipped
    precision           "bfloat16" runs the model under autocast; weights, losses and the optimizer stay float32
    ema_decay           of a moving average of the weights, which is then evaluated and exported; 0: none
    max_nonfinite_steps how many steps in a row may be skipped before the run stops
    progressive         (share of the budget from which on, side in pixels): smaller images first, ((0, 48), (0.7, 64))
    val_batches         batches of the validation split that give val_loss at each evaluation; 0: none
    compile             blocks through torch.compile; "auto": on CUDA in runs of 1,000 steps and more
    deterministic       refuse operations without a reproducible result (CPU ones have one anyway)
    wandb, mlflow       a project's name there; empty: not used
    """

    samples_seen: int = Field(default=1_000_000, gt=0)
    global_batch: Annotated[int, ChosenCount] = Field(default=256, ge=0)
    micro_batch: int = Field(default=-1, ge=-1)
    checkpoint_activations: bool = False
    only: tuple[str, ...] = ()
    freeze: tuple[str, ...] = ()
    rates: tuple[tuple[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]], ...] = ()
    lora: LoraConfig = LoraConfig()
    frozen: Literal["cached", "live"] = "cached"
    cached_dtype: Literal["float32", "float16"] = "float32"
    cached_crops: int = Field(default=0, ge=0)
    sharding: Literal["ddp", "fsdp"] = "ddp"
    lr: Annotated[float | None, Chosen] = Field(default=None, gt=0, allow_inf_nan=False)
    warmup_samples: Annotated[int | None, Chosen] = Field(default=None, ge=0)
    schedule: Literal["cosine", "constant"] = "cosine"
    cooldown_samples: int = Field(default=0, ge=0)
    optimizer: Literal["adamw", "muon"] = "adamw"
    weight_decay: Annotated[float | None, Chosen] = Field(default=0.2, ge=0)
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = Field(default=1e-6, gt=0)
    grad_clip: float = Field(default=1.0, ge=0)
    precision: Literal["float32", "bfloat16"] = "float32"
    ema_decay: float = Field(default=0.0, ge=0, lt=1)
    seed: int = 0
    deterministic: bool = False
    save_every_samples: int = Field(default=0, ge=0)
    keep_checkpoints: int = Field(default=2, ge=1)
    eval_every_samples: int = Field(default=0, ge=0)
    log_every_samples: int = Field(default=0, ge=0)
    val_batches: int = Field(default=4, ge=0)
    max_nonfinite_steps: int = Field(default=20, ge=0)
    threads: int = Field(default=0, ge=0)
    channels_last: bool = False
    compile: bool | Literal["auto"] = "auto"
    progressive: tuple[tuple[float, int], ...] = ()
    wandb: str = ""
    mlflow: str = ""

    @property
    def chooses(self) -> bool:
        """Whether not everything trains."""
        return bool(self.only or self.freeze or self.lora.rank)

    @field_validator("betas")
    @classmethod
    def _betas(cls, betas: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= b < 1 for b in betas):
            raise ValueError(f"train.betas must be at least 0 and below 1; got {betas}. CLIP uses (0.9, 0.98).")
        return betas

    @model_validator(mode="after")
    def _lengths(self) -> "TrainConfig":
        if self.cooldown_samples and self.schedule != "constant":
            raise ValueError(
                f"train.cooldown_samples must be 0 with schedule=cosine, which falls all the way; got "
                f"{self.cooldown_samples}. Set train.schedule=constant."
            )
        if (self.warmup_samples or 0) + self.cooldown_samples > self.samples_seen:
            raise ValueError(
                f"train.warmup_samples and cooldown_samples must fit into samples_seen ({self.samples_seen:,}); got "
                f"{self.warmup_samples or 0:,} and {self.cooldown_samples:,}. Shorten them."
            )
        if self.micro_batch > self.global_batch > 0:
            raise ValueError(
                f"train.micro_batch must be at most global_batch ({self.global_batch}); got {self.micro_batch}. "
                "Set it to 0 to take all at once."
            )
        return self


class RunConfig(Config):
    """A whole run. `recipe` is the name that it came from; `tokenizer` is empty for the dataset's own, "clip" for
    CLIP's, "pretrained:minilm" for that of packaged weights, else a tokenizer.json or a folder with one. Its context is
    cut or stretched to `model.context_length`.

    init    a model folder (a run, a converted checkpoint) whose weights training starts from; empty: fresh weights
    parts   the same for single parts of the model, by their attribute's name: {"language": FOLDER} takes the weights
            *and* the settings of `language` from that folder's model; FOLDER#name, of its `name`
    before  runs that come first, each in a folder of its own below this run's; one's `stage` is its name, by which
            later ones refer to it: "stage:NAME" stands for its folder in init, parts, tokenizer and a teacher's folder
    """

    recipe: str = ""
    stage: str = ""
    init: str = ""
    parts: dict[str, str] = Field(default={})
    before: tuple["RunConfig", ...] = ()
    data: LoaderConfig = LoaderConfig()
    tokenizer: str = ""
    model: ModelConfig
    objective: ObjectiveConfig
    train: TrainConfig = TrainConfig()
    evals: tuple[EvalConfig, ...] = ()

    @field_validator("stage")
    @classmethod
    def _is_a_name(cls, stage: str) -> str:
        if stage and (not stage.isidentifier() or stage in cls.model_fields):
            raise ValueError(
                f"RunConfig.stage must be one word that names a folder and no setting of a run; got {stage!r}. "
                "Example: align"
            )
        return stage

    @model_validator(mode="after")
    def _stages(self) -> "RunConfig":
        names = [run.stage for run in self.before]
        if "" in names or len(set(names)) < len(names) or any(run.before for run in self.before):
            raise ValueError(
                f"RunConfig.before must be runs with different names (`stage`) and without runs before them; got "
                f"{names}. Name each, and list all of them here."
            )
        for i, run in enumerate(() if self.stage else (*self.before, self)):  # a stage by itself knows no others
            for word in (run.init, run.tokenizer, getattr(run.objective, "teacher", ""), *run.parts.values()):
                name = stage_of(word)
                if name and name not in names[:i]:
                    raise ValueError(
                        f"stage:NAME must be a run before the one that names it; got {word!r}. Before "
                        f"{run.stage or 'the last run'} there are: {', '.join(names[:i]) or 'none'}."
                    )
        return self


def stage_of(reference: str) -> str:
    """The NAME in ``stage:NAME`` or ``stage:NAME#part``; "" where `reference` is something else."""
    return reference.removeprefix("stage:").partition("#")[0] if reference.startswith("stage:") else ""
