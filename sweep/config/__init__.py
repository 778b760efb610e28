"""What an experiment and a run are: frozen dataclasses, read from plain dicts.

An experiment is what a user writes: rules, budgets, a grid. A run is what one worker trains: numbers only.
`read_experiment` and `read_run` are the only ways from a dict to these classes.
"""

from sweep.config.architecture import ArchitectureConfig
from sweep.config.corpus import (
    AnyTokenizerConfig,
    DataConfig,
    HuggingFaceData,
    PretrainedTokenizerConfig,
    PythonData,
    StdlibData,
    SyntheticData,
    TextData,
    TokenizerConfig,
)
from sweep.config.experiment import (
    EstimateConfig,
    ExperimentConfig,
    GridConfig,
    HparamCheckConfig,
    LaunchConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrackingConfig,
    TrainerConfig,
)
from sweep.config.fitting import ColumnsConfig, FilterConfig, FitConfig
from sweep.config.reading import known_keys, read_experiment, read_run, to_dict, unknown_key
from sweep.config.run import (
    EVALUATION_BATCH_TOKENS,
    SEMANTICS_VERSION,
    EvaluationConfig,
    ModelConfig,
    RunConfig,
    RunOptimizer,
    RunSchedule,
)

__all__ = [
    "EVALUATION_BATCH_TOKENS",
    "SEMANTICS_VERSION",
    "AnyTokenizerConfig",
    "ArchitectureConfig",
    "ColumnsConfig",
    "DataConfig",
    "EstimateConfig",
    "EvaluationConfig",
    "ExperimentConfig",
    "FilterConfig",
    "FitConfig",
    "GridConfig",
    "HparamCheckConfig",
    "HuggingFaceData",
    "LaunchConfig",
    "ModelConfig",
    "OptimizerConfig",
    "PretrainedTokenizerConfig",
    "PythonData",
    "RunConfig",
    "RunOptimizer",
    "RunSchedule",
    "ScheduleConfig",
    "StdlibData",
    "SyntheticData",
    "TextData",
    "TokenizerConfig",
    "TrackingConfig",
    "TrainerConfig",
    "known_keys",
    "read_experiment",
    "read_run",
    "to_dict",
    "unknown_key",
]
