"""Probes of what a trained model does with its states."""

from unrolled.analyse.corruption import Corruption, RecoveryConfig, draw_corruption
from unrolled.analyse.loss_parts import (
    CATEGORIES,
    LossParts,
    LossPartsConfig,
    Memory,
    loss_parts,
    read_memory,
    token_kinds,
)
from unrolled.analyse.loss_parts_report import loss_parts_record, write_loss_parts
from unrolled.analyse.memory_length import MemoryConfig, MemoryUse, autocorrelation, measure_memory
from unrolled.analyse.memory_report import memory_record, write_memory_use
from unrolled.analyse.passage import Passage, PassageText, passage_of, passage_of_run, passage_text
from unrolled.analyse.properties import PROPERTIES, Property, property_of, read_property
from unrolled.analyse.recovery import Recovery, measure_recovery, recovery_of_run
from unrolled.analyse.recovery_figures import Figure, Summary, labels, recovery_differences, summarise_recovery
from unrolled.analyse.recovery_report import plot_recovery, recovery_record, write_recovery
from unrolled.analyse.saturation import GateUse, Saturation, measure_saturation, saturation_record, write_saturation
from unrolled.analyse.tracing import (
    Selection,
    Trace,
    Traced,
    collect_trace,
    open_reader,
    read_nats,
    save_trace,
    sites,
    trace_passage,
)
from unrolled.analyse.units import UnitScores, bin_units, rank_units, units_record, write_units

__all__ = [
    "CATEGORIES",
    "PROPERTIES",
    "Corruption",
    "Figure",
    "GateUse",
    "LossParts",
    "LossPartsConfig",
    "Memory",
    "MemoryConfig",
    "MemoryUse",
    "Passage",
    "PassageText",
    "Property",
    "Recovery",
    "RecoveryConfig",
    "Saturation",
    "Selection",
    "Summary",
    "Trace",
    "Traced",
    "UnitScores",
    "autocorrelation",
    "bin_units",
    "collect_trace",
    "draw_corruption",
    "labels",
    "loss_parts",
    "loss_parts_record",
    "measure_memory",
    "measure_recovery",
    "measure_saturation",
    "memory_record",
    "open_reader",
    "passage_of",
    "passage_of_run",
    "passage_text",
    "plot_recovery",
    "property_of",
    "rank_units",
    "read_memory",
    "read_nats",
    "read_property",
    "recovery_differences",
    "recovery_of_run",
    "recovery_record",
    "saturation_record",
    "save_trace",
    "sites",
    "summarise_recovery",
    "token_kinds",
    "trace_passage",
    "units_record",
    "write_loss_parts",
    "write_memory_use",
    "write_recovery",
    "write_saturation",
    "write_units",
]
