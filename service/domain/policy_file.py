"""The policy file: the thresholds that routing and scheduling go by, as validated nouns.

Written by hand or by a tuner as YAML; the engine reads it, the policy layer receives these objects as arguments.
Times carry ``_ms`` because people write the file; code asks for the ``_s`` properties.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from service.domain.drift import DriftPolicy, DriftState

POLICY_SCHEMA_VERSION: Final = 1

Milliseconds = Annotated[float, Field(gt=0.0, le=3_600_000.0, allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _truth_is_no_number(cls, value: object, info: ValidationInfo) -> object:
        """Refuse ``yes`` and ``true`` where a number stands; YAML makes them easily, and they would count as 1."""
        annotation = cls.model_fields[info.field_name or ""].annotation
        if isinstance(value, bool) and bool not in (annotation, *get_args(annotation)):
            raise ValueError("must not be true or false")
        return value


class HardwareMatch(_Strict):
    """Which described devices belong to a class; every condition that is set must hold."""

    is_mobile: bool | None = None
    saves_data: bool | None = None
    accelerators: tuple[str, ...] = ()
    isa: tuple[str, ...] = Field(default=(), description="at least one of these")
    below_memory_mb: float | None = Field(default=None, gt=0.0)
    networks: tuple[str, ...] = Field(default=(), description="effective connection types, as in the ECT hint")


class HardwareClass(_Strict):
    """A kind of client device: the tiers that suit it, most wanted rules first in the file."""

    tiers: tuple[str, ...] = Field(default=(), description="allowed tiers; empty allows all")
    default_budget_ms: Milliseconds | None = None
    match: HardwareMatch | None = Field(default=None, description="absent: only by name")

    @property
    def default_budget_s(self) -> float | None:
        """The class's default budget in seconds."""
        return None if self.default_budget_ms is None else self.default_budget_ms / 1e3


class DriftRules(_Strict):
    """When a variant that no longer does what its manifest says is warned of, demoted, quarantined and restored.

    Run lengths are the mean number of shadow samples (or labels) to a false alarm.
    """

    most: Literal["none", "warn", "demote", "quarantine"] = Field(
        default="quarantine", description="the most that is done without a hand; none: nothing is watched"
    )
    shadow_share: float = Field(
        default=0.01, ge=0.0, le=1.0, description="share of a smaller variant's answers that are also run on full"
    )
    drop: float = Field(default=0.05, gt=0.0, lt=1.0, description="loss of accuracy that is to be found")
    severe_drop: float = Field(default=0.1, gt=0.0, lt=1.0, description="loss of accuracy that quarantines")
    warn_run_length: float = Field(default=200.0, ge=1.0, le=1e12, description="evidence that warns")
    demote_run_length: float = Field(default=3_000.0, ge=1.0, le=1e12, description="evidence that demotes")
    restore_run_length: float = Field(default=500.0, ge=1.0, le=1e12, description="evidence that restores")
    probation: int = Field(default=300, ge=1, le=1_000_000, description="samples after which a restored one is trusted")
    window: int = Field(default=500, ge=100, le=100_000, description="samples that estimates and distances look at")

    def as_policy(self) -> DriftPolicy:
        """Return the rules as the tests and the state machine take them."""
        states: dict[str, DriftState] = {"warn": "warned", "demote": "demoted", "quarantine": "quarantined"}
        return DriftPolicy(
            drop=self.drop,
            severe_drop=self.severe_drop,
            warn_run_length=self.warn_run_length,
            demote_run_length=self.demote_run_length,
            restore_run_length=self.restore_run_length,
            probation=self.probation,
            window=self.window,
            most=states.get(self.most, "healthy"),
        )


class ModelPolicy(_Strict):
    """How one model's requests are routed and scheduled."""

    default_budget_ms: Milliseconds = 100.0
    safety_quantile: Literal["p50", "p95", "p99"] = Field(
        default="p95", description="which measured quantile of compute time a prediction uses"
    )
    safety_margin_ratio: float = Field(
        default=0.1, ge=0.0, le=10.0, description="added to every predicted compute time, as a share of it"
    )
    max_batch_size: int = Field(default=16, ge=1, le=4096, description="rows that one run may take")
    max_queued: int = Field(default=1000, ge=1, le=1_000_000, description="requests that may wait")
    variants: tuple[str, ...] = Field(default=(), description="variants that routing may choose; empty: all published")
    objective: Literal["accuracy", "cost"] = Field(
        default="accuracy",
        description="accuracy: spend what is idle; cost: the smallest CPU bill within max_accuracy_loss",
    )
    max_accuracy_loss: float = Field(
        default=0.01, ge=0.0, le=1.0, description="objective cost: how far below the best candidate an answer may be"
    )
    price_per_cpu_s: float = Field(
        default=0.0, ge=0.0, le=1e6, allow_inf_nan=False, description="accuracy that a CPU-second must gain to be spent"
    )
    burst_price: float = Field(
        default=0.0, ge=0.0, le=1e3, description="time kept free for bursts: what a full queue must gain to fill it"
    )
    shortage_weight: float = Field(
        default=40.0, ge=0.0, le=1e6, description="how much recent losses for want of time add to burst_price"
    )
    weight: float = Field(default=1.0, ge=1e-3, le=1e3, description="share of the lanes among models that wait")
    exploration_share: float = Field(
        default=0.01, ge=0.0, le=0.5, description="decisions that give variants judged slow here another chance"
    )
    cascades: bool = Field(default=True, description="use the cascades of the manifest: answer small, then ask bigger")

    cascade_margin_ratio: float = Field(
        default=1.0, ge=0.0, le=10.0, description="margins below which cascades escalate, in those of the manifest"
    )

    defers: bool = Field(
        default=False, description="wait for a fuller batch where batching gains and a better variant is then kept up"
    )

    drift: DriftRules = Field(default=DriftRules(), description="what is done about variants that become worse")

    @property
    def is_thrifty(self) -> bool:
        """Whether an idle machine does not simply give the most accurate variant that keeps the budget."""
        return self.objective == "cost" or self.price_per_cpu_s > 0.0

    @property
    def default_budget_s(self) -> float:
        """The default budget in seconds."""
        return self.default_budget_ms / 1e3


_Bound = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
_Range = tuple[_Bound, _Bound]


class TunedRegion(_Strict):
    """The traffic that thresholds were tuned for, as least and greatest values over windows of ``window_s``."""

    window_s: float = Field(gt=0.0, le=86_400.0)
    rate_hz: _Range = Field(description="requests a second over a window")
    peak_hz: _Range = Field(description="requests a second in the busiest sixtieth of a window")
    budget_ms: _Range = Field(description="mean budget of a window's requests")
    overrun_ratio: float = Field(
        default=0.02, ge=0.0, le=1.0, description="share of answers that may take longer than the p99 claimed for them"
    )


class Provenance(_Strict):
    """Where the thresholds come from."""

    written_by: str
    manifests: dict[str, str] = Field(default_factory=dict, description="model -> sha256 of its manifest")
    trace: str = ""
    seed: int | None = None
    machine: str = ""
    outcome: dict[str, float] = Field(default_factory=dict)
    regions: dict[str, TunedRegion] = Field(
        default_factory=dict,
        description="model -> traffic that it was tuned for; the gateway tells when it has left that",
    )


# int8 through QDQ is right on WASM but wrong on WebGPU, and saturates on x86 without VNNI unless built for it; the
# classes allow the quantized tiers only where they are known to be right.
_FLOAT_TIERS = ("full", "pruned", "distilled")
_SMALL_TIERS = ("distilled-quantized", "pruned-quantized", "distilled", "pruned")
_DEFAULT_CLASSES: Final[dict[str, HardwareClass]] = {
    "mobile": HardwareClass(tiers=_SMALL_TIERS, default_budget_ms=50.0, match=HardwareMatch(is_mobile=True)),
    "low-data": HardwareClass(tiers=_SMALL_TIERS, match=HardwareMatch(saves_data=True)),
    "slow-network": HardwareClass(tiers=_SMALL_TIERS, match=HardwareMatch(networks=("slow-2g", "2g"))),
    "low-memory": HardwareClass(tiers=_SMALL_TIERS, match=HardwareMatch(below_memory_mb=1024.0)),
    "browser-webgpu": HardwareClass(tiers=_FLOAT_TIERS, match=HardwareMatch(accelerators=("webgpu",))),
    "browser-wasm": HardwareClass(match=HardwareMatch(accelerators=("wasm",))),
    "arm64": HardwareClass(match=HardwareMatch(isa=("neon", "asimd", "asimddp", "i8mm"))),
    "server-vnni": HardwareClass(match=HardwareMatch(isa=("avx512_vnni", "avx_vnni"))),
    "server-avx2": HardwareClass(tiers=_FLOAT_TIERS, match=HardwareMatch(isa=("avx2",))),
}


class PolicyFile(_Strict):
    """All policies of one gateway."""

    schema_version: Literal[1] = POLICY_SCHEMA_VERSION
    default: ModelPolicy = ModelPolicy()
    models: dict[str, ModelPolicy] = Field(default_factory=dict)
    hardware_classes: dict[str, HardwareClass] = Field(default_factory=lambda: dict(_DEFAULT_CLASSES))
    provenance: Provenance | None = None

    def of(self, model: str) -> ModelPolicy:
        """Return the model's own policy, or the default one."""
        return self.models.get(model, self.default)


def policy_schema() -> dict[str, Any]:
    """Return the JSON schema of ``PolicyFile``."""
    return PolicyFile.model_json_schema()
