"""Classifiers under attack: the stage `attack`, what its report shows, and training that withstands."""
