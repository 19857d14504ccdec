"""Measurements for people; not collected as tests."""
