"""Tests of the caption program."""
