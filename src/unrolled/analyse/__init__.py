"""Probes of what a trained model does with its states."""

from unrolled.analyse.corruption import Corruption, RecoveryConfig, draw_corruption
from unrolled.analyse.features import Features, FeaturesConfig, features_of_run
from unrolled.analyse.features_report import features_record, plot_histogram, write_features
from unrolled.analyse.labelled import Labelled, find_sst2, read_labelled
from unrolled.analyse.page import page_html, page_of_runs, write_page
from unrolled.analyse.page_data import PageConfig, PageModel
from unrolled.analyse.probe import BestUnit, LogisticFit, Measured, auc, best_unit, fit_bag_of_words, fit_logistic
from unrolled.analyse.recovery import Recovery, measure_recovery, recovery_of_run
from unrolled.analyse.recovery_figures import Figure, Summary, labels, recovery_differences, summarise_recovery
from unrolled.analyse.recovery_report import plot_recovery, recovery_record, write_recovery
from unrolled.analyse.sentence_states import StatesConfig, sentence_states

__all__ = [
    "BestUnit",
    "Corruption",
    "Features",
    "FeaturesConfig",
    "Figure",
    "Labelled",
    "LogisticFit",
    "Measured",
    "PageConfig",
    "PageModel",
    "Recovery",
    "RecoveryConfig",
    "StatesConfig",
    "Summary",
    "auc",
    "best_unit",
    "draw_corruption",
    "features_of_run",
    "features_record",
    "find_sst2",
    "fit_bag_of_words",
    "fit_logistic",
    "labels",
    "measure_recovery",
    "page_html",
    "page_of_runs",
    "plot_histogram",
    "plot_recovery",
    "read_labelled",
    "recovery_differences",
    "recovery_of_run",
    "recovery_record",
    "sentence_states",
    "summarise_recovery",
    "write_features",
    "write_page",
    "write_recovery",
]
