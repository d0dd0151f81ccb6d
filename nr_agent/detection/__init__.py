"""Detectors: labels, features, classifiers, calibration, and the watch over an episode."""
