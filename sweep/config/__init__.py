"""Configuration classes: frozen dataclasses, validated from plain dicts.

A user writes an experiment: rules, budgets and a grid. A worker trains a run: numbers only. `read_experiment`
and `read_run` validate a dict and return these classes.
"""

from sweep.config.architecture import ArchitectureConfig, DecoderConfig
from sweep.config.corpus import (
    AnyTokenizerConfig,
    DataConfig,
    HuggingFaceData,
    MixtureData,
    PartConfig,
    PretrainedTokenizerConfig,
    PythonData,
    StdlibData,
    SyntheticData,
    TextData,
    TokenizerConfig,
)
from sweep.config.experiment import (
    AdaptiveConfig,
    EstimateConfig,
    ExperimentConfig,
    GridConfig,
    HparamCheckConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrackingConfig,
    TrainerConfig,
)
from sweep.config.fitting import (
    ColumnsConfig,
    DataConstrainedOptions,
    FilterConfig,
    FitConfig,
    IsoflopOptions,
    KaplanOptions,
    ParametricOptions,
)
from sweep.config.launch import LaunchConfig, LocalLaunch, RayLaunch, SlurmLaunch
from sweep.config.reading import known_keys, read_experiment, read_run, to_dict, unknown_key
from sweep.config.run import (
    EVALUATION_BATCH_TOKENS,
    SEMANTICS_VERSION,
    EvaluationConfig,
    EvaluationOptions,
    EvaluationSet,
    EvaluationWindowsConfig,
    ModelConfig,
    RunConfig,
    RunOptimizer,
    RunSchedule,
)
from sweep.config.store import StoreConfig, absolute_index_url, check_index_url
from sweep.config.upgrade import upgrade_experiment

__all__ = [
    "EVALUATION_BATCH_TOKENS",
    "SEMANTICS_VERSION",
    "AdaptiveConfig",
    "AnyTokenizerConfig",
    "ArchitectureConfig",
    "ColumnsConfig",
    "DataConfig",
    "DataConstrainedOptions",
    "DecoderConfig",
    "EstimateConfig",
    "EvaluationConfig",
    "EvaluationOptions",
    "EvaluationSet",
    "EvaluationWindowsConfig",
    "ExperimentConfig",
    "FilterConfig",
    "FitConfig",
    "GridConfig",
    "HparamCheckConfig",
    "HuggingFaceData",
    "IsoflopOptions",
    "KaplanOptions",
    "LaunchConfig",
    "LocalLaunch",
    "MixtureData",
    "ModelConfig",
    "OptimizerConfig",
    "ParametricOptions",
    "PartConfig",
    "PretrainedTokenizerConfig",
    "PythonData",
    "RayLaunch",
    "RunConfig",
    "RunOptimizer",
    "RunSchedule",
    "ScheduleConfig",
    "SlurmLaunch",
    "StdlibData",
    "StoreConfig",
    "SyntheticData",
    "TextData",
    "TokenizerConfig",
    "TrackingConfig",
    "TrainerConfig",
    "absolute_index_url",
    "check_index_url",
    "known_keys",
    "read_experiment",
    "read_run",
    "to_dict",
    "unknown_key",
    "upgrade_experiment",
]
