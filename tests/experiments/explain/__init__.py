"""Tests of the explain program."""
