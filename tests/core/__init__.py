"""Tests of the parts that everything uses."""
