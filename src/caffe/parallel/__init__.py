"""Processes that train together: how they are started, find each other, and exchange what they compute."""
