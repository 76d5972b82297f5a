"""Probes of what a trained model does with its states."""

from unrolled.analyse.features.make import Features, FeaturesConfig, features_of_run
from unrolled.analyse.features.report import features_record, plot_histogram, write_features
from unrolled.analyse.labelled import Labelled, read_labelled
from unrolled.analyse.length.measure import LengthConfig, LengthUse, measure_length
from unrolled.analyse.length.report import length_record, write_length_use
from unrolled.analyse.loss_parts.measure import (
    CATEGORIES,
    LossParts,
    LossPartsConfig,
    Memory,
    loss_parts,
    read_memory,
    token_kinds,
)
from unrolled.analyse.loss_parts.report import loss_parts_record, write_loss_parts
from unrolled.analyse.memory.measure import MemoryConfig, MemoryUse, autocorrelation, measure_memory
from unrolled.analyse.memory.report import memory_record, write_memory_use
from unrolled.analyse.page.data import PageConfig, PageModel
from unrolled.analyse.page.write import page_html, page_of_runs, write_page
from unrolled.analyse.passage import Passage, PassageText, passage_of, passage_of_run, passage_text
from unrolled.analyse.probe import BestUnit, LogisticFit, Measured, auc, best_unit, fit_bag_of_words, fit_logistic
from unrolled.analyse.properties import PROPERTIES, Property, property_of, read_property
from unrolled.analyse.reading.measure import (
    ReadingConfig,
    ReadingUse,
    Surprisals,
    WordCounts,
    count_words,
    measure_reading,
    word_surprisals,
)
from unrolled.analyse.reading.regression import LeastSquares
from unrolled.analyse.reading.report import reading_record, write_reading
from unrolled.analyse.reading.table import ReadingColumns, ReadingText, read_measures
from unrolled.analyse.recovery.corruption import Corruption, RecoveryConfig, draw_corruption
from unrolled.analyse.recovery.figures import Figure, Summary, labels, recovery_differences, summarise_recovery
from unrolled.analyse.recovery.measure import Recovery, measure_recovery, recovery_of_run
from unrolled.analyse.recovery.report import plot_recovery, recovery_record, write_recovery
from unrolled.analyse.saturation import GateUse, Saturation, measure_saturation, saturation_record, write_saturation
from unrolled.analyse.sentence_states import StatesConfig, sentence_states
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
    "BestUnit",
    "Corruption",
    "Features",
    "FeaturesConfig",
    "Figure",
    "GateUse",
    "Labelled",
    "LeastSquares",
    "LengthConfig",
    "LengthUse",
    "LogisticFit",
    "LossParts",
    "LossPartsConfig",
    "Measured",
    "Memory",
    "MemoryConfig",
    "MemoryUse",
    "PageConfig",
    "PageModel",
    "Passage",
    "PassageText",
    "Property",
    "ReadingColumns",
    "ReadingConfig",
    "ReadingText",
    "ReadingUse",
    "Recovery",
    "RecoveryConfig",
    "Saturation",
    "Selection",
    "StatesConfig",
    "Summary",
    "Surprisals",
    "Trace",
    "Traced",
    "UnitScores",
    "WordCounts",
    "auc",
    "autocorrelation",
    "best_unit",
    "bin_units",
    "collect_trace",
    "count_words",
    "draw_corruption",
    "features_of_run",
    "features_record",
    "fit_bag_of_words",
    "fit_logistic",
    "labels",
    "length_record",
    "loss_parts",
    "loss_parts_record",
    "measure_length",
    "measure_memory",
    "measure_reading",
    "measure_recovery",
    "measure_saturation",
    "memory_record",
    "open_reader",
    "page_html",
    "page_of_runs",
    "passage_of",
    "passage_of_run",
    "passage_text",
    "plot_histogram",
    "plot_recovery",
    "property_of",
    "rank_units",
    "read_labelled",
    "read_measures",
    "read_memory",
    "read_nats",
    "read_property",
    "reading_record",
    "recovery_differences",
    "recovery_of_run",
    "recovery_record",
    "saturation_record",
    "save_trace",
    "sentence_states",
    "sites",
    "summarise_recovery",
    "token_kinds",
    "trace_passage",
    "units_record",
    "word_surprisals",
    "write_features",
    "write_length_use",
    "write_loss_parts",
    "write_memory_use",
    "write_page",
    "write_reading",
    "write_recovery",
    "write_saturation",
    "write_units",
]
