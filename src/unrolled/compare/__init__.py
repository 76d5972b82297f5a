"""Controlled experiments: plans, jobs, statistics, reports."""
